"""Features made by hand: what a pretrained encoder has to beat to be worth its while."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np

from medcl_biosignals.quality import kurtosis, skewness

_BEAT = (-0.25, 0.4)  # seconds around the R peak that hold P, QRS and T
_QRS = 0.1  # reach of the QRS complex to either side
_BANDS = (0.5, 4.0, 8.0, 15.0, 40.0)


def handmade(batch: Mapping[str, np.ndarray]) -> np.ndarray:
    """Intervals, shape of the beat in the middle, statistics and spectrum of the window.

    After de Chazal 2004 (doi 10.1109/TBME.2004.827359): intervals normalised to the person and
    the shape at fixed lags; with QRS width and height, and shares of spectral power.

    Args:
        batch: ``x`` (B, C, T), ``fs`` (B,), and where samples are beats ``rr`` (B, 8).

    Returns:
        (B, F) float32.
    """
    x, fs = np.asarray(batch["x"], dtype=np.float32), float(batch["fs"][0])
    parts = [_window(x), _spectrum(x, fs)]
    if "rr" in batch:
        beat = _middle(x, fs, *_BEAT)
        parts += [np.asarray(batch["rr"]), _shape(beat, 20), _qrs(_middle(x, fs, -_QRS, _QRS), fs)]
        parts += [_spectrum(beat, fs)]
    return np.concatenate(parts, axis=1).astype(np.float32)


def raw(batch: Mapping[str, np.ndarray]) -> np.ndarray:
    """The window itself at 64 points a lead, and the intervals: what no feature adds to."""
    x = np.asarray(batch["x"], dtype=np.float32)
    parts = [_shape(x, 64)] + ([np.asarray(batch["rr"])] if "rr" in batch else [])
    return np.concatenate(parts, axis=1).astype(np.float32)


def _middle(x: np.ndarray, fs: float, start: float, stop: float) -> np.ndarray:
    centre = x.shape[-1] // 2
    first = max(centre + round(start * fs), 0)
    return x[..., first : max(centre + round(stop * fs), first + 2)]


def _shape(x: np.ndarray, points: int) -> np.ndarray:
    """Means of ``points`` equal pieces of (B, C, T), side by side: (B, C · points)."""
    edges = np.linspace(0, x.shape[-1], points + 1)
    total = np.concatenate(
        [np.zeros_like(x[..., :1]), x.cumsum(axis=-1, dtype=np.float64)], axis=-1
    )
    first = np.floor(edges[:-1]).astype(int)
    last = np.maximum(np.ceil(edges[1:]).astype(int), first + 1)
    means = (total[..., last] - total[..., first]) / (last - first)
    return means.reshape(len(x), -1)


def _qrs(x: np.ndarray, fs: float) -> np.ndarray:
    """Height, depth, area and width of the largest deflection, for each lead."""
    top, bottom, size = x.max(axis=-1), x.min(axis=-1), np.abs(x)
    height = size.max(axis=-1, keepdims=True)
    width = (size > 0.5 * height).sum(axis=-1) / fs
    slope = np.abs(np.diff(x, axis=-1))
    steep = (slope > 0.3 * slope.max(axis=-1, keepdims=True)).sum(axis=-1) / fs
    parts = (top, bottom, top - bottom, size.mean(axis=-1), width, steep, slope.max(axis=-1))
    return np.concatenate(parts, axis=1)


def _window(x: np.ndarray) -> np.ndarray:
    """Moments and crossings of zero of the whole window, for each lead."""
    crossings = (np.diff(np.signbit(x), axis=-1)).mean(axis=-1)
    return np.concatenate([skewness(x), kurtosis(x), crossings, np.abs(x).mean(axis=-1)], axis=1)


def _spectrum(x: np.ndarray, fs: float) -> np.ndarray:
    """Shares of power in bands, for each lead."""
    power = np.abs(np.fft.rfft(x * np.hanning(x.shape[-1]), axis=-1)) ** 2
    f = np.fft.rfftfreq(x.shape[-1], 1 / fs)
    total = power.sum(axis=-1) + 1e-9
    shares = [
        power[..., (f >= low) & (f < high)].sum(axis=-1) / total for low, high in pairwise(_BANDS)
    ]
    return np.concatenate(shares, axis=1)
