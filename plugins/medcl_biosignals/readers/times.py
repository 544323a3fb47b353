"""Columns of times → a regular grid: its rate, its gaps, and the values on it.

Times come in seconds, milliseconds or as timestamps; they repeat, jitter, run backwards and stop.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medcl_biosignals.readers.contract import BadSignal, kept

_BLOCK = 50  # samples over which a rate is measured: repeats and jitter average out
_GAP = 4.0  # steps (and at least _GAP_SECONDS): where times stop for longer, samples are missing
_GAP_SECONDS = 0.1
_REGULAR = 0.25  # steps: times as near as that to a grid are that grid
_QUANTISED = 0.05  # share of repeated times: then they are a coarse clock, not the samples' own
LEGIBLE = 0.99  # share of rows that must say when they are; the others are left out
_FASTEST = 1e6  # Hz
_SLOWEST = 1 / 3600
_SPARSE = 50  # grid points a sample: more of them would mostly be made up of gaps


@dataclass(frozen=True)
class Grid:
    """How rows are laid out in time.

    Attributes:
        fs: rate of the grid in Hz.
        length: its points.
        order: (N,) row of each sample in the order of time; None where all rows are in it.
        at: (N,) place of each of these samples on the grid, in steps.
        findings: what was noticed.
        tick: what the clock counts in, in seconds; 0 where that is too fine to see.
    """

    fs: float
    length: int
    order: np.ndarray | None
    at: np.ndarray
    findings: tuple[str, ...]
    tick: float = 0.0

    def place(self, values: np.ndarray) -> np.ndarray:
        """Rows (N,) → (length,) on the grid, NaN where there is no sample nearby."""
        values = np.asarray(values, dtype=np.float64)
        if self.order is not None:
            values = values[self.order]
        if self._exact:
            exact = np.full(self.length, np.nan)
            exact[self.at.astype(np.int64)] = values
            return kept(exact)
        valid = np.isfinite(values)
        at, values = self.at[valid], values[valid]
        if len(at) < 2:
            return np.full(self.length, np.nan, dtype=np.float32)
        if (np.diff(at) <= 0).any():  # several samples of one time: their mean
            at, group, count = np.unique(at, return_inverse=True, return_counts=True)
            values = np.bincount(group, values) / count
        points = np.arange(self.length)
        out = np.interp(points, at, values)
        after = np.clip(np.searchsorted(at, points), 1, len(at) - 1)
        apart = at[after] - at[after - 1]
        near = np.minimum(np.abs(points - at[after]), np.abs(points - at[after - 1]))
        out[(apart > gap_steps(self.fs)) & (near > 0.5)] = np.nan
        return kept(out)

    @property
    def _exact(self) -> bool:
        return bool((self.at == np.rint(self.at)).all()) and bool((np.diff(self.at) > 0).all())


def gap_steps(fs: float) -> float:
    """How many steps at a rate are a gap."""
    return max(_GAP, _GAP_SECONDS * fs)


def grid(times: np.ndarray, given: float | None = None) -> Grid:
    """The grid that rows at these times lie on.

    Times that repeat come from a clock coarser than the sampling: then the samples between two of
    its ticks give the rate. If they keep within its ticks of an even count, that count is the grid;
    otherwise the samples are spread evenly over the ticks, block by block. Other irregular times
    are taken as they are.

    Args:
        times: (N,) in seconds.
        given: the rate that the file or the user gives; held against the times, which count.

    Raises:
        BadSignal: if the times make no recording.
    """
    findings: list[str] = []
    known = np.flatnonzero(np.isfinite(times))
    if len(known) < LEGIBLE * len(times):
        raise BadSignal("bad-times", "many times are missing, or cannot be read as times")
    if len(known) < len(times):
        findings.append("rows-without-time")
    times, order = _rising(times[known], findings)
    if "rows-without-time" in findings:
        order = known if order is None else known[order]
    if len(times) < 3 or times[-1] == times[0]:
        raise BadSignal("too-short", f"{len(times)} samples: too few to tell a sampling rate")
    repeated = float((np.diff(times) == 0).mean())
    if repeated > 0:
        findings.append("repeated-times")
    tick = _tick(times, repeated)
    fs = _rate(times, tick, repeated)
    if 0 < fs < _SLOWEST:
        raise BadSignal("not-a-signal", "rows that lie hours or days apart are no recording")
    if not 0 < fs < _FASTEST:
        raise BadSignal("bad-times", f"the times give a sampling rate of {fs:g} Hz")
    if given is not None and abs(given / fs - 1) > 0.02:
        findings.append("fs-mismatch")
    if repeated > 0.5:
        times = _within_ticks(times, fs, tick)
    fs, at = _placed(times, fs, tick)
    if at is None and repeated > _QUANTISED:
        times = _spread(times, fs, tick)
    if at is None:
        findings.append("irregular-times")
        whole = float(round(fs))
        if whole and abs(whole / fs - 1) < 0.02:
            fs = whole
        at = (times - times[0]) * fs
    fs, length = float(fs), int(np.floor(at[-1] + 0.5)) + 1
    if length > _SPARSE * len(times) + 1000:
        raise BadSignal(
            "sparse-times",
            f"{len(times)} samples are spread over {length / fs / 3600:.1f} hours: the times are "
            "wrong, or the pauses so long that the file should be split at them",
        )
    if (np.diff(at) > gap_steps(fs)).any():
        findings.append("gaps")
    return Grid(fs, length, order, at, tuple(findings), tick)


def _placed(times: np.ndarray, fs: float, tick: float) -> tuple[float, np.ndarray | None]:
    """The grid points of times at this rate, or at the whole number next to it; None if neither."""
    whole = float(round(fs))
    for rate in (fs, whole) if whole and abs(whole / fs - 1) < 0.02 else (fs,):
        at = _steps(times, rate, tick)
        if at is not None:
            return rate, at
    for rate in (fs, whole) if whole and abs(whole / fs - 1) < 0.02 else (fs,):
        at = _counted(times, rate, tick)
        if at is not None:
            return rate, at
    return fs, None


def _rising(times: np.ndarray, findings: list[str]) -> tuple[np.ndarray, np.ndarray | None]:
    """Times in their order, and the rows in it."""
    back = np.diff(times) < 0
    if not back.any():
        return times, None
    moved = np.diff(times) != 0
    if back.sum() > 0.5 * moved.sum():
        findings.append("reversed-times")
        order = np.arange(len(times))[::-1]
        if (np.diff(times[order]) < 0).any():
            order = order[np.argsort(times[order], kind="stable")]
        return times[order], order
    jumps = int((np.diff(times) < -1.0).sum())
    if jumps and jumps < 0.01 * len(times):
        raise BadSignal(
            "times-jump-back",
            f"the times jump back {jumps} times by over a second: several recordings in one file; "
            "split it, or give the column that tells them apart as reader.subject",
        )
    findings.append("unsorted-times")
    order = np.argsort(times, kind="stable")
    return times[order], order


def _tick(times: np.ndarray, repeated: float) -> float:
    """What the clock counts in: its usual step where times repeat, else their last decimal."""
    since = times - times[0]
    if repeated > 0:
        steps = np.diff(since)
        rises = steps[steps > 0]
        return float(np.median(rises))
    for decimals in range(7):
        scaled = since * 10.0**decimals
        if np.abs(scaled - np.rint(scaled)).max() < 0.01:  # since 1970 a float64 is 2e-7 s off
            return float(10.0**-decimals)
    return 0.0


def _break(fs: float, tick: float) -> float:
    """Seconds between two times from which on samples are missing: more than one tick, at least."""
    return max(gap_steps(fs) / fs, 1.5 * tick)


def _rate(times: np.ndarray, tick: float, repeated: float) -> float:
    """Samples a second, where neither gaps nor a coarse clock count."""
    if repeated > 0.5:
        return _rate_by_ticks(times, tick)
    block = min(_BLOCK, len(times) - 1)
    spans = times[block::block] - times[:-block:block][: len(times[block::block])]
    spans = spans[spans > 0]
    fs = (
        block / float(np.median(spans)) if len(spans) else (len(times) - 1) / (times[-1] - times[0])
    )
    return _refined(times, fs, tick)


def _rate_by_ticks(times: np.ndarray, tick: float) -> float:
    """The samples between ticks of a coarse clock, over all the ticks that are whole."""
    changes = np.flatnonzero(np.diff(times) > 0) + 1
    counts, steps = np.diff(changes), np.diff(times[changes])
    whole = steps < 1.5 * tick
    if not whole.any():
        raise BadSignal(
            "too-short",
            "the times are of a clock so coarse that no two of its ticks lie within the file: its "
            "sampling rate cannot be told. Give it: --set reader.time=none --set reader.fs=RATE",
        )
    counts, steps = counts[whole], steps[whole]
    alike = np.abs(counts - np.median(counts)) <= max(2.0, 0.2 * float(np.median(counts)))
    total, span = float(counts[alike].sum()), float(steps[alike].sum())
    return _snapped(total / span, 1.0 / span)


def _refined(times: np.ndarray, fs: float, tick: float) -> float:
    """The rate over the longest stretch without a gap: exact where the times are."""
    breaks = np.flatnonzero(np.diff(times) > _break(fs, tick))
    edges = np.concatenate([[-1], breaks, [len(times) - 1]])
    longest = int(np.diff(edges).argmax())
    first, last = edges[longest] + 1, edges[longest + 1]
    if last - first < _BLOCK or times[last] == times[first]:
        return fs
    span = float(times[last] - times[first])
    better = (last - first) / span
    if abs(better / fs - 1) > 0.05:
        return fs
    return _snapped(better, better * min(2 * tick / span, 1e-3))


def _snapped(fs: float, off: float) -> float:
    """A rate that may be ``off`` by as much, as the round number that it may be."""
    off = max(off, 1e-6 * fs)
    for parts in (1.0, 2.0, 4.0):
        near = round(fs * parts) / parts
        if near > 0 and abs(fs - near) <= off and off < 0.2 / parts:
            return float(near)
    period = round(1 / fs)
    if period > 1 and abs(fs - 1 / period) <= off:
        return 1.0 / period
    return float(fs)


def _steps(times: np.ndarray, fs: float, tick: float) -> np.ndarray | None:
    """The grid points that times lie on; None if they do not, or two share one.

    The grid starts anew after each gap by a fraction of a step at most: a recorder that pauses does
    not wait for a whole one.
    """
    at = (times - times[0]) * fs
    breaks = np.flatnonzero(np.diff(times) > _break(fs, tick)) + 1
    points = np.empty(len(at), dtype=np.int64)
    for first, last in zip([0, *breaks], [*breaks, len(at)], strict=True):
        start = np.rint(at[first])
        offset = at[first:last] - at[first]
        near = np.rint(offset)
        if np.abs(offset - near).max() > _REGULAR:
            return None
        points[first:last] = start + near
    return points.astype(np.float64) if (np.diff(points) > 0).all() else None


def _counted(times: np.ndarray, fs: float, tick: float) -> np.ndarray | None:
    """The grid points of an even count whose times were rounded to a coarse clock; else None."""
    breaks = np.flatnonzero(np.diff(times) > _break(fs, tick)) + 1
    points = np.empty(len(times))
    for first, last in zip([0, *breaks], [*breaks, len(times)], strict=True):
        rows = np.arange(last - first)
        away = times[first:last] - times[first] - rows / fs
        if np.ptp(away) > 2 * tick:
            return None
        points[first:last] = np.rint((times[first] - times[0]) * fs) + rows
    return points if (np.diff(points) > 0).all() else None


def _within_ticks(times: np.ndarray, fs: float, tick: float) -> np.ndarray:
    """Times that repeat, spread within their ticks: from its start, or, of a stretch's first, to
    its
    end, as recordings begin between two ticks."""
    change = np.concatenate([[True], np.diff(times) > 0])
    starts = np.flatnonzero(change)
    group = np.cumsum(change) - 1
    counts = np.diff([*starts, len(times)])
    within = (np.arange(len(times)) - starts[group]) / fs
    begins = np.concatenate([[True], np.diff(times[starts]) > 1.5 * tick])
    late = np.where(begins, np.maximum(tick - counts / fs, 0.0), 0.0)
    return np.asarray(times + within + late[group])


def _spread(times: np.ndarray, fs: float, tick: float) -> np.ndarray:
    """Even times in place of a coarse clock's: lines through the means of blocks of samples."""
    breaks = np.flatnonzero(np.diff(times) > _break(fs, tick)) + 1
    even = np.empty_like(times)
    for first, last in zip([0, *breaks], [*breaks, len(times)], strict=True):
        part, n = times[first:last], last - first
        rows = np.arange(n)
        if n < 2 * _BLOCK:
            even[first:last] = part.mean() + (rows - rows.mean()) / fs
            continue
        blocks = n // _BLOCK
        block = np.minimum(rows // _BLOCK, blocks - 1)
        count = np.bincount(block)
        middle, mean = np.bincount(block, rows) / count, np.bincount(block, part) / count
        line = np.interp(rows, middle, mean)
        head, tail = rows < middle[0], rows > middle[-1]
        line[head] = mean[0] + (rows[head] - middle[0]) / fs
        line[tail] = mean[-1] + (rows[tail] - middle[-1]) / fs
        even[first:last] = line
    return even
