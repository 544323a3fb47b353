"""Descriptions of a recipe's settings, and a recipe annotated with them.

The descriptions of the fixed sections are in the models (`medcl.recipe.sections`), those of the
open sections in the docstrings of the functions that they configure.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, get_args

import yaml
from pydantic import BaseModel

from medcl import plugin as plugins
from medcl.recipe.check import factories
from medcl.recipe.parse import values
from medcl.recipe.sections import Named, Recipe
from medcl.registry import described

_WIDTH = 96


def descriptions(recipe: Recipe) -> dict[str, str]:
    """Dotted key → description, for every setting and section of a recipe.

    Keys inside a mapping with free names (``finetune.auxiliary.sex.weight``,
    ``probe.dataset.seconds``) are included if the recipe sets them.
    """
    texts_by_key = dict(_fixed(Recipe, recipe, ""))
    opened = factories(recipe, plugins.get(recipe.plugin))
    for section, function in opened.items():
        texts = described(function)
        section_value = getattr(recipe, section)
        names = section_value.arguments if isinstance(section_value, Named) else section_value
        texts_by_key |= {f"{section}.{name}": texts.get(name, "") for name in names}
    for rule in plugins.get(recipe.plugin).shared:
        for key in rule.to:
            if key in texts_by_key:
                texts_by_key[key] = (
                    f"{texts_by_key[key]} Follows {' and '.join(rule.source)}: leave it out."
                )
    texts = described(opened["dataset"])
    texts_by_key |= {f"probe.dataset.{name}": texts.get(name, "") for name in recipe.probe.dataset}
    return texts_by_key


def _fixed(model: type[BaseModel], instance: BaseModel, prefix: str) -> Iterator[tuple[str, str]]:
    """The descriptions of a model's fields, and of nested models."""
    for name, field in model.model_fields.items():
        key, value = f"{prefix}{name}", getattr(instance, name)
        yield key, field.description or ""
        if isinstance(value, BaseModel):
            yield from _fixed(type(value), value, f"{key}.")
        for inner in get_args(field.annotation) if isinstance(value, Mapping) else ():
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                for own, entry in value.items():
                    yield from _fixed(inner, entry, f"{key}.{own}.")


def annotated(recipe: Recipe) -> str:
    """The recipe as YAML with all defaults, each setting below its description."""
    texts = descriptions(recipe)
    lines: list[str] = []
    for name, value in values(recipe).items():
        if isinstance(value, dict) and value:
            lines += ["", *_comment(texts[name], ""), f"{name}:"]
            for key, inner in value.items():
                lines += [*_comment(texts.get(f"{name}.{key}", ""), "  "), *_yaml(key, inner, "  ")]
        else:
            lines += [*_comment(texts[name], ""), *_yaml(name, value, "")]
    return "\n".join(lines).lstrip() + "\n"


def _comment(text: str, indent: str) -> list[str]:
    text = text[:1].upper() + text[1:] if text[:1].isascii() else text
    return [f"{indent}# {line}" for line in textwrap.wrap(text, _WIDTH - len(indent))]


def _yaml(name: str, value: Any, indent: str) -> list[str]:
    flat = not isinstance(value, list) or not any(isinstance(item, dict) for item in value)
    options: dict[str, Any] = {"sort_keys": False, "allow_unicode": True, "width": 1000}
    if flat and isinstance(value, list):
        inner = yaml.safe_dump(value, default_flow_style=True, **options).strip()
        return [f"{indent}{name}: {inner}"]
    text = yaml.safe_dump({name: value}, **options)
    return [f"{indent}{line}" for line in text.splitlines()]
