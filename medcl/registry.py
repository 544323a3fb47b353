"""Lazy look-up of ``"module:attribute"`` by name, and validation of recipe values by signature.

A function's keyword parameters *are* the schema of its section in a recipe. Defaults and types are
written only there, and no config object reaches the function.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
import typing
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from pydantic import ConfigDict, ValidationError, create_model

from medcl.errors import UsageError

Lazy = str
"""``"package.module:attribute"``: imported on first use, so that `medcl --help` is fast."""


def resolve(target: Lazy) -> Any:
    """Import the object of ``"package.module:attribute"``."""
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """A hint to append to an error: the nearest known name, or the list of all."""
    names = sorted(names)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if near:
        return f"Did you mean '{near[0]}'?"
    return f"Known: {', '.join(names)}." if names else "None is known."


def lookup(table: Mapping[str, Lazy], name: str, what: str) -> Any:
    """Resolve ``table[name]``.

    Raises:
        UsageError: if the name is not in the table; suggests the nearest one.
    """
    if name not in table:
        raise UsageError(f"Unknown {what} '{name}'. {did_you_mean(name, table)}")
    return resolve(table[name])


def parameters(fn: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The keyword-only parameters of a function or class: the settings of a recipe."""
    signature = inspect.signature(fn)
    return {n: p for n, p in signature.parameters.items() if p.kind is p.KEYWORD_ONLY}


def described(fn: Callable[..., Any]) -> dict[str, str]:
    """Parameter descriptions: the entries of the docstring's ``Args:``, one line each.

    An entry may name several parameters (``low, high: bounds in Hz.``). For a class, the docstrings
    of the class and of its constructor are read.
    """
    descriptions: dict[str, str] = {}
    for part in (fn.__init__, fn) if inspect.isclass(fn) else (fn,):
        block = _ARGS.search(inspect.getdoc(part) or "")
        for entry in _ENTRY.finditer(block.group(1) if block else ""):
            text = " ".join(entry.group(2).split())
            descriptions |= dict.fromkeys(entry.group(1).split(", "), text)
    return descriptions


_ARGS = re.compile(r"^Args:\n((?:[ ]+.*(?:\n|$)|\n)*)", re.MULTILINE)
_ENTRY = re.compile(r"^    (\w+(?:, \w+)*): (.*(?:\n(?:     +.*)?)*)", re.MULTILINE)


def checked(
    fn: Callable[..., Any],
    values: Mapping[str, Any],
    where: str,
    *,
    fixed: Collection[str] = (),
) -> dict[str, Any]:
    """Validate ``values`` against the keyword-only parameters of ``fn`` and fill in the defaults.

    Args:
        fn: the function or class that will be called with the result.
        values: a section of a recipe.
        where: the section's name, for messages (``"views"`` gives ``views.cutout``).
        fixed: parameters that the caller passes itself: neither accepted here nor in the result.

    Raises:
        UsageError: for an unknown key (suggests the nearest), a missing or an ill-typed value.
    """
    accepted = {name: p for name, p in parameters(fn).items() if name not in fixed}
    for key in values:
        if key not in accepted:
            raise UsageError(f"Unknown key '{where}.{key}'. {did_you_mean(key, accepted)}")
    target = fn.__init__ if inspect.isclass(fn) else fn
    hints = typing.get_type_hints(target, include_extras=True)
    fields: dict[str, Any] = {
        name: (hints.get(name, Any), ... if p.default is p.empty else p.default)
        for name, p in accepted.items()
    }
    config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, protected_namespaces=())
    model = create_model(f"{where}Section", __config__=config, **fields)
    try:
        section = model(**values)
    except ValidationError as error:
        raise UsageError(explain(error, where)) from None
    return {name: getattr(section, name) for name in accepted}


def explain(error: ValidationError, where: str = "") -> str:
    """The first problem of a pydantic error as one sentence with the full key."""
    first = error.errors()[0]
    path = ".".join(str(part) for part in ([where] if where else []) + list(first["loc"]))
    if first["type"] == "missing":
        return f"'{path}' is missing: set it in the recipe or with -s {path}=…"
    return f"'{path}' = {first.get('input')!r}: {first['msg'].removeprefix('Value error, ')}."
