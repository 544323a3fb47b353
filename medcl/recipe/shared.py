"""Settings that mean one thing in several sections: given once, filled in, never contradictory."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from medcl.errors import UsageError
from medcl.plugin import Shared
from medcl.recipe.sections import Recipe
from medcl.registry import checked, parameters

Given = dict[str, dict[str, Any]]
Factories = Mapping[str, Callable[..., Any]]


def agreed(
    given: Given,
    factories: Factories,
    shared: Sequence[Shared],
    recipe: Recipe,
    *,
    recorded: bool = False,
    changed: Collection[str] = (),
) -> Given:
    """What was given in the open sections, with the settings that follow from it.

    Args:
        given: open section → what the recipe gives in it.
        factories: open section → the function that it configures.
        shared: the plugin's.
        recipe: for sources in the fixed sections (``probe.task``).
        recorded: the recipe is a run's: a contradiction is warned of and left as it is.
        changed: keys that are set anew over a recorded recipe: they must not contradict.

    Raises:
        UsageError: for two settings that contradict each other: names both, and their values.
    """
    given = {section: dict(values) for section, values in given.items()}
    for one in shared:
        if any(_section(key) not in factories and not _fixed(key) for key in one.source):
            continue  # there is no encoder, method … that has it
        if one.value is None:
            _follow_back(one, given, factories)
        settled = {key: _settled(key, given, factories, recipe) for key in one.source}
        value = one.value(*settled.values()) if one.value else settled[one.source[0]]
        if one.value is not None and value is None:
            continue
        for key in one.to:
            if not _exists(key, given, factories):
                continue
            if not _is_given(key, given):
                given[_section(key)][key.partition(".")[2]] = value
            elif (there := _settled(key, given, factories, recipe)) != _like(
                key, value, given, factories
            ):
                message = _contradiction(one, key, there, settled, value)
                if not recorded or _touched(changed, (key, *one.source)):
                    raise UsageError(message)
                warnings.warn(f"This run was made with settings that contradict: {message}",
                              stacklevel=2)  # fmt: skip
    return given


def _follow_back(one: Shared, given: Given, factories: Factories) -> None:
    """Where only a follower is given, the source is what it says."""
    source = one.source[0]
    known = [key for key in one.to if _exists(key, given, factories) and _is_given(key, given)]
    if known and not _is_given(source, given) and _exists(source, given, factories):
        section, _, name = known[0].partition(".")
        given[_section(source)][source.partition(".")[2]] = given[section][name]


def _touched(changed: Collection[str], keys: Sequence[str]) -> bool:
    """Whether a changed key is one of these, or a section that holds one."""
    return any(key == new or key.startswith(f"{new}.") for new in changed for key in keys)


def _section(key: str) -> str:
    return key.partition(".")[0]


def _fixed(key: str) -> bool:
    """Whether a key is of a fixed section."""
    section, _, name = key.partition(".")
    field = Recipe.model_fields.get(section)
    return field is not None and name in getattr(field.annotation, "model_fields", {})


def _exists(key: str, given: Given, factories: Factories) -> bool:
    """Whether the recipe's parts have such a setting; of one in a mapping, whether it is given."""
    section, name, *inner = key.split(".")
    if section not in factories or name not in parameters(factories[section]):
        return False
    return not inner or _is_given(key, given)


def _is_given(key: str, given: Given) -> bool:
    node: Any = given
    for name in key.split("."):
        if not isinstance(node, Mapping) or name not in node:
            return False
        node = node[name]
    return True


def _settled(key: str, given: Given, factories: Factories, recipe: Recipe) -> Any:
    """The value of a setting as it will be used: of the right type, or its default."""
    section, name, *inner = key.split(".")
    if section not in factories:
        return getattr(getattr(recipe, section), name)
    if name not in parameters(factories[section]):
        return None
    value = checked(factories[section], given[section], section)[name]
    for part in inner:
        value = value[part]
    return _plain(value) if inner else value


def _like(key: str, value: Any, given: Given, factories: Factories) -> Any:
    """A value as the setting would hold it."""
    section, name, *inner = key.split(".")
    if inner:
        return _plain(value)
    return checked(factories[section], {**given[section], name: value}, section)[name]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _contradiction(
    one: Shared, key: str, there: Any, sources: Mapping[str, Any], value: Any
) -> str:
    said = " and ".join(f"'{name}' = {_plain(v)!r}" for name, v in sources.items() if v is not None)
    gives = "" if one.value is None else f", which gives {_plain(value)!r}"
    keep = next(name for name in sources if sources[name] is not None or len(sources) == 1)
    return (
        f"'{key}' = {_plain(there)!r} contradicts {said}{gives}: both are the {one.what}. "
        f"Give '{keep}' alone, and leave '{key}' out."
    )
