"""CSV and TSV as people have them: see `text` for the layout, `columns` for what is in them."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import polars as pl

from medcl_biosignals.readers import last, long, tabular, windows
from medcl_biosignals.readers.columns import Look, by_file, roles
from medcl_biosignals.readers.contract import (
    BadSignal,
    Flaw,
    Heading,
    Recording,
    Settings,
    Span,
)
from medcl_biosignals.readers.preamble import LABCHART, stem_of
from medcl_biosignals.readers.text import MISSING, Layout, layout

_HEAD = 1 << 16  # bytes from which the layout is told
_LINES_LEAST = 1024  # rows that a column's type is told from


def headings(path: Path, settings: Settings) -> Iterator[Heading | Flaw]:
    """The recordings in a text table. Text has no header: it is read."""
    yield from tabular.headings_of(_table(path, path.name, settings), settings)


def read(path: Path, part: str, settings: Settings, span: Span | None = None) -> Recording:
    """The samples of one of them, on the grid that their times make."""
    if not part:
        return tabular.read_of(_table(path, path.name, settings), part, settings, span)
    held = last.opened(path, settings, lambda: _table(path, path.name, settings))
    return tabular.read_of(held, part, settings, span)


def table(data: bytes, name: str, settings: Settings) -> tabular.Tabular:
    """A table out of an archive: its bytes, and the name that they have there."""
    return _table(data, name, settings)


def _table(source: Path | bytes, name: str, settings: Settings) -> tabular.Tabular:
    if isinstance(source, bytes):
        head = source[:_HEAD]
    else:
        with source.open("rb") as handle:
            head = handle.read(_HEAD)
    found = layout(head, settings, stem_of(name))
    if found.said.form == LABCHART and _blocks(source) > 1:
        raise BadSignal(
            "several-blocks",
            "a LabChart text with several blocks, each from a moment of its own: export each block "
            "to a file of its own",
        )
    first = _frame(source, found, None, rows=_LINES_LEAST)
    # A named column without any cell is a channel that recorded nothing.
    named = found.names is not None
    if found.names is not None:
        shown = by_file(found.names, stem_of(name), settings)
        found = replace(found, names=shown)
    numbers = _numeric(first, found, empty=named)
    kinds: list[type[pl.DataType]] = [pl.Float64 if number else pl.String for number in numbers]
    frame = _frame(source, found, kinds)
    form = found.said.form or ("TSV" if found.delimiter == "\t" and found.width > 1 else "CSV")
    held = windows.wide(frame, found.names, numbers, settings)
    if held is not None:
        return tabular.Windows(held, form, stem_of(name))
    if found.names is not None and len(set(found.names)) == found.width:
        as_long = long.found(
            frame.rename(dict(zip(frame.columns, found.names, strict=True))), settings, form
        )
        if as_long is not None:
            return as_long
    looks = tabular.looks(frame.head(_LINES_LEAST), numbers)
    rate = found.said.fs
    if rate is not None and found.said.skip is not None and found.names is not None:
        # A recorder's own rate is exact; a column that it leaves without a name is no clock.
        looks = [look if name else Look() for look, name in zip(looks, found.names, strict=True)]
    if rate is None and found.names is not None:
        rate = tabular.constant_rate(frame, found.names)
    meant = roles(found.names, looks, settings, fs=rate)
    rate = rate if rate is not None else meant.rate
    return tabular.Table(frame, meant, form, rate, found.said.session)


def _frame(
    source: Path | bytes,
    found: Layout,
    kinds: list[type[pl.DataType]] | None,
    rows: int | None = None,
    *,
    padded: bool = False,
) -> pl.DataFrame:
    """The table with columns 1, 2, …; all text where ``kinds`` is None.

    ``padded``: numbers have blanks behind them, with which the table library reads none.
    """
    names = [f"column_{n + 1}" for n in range(found.width)]
    types = kinds or [pl.String] * found.width
    quoted = found.decimal_comma and found.delimiter == ","  # "0,5","0,7": text until it is parted
    as_text = quoted or padded or bool(found.thousands)
    opened: Path | io.BytesIO = (
        io.BytesIO(source) if isinstance(source, bytes) else tabular.openable(source)
    )
    if found.encoding.startswith("utf-16") or found.delimiter == " ":
        data = source if isinstance(source, bytes) else source.read_bytes()
        text = data.decode(found.encoding, "replace").replace("\r\n", "\n").replace("\r", "\n")
        if found.delimiter == " ":
            text = "\n".join(re.sub(r" +", " ", line.strip()) for line in text.split("\n"))
        opened = io.BytesIO(text.encode())
    elif _old_mac(source):
        data = source if isinstance(source, bytes) else source.read_bytes()
        opened = io.BytesIO(data.replace(b"\r", b"\n"))
    try:
        frame = pl.read_csv(
            opened,
            glob=False,  # a file's name is no pattern, whatever it holds
            separator=found.delimiter,
            has_header=False,
            new_columns=names,
            schema=dict(zip(names, [pl.String] * found.width if as_text else types, strict=True)),
            skip_lines=found.skip,
            comment_prefix="#",
            decimal_comma=found.decimal_comma and not as_text,
            null_values=[*MISSING, *(word.upper() for word in MISSING), "NaN"],
            ignore_errors=True,
            truncate_ragged_lines=True,
            encoding="utf8-lossy",
            n_rows=rows,
        )
    except (pl.exceptions.PolarsError, OSError) as error:
        raise BadSignal(
            "not-a-signal", f"the text cannot be read as a table ({type(error).__name__})"
        ) from None
    if as_text:
        return frame.with_columns(
            _number(name, found, n).cast(pl.Float64, strict=False)
            for n, (name, kind) in enumerate(zip(names, types, strict=True))
            if kind == pl.Float64
        )
    if kinds is not None and _lacks(frame) and _ends_in_blanks(source, found.delimiter):
        return _frame(source, found, kinds, rows, padded=True)
    return frame


def _lacks(frame: pl.DataFrame) -> bool:
    """Whether a column of numbers has a cell without one."""
    return any(column.null_count() for column in frame if column.dtype == pl.Float64)


def _ends_in_blanks(source: Path | bytes, delimiter: str) -> bool:
    """Whether a cell ends in blanks: ``1.5  ,2.25 ,``."""
    data = source if isinstance(source, bytes) else source.read_bytes()
    blank = rb"[ \t]" if delimiter != "\t" else rb" "
    ends = rb"(?:" + re.escape(delimiter.encode()) + rb"|\r|\n|$)"
    return re.search(rb"[\d.]" + blank + rb"+" + ends, data) is not None


def _blocks(source: Path | bytes) -> int:
    """How many times a LabChart text begins anew."""
    if isinstance(source, bytes):
        return source.count(b"Interval=")
    with source.open("rb") as handle:
        return sum(line.startswith(b"Interval=") for line in handle)


def _old_mac(source: Path | bytes) -> bool:
    """Whether lines end in a carriage return alone."""
    if isinstance(source, bytes):
        head = source[:4096]
    else:
        with source.open("rb") as handle:
            head = handle.read(4096)
    return b"\r" in head and b"\n" not in head


def _number(name: str, found: Layout, at: int) -> pl.Expr:
    """A column of texts as texts of plain numbers."""
    cells = pl.col(name).str.strip_chars(" '\"")
    mark = dict(found.thousands).get(at)
    if mark is not None:
        cells = cells.str.replace_all(mark, "", literal=True)
    if found.decimal_comma or (mark is not None and mark != ","):
        cells = cells.str.replace(",", ".", literal=True)
    return cells


def _numeric(frame: pl.DataFrame, found: Layout, *, empty: bool) -> list[bool]:
    """Whether most of each column's cells are numbers; ``empty`` where it has none."""
    numbers = frame.select(
        _number(name, found, n).cast(pl.Float64, strict=False).is_not_null().sum()
        for n, name in enumerate(frame.columns)
    ).row(0)
    filled = [len(column) - column.null_count() for column in frame]
    return [n > cells / 2 if cells else empty for n, cells in zip(numbers, filled, strict=True)]
