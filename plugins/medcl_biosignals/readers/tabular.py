"""Rows and columns, wherever they come from → recordings on regular grids."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from medcl_biosignals.naming import NUMERIC, meant
from medcl_biosignals.readers import long, moments, ticks, times, windows
from medcl_biosignals.readers.columns import RATES, Look, Roles, parted
from medcl_biosignals.readers.contract import (
    BadSignal,
    Channel,
    Flaw,
    Heading,
    Recording,
    Settings,
    Span,
    bounds,
    kept,
    person,
)
from medcl_biosignals.readers.fill_values import FINDING, without_fill
from medcl_biosignals.readers.measures import known_unit
from medcl_biosignals.readers.variables import Variables
from medcl_biosignals.vocabulary import Vocabulary, plain, together, vocabulary


@dataclass(frozen=True)
class Table:
    """A table and what its columns are. Columns of ``frame`` are at the positions of ``roles``.

    ``fs``: the rate that its file gives beside it. ``session``: see `contract.Heading`.
    """

    frame: pl.DataFrame
    roles: Roles
    format: str
    fs: float | None = None
    session: str | None = None

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


@dataclass(frozen=True)
class Windows:
    """A table with a window in each row. ``name``: of the file, without suffix."""

    held: Variables
    form: str
    name: str


Tabular = Table | long.Long | Windows


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
    channels = _channels(table, rows, fs, settings)
    first, last = bounds(span, fs, grid.length if grid else rows.height)
    samples = []
    for at, _, _ in table.roles.channels:
        dense = without_fill(_dense(rows[rows.columns[at]]))
        placed = grid.place(dense) if grid else kept(dense)
        if not np.isfinite(placed).all():
            placed = np.where(np.isfinite(placed), placed, np.nan).astype(placed.dtype)
        samples.append(placed[first:last])
    return Recording(channels, samples)


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
    if any(without_fill(values) is not values for values in map(_dense, columns)):
        findings = (*findings, FINDING)
    return Heading(
        part=part,
        format=table.format,
        channels=_channels(table, rows, fs, settings),
        fs=fs,
        seconds=length / fs,
        subject=who,
        findings=findings,
        session=table.session,
    )


def _dense(column: pl.Series) -> np.ndarray:
    """(N,) float64, NaN where there is no number."""
    return column.cast(pl.Float64, strict=False).fill_null(float("nan")).to_numpy()


def _channels(
    table: Table, rows: pl.DataFrame, fs: float, settings: Settings
) -> tuple[Channel, ...]:
    return tuple(
        Channel(name, unit or settings.units or "", fs, _held(rows[rows.columns[at]]))
        for at, name, unit in table.roles.channels
    )


def _held(column: pl.Series) -> float:
    """Over how many rows the values usually stay the same; 1 where they hardly change at all."""
    values = column.cast(pl.Float64, strict=False).to_numpy()
    changed = values[1:] != values[:-1]
    if changed.sum() > 0.5 * len(changed):  # most columns: quick
        return 1.0
    at = np.flatnonzero(np.isfinite(values))
    changes = at[1:][np.diff(values[at]) != 0]
    return float(np.median(np.diff(changes))) if len(changes) > 8 else 1.0


def _all_nan(column: pl.Series) -> bool:
    return bool(column.dtype.is_float() and np.isnan(column.to_numpy()).all())


def _grid(
    table: Table, rows: pl.DataFrame, settings: Settings
) -> tuple[float, times.Grid | None, tuple[str, ...]]:
    """Rate, the grid that the times make (None without times), and what was noticed."""
    said = table.fs if table.fs is not None else settings.fs
    if not table.roles.times:
        if said is None:
            raise BadSignal(
                "no-sampling-rate",
                "the file has no column of times: give its rate in Hz, --set reader.fs=100",
            )
        differ = settings.fs is not None and abs(settings.fs / said - 1) > 0.02
        return said, None, ("fs-mismatch",) if differ else ()
    best: tuple[float, tuple[str, ...], times.Grid] | None = None
    failed: BadSignal | None = None
    told = _told(table, settings)
    for column, unit in _clocks(table, rows):
        try:
            since, assumed = (
                moments.texts(column[1], column[0])
                if isinstance(column, tuple)
                else moments.moments(column, unit, told)
            )
            grid = times.grid(since, said)
        except BadSignal as error:
            failed = failed or error
            continue
        cost = sum(_COST.get(finding, 1.0) for finding in (*assumed, *grid.findings))
        cost += min(grid.tick * grid.fs, 1.0)  # of two clocks the finer one
        if best is None or cost < best[0]:
            best = cost, (*assumed, *grid.findings), grid
        if cost == 0:
            break
    if best is None:
        assert failed is not None
        raise failed
    _, findings, grid = best
    return grid.fs, grid, findings


_COST = {"repeated-times": 2.0, "irregular-times": 4.0, "gaps": 0.5, "fs-mismatch": 4.0}
"""Of what was noticed of a column of times: where there are several, the cheapest counts."""


def _clocks(
    table: Table, rows: pl.DataFrame
) -> Iterator[tuple[pl.Series | tuple[pl.Series, pl.Series], str | None]]:
    """The columns that may hold the times; a date with the time of day in another one, joined."""
    columns = [(rows[rows.columns[at]], unit) for at, unit in table.roles.times]
    dates = [column for column, _ in columns if moments.is_date(column)]
    for column, unit in columns:
        if any(column is date for date in dates):
            continue
        if dates and column.dtype == pl.String and not moments.has_date(column):
            yield (dates[0], column), None
        yield column, unit
    if len(dates) == len(columns):
        yield from columns


def _told(table: Table, settings: Settings) -> ticks.Told:
    """What the names, units and values of the channels tell of their rate."""
    known = vocabulary(settings.vocabulary)
    kinds: list[str] = []
    waves: list[bool] = []
    names = together([name for _, name, _ in table.roles.channels])
    for name, (at, _, unit) in zip(names, table.roles.channels, strict=True):
        kind = meant(name, known, unit=known_unit(unit or settings.units or "")).kind
        column = table.frame[table.frame.columns[at]]
        if kind == NUMERIC and _no_numeric(name, column, known):
            kind = "other"
        if kind not in (NUMERIC, "other"):
            waves.append(_measured(name, column, known))
        kinds.append(kind)
    measured = NUMERIC in kinds and bool(waves) and all(waves)
    return ticks.Told(tuple(kinds), known.rates, measured)


def _measured(name: str, column: pl.Series, known: Vocabulary) -> bool:
    """Whether a column that is named as a wave may as well hold what is measured of it: PULSE and
    RESP as rates, ABP as a mean."""
    found = meant(name, known)
    if found.name not in ("PULSE", "RESP") and found.kind != "pressure":
        return False
    values = column.cast(pl.Float64, strict=False).drop_nulls().drop_nans().to_numpy()
    return bool(len(values) and (values == np.rint(values)).all() and np.abs(values).max() <= 300)


def _no_numeric(name: str, column: pl.Series, known: Vocabulary) -> bool:
    """Whether a column that is called a heart rate holds what cannot be one."""
    if meant(name, known).name not in ("HR", "PR") or not column.dtype.is_numeric():
        return False
    middle = column.cast(pl.Float64).drop_nans().median()
    return isinstance(middle, float) and not 20 <= middle <= 300


def openable(path: Path) -> Path | io.BytesIO:
    """What polars can open: its names are UTF-8, those of files are any bytes."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return io.BytesIO(path.read_bytes())
    return path


