"""Settings with one meaning in several sections: set once, filled in, never contradictory."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from medcl.errors import MedclWarning, UsageError
from medcl.plugin import Shared
from medcl.recipe.sections import Recipe
from medcl.registry import checked, parameters

Sections = dict[str, dict[str, Any]]
Factories = Mapping[str, Callable[..., Any]]


def agreed(
    sections: Sections,
    factories: Factories,
    shared: Sequence[Shared],
    recipe: Recipe,
    *,
    recorded: bool = False,
    changed: Collection[str] = (),
) -> Sections:
    """The settings of the open sections, with those that follow from them.

    Args:
        sections: open section → its settings in the recipe.
        factories: open section → the function that it configures.
        shared: the plugin's.
        recipe: for sources in the fixed sections (``probe.task``).
        recorded: the recipe is a run's: a contradiction causes a warning and stays.
        changed: keys that override a recorded recipe: they must not contradict it.

    Raises:
        UsageError: for two contradictory settings: names both, and their values.
    """
    sections = {section: dict(values) for section, values in sections.items()}
    for rule in shared:
        if any(_section(key) not in factories and not _fixed(key) for key in rule.source):
            continue  # no encoder, method … has it
        if rule.value is None:
            _follow_back(rule, sections, factories)
        sources = {key: _settled(key, sections, factories, recipe) for key in rule.source}
        value = rule.value(*sources.values()) if rule.value else sources[rule.source[0]]
        if rule.value is not None and value is None:
            continue
        for key in rule.to:
            if not _exists(key, sections, factories):
                continue
            if not _is_given(key, sections):
                sections[_section(key)][key.partition(".")[2]] = value
            elif (actual := _settled(key, sections, factories, recipe)) != _like(
                key, value, sections, factories
            ):
                message = _contradiction(rule, key, actual, sources, value)
                if not recorded or _touched(changed, (key, *rule.source)):
                    raise UsageError(message)
                told = f"This run was made with settings that contradict: {message}"
                warnings.warn(told, MedclWarning, stacklevel=2)
    return sections


def _follow_back(rule: Shared, sections: Sections, factories: Factories) -> None:
    """If only a dependent key is set, the source takes its value."""
    source = rule.source[0]
    followers = [
        key for key in rule.to if _exists(key, sections, factories) and _is_given(key, sections)
    ]
    if followers and not _is_given(source, sections) and _exists(source, sections, factories):
        section, _, name = followers[0].partition(".")
        sections[_section(source)][source.partition(".")[2]] = sections[section][name]


def _touched(changed: Collection[str], keys: Sequence[str]) -> bool:
    """True if a changed key is one of these, or a section that contains one."""
    return any(key == new or key.startswith(f"{new}.") for new in changed for key in keys)


def _section(key: str) -> str:
    return key.partition(".")[0]


def _fixed(key: str) -> bool:
    """True for a key of a fixed section."""
    section, _, name = key.partition(".")
    field = Recipe.model_fields.get(section)
    return field is not None and name in getattr(field.annotation, "model_fields", {})


def _exists(key: str, sections: Sections, factories: Factories) -> bool:
    """True if the recipe's parts have this setting; for a key in a mapping, if it is set."""
    section, name, *inner = key.split(".")
    if section not in factories or name not in parameters(factories[section]):
        return False
    return not inner or _is_given(key, sections)


def _is_given(key: str, sections: Sections) -> bool:
    node: Any = sections
    for name in key.split("."):
        if not isinstance(node, Mapping) or name not in node:
            return False
        node = node[name]
    return True


def _settled(key: str, sections: Sections, factories: Factories, recipe: Recipe) -> Any:
    """The effective value of a setting: converted to its type, or its default."""
    section, name, *inner = key.split(".")
    if section not in factories:
        return getattr(getattr(recipe, section), name)
    if name not in parameters(factories[section]):
        return None
    value = checked(factories[section], sections[section], section)[name]
    for part in inner:
        value = value[part]
    return _plain(value) if inner else value


def _like(key: str, value: Any, sections: Sections, factories: Factories) -> Any:
    """A value converted to the type of the setting."""
    section, name, *inner = key.split(".")
    if inner:
        return _plain(value)
    return checked(factories[section], {**sections[section], name: value}, section)[name]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _contradiction(
    rule: Shared, key: str, actual: Any, sources: Mapping[str, Any], value: Any
) -> str:
    assignments = " and ".join(
        f"'{name}' = {_plain(v)!r}" for name, v in sources.items() if v is not None
    )
    gives = "" if rule.value is None else f", which gives {_plain(value)!r}"
    keep = next(name for name in sources if sources[name] is not None or len(sources) == 1)
    return (
        f"'{key}' = {_plain(actual)!r} contradicts {assignments}{gives}: both are the {rule.what}. "
        f"Give '{keep}' alone, and leave '{key}' out."
    )
