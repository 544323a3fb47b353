"""Long tables: a row a value, with a column that says of which channel it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from medcl_biosignals.naming import meant
from medcl_biosignals.readers import moments, ticks, times
from medcl_biosignals.readers.columns import PERSONS, is_time, parted, time_unit
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
from medcl_biosignals.vocabulary import plain, together, vocabulary

_CHANNELS = frozenset(
    ("channel", "channelname", "signal", "signalname", "sensor", "sensorname", "variable",
     "measure", "measurement", "lead", "metric", "type", "name")
)  # fmt: skip
_VALUES = frozenset(("value", "values", "amplitude", "reading", "measurementvalue", "val"))
_UNITS = frozenset(("unit", "units"))
_MOST_CHANNELS = 256


@dataclass(frozen=True)
class Long:
    """A long table by the names of its columns."""

    frame: pl.DataFrame
    channel: str
    value: str
    time: str | None
    unit: str | None
    subject: str | None
    format: str


def found(frame: pl.DataFrame, settings: Settings, form: str) -> Long | None:
    """A table as a long one; None if it is not."""
    keys = {name: plain(parted(name)[0]) for name in frame.columns}
    texts = [n for n, kind in frame.schema.items() if kind in (pl.String, pl.Categorical, pl.Enum)]
    channel = _first([n for n in texts if keys[n] in _CHANNELS])
    value = _first([n for n in frame.columns if keys[n] in _VALUES and frame[n].dtype.is_numeric()])
    if channel is None or value is None or frame[channel].n_unique() > _MOST_CHANNELS:
        return None
    time = None if settings.time == "none" else settings.time
    if time is None and settings.time is None:
        time = _first(
            [n for n in frame.columns if is_time(n) and frame[n].dtype.is_numeric()]
            + [n for n in frame.columns if n != channel and moments.is_moment(frame[n])]
            + [n for n in frame.columns if is_time(n)]
        )
    subject = settings.subject or _first([n for n in frame.columns if keys[n] in PERSONS])
    if any(name is not None and name not in frame.columns for name in (time, subject)):
        raise BadSignal("no-such-column", "a column that is named is not in this file")
    unit = _first([n for n in texts if keys[n] in _UNITS])
    return Long(frame, channel, value, time, unit, subject, form)


def headings(table: Long, settings: Settings) -> Iterator[Heading | Flaw]:
    """A heading for each person; channels keep their own rates."""
    for part, who, rows in _parts(table):
        try:
            lines, findings = _lines(table, rows, settings)
        except BadSignal as error:
            yield Flaw(part, error.code, str(error))
            continue
        fs = max(line.channel.fs for line in lines)
        seconds = max(line.length / line.channel.fs for line in lines)
        channels = tuple(line.channel for line in lines)
        yield Heading(part, table.format, channels, fs, seconds, subject=who, findings=findings)


def read(table: Long, part: str, settings: Settings, span: Span | None) -> Recording:
    """The samples of one person: channels that begin later than the first are NaN until then."""
    rows = next((rows for name, _, rows in _parts(table) if name == part), None)
    if rows is None:
        raise BadSignal("changed", "the part that was indexed is no longer in the file")
    lines, _ = _lines(table, rows, settings)
    samples = []
    for line in lines:
        first, last = bounds(span, line.channel.fs, line.length)
        late = np.full(line.late, np.nan, dtype=line.samples.dtype)
        samples.append(np.concatenate([late, line.samples])[first:last])
    return Recording(tuple(line.channel for line in lines), samples)


@dataclass(frozen=True)
class _Line:
    channel: Channel
    late: int  # samples that it begins after the first channel
    samples: np.ndarray

    @property
    def length(self) -> int:
        return self.late + len(self.samples)


def _parts(table: Long) -> Iterator[tuple[str, str | None, pl.DataFrame]]:
    if table.subject is None:
        yield "", None, table.frame
        return
    who = table.frame[table.subject].cast(pl.String)
    people = who.unique(maintain_order=True).to_list()
    for name in people:
        rows = table.frame if len(people) == 1 else table.frame.filter(who.eq_missing(name))
        yield ("" if len(people) == 1 else str(name)), person(name), rows


def _lines(
    table: Long, rows: pl.DataFrame, settings: Settings
) -> tuple[list[_Line], tuple[str, ...]]:
    names = rows[table.channel].cast(pl.String)
    since = None
    noticed: list[str] = []
    if table.time is not None:
        known = vocabulary(settings.vocabulary)
        every = together(names.drop_nulls().unique(maintain_order=True).to_list())
        kinds = tuple(meant(n, known).kind for n in every)
        told = ticks.Told(kinds, known.rates)
        unit = settings.time_unit or time_unit(table.time)
        since, assumed = _since(rows, table, unit, told)
        noticed += assumed
    lines = []
    listed = names.drop_nulls().unique(maintain_order=True).to_list()
    for n, name in enumerate(listed):
        mapped = settings.channel(name, n + 1)
        if mapped is None:
            continue
        where = (names == name).fill_null(False).to_numpy()
        values = rows[table.value].cast(pl.Float64).fill_null(float("nan")).to_numpy()[where]
        unit = parted(name)[1] or settings.units or ""
        if table.unit is not None:
            unit = rows[table.unit].cast(pl.String).to_numpy()[where][0] or unit
        if since is None:
            if settings.fs is None:
                raise BadSignal(
                    "no-sampling-rate",
                    "the file has no column of times: give its rate in Hz, --set reader.fs=100",
                )
            lines.append(_Line(Channel(mapped, unit, settings.fs), 0, kept(values)))
            continue
        own = since[where]
        grid = times.grid(own, None)
        noticed += grid.findings
        late = max(round(float(own.min() - since.min()) * grid.fs), 0)
        lines.append(_Line(Channel(mapped, unit, grid.fs), late, grid.place(values)))
    if not lines:
        raise BadSignal("not-a-signal", "no channel of this table is a signal")
    return lines, tuple(dict.fromkeys(noticed))


def _since(
    rows: pl.DataFrame, table: Long, unit: str | None, told: ticks.Told
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Seconds of all rows. What they count is told from one channel: rows of several repeat
    them."""
    assert table.time is not None
    column = rows[table.time]
    if unit is None and column.dtype.is_numeric():
        name = rows[table.channel].mode().first()
        one = rows.filter(pl.col(table.channel) == name)[table.time]
        alone, assumed = moments.moments(one, None, told)
        raw = one.cast(pl.Float64).to_numpy()
        spans = np.ptp(raw[np.isfinite(raw)]), np.ptp(alone[np.isfinite(alone)])
        scale = spans[1] / spans[0] if spans[0] else 1.0
        values = column.cast(pl.Float64).fill_null(float("nan")).to_numpy()
        first = values[np.isfinite(values)][:1]
        return (values - first) * scale, assumed
    return moments.moments(column, unit, told)


def _first(names: Sequence[str]) -> str | None:
    return names[0] if names else None