def constant_rate(frame: pl.DataFrame, names: Sequence[str]) -> float | None:
    """A rate that stands in every row, in a column of that name."""
    for name, column in zip(names, frame, strict=True):
        if plain(parted(name)[0]) in RATES and column.dtype.is_numeric() and len(column):
            value = column[0]
            if value is not None and 0 < float(value) < 1e6 and column.n_unique() == 1:
                return float(value)
    return None


def looks(frame: pl.DataFrame, numeric: Sequence[bool] | None = None) -> list[Look]:
    """What each column shows; ``numeric`` if that is known already."""
    found = []
    for n, column in enumerate(frame):
        if not column.dtype.is_numeric():
            number = bool(numeric[n]) if numeric is not None else False
            found.append(Look(number, moments.is_moment(column) or moments.is_date(column)))
            continue
        values = column.cast(pl.Float64).to_numpy()  # NumPy: an expression costs more than this
        values = values[~np.isnan(values)]
        steps = np.diff(values)
        rising = bool((steps >= 0).all() and (steps > 0).any())
        since = rising and (
            any(low <= values[0] <= high for low, high, scale in ticks.SINCE if scale < 86400)
            or moments.digits(column) is not None
        )
        ones = float((steps == 1).mean()) if len(steps) > 2 else 0.0
        wraps = bool((steps[steps != 1] < 0).all())
        counter = ones == 1.0 or (ones > 0.7 and wraps and len(np.unique(steps)) == 2)
        found.append(Look(True, False, rising, since, counter))
    return found


def headings_of(table: Table | long.Long | Windows, settings: Settings) -> Iterator[Heading | Flaw]:
    """The recordings of a wide or a long table, or one of windows."""
    if isinstance(table, long.Long):
        yield from long.headings(table, settings)
    elif isinstance(table, Windows):
        yield from windows.headings(table.form, table.held, settings, table.name)
    else:
        yield from headings(table, settings)


def read_of(table: Tabular, part: str, settings: Settings, span: Span | None) -> Recording:
    """The samples of one of them."""
    if isinstance(table, long.Long):
        return long.read(table, part, settings, span)
    if isinstance(table, Windows):
        return windows.read(table.held, settings, span, part)
    return read(table, part, settings, span)
