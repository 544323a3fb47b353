"""Measured values at moments of their own, such as heart rates of a watch → channels on grids.

A watch measures when it likes: every second of a run, every few minutes of a night. Each kind of
value becomes a numeric channel at a rate of its own; a cell of its grid in which nothing was
measured is NaN, and nothing is interpolated.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from medcl_biosignals.readers.contract import (
    BadSignal,
    Channel,
    Heading,
    Recording,
    Span,
    bounds,
    kept,
)

_STEPS = (1.0, 5.0, 10.0, 15.0, 30.0, 60.0, 300.0, 600.0, 900.0, 1800.0, 3600.0, 86400.0)
"""Seconds: what a grid is made of where the times have no step of their own."""
_MOST_CELLS = 1 << 22
"""Of one channel: eight years by the minute."""
_EARLIEST, _LATEST = 0.0, 4.1e9  # seconds since 1970, up to 2099
ON_A_GRID = "values-on-a-grid"
"""The finding of values at uneven times: each cell holds the mean of those within it."""


@dataclass(frozen=True)
class Series:
    """Values of one kind.

    Attributes:
        name, units: as `Channel` has them.
        times: (N,) seconds since 1970, in any order.
        values: (N,).
    """

    name: str
    units: str
    times: np.ndarray
    values: np.ndarray


def recording(
    found: Iterable[Series], stages: Iterable[tuple[float, float, str]] = ()
) -> tuple[Recording, tuple[str, ...]]:
    """Series as channels that begin at one moment, and what was noticed.

    Args:
        found: the series.
        stages: of sleep, in seconds since 1970.

    Raises:
        BadSignal: if none has a value at a possible time.
    """
    usable = [series for series in map(_usable, found) if len(series.times)]
    if not usable:
        raise BadSignal("no-samples", "the file holds no measured value with its time")
    if max(len(series.times) for series in usable) < 2:
        raise BadSignal("too-short", "a single measured value: nothing over time")
    zero = min(float(series.times[0]) for series in usable)
    channels, samples = [], []
    noticed: list[str] = []
    for series in usable:
        step, even = _step(series.times, zero)
        channels.append(Channel(series.name, series.units, 1 / step))
        samples.append(_cells(series, zero, step))
        if not even:
            noticed.append(ON_A_GRID)
        elif np.isnan(samples[-1]).any():
            noticed.append("gaps")
    since = tuple(sorted((first - zero, last - zero, name) for first, last, name in stages))
    return Recording(tuple(channels), samples, stages=since), tuple(dict.fromkeys(noticed))


def heading(
    held: Recording, form: str, findings: Sequence[str], subject: str | None = None
) -> Heading:
    """The heading of such a recording, without its person's labels."""
    fs = max(channel.fs for channel in held.channels)
    seconds = max(
        len(row) / channel.fs for channel, row in zip(held.channels, held.samples, strict=True)
    )
    return Heading("", form, held.channels, fs, seconds, subject, findings=tuple(findings))


def part(held: Recording, span: Span | None) -> Recording:
    """The samples of a recording between ``span`` seconds, each channel at its own rate."""
    rows = []
    for channel, row in zip(held.channels, held.samples, strict=True):
        first, last = bounds(span, channel.fs, len(row))
        rows.append(row[first:last])
    return Recording(held.channels, rows, stages=held.stages if span is None else ())


def moment(text: object) -> float:
    """Seconds since 1970 of a time in words; NaN for what is none. Without an offset it is UTC.

    Example:
        >>> moment("2021-01-20 12:00:00 +0100"), moment("01/20/21 11:00:00")
        (1611140400.0, 1611140400.0)
    """
    written = str(text).strip()
    try:
        found = datetime.fromisoformat(_offset_joined(written))
    except ValueError:
        try:
            found = datetime.strptime(written, "%m/%d/%y %H:%M:%S").replace(tzinfo=UTC)
        except ValueError:
            return float("nan")
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def _offset_joined(text: str) -> str:
    """``12:00:00 +0100`` as ISO 8601 writes it, without the blank."""
    head, _, tail = text.rpartition(" ")
    return f"{head}{tail}" if tail[:1] in ("+", "-") and head else text


def _usable(series: Series) -> Series:
    """In the order of their times, without those that cannot be."""
    with np.errstate(invalid="ignore"):
        good = np.isfinite(series.values) & (series.times > _EARLIEST) & (series.times < _LATEST)
    order = np.argsort(series.times[good], kind="stable")
    return Series(series.name, series.units, series.times[good][order], series.values[good][order])


def _step(times: np.ndarray, zero: float) -> tuple[float, bool]:
    """Seconds of one cell, and whether the times keep to that step by themselves."""
    gaps = np.diff(times)
    gaps = gaps[gaps > 0]
    if not len(gaps):
        return _STEPS[0], True
    middle = float(np.median(gaps))
    span = float(times[-1] - zero)
    if span <= middle * _MOST_CELLS:
        off = np.abs(gaps / middle - np.rint(gaps / middle)) * middle
        since = (times - zero) / middle
        if (off < 0.01 * middle).all() and (np.abs(since - np.rint(since)) < 0.01).all():
            return middle, True
    finest = max(span / _MOST_CELLS, 0.0)
    fitting = [step for step in _STEPS if step >= finest]
    if not fitting:
        raise BadSignal("bad-times", "the times of the values lie too far apart for a recording")
    return max((s for s in fitting if s <= middle), default=fitting[0]), False


def _cells(series: Series, zero: float, step: float) -> np.ndarray:
    """The mean of the values in each cell, NaN where there is none."""
    at = np.floor((series.times - zero) / step + 0.01).astype(np.int64)
    length = int(at[-1]) + 1
    count = np.bincount(at, minlength=length)
    total = np.bincount(at, weights=series.values, minlength=length)
    with np.errstate(invalid="ignore", divide="ignore"):
        return kept(np.where(count > 0, total / count, np.nan))
