"""Stretches of a channel that are no signal: missing, flat, clipped, or too short between those."""

from __future__ import annotations

import numpy as np

WHY = ("", "missing", "flat", "clipped", "fragment")
"""What the codes of `lost` stand for."""
_FRAGMENT = 1.0  # seconds: what is shorter between two gaps is not worth filtering


def lost(
    x: np.ndarray, fs: float, *, flat: float | None, clip: float | None, bridge: float
) -> np.ndarray:
    """What is lost of a channel, and why.

    Args:
        x: (N,) as recorded, NaN where missing.
        fs: its rate in Hz.
        flat: seconds without any change from which on no sensor is taken to be there.
        clip: seconds at the largest or smallest value of the recording from which on it is taken
            to be the recorder's limit.
        bridge: missing stretches up to as many seconds are no gaps.

    Returns:
        (N,) uint8, indices into `WHY`; 0 where the signal is good.
    """
    why = np.zeros(len(x), dtype=np.uint8)
    finite = np.isfinite(x)
    if not finite.any():
        why[:] = 1
        return why
    for first, last in runs(~finite):
        if last - first > bridge * fs or first == 0 or last == len(x):
            why[first:last] = 1
    if flat is not None:
        _mark(why, x[1:] == x[:-1], flat * fs, 2)
    if clip is not None:
        top, bottom = np.nanmax(x), np.nanmin(x)
        if top > bottom:
            # Steps between two samples at one limit.
            _mark(why, (x[1:] >= top) & (x[:-1] >= top), clip * fs, 3)
            _mark(why, (x[1:] <= bottom) & (x[:-1] <= bottom), clip * fs, 3)
    if why.any():
        for first, last in runs(why == 0):
            if last - first < _FRAGMENT * fs:
                why[first:last] = 4
    return why


def _mark(why: np.ndarray, steps: np.ndarray, least: float, code: int) -> None:
    """Mark the samples of runs of ``least`` steps or more, if they are not marked yet."""
    for first, last in _longer(runs(steps), max(least, 2)):
        part = why[first : last + 1]
        part[part == 0] = code


def _longer(stretches: np.ndarray, least: float) -> np.ndarray:
    return stretches[stretches[:, 1] - stretches[:, 0] >= least]


def bridged(x: np.ndarray, why: np.ndarray) -> np.ndarray:
    """A channel whose short missing stretches are straight lines, and whose lost ones are zero."""
    missing = ~np.isfinite(x)
    if not missing.any():
        return x
    x = x.copy()
    grid = np.arange(len(x))
    x[missing] = np.interp(grid[missing], grid[~missing], x[~missing]) if not missing.all() else 0
    x[why > 0] = 0
    return x


def runs(mask: np.ndarray) -> np.ndarray:
    """The stretches of True in (N,), as (G, 2) half-open bounds."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return edges.reshape(-1, 2).astype(np.int64)


def stretched(mask: np.ndarray, length: int) -> np.ndarray:
    """A mask (N,) at another rate: a new sample is masked if any old one that it covers is."""
    if not mask.any():
        return np.zeros(length, dtype=bool)
    count = np.concatenate([[0], mask.cumsum()])
    edges = np.linspace(0, len(mask), length + 1)
    first, last = np.floor(edges[:-1]).astype(int), np.ceil(edges[1:]).astype(int)
    return np.asarray(count[last] > count[first])
