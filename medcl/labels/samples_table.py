"""Labels by sample: a table whose rows name samples, or spans of time in a recording.

::

    sample,label              ids of samples, as medcl embed and medcl predict write them
    key,start,end,label       seconds from the recording's first sample; or start and duration

A window has the label of the span that covers most of it, if that is more than half of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medcl.archive import assign, labtable
from medcl.archive.index import Index
from medcl.archive.labtable import LabTable, cleaned, plain
from medcl.errors import UsageError
from medcl.labels import table as tables
from medcl.plugin import Samples

IDS = ("sample", "sampleid", "id")
STARTS, ENDS, DURATIONS = ("start", "onset", "begin"), ("end", "stop", "offset"), ("duration",)
_SECONDS = ("", "s", "sec", "secs", "second", "seconds")
_OTHER_UNITS = ("ms", "msec", "milliseconds", "min", "minutes", "h", "hours", "samples", "frames")


@dataclass(frozen=True)
class SampleLabels:
    """Label columns by sample.

    Attributes:
        columns: name → (N,) values, None where there is no label.
        notes: counts of rows that did not match.
    """

    columns: Mapping[str, Sequence[Any]]
    notes: tuple[str, ...] = ()


def read(
    path: Path, index: Index, samples: Samples, *, key_column: str | None = None
) -> SampleLabels | None:
    """The labels of samples in a table; None for a table of items or patients.

    Args:
        path: CSV or Parquet.
        index: of the items.
        samples: to label.
        key_column: the column that names the recordings of spans, if it has no usual name.

    Raises:
        UsageError: for spans without an end, in another unit, without a recording that the index
            holds, or of samples that have no time.
    """
    table = labtable.read(path, key=key_column)
    ids = next((name for name in table.frame.columns if plain(name) in IDS), None)
    if ids is not None and (found := _by_id(table, ids, samples)) is not None:
        return found
    start = _time(table, STARTS)
    return None if start is None else _by_span(table, start, index, samples)


def _by_id(table: LabTable, ids: str, samples: Samples) -> SampleLabels | None:
    """Labels by sample id; None if the column holds other ids."""
    row_of = {cleaned(value): n for n, value in enumerate(table.text[ids]) if cleaned(value)}
    rows = [row_of.get(name) for name in samples.ids]
    held = sum(row is not None for row in rows)
    if not held:
        return None
    if len(row_of) < len(table.text[ids]):
        raise UsageError(f"The table {table.name} names a sample twice, or none in some row.")
    names = [name for name in table.labels if name != ids]
    columns = {name: _taken(table.frame[name], rows) for name in names}
    absent = len(row_of) - held
    note = f"{absent:,} of {len(row_of):,} labels are of samples that the data set does not hold."
    return SampleLabels(columns, (note,) if absent else ())


def _by_span(table: LabTable, start: str, index: Index, samples: Samples) -> SampleLabels:
    end, duration = _time(table, ENDS), _time(table, DURATIONS)
    if end is None and duration is None:
        raise UsageError(
            f"The table {table.name} has a column '{start}' and says not how long a label holds: "
            "add a column end or duration, in seconds."
        )
    named = table.key or table.patient
    if named is None:
        raise UsageError(
            f"The table {table.name} does not say of which recordings its spans are: add a column "
            "key, or name it: --key-column NAME."
        )
    first = _numbers(table, start)
    last = _numbers(table, end) if end is not None else first + _numbers(table, str(duration))
    if (bad := np.flatnonzero(~(last > first))).size:
        raise UsageError(f"The table {table.name}: the span of row {bad[0] + 1} has no length.")
    windows = _windows(samples)
    rows_of: dict[str, list[int]] = {}
    for n, value in enumerate(table.text[named]):
        rows_of.setdefault(cleaned(value), []).append(n)
    of_item, notes = _matched(rows_of, table.name, index, samples)
    chosen: list[int | None] = [None] * len(samples)
    owners = np.asarray(samples.items)
    crossing = 0
    for item, rows in of_item.items():
        ordered = np.argsort(first[rows])
        crossing += int((last[rows][ordered][:-1] > first[rows][ordered][1:] + 1e-9).sum())
        at = np.flatnonzero(owners == item)
        for position, row in zip(at, _longest(windows[at], first[rows], last[rows]), strict=True):
            chosen[position] = None if row < 0 else rows[row]
    roles = {start, end, duration, named}
    names = [name for name in table.labels if name not in roles]
    covered = sum(row is not None for row in chosen)
    if not covered:
        raise UsageError(
            f"No span of {table.name} covers more than half of a sample: samples are "
            f"{float(np.median(windows[:, 1] - windows[:, 0])):g} s long. Are the times seconds "
            "from the recording's first sample?"
        )
    if crossing:
        notes = (
            *notes,
            f"{crossing:,} spans begin before another one of their recording ends: the span that "
            "covers most of a window counts, of equals the first in the table.",
        )
    return SampleLabels({name: _taken(table.frame[name], chosen) for name in names}, notes)


def _matched(
    rows_of: Mapping[str, list[int]], name: str, index: Index, samples: Samples
) -> tuple[dict[str, list[int]], tuple[str, ...]]:
    """Item → the numbers of its rows.

    Raises:
        UsageError: if a key is a patient of several items.
    """
    rows = {key: {"rows": numbers} for key, numbers in rows_of.items()}
    named = tables.items_by_name(index, frozenset(samples.items))
    found = tables.matched(rows, assign.by_spelling(rows, named.keys()), index, named, name)
    owner = dict(index.items.select("id", "patient").iter_rows())
    owners = [owner[item] for item in found.by_patient]
    if len(set(owners)) < len(owners):
        raise UsageError(
            f"The table {name} gives spans by patient, and a patient has several recordings: name "
            "the recordings in a column key."
        )
    return {item: row["rows"] for item, row in found.rows.items()}, found.notes


def _windows(samples: Samples) -> NDArray[np.float64]:
    """(N, 2) begin and end of samples in seconds.

    Raises:
        UsageError: if they have none.
    """
    where = {} if samples.where is None else samples.where(np.arange(len(samples)))
    if not {"start", "seconds"} <= where.keys():
        raise UsageError(
            "Spans of time label windows of signals, and these samples have no time: label them by "
            "a column sample (ids as medcl embed writes them), by item or by patient."
        )
    start = np.asarray(where["start"], np.float64)
    return np.stack([start, start + np.asarray(where["seconds"], np.float64)], axis=1)


def _longest(
    windows: NDArray[np.float64], first: NDArray[np.float64], last: NDArray[np.float64]
) -> NDArray[np.int64]:
    """(W,) the span that covers more than half of each window; −1 for none.

    Spans are visited in order, and of each only the windows that it touches.
    """
    order = np.argsort(windows[:, 0], kind="stable")
    begin = windows[order, 0]
    length = windows[order, 1] - begin
    longest = float(length.max(initial=0.0))
    best, chosen = length / 2, np.full(len(windows), -1, np.int64)
    for n, (a, b) in enumerate(zip(first, last, strict=True)):
        touched = slice(np.searchsorted(begin, a - longest), np.searchsorted(begin, b))
        held = np.minimum(begin[touched] + length[touched], b) - np.maximum(begin[touched], a)
        more = held > best[touched] + 1e-9
        best[touched] = np.where(more, held, best[touched])
        chosen[touched] = np.where(more, n, chosen[touched])
    out = np.empty_like(chosen)
    out[order] = chosen
    return out


def _time(table: LabTable, names: Sequence[str]) -> str | None:
    """The column of a time in seconds.

    Raises:
        UsageError: if it says another unit.
    """
    for column in table.frame.columns:
        name = plain(column)
        stem = next((n for n in names if name.startswith(n)), None)
        if stem is None:
            continue
        unit = name.removeprefix(stem).removeprefix("time").removeprefix("in")
        if unit in _SECONDS:
            return column
        if unit in _OTHER_UNITS:
            raise UsageError(
                f"The table {table.name} gives '{column}' in another unit: give seconds from the "
                "recording's first sample, in a column named start, end or duration."
            )
    return None


def _numbers(table: LabTable, column: str) -> NDArray[np.float64]:
    values = table.frame[column].cast(pl.Float64, strict=False).to_numpy()
    if (bad := np.flatnonzero(~np.isfinite(values))).size:
        raise UsageError(
            f"The table {table.name}, row {bad[0] + 1}: '{column}' is no number. Times are seconds "
            "from the recording's first sample."
        )
    return np.asarray(values, np.float64)


def _taken(column: pl.Series, rows: Sequence[int | None]) -> list[Any]:
    values = column.to_list()
    return [None if row is None else values[row] for row in rows]
