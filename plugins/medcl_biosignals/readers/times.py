"""Columns of times → a regular grid: its rate, its gaps, and the values on it.

Times come in seconds, milliseconds or as timestamps; they repeat, jitter, run backwards and stop.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medcl_biosignals.readers.contract import BadSignal

_BLOCK = 50  # samples over which a rate is measured: repeats and jitter average out
_GAP = 4.0  # steps (and at least _GAP_SECONDS): where times stop for longer, samples are missing
_GAP_SECONDS = 0.1
_REGULAR = 0.25  # steps: times as near as that to a grid are that grid
_QUANTISED = 0.05  # share of repeated times: then they are a coarse clock, not the samples' own
LEGIBLE = 0.99  # share of rows that must say when they are; the others are left out
_FASTEST = 1e6  # Hz
_SPARSE = 50  # grid points a sample: more of them would mostly be made up of gaps
_EPOCHS = ((1e17, 1e-9), (1e14, 1e-6), (1e11, 1e-3), (1e8, 1.0))  # since 1970, by size
UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}


@dataclass(frozen=True)
class Grid:
    """How rows are laid out in time.

    Attributes:
        fs: rate of the grid in Hz.
        length: its points.
        order: (N,) row of each sample in the order of time; None where all rows are in it.
        at: (N,) place of each of these samples on the grid, in steps.
        findings: what was noticed.
    """

    fs: float
    length: int
    order: np.ndarray | None
    at: np.ndarray
    findings: tuple[str, ...]

    def place(self, values: np.ndarray) -> np.ndarray:
        """Rows (N,) → (length,) float32 on the grid, NaN where there is no sample nearby."""
        values = np.asarray(values, dtype=np.float64)
        if self.order is not None:
            values = values[self.order]
        if self._exact:
            exact = np.full(self.length, np.nan, dtype=np.float32)
            exact[self.at.astype(np.int64)] = values
            return exact
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
        return out.astype(np.float32)

    @property
    def _exact(self) -> bool:
        return bool((self.at == np.rint(self.at)).all()) and bool((np.diff(self.at) > 0).all())


def gap_steps(fs: float) -> float:
    """How many steps at a rate are a gap."""
    return max(_GAP, _GAP_SECONDS * fs)


def seconds(values: np.ndarray, unit: str | None) -> tuple[np.ndarray, tuple[str, ...]]:
    """Plain numbers of time → seconds since the first, and what had to be assumed.

    Raises:
        BadSignal: if it cannot be told what they count.
    """
    first = values[np.isfinite(values)][:1]
    if not len(first):
        raise BadSignal("no-times", "the column of times holds no number")
    since = values - first[0]
    if unit is not None:
        return since * UNITS[unit], ()
    for size, scale in _EPOCHS:
        if first[0] > size:
            return since * scale, ()
    steps = np.abs(np.diff(since[np.isfinite(since)]))
    step = float(np.median(steps[steps > 0])) if (steps > 0).any() else 0.0
    if step == 1:
        raise BadSignal(
            "ambiguous-times",
            "the times count 1, 2, 3: say of what, with --set reader.time_unit=ms (or s, us, ns); "
            "or, if they only number the samples, --set reader.time=none --set reader.fs=RATE",
        )
    if step > 1:  # no waveform has one sample in more than a second
        return since * 1e-3, ("assumed-milliseconds",)
    return since, ("assumed-seconds",)


def grid(times: np.ndarray, given: float | None = None) -> Grid:
    """The grid that rows at these times lie on.

    Times that repeat in many places come from a clock coarser than the sampling: if they keep
    within its ticks of an even count, that count is the grid; otherwise the samples are spread
    evenly over the ticks, block by block. Other irregular times are taken as they are.

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
    fs = _rate(times)
    if not 0 < fs < _FASTEST:
        raise BadSignal("bad-times", f"the times give a sampling rate of {fs:g} Hz")
    if given is not None and abs(given / fs - 1) > 0.02:
        findings.append("fs-mismatch")
    whole = float(round(fs))
    at = _steps(times, fs)
    if at is None and whole and abs(whole / fs - 1) < 0.02:
        at = _steps(times, whole)
        fs = whole if at is not None else fs
    repeated = float((np.diff(times) == 0).mean())
    if repeated > 0:
        findings.append("repeated-times")
    if at is None and repeated > _QUANTISED:
        at = _counted(times, fs)
        if at is None:
            times = _spread(times, fs)
    if at is None:
        findings.append("irregular-times")
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
    return Grid(fs, length, order, at, tuple(findings))


def _rising(times: np.ndarray, findings: list[str]) -> tuple[np.ndarray, np.ndarray | None]:
    """Times in their order, and the rows in it."""
    back = np.diff(times) < 0
    if not back.any():
        return times, None
    if back.sum() > 0.5 * len(back):
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


def _rate(times: np.ndarray) -> float:
    """Samples a second: the median over blocks, so that neither gaps nor a coarse clock count."""
    block = min(_BLOCK, len(times) - 1)
    spans = times[block::block] - times[:-block:block][: len(times[block::block])]
    spans = spans[spans > 0]
    fs = (
        block / float(np.median(spans)) if len(spans) else (len(times) - 1) / (times[-1] - times[0])
    )
    return _refined(times, fs)


def _refined(times: np.ndarray, fs: float) -> float:
    """The rate over the longest stretch without a gap: exact where the times are."""
    breaks = np.flatnonzero(np.diff(times) > gap_steps(fs) / fs)
    edges = np.concatenate([[-1], breaks, [len(times) - 1]])
    longest = int(np.diff(edges).argmax())
    first, last = edges[longest] + 1, edges[longest + 1]
    if last - first < _BLOCK or times[last] == times[first]:
        return fs
    better = (last - first) / float(times[last] - times[first])
    if abs(better / fs - 1) > 0.05:
        return fs
    return float(round(better)) if abs(better - round(better)) < 1e-6 * better else better


def _steps(times: np.ndarray, fs: float) -> np.ndarray | None:
    """The grid points that times lie on; None if they do not, or two share one.

    The grid starts anew after each gap by a fraction of a step at most: a recorder that pauses does
    not wait for a whole one.
    """
    at = (times - times[0]) * fs
    breaks = np.flatnonzero(np.diff(at) > gap_steps(fs)) + 1
    points = np.empty(len(at), dtype=np.int64)
    for first, last in zip([0, *breaks], [*breaks, len(at)], strict=True):
        start = np.rint(at[first])
        offset = at[first:last] - at[first]
        near = np.rint(offset)
        if np.abs(offset - near).max() > _REGULAR:
            return None
        points[first:last] = start + near
    return points.astype(np.float64) if (np.diff(points) > 0).all() else None


def _counted(times: np.ndarray, fs: float) -> np.ndarray | None:
    """The grid points of an even count whose times were rounded to a coarse clock; else None."""
    steps = np.diff(times)
    tick = float(np.median(steps[steps > 0]))
    breaks = np.flatnonzero(steps > gap_steps(fs) / fs) + 1
    points = np.empty(len(times))
    for first, last in zip([0, *breaks], [*breaks, len(times)], strict=True):
        rows = np.arange(last - first)
        away = times[first:last] - times[first] - rows / fs
        if np.ptp(away) > 2 * tick:
            return None
        points[first:last] = np.rint((times[first] - times[0]) * fs) + rows
    return points if (np.diff(points) > 0).all() else None


def _spread(times: np.ndarray, fs: float) -> np.ndarray:
    """Even times in place of a coarse clock's: lines through the means of blocks of samples."""
    breaks = np.flatnonzero(np.diff(times) > gap_steps(fs) / fs) + 1
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
