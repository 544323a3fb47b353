"""Rows and columns, wherever they come from → recordings on regular grids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from medcl_biosignals.readers import times
from medcl_biosignals.readers.columns import Roles
from medcl_biosignals.readers.contract import (
    BadSignal,
    Channel,
    Flaw,
    Heading,
    Recording,
    Settings,
    Span,
    bounds,
    person,
)

_FORMATS = (
    "%Y-%m-%d %H:%M:%S", "%Y/%m/%d %H:%M:%S", "%d.%m.%Y %H:%M:%S", "%d/%m/%Y %H:%M:%S",
    "%m/%d/%Y %H:%M:%S", "%d-%m-%Y %H:%M:%S", "%Y.%m.%d %H:%M:%S", "%Y%m%d %H:%M:%S",
)  # fmt: skip
# A moment, its fraction of a second, and a time zone, which is the same all along.
_MOMENT = r"^\s*'?\[?(.*?\d)([.,]\d+)?\s*(?:Z|UTC|GMT|[+-]\d{2}:?\d{2})?\]?'?\s*$"
_CLOCK = r"^(?:(\d+):)?(\d+):(\d+)$"
_DAY = 86400.0


@dataclass(frozen=True)
class Table:
    """A table and what its columns are. Columns of ``frame`` are at the positions of ``roles``."""

    frame: pl.DataFrame
    roles: Roles
    format: str

    def parts(self) -> Iterator[tuple[str, str | None, pl.DataFrame]]:
        """(part, person, rows) of each person in it."""
        if self.roles.subject is None:
            yield "", None, self.frame
            return
        column = self.frame.columns[self.roles.subject]
        who = self.frame[column].cast(pl.String)
        people = who.unique(maintain_order=True).to_list()
        for name in people:
            rows = self.frame if len(people) == 1 else self.frame.filter(who.eq_missing(name))
            yield ("" if len(people) == 1 else str(name)), person(name), rows


def headings(table: Table, settings: Settings) -> Iterator[Heading | Flaw]:
    """A heading for each person in a table; one who cannot be read does not cost the others."""
    for part, who, rows in table.parts():
        try:
            yield _heading(table, part, who, rows, settings)
        except BadSignal as error:
            yield Flaw(part, error.code, str(error))


def read(table: Table, part: str, settings: Settings, span: Span | None) -> Recording:
    """The samples of one person in a table."""
    rows = next((rows for name, _, rows in table.parts() if name == part), None)
    if rows is None:
        raise BadSignal("changed", "the part that was indexed is no longer in the file")
    fs, grid, _ = _grid(table, rows, settings)
    first, last = bounds(span, fs, grid.length if grid else rows.height)
    samples = []
    for at, _, _ in table.roles.channels:
        values = rows[rows.columns[at]].cast(pl.Float64, strict=False)
        dense = values.fill_null(float("nan")).to_numpy()
        placed = grid.place(dense) if grid else dense.astype(np.float32)
        placed[~np.isfinite(placed)] = np.nan
        samples.append(placed[first:last])
    return Recording(_channels(table.roles, fs, settings), samples)


def _heading(
    table: Table, part: str, who: str | None, rows: pl.DataFrame, settings: Settings
) -> Heading:
    fs, grid, findings = _grid(table, rows, settings)
    length = grid.length if grid else rows.height
    columns = [rows[rows.columns[at]] for at, _, _ in table.roles.channels]
    empty = [column.null_count() == column.len() or _all_nan(column) for column in columns]
    if all(empty):
        raise BadSignal("no-samples", "the columns of its channels hold no number")
    if any(empty):
        findings = (*findings, "empty-channel")
    return Heading(
        part=part,
        format=table.format,
        channels=_channels(table.roles, fs, settings),
        fs=fs,
        seconds=length / fs,
        subject=who,
        findings=findings,
    )


def _channels(roles: Roles, fs: float, settings: Settings) -> tuple[Channel, ...]:
    return tuple(
        Channel(name, unit or settings.units or "", fs) for _, name, unit in roles.channels
    )


def _all_nan(column: pl.Series) -> bool:
    return bool(column.dtype.is_float() and column.is_nan().fill_null(True).all())


def _grid(
    table: Table, rows: pl.DataFrame, settings: Settings
) -> tuple[float, times.Grid | None, tuple[str, ...]]:
    """Rate, the grid that the times make (None without times), and what was noticed."""
    if table.roles.time is None:
        if settings.fs is None:
            raise BadSignal(
                "no-sampling-rate",
                "the file has no column of times: give its rate in Hz, --set reader.fs=100",
            )
        return settings.fs, None, ()
    since, assumed = moments(rows[rows.columns[table.roles.time]], table.roles.unit)
    grid = times.grid(since, settings.fs)
    return grid.fs, grid, (*assumed, *grid.findings)


def moments(column: pl.Series, unit: str | None) -> tuple[np.ndarray, tuple[str, ...]]:
    """A column of times → seconds since its first, and what had to be assumed.

    Args:
        column: of any type that can hold times.
        unit: of plain numbers; None: to be seen from them.

    Raises:
        BadSignal: if it cannot be read as times.
    """
    if column.dtype.is_temporal():
        if column.dtype == pl.Duration:
            return _since(column.dt.total_nanoseconds().cast(pl.Float64).to_numpy() * 1e-9), ()
        if column.dtype == pl.Time:
            return _unwrapped(column.cast(pl.Int64).cast(pl.Float64).to_numpy() * 1e-9), ()
        ticks = column.cast(pl.Datetime("ns")).cast(pl.Int64)
        return _since((ticks - (ticks.min() or 0)).cast(pl.Float64).to_numpy() * 1e-9), ()
    if column.dtype != pl.String:
        return times.seconds(column.cast(pl.Float64).fill_null(float("nan")).to_numpy(), unit)
    return _texts(column), ()


def _texts(column: pl.Series) -> np.ndarray:
    parted = pl.DataFrame({"text": column}).select(
        moment=pl.col("text").str.extract(_MOMENT, 1).str.replace("T", " ", literal=True),
        fraction=pl.col("text").str.extract(_MOMENT, 2).str.replace(",", ".").cast(pl.Float64),
    )
    moment, fraction = parted["moment"], parted["fraction"].fill_null(0.0).to_numpy()
    least = times.LEGIBLE * len(column)
    if moment.str.contains(_CLOCK).sum() > least:
        hours, minutes, rest = (
            moment.str.extract(_CLOCK, group).cast(pl.Float64) for group in (1, 2, 3)
        )
        clock = hours.fill_null(0) * 3600 + minutes * 60 + rest
        return _unwrapped(clock.to_numpy() + fraction)
    for form in _FORMATS:
        read = moment.str.to_datetime(form, strict=False)
        if len(read) - read.null_count() > least:
            whole = read.dt.epoch("s")
            return _since((whole - (whole.min() or 0)).cast(pl.Float64).to_numpy() + fraction)
    raise BadSignal(
        "bad-times",
        "the times cannot be read as dates, clock times or numbers: name another column with "
        "--set reader.time=NAME, or none with --set reader.time=none --set reader.fs=RATE",
    )


def _since(seconds: np.ndarray) -> np.ndarray:
    """Relative to the first that is known; those that are not stay NaN."""
    known = seconds[np.isfinite(seconds)]
    return np.asarray(seconds - (known[0] if len(known) else 0.0), dtype=np.float64)


def _unwrapped(clock: np.ndarray) -> np.ndarray:
    """Times of day that pass midnight go on rising."""
    known = np.flatnonzero(np.isfinite(clock))
    days = np.concatenate([[0], np.cumsum(np.diff(clock[known]) < -_DAY / 2)])
    out = np.array(clock, dtype=np.float64)
    out[known] += days[: len(known)] * _DAY
    return _since(out)


def looks(frame: pl.DataFrame) -> tuple[Sequence[bool], Sequence[bool]]:
    """For each column, whether it holds numbers, and whether those never fall."""
    numeric = [column.dtype.is_numeric() for column in frame]
    rising = [
        number
        and bool((step := column.drop_nulls().diff().drop_nulls()).ge(0).all())
        and bool(step.gt(0).any())
        for column, number in zip(frame, numeric, strict=True)
    ]
    return numeric, rising
