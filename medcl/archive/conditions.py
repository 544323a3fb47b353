"""Conditions on columns of an index, as typed by the user: ``kvp>=100``, ``label.aami=V``."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from typing import Any

import polars as pl

from medcl.errors import UsageError
from medcl.registry import did_you_mean

_CONDITION = re.compile(r"^\s*([\w.-]+)\s*(<=|>=|!=|=|<|>)\s*(.*?)\s*$")
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def meeting(items: pl.DataFrame, conditions: Sequence[str]) -> pl.DataFrame:
    """The items that meet all conditions; a missing value meets none.

    Raises:
        UsageError: for a malformed condition, an unknown column, or a value of another type.
    """
    keep = pl.Series([True] * len(items), dtype=pl.Boolean)
    for condition in conditions:
        match = _CONDITION.match(condition)
        if match is None:
            raise UsageError(
                f"'{condition}' is no condition: write column=value, or <, <=, >, >=, !=."
            )
        name, sign, value = match.groups()
        if name not in items.columns:
            hint = did_you_mean(name, items.columns)
            raise UsageError(f"The index has no column '{name}'. {hint}")
        keep &= _meets(items[name], sign, value)
    return items.filter(keep)


def _meets(column: pl.Series, sign: str, value: str) -> pl.Series:
    name = column.name
    if column.dtype == pl.List:  # such as findings
        if sign not in ("=", "!=") or column.dtype != pl.List(pl.String):
            raise UsageError(f"Column '{name}' holds lists: only {name}=VALUE and != can be asked.")
        contains = column.list.contains(value).fill_null(False)
        return contains if sign == "=" else ~contains
    try:
        operand = float(value) if column.dtype.is_numeric() else value
    except ValueError:
        raise UsageError(f"Column '{name}' holds numbers; '{value}' is none.") from None
    if column.dtype == pl.Boolean:
        operand, column = value.lower(), column.cast(pl.String)
    met: pl.Series = _COMPARE[sign](column, operand).fill_null(False)
    return met
