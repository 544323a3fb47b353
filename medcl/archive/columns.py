"""Tables of rows that need not be in memory together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import polars as pl

_CHUNK = 4_096  # rows that are Python objects at a time: a list takes polars kilobytes meanwhile


def frame(rows: Iterable[Sequence[Any]], schema: pl.Schema) -> pl.DataFrame:
    """A table of rows, in their order: a value for each column of ``schema``."""
    columns = {name: pl.Series(name, [], dtype) for name, dtype in schema.items()}
    rest = iter(rows)
    while chunk := list(islice(rest, _CHUNK)):
        for (name, dtype), values in zip(schema.items(), zip(*chunk, strict=True), strict=True):
            columns[name].append(pl.Series(name, values, dtype))
    for name in columns:  # one by one: all chunks twice would be much
        columns[name] = columns[name].rechunk()
    return pl.DataFrame(columns)


def in_order(table: pl.DataFrame, order: pl.Series) -> pl.DataFrame:
    """The rows at some positions; a column at a time, so that little is there twice."""
    columns = table.get_columns()
    del table
    return pl.DataFrame([columns.pop(0).gather(order) for _ in range(len(columns))])
