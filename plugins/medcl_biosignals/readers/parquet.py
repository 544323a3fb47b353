"""Parquet: wide (a column a channel), long (a row a value), or a recording a row (lists).

Folders such as ``subject=7`` name the person; see `medcl_biosignals.persons`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from medcl_biosignals.readers import long, tabular, variables, windows
from medcl_biosignals.readers.columns import roles
from medcl_biosignals.readers.contract import (
    BadSignal,
    Flaw,
    Heading,
    Recording,
    Settings,
    Span,
)
from medcl_biosignals.readers.variables import Variable, Variables


def headings(path: Path, settings: Settings) -> Iterator[Heading | Flaw]:
    """The recordings in a file."""
    frame = _collected(_lazy(path))
    if _lists(frame.schema):
        yield from _rows(frame, settings)
        return
    yield from tabular.headings_of(_table(frame, settings, path), settings)


def read(path: Path, part: str, settings: Settings, span: Span | None = None) -> Recording:
    """The samples of one of them; rows of other people are not kept."""
    rows = _lazy(path)
    if _lists(_collected(rows.head(1)).schema):
        row = _collected(rows.slice(int(part or 1) - 1, 1))
        return variables.read(_row(row, 0), settings, span)
    first = _table(_collected(rows.head(200)), settings, path) if part else None
    if first is not None and not isinstance(first, tabular.Windows):
        rows = rows.filter(pl.col(_subject(first)).cast(pl.String).fill_null("None") == part)
        part = ""
    return tabular.read_of(_table(_collected(rows), settings, path), part, settings, span)


def _lazy(path: Path) -> pl.LazyFrame:
    return pl.scan_parquet(tabular.openable(path), hive_partitioning=False, glob=False)


def _collected(rows: pl.LazyFrame) -> pl.DataFrame:
    try:
        return rows.collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise BadSignal(
            "bad-signal", f"the file is cut off, or no Parquet file ({type(error).__name__})"
        ) from None


def _subject(table: tabular.Table | long.Long) -> str:
    """The column that names people."""
    if isinstance(table, long.Long):
        return table.subject or ""
    at = table.roles.subject
    return table.frame.columns[at] if at is not None else ""


def _table(frame: pl.DataFrame, settings: Settings, path: Path) -> tabular.Tabular:
    return table_of(frame, settings, "Parquet", path.stem)


def table_of(frame: pl.DataFrame, settings: Settings, form: str, name: str) -> tabular.Tabular:
    """A table with types, from whichever program; ``name``: of its file, without suffix.

    Raises:
        BadSignal: if it holds no signal.
    """
    if frame.height == 0:
        raise BadSignal("empty-file", "the table has no rows")
    as_long = long.found(frame, settings, form)
    if as_long is not None:
        return as_long
    numbers = [kind.is_numeric() for kind in frame.dtypes]
    held = windows.wide(frame, frame.columns, numbers, settings)
    if held is not None:
        return tabular.Windows(held, form, name)
    rate = tabular.constant_rate(frame, frame.columns)
    meant = roles(frame.columns, tabular.looks(frame.head(1024)), settings, fs=rate)
    return tabular.Table(frame, meant, form, rate if rate is not None else meant.rate)


def _lists(schema: pl.Schema) -> bool:
    return any(
        isinstance(kind, pl.List | pl.Array) and kind.inner.is_numeric() for kind in schema.values()
    )


def _rows(frame: pl.DataFrame, settings: Settings) -> Iterator[Heading | Flaw]:
    for n in range(frame.height):
        part = str(n + 1) if frame.height > 1 else ""
        try:
            yield variables.heading(part, "Parquet", _row(frame, n), settings)
        except BadSignal as error:
            yield Flaw(part, error.code, str(error))


def _row(frame: pl.DataFrame, n: int) -> Variables:
    """A row as named arrays, numbers and texts."""
    if not 0 <= n < frame.height:
        raise BadSignal("changed", "the part that was indexed is no longer in the file")
    arrays: list[Variable] = []
    numbers: dict[str, float] = {}
    texts: dict[str, tuple[str, ...]] = {}
    for name, kind in frame.schema.items():
        value = frame[name][n]
        if isinstance(value, pl.Series) and value.dtype.is_numeric():
            array = value.cast(pl.Float64).fill_null(float("nan")).to_numpy()
            if len(array) > 1:
                arrays.append(Variable(name, array.shape, lambda array=array: array))  # type: ignore[misc]
        elif isinstance(value, pl.Series) and value.dtype == pl.String:
            texts[name] = tuple(str(text) for text in value)
        elif kind.is_numeric() and value is not None and np.isfinite(value):
            numbers[name] = float(value)
        elif kind == pl.String and value is not None:
            texts[name] = (value,)
    return Variables(arrays, numbers, texts)
