"""From a file or a mapping to a validated `Recipe`, and back to YAML."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import to_jsonable_python

from medcl.errors import MedclWarning, UsageError
from medcl.recipe import files
from medcl.recipe.check import filled_in
from medcl.recipe.overrides import apply
from medcl.recipe.sections import Recipe, Section
from medcl.registry import did_you_mean, explain

RENAMED = {"finetune.also": "finetune.auxiliary"}
"""Earlier → present names of settings."""


def load(name: str | Path, overrides: Sequence[str] = (), *, recorded: bool = False) -> Recipe:
    """Read a recipe by name or path, apply ``section.key=value`` overrides, and validate all of it.

    Args:
        name: of a recipe, or a path.
        overrides: see `medcl.recipe.overrides`.
        recorded: it is the recipe of an existing run: see `parse`.

    Raises:
        UsageError: for a missing file, broken YAML, an unknown key (suggests the nearest), a value
            of the wrong type, or two contradictory settings.
    """
    return parse(files.read(files.find(str(name))), overrides, recorded=recorded)


def parse(raw: dict[str, Any], overrides: Sequence[str] = (), *, recorded: bool = False) -> Recipe:
    """Validate a recipe given as a mapping. See `load`.

    Args:
        raw: the recipe; it is not modified.
        overrides: see `medcl.recipe.overrides`.
        recorded: it is the recipe of an existing run, possibly older than the rule that settings
            must agree: a contradiction is a warning, and an error only if an override causes it.
    """
    raw = copy.deepcopy(raw)
    _rename(raw)
    overrides = [_renamed(override) for override in overrides]
    for override in overrides:
        apply(raw, override)
    raw = _sections(raw, Recipe, "")
    try:
        recipe = Recipe.model_validate(raw)
    except ValidationError as error:
        raise UsageError(explain(error)) from None
    changed = {override.partition("=")[0] for override in overrides}
    return filled_in(recipe, recorded=recorded, changed=changed)


def _rename(raw: dict[str, Any]) -> None:
    """Give the settings of a mapping their present names.

    Raises:
        UsageError: if one is there under both.
    """
    for earlier, present in RENAMED.items():
        section, name = earlier.split(".")
        settings = raw.get(section)
        if not isinstance(settings, dict) or name not in settings:
            continue
        if present.split(".")[1] in settings:
            raise UsageError(f"{earlier} is the earlier name of {present}: give the latter alone.")
        settings[present.split(".")[1]] = value = settings.pop(name)
        if value:  # recipes of studies have it empty
            _say_renamed(earlier)


def _renamed(override: str) -> str:
    """A ``section.key=value`` under the key's present name."""
    key, separator, value = override.partition("=")
    for earlier, present in RENAMED.items():
        if f"{key}.".startswith(f"{earlier}."):
            _say_renamed(earlier)
            return f"{present}{key.removeprefix(earlier)}{separator}{value}"
    return override


def _say_renamed(earlier: str) -> None:
    text = f"{earlier} is called {RENAMED[earlier]} now; the earlier name is still read."
    warnings.warn(text, MedclWarning, stacklevel=4)


def _sections(raw: dict[str, Any], model: type[BaseModel], prefix: str) -> dict[str, Any]:
    """Refuse unknown keys of the fixed sections, and turn an empty section into ``{}``."""
    out = dict(raw)
    for key, value in raw.items():
        if key not in model.model_fields:
            hint = did_you_mean(str(key), model.model_fields)
            raise UsageError(f"Unknown key '{prefix}{key}'. {hint}")
        kind = model.model_fields[key].annotation
        fixed = isinstance(kind, type) and issubclass(kind, BaseModel)
        if value is None and (fixed or get_origin(kind) is dict):
            out[key] = {}
        elif isinstance(kind, type) and issubclass(kind, Section) and isinstance(value, dict):
            out[key] = _sections(value, kind, f"{prefix}{key}.")
    return out


def values(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain values with all defaults, without unused sections."""
    data: dict[str, Any] = to_jsonable_python(recipe.model_dump())
    if recipe.classifier is None:  # no training with labels
        del data["classifier"], data["finetune"]
    return data


def dump(recipe: Recipe, shown: Callable[[dict[str, Any]], Any] | None = None) -> str:
    """The recipe as YAML with all defaults; ``shown`` maps its values before they are written."""
    data = recipe.model_dump()
    data = to_jsonable_python(data if shown is None else shown(data))
    if recipe.classifier is None:  # no training with labels
        del data["classifier"], data["finetune"]
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)


def given(
    recipe: str | Path | Mapping[str, Any] | Recipe,
    settings: Sequence[str] | Mapping[str, Any] = (),
) -> Recipe:
    """A recipe by name or path, from a mapping, or unchanged, overridden by settings.

    Args:
        recipe: see `load` and `parse`.
        settings: ``section.key=value`` as on the command line, or a mapping
            ``{"section.key": value}``.
    """
    if isinstance(settings, Mapping):
        settings = overrides(settings)
    if isinstance(recipe, Recipe):
        return parse(recipe.model_dump(mode="json"), settings) if settings else recipe
    if isinstance(recipe, Mapping):
        return parse(dict(recipe), settings)
    return load(recipe, settings)


def overrides(settings: Mapping[str, Any]) -> list[str]:
    """``{"section.key": value}`` in the form of the command line: ``["section.key=value"]``."""
    plain = to_jsonable_python(dict(settings), fallback=str)
    return [f"{key}={yaml.safe_dump(v, default_flow_style=True)}" for key, v in plain.items()]
