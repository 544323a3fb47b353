"""The names of a million samples, from a table's column and back, without an object for each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from medcl.strings import Encoded, Packed, smallest

_CHUNK = 65_536  # names that are Python objects at a time


def distinct(column: pl.Series) -> Packed:
    """A column of text as names that hardly repeat."""
    ends = column.str.len_bytes().cast(pl.Int64).cum_sum().to_numpy()
    text = column.str.join("").item().encode() if len(column) else b""
    return Packed(np.frombuffer(text, np.uint8), smallest(ends))


def repeated(column: pl.Series) -> Encoded:
    """A column of text as names of which each stands for many."""
    codes = (column.rank("dense") - 1).to_numpy() if len(column) else np.zeros(0, np.uint32)
    return Encoded(distinct(column.unique().sort()), smallest(codes))


def column(names: Sequence[str]) -> pl.Series:
    """Names as a column of text."""
    if isinstance(names, Encoded):
        return pl.Series(names.names.tolist(), dtype=pl.String).gather(names.codes)
    found = pl.Series([], dtype=pl.String)
    for start in range(0, len(names), _CHUNK):
        found.append(pl.Series(list(names[start : start + _CHUNK]), dtype=pl.String))
    return found.rechunk()
