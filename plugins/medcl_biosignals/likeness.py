"""How a beat differs from the beats beside it: numbers that mean the same for every person."""

from __future__ import annotations

import numpy as np

_BEAT = (-0.1, 0.15)  # seconds around the R peak that are compared
MEASURES = 6
"""Columns a lead: correlation, power and height, against the beat before and the one after."""
EARLY = 0.2
"""Logarithm of a ratio of intervals: a beat so early counts as much as a shape not correlated."""
_SAME = np.array([1.0, 0.0, 0.0, 1.0, 0.0, 0.0])  # what a beat like its neighbours measures
_BOUND = 25.0  # so that no single artefact outweighs all beats of a recording
_AT_ONCE = 4096  # beats whose shapes are held: a day has a hundred thousand


def likeness(x: np.ndarray, beats: np.ndarray, fs: float) -> np.ndarray:
    """Each beat against its two neighbours.

    Args:
        x: (C, T) filtered recording.
        beats: (K,) positions of R peaks.
        fs: sampling rate in Hz.

    Returns:
        (K, 6·C) float32: for the beat before, then for the one after: the correlations of the C
        leads, the logarithms of the ratios of power, and of height from trough to peak. A beat
        without a neighbour, and a lead without signal, are like their neighbours: 1, 0, 0.
    """
    if not len(beats):
        return np.zeros((0, MEASURES * len(x)), dtype=np.float32)
    lags = np.arange(round(_BEAT[0] * fs), round(_BEAT[1] * fs))
    parts = [
        _compared(x, beats[first : first + _AT_ONCE + 1], lags)
        for first in range(0, max(len(beats) - 1, 1), _AT_ONCE)
    ]
    power, height = (
        np.concatenate([*(part[n][:_AT_ONCE] for part in parts), parts[-1][n][_AT_ONCE:]])
        for n in (0, 1)
    )  # (K, C)
    floor = 1e-2 * np.median(power, axis=0) + 1e-12  # of a flat beat, so that no ratio explodes
    power, height = power + floor, height + np.sqrt(floor)
    product = np.concatenate([part[2] for part in parts]) + floor  # (K-1, C)
    correlation = product / np.sqrt(power[1:] * power[:-1])
    louder, higher = np.diff(np.log(power), axis=0), np.diff(np.log(height), axis=0)
    one, zero = np.ones((1, len(x))), np.zeros((1, len(x)))
    before = [
        np.concatenate([first, rest])
        for first, rest in ((one, correlation), (zero, louder), (zero, higher))
    ]
    after = [
        np.concatenate([rest, last])
        for rest, last in ((correlation, one), (-louder, zero), (-higher, zero))
    ]
    return np.concatenate([*before, *after], axis=1).astype(np.float32)


def _compared(
    x: np.ndarray, beats: np.ndarray, lags: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Power and height of some beats, (K, C), and the mean product of neighbours, (K − 1, C)."""
    index = np.clip(beats[:, None] + lags, 0, x.shape[1] - 1)
    shape = x[:, index].transpose(1, 0, 2)  # (K, C, lags)
    shape = shape - shape.mean(axis=-1, keepdims=True)
    return (
        (shape**2).mean(axis=-1),
        np.ptp(shape, axis=-1),
        (shape[1:] * shape[:-1]).mean(axis=-1),
    )


def unlikeness(rr: np.ndarray, likeness: np.ndarray) -> np.ndarray:
    """How far each beat is from one that comes when expected and looks like its neighbours.

    Args:
        rr: (K, 4) see `medcl_biosignals.rhythm.ratios`.
        likeness: (K, 6·C) see `likeness`.

    Returns:
        (K,) squared distances, at most 25: intervals in units of `EARLY`, measures as means over
        the leads.
    """
    measured = likeness.reshape(len(likeness), MEASURES, -1).mean(axis=2) - _SAME
    squared = ((rr / EARLY) ** 2).sum(axis=1) + (measured**2).sum(axis=1)
    return np.minimum(squared, _BOUND)
