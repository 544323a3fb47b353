"""Columns of the index as a clinical table, encoded by rules of the recipe.

Nothing is fitted: the recipe lists the categories and the scale of each number. So a row depends on
its own item only, and test patients cannot leak into it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medcl.archive.scanning import LABEL
from medcl.errors import UsageError
from medcl.registry import did_you_mean

MISSING = -1

Category = str | bool | int


def table(
    items: pl.DataFrame,
    categories: Mapping[str, Sequence[Category]],
    numbers: Mapping[str, tuple[float, float]],
) -> NDArray[np.float32] | None:
    """One row per item: (items, categorical then numeric columns); None without any column.

    Args:
        items: the index. A name refers to the column of that name (from the file's header), or else
            to ``label.NAME`` (from ``medcl index --table``).
        categories: column → its categories, encoded as 0, 1, …; other and missing values as −1.
        numbers: column → (centre, scale): (value − centre) / scale, NaN if missing.

    Raises:
        UsageError: if a column is missing, contains none of its categories, or no numbers.
    """
    columns = [
        *(
            _codes(name, _column(items, name), column_categories)
            for name, column_categories in categories.items()
        ),
        *(_scaled(name, _column(items, name), *by) for name, by in numbers.items()),
    ]
    return np.stack(columns, axis=1).astype(np.float32) if columns else None


def row(
    texts: Mapping[str, str],
    categories: Mapping[str, Sequence[Category]],
    numbers: Mapping[str, tuple[float, float]],
) -> NDArray[np.float32]:
    """One row of `table` from texts, absent columns as missing: (columns,).

    Raises:
        UsageError: if the table has no such column, or the column no such value; NaN and infinity
            are refused.
    """
    values: dict[str, Category | float | None] = dict.fromkeys([*categories, *numbers])
    for name, text in texts.items():
        if name not in values:
            raise UsageError(f"The table has no column '{name}'. {did_you_mean(name, values)}")
        values[name] = _category(name, text, categories) if name in categories else _number(text)
    encoded = table(pl.DataFrame({n: [v] for n, v in values.items()}), categories, numbers)
    assert encoded is not None
    filled: NDArray[np.float32] = encoded[0]
    return filled


def _category(name: str, text: str, categories: Mapping[str, Sequence[Category]]) -> Category:
    by_text = {str(value).lower(): value for value in categories[name]}
    if text.lower() not in by_text:
        raise UsageError(f"'{name}' cannot be '{text}'. {did_you_mean(text.lower(), by_text)}")
    return by_text[text.lower()]


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):  # float() accepts "nan" and "inf", which would mean missing
        raise UsageError(f"'{text}' is no number: leave out unknown values.")
    return value


def labels_among(items: pl.DataFrame, names: Iterable[str]) -> list[str]:
    """The columns of a table that are labels: only ``label.NAME`` exists in the index.

    `table` refuses names that the index lacks.
    """
    return [name for name in names if (_found(items, name) or "").startswith(LABEL)]


def _found(items: pl.DataFrame, name: str) -> str | None:
    return next((n for n in (name, LABEL + name) if n in items.columns), None)


def _column(items: pl.DataFrame, name: str) -> pl.Series:
    column = _found(items, name)
    if column is None:
        raise UsageError(
            f"The index has no column '{name}' for the table. {did_you_mean(name, _names(items))} "
            "Join it with medcl index --table, or take it out of dataset.categories or numbers."
        )
    return items[column]


def _names(items: pl.DataFrame) -> Iterator[str]:
    return (name.removeprefix(LABEL) for name in items.columns if items[name].dtype != pl.List)


def _codes(name: str, column: pl.Series, categories: Sequence[Category]) -> NDArray[np.float64]:
    codes = {value: code for code, value in enumerate(categories)}
    if len(codes) < 2:
        raise UsageError(f"dataset.categories.{name} needs two different categories or more.")
    out = np.array([codes.get(value, MISSING) for value in column.to_list()], dtype=np.float64)
    if column.drop_nulls().len() and (out == MISSING).all():
        raise UsageError(
            f"None of dataset.categories.{name} occurs in the index, whose column is of type "
            f"{column.dtype}: write them as they are there."
        )
    return out


def _scaled(name: str, column: pl.Series, centre: float, scale: float) -> NDArray[np.float64]:
    if not scale > 0 or not math.isfinite(centre):
        raise UsageError(f"dataset.numbers.{name} is [centre, scale], with a scale above 0.")
    if column.drop_nulls().len() and not column.dtype.is_numeric():
        raise UsageError(f"The column '{name}' holds no numbers: name it in dataset.categories.")
    values: list[Any] = column.to_list()
    out = np.array([np.nan if v is None else (float(v) - centre) / scale for v in values])
    return np.where(np.isfinite(out), out, np.nan)
