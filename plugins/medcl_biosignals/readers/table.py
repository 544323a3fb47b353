"""CSV and TSV as people have them: see `text` for the layout, `columns` for what is in them."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from medcl_biosignals.readers import long, tabular
from medcl_biosignals.readers.columns import roles
from medcl_biosignals.readers.contract import (
    BadSignal,
    Flaw,
    Heading,
    Recording,
    Settings,
    Span,
)
from medcl_biosignals.readers.text import MISSING, Layout, layout

_HEAD = 1 << 16  # bytes from which the layout is told


def headings(path: Path, settings: Settings) -> Iterator[Heading | Flaw]:
    """The recordings in a text table. Text has no header: it is read."""
    table = _table(path, settings)
    if isinstance(table, long.Long):
        yield from long.headings(table, settings)
    else:
        yield from tabular.headings(table, settings)


def read(path: Path, part: str, settings: Settings, span: Span | None = None) -> Recording:
    """The samples of one of them, on the grid that their times make."""
    table = _table(path, settings)
    if isinstance(table, long.Long):
        return long.read(table, part, settings, span)
    return tabular.read(table, part, settings, span)


def _table(path: Path, settings: Settings) -> tabular.Table | long.Long:
    with path.open("rb") as handle:
        found = layout(handle.read(_HEAD), settings)
    head = _frame(path, found, None, rows=200)
    # A named column without any cell is a channel that recorded nothing.
    named = found.names is not None
    numbers = [_numeric(column, found.decimal_comma, empty=named) for column in head]
    kinds: list[type[pl.DataType]] = [pl.Float64 if number else pl.String for number in numbers]
    frame = _frame(path, found, kinds)
    form = "TSV" if found.delimiter == "\t" and found.width > 1 else "CSV"
    if found.names is not None and len(set(found.names)) == found.width:
        as_long = long.found(
            frame.rename(dict(zip(frame.columns, found.names, strict=True))), settings, form
        )
        if as_long is not None:
            return as_long
    _, rising = tabular.looks(frame.head(200))
    meant = roles(found.names, numbers, rising, settings)
    return tabular.Table(frame, meant, form)


def _frame(
    path: Path, found: Layout, kinds: list[type[pl.DataType]] | None, rows: int | None = None
) -> pl.DataFrame:
    """The table with columns 1, 2, …; all text where ``kinds`` is None."""
    names = [f"column_{n + 1}" for n in range(found.width)]
    types = kinds or [pl.String] * found.width
    quoted = found.decimal_comma and found.delimiter == ","  # "0,5","0,7": text until it is parted
    source: Path | io.BytesIO = path
    if found.encoding == "utf-16" or found.delimiter == " ":
        text = path.read_text(encoding=found.encoding, errors="replace")
        if found.delimiter == " ":
            text = "\n".join(re.sub(r" +", " ", line.strip()) for line in text.splitlines())
        source = io.BytesIO(text.encode())
    try:
        frame = pl.read_csv(
            source,
            separator=found.delimiter,
            has_header=False,
            new_columns=names,
            schema=dict(zip(names, [pl.String] * found.width if quoted else types, strict=True)),
            skip_lines=found.skip,
            comment_prefix="#",
            decimal_comma=found.decimal_comma and not quoted,
            null_values=[*MISSING, *(word.upper() for word in MISSING), "NaN"],
            ignore_errors=True,
            truncate_ragged_lines=True,
            encoding="utf8-lossy",
            n_rows=rows,
        )
    except pl.exceptions.PolarsError as error:
        raise BadSignal(
            "not-a-signal", f"the text cannot be read as a table ({type(error).__name__})"
        ) from None
    if quoted:
        numbers = [name for name, kind in zip(names, types, strict=True) if kind == pl.Float64]
        points = pl.col(numbers).str.strip_chars().str.replace(",", ".", literal=True)
        frame = frame.with_columns(points.cast(pl.Float64, strict=False))
    return frame


def _numeric(column: pl.Series, comma: bool, *, empty: bool) -> bool:
    """Whether most of a column's cells are numbers; ``empty`` where it has none."""
    if column.null_count() == len(column):
        return empty
    texts = column.drop_nulls().str.strip_chars(" '\"")
    if comma:
        texts = texts.str.replace(",", ".", literal=True)
    return int(texts.cast(pl.Float64, strict=False).is_not_null().sum()) > len(texts) / 2
