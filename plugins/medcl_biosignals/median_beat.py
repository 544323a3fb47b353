"""The shape of a window's median beat, lead by lead: waves, intervals, and what differs from it.

The median over aligned beats removes noise and ectopic beats, as electrocardiographs do before they
measure (Macfarlane 2010, Comprehensive Electrocardiology, chapter 37). Amplitudes keep their unit
(mV where the recording's is known) and are compressed by a signed square root: hypertrophy, low
voltage and pericardial effusion are told by size.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d

PER_LEAD = (
    "p", "p_trough", "q", "r", "s", "height", "qrs_area", "j", "st", "st_slope", "t", "t_trough",
    "t_area", "slope", "width", "p_residue", "qrs_residue", "t_residue",
)  # fmt: skip
"""Signed square roots of amplitudes: of the P wave, Q, R, S, QRS from trough to peak and its mean,
J + 40 ms, ST (J + 80 ms) and its rise, T; the steepest slope a second; the seconds in which the QRS
is steep; and how far single beats differ from the median, by their root mean square, / height."""
SHAPE = np.array(
    [-0.28, -0.24, -0.20, -0.17, -0.14, -0.11, -0.08, -0.05, -0.03, -0.01, 0.01, 0.03, 0.05, 0.07]
    + [0.09, 0.12, 0.15, 0.18, 0.21, 0.24, 0.27, 0.30, 0.34, 0.38, 0.42, 0.46]
)
"""Edges in seconds from the R peak of the 25 means by which the median beat itself is given."""
OF_ALL = ("qrs", "qt", "pr", "beats", "alike", "least_alike", "unlike")
"""Of all leads together, in seconds: QRS, QT and PR by the leads' root mean square; log of the
number of beats; correlation of the beats with the median, mean and least; share below 0.8."""
_T = np.arange(-0.30, 0.4801, 0.01)
"""Seconds from the R peak at which beats are measured, whatever the sampling rate."""
_MOVES = np.arange(-0.03, 0.0301, 0.01)  # seconds by which a beat may be moved upon the others
_FEWEST = 2


def names(channels: int) -> list[str]:
    """Names of the columns of `median_beat`."""
    shape = [f"shape{n}" for n in range(len(SHAPE) - 1)]
    return [*OF_ALL, *(f"{name}.{c}" for name in (*PER_LEAD, *shape) for c in range(channels))]


def median_beat(x: NDArray[np.floating], fs: float, peaks: NDArray[np.integer]) -> NDArray:
    """Measures of the median beat of each window.

    Args:
        x: (B, C, T) in the channels' unit.
        fs: sampling rate in Hz.
        peaks: (B, K) positions of R peaks, or a pulse's upstrokes; −1 for none.

    Returns:
        (B, 7 + 43·C) float32, see `names`; zero where fewer than two whole beats are.
    """
    batch, channels, length = x.shape
    made = np.zeros((batch, len(OF_ALL) + (len(PER_LEAD) + len(SHAPE) - 1) * channels), np.float32)
    for row, (signal, at) in enumerate(zip(x, peaks, strict=True)):
        at = at[at >= 0]
        reach = _MOVES[-1] - _T[0], _T[-1] + _MOVES[-1]
        inside = at[(at >= reach[0] * fs) & (at + reach[1] * fs < length - 1)]
        if len(inside) >= _FEWEST:
            made[row] = np.nan_to_num(_measured(_aligned(signal, inside / fs, fs), len(at)))
    return made


def _aligned(x: NDArray, at: NDArray[np.float64], fs: float) -> NDArray:
    """Beats (K, C, n), each moved by up to 30 ms to where its slopes fit the median's best."""
    slope = np.abs(np.diff(x, axis=1, prepend=x[:, :1])).sum(axis=0, keepdims=True)
    steep = _sampled(slope, at[:, None, None] + _MOVES[:, None] + _T, fs)[0]  # (K, moves, n)
    typical = np.median(steep[:, len(_MOVES) // 2], axis=0)
    best = _MOVES[(steep @ typical).argmax(axis=1)]
    return _sampled(x, (at + best)[:, None] + _T, fs).transpose(1, 0, 2)


def _sampled(x: NDArray, seconds: NDArray, fs: float) -> NDArray:
    """A signal (C, T) at any times (...), by lines between its samples: (C, ...)."""
    position = seconds * fs
    first = np.floor(position).astype(np.int64)
    share = position - first
    return x[:, first] * (1 - share) + x[:, first + 1] * share


def _measured(beats: NDArray, count: int) -> NDArray:
    """One row of `median_beat` from aligned beats (K, C, n) at `_T`; ``count``: with those that
    the window cuts."""
    beats = beats - np.median(beats[..., _within(-0.11, -0.05)], axis=-1, keepdims=True)
    median = np.median(beats, axis=0)  # (C, n)

    def part(low: float, high: float) -> NDArray:
        return median[:, _within(low, high)]

    qrs = part(-0.08, 0.10)
    height = np.ptp(qrs, axis=1)
    near = _steepness(median)[:, _within(-0.15, 0.20)]
    width = (near > 0.15 * near.max(axis=1, keepdims=True)).mean(axis=1) * 0.35
    residue = np.sqrt(((beats - median) ** 2).mean(axis=0)) / np.maximum(height, 1e-6)[:, None]
    amplitudes = [
        part(-0.26, -0.10).max(axis=1), part(-0.26, -0.10).min(axis=1),
        part(-0.06, 0.0).min(axis=1), qrs.max(axis=1), part(0.0, 0.10).min(axis=1), height,
        qrs.mean(axis=1), part(0.08, 0.10).mean(axis=1), part(0.11, 0.14).mean(axis=1),
        part(0.15, 0.18).mean(axis=1) - part(0.08, 0.10).mean(axis=1),
        part(0.16, 0.46).max(axis=1), part(0.16, 0.46).min(axis=1), part(0.16, 0.46).mean(axis=1),
        near.max(axis=1),
    ]  # fmt: skip
    unlike = [residue[:, _within(*wave)].mean(axis=1) for wave in _WAVES]
    shape = [part(low, high).mean(axis=1) for low, high in pairwise(SHAPE)]
    return np.concatenate(
        [
            _of_all(beats, median, count),
            *map(_compressed, amplitudes),
            width,
            *(np.minimum(other, 5.0) for other in unlike),
            *map(_compressed, shape),
        ]
    )


_WAVES = (-0.26, -0.10), (-0.08, 0.10), (0.16, 0.46)  # P, QRS, T


def _within(low: float, high: float) -> NDArray[np.bool_]:
    return (low - 1e-9 <= _T) & (high + 1e-9 >= _T)


def _steepness(median: NDArray) -> NDArray:
    """(C, n) by how much a lead changes in a second."""
    return np.abs(np.diff(median, axis=1, prepend=median[:, :1])) / 0.01


def _compressed(amplitude: NDArray) -> NDArray:
    return np.sign(amplitude) * np.sqrt(np.abs(amplitude))


def _of_all(beats: NDArray, median: NDArray, count: int) -> NDArray:
    """`OF_ALL`."""
    steep = uniform_filter1d(np.sqrt((_steepness(median) ** 2).mean(axis=0)), 3)
    steep = steep * _within(-0.15, 0.20)
    high = np.flatnonzero(steep > 0.15 * steep.max())
    begin, end = (_T[high[0]], _T[high[-1]]) if len(high) else (0.0, 0.0)
    size = np.sqrt((median**2).mean(axis=0))
    top = int((size * (end + 0.06 <= _T)).argmax())
    low = np.flatnonzero((_T[top] < _T) & (size < 0.3 * size[top]))
    over = _T[low[0]] if len(low) else _T[-1]
    p = int((size * (begin - 0.04 >= _T)).argmax())
    flat = beats.reshape(len(beats), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    typical = median.reshape(-1) - median.mean()
    norm = np.linalg.norm(flat, axis=1) * np.linalg.norm(typical)
    alike = flat @ typical / np.maximum(norm, 1e-9)
    intervals = end - begin, over - begin, begin - _T[p]
    return np.array([*intervals, np.log(count), alike.mean(), alike.min(), (alike < 0.8).mean()])
