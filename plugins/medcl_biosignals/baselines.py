"""Features made by hand: what a pretrained encoder has to beat to be worth its while."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np

from medcl_biosignals.pulses import pulses
from medcl_biosignals.quality import kurtosis, skewness

_QRS = 0.1  # seconds to either side of the R peak that hold the QRS complex
_BANDS = (0.5, 4.0, 8.0, 15.0, 40.0)


def handcrafted(batch: Mapping[str, np.ndarray]) -> np.ndarray:
    """For beats: how early, how unlike its neighbours, how wide and high. For windows: the heart's
    rate and its variability, the pulse's shape (`medcl_biosignals.pulses`), moments, spectrum.

    After de Chazal 2004 (doi 10.1109/TBME.2004.827359) and Llamedo 2011 (doi
    10.1109/TBME.2010.2068048), who found few, person-normalised features to carry over to unseen
    people best; adding the shape sample by sample, spectra and moments made it worse here
    (`docs/research-log-biosignals.md`).

    Args:
        batch: ``x`` (B, C, T), ``fs`` (B,), and where samples are beats ``rr`` (B, 4) and
            ``likeness`` (B, 6·C), as `medcl_biosignals.dataset` reads them.

    Returns:
        (B, F) float32: F = 4 + 13·C for beats, 20·C for windows.
    """
    x, fs = np.nan_to_num(np.asarray(batch["x"], dtype=np.float32)), float(batch["fs"][0])
    if "rr" not in batch:
        parts = [_moments(x), _spectrum(x, fs), pulses(x, fs)]
        return np.concatenate(parts, axis=1).astype(np.float32)
    centre = x.shape[-1] // 2
    reach = round(_QRS * fs)
    qrs = x[..., max(centre - reach, 0) : centre + reach]
    parts = [batch["rr"], batch["likeness"], _qrs(qrs, fs)]
    return np.concatenate(parts, axis=1).astype(np.float32)


def raw(batch: Mapping[str, np.ndarray]) -> np.ndarray:
    """The window itself, as 64 means a lead, and the interval ratios: nothing learnt or chosen."""
    x = np.nan_to_num(np.asarray(batch["x"], dtype=np.float32))  # of dataset.missing: nan
    edges = np.linspace(0, x.shape[-1], 65)
    first = np.floor(edges[:-1]).astype(int)
    last = np.maximum(np.ceil(edges[1:]).astype(int), first + 1)
    total = np.concatenate([np.zeros_like(x[..., :1]), x.cumsum(axis=-1)], axis=-1)
    means = (total[..., last] - total[..., first]) / (last - first)  # (B, C, 64)
    parts = [means.reshape(len(x), -1)] + ([batch["rr"]] if "rr" in batch else [])
    return np.concatenate(parts, axis=1).astype(np.float32)


def _qrs(x: np.ndarray, fs: float) -> np.ndarray:
    """Peaks, mean size, two widths in seconds and the steepest slope: (B, 7·C)."""
    top, bottom, size = x.max(axis=-1), x.min(axis=-1), np.abs(x)
    width = (size > 0.5 * size.max(axis=-1, keepdims=True)).sum(axis=-1) / fs
    slope = np.abs(np.diff(x, axis=-1))
    steepest = slope.max(axis=-1)
    steep = (slope > 0.3 * steepest[..., None]).sum(axis=-1) / fs
    parts = (top, bottom, top - bottom, size.mean(axis=-1), width, steep, steepest)
    return np.concatenate(parts, axis=1)


def _moments(x: np.ndarray) -> np.ndarray:
    """Skewness, kurtosis, crossings of zero and mean size: (B, 4·C)."""
    crossings = np.diff(np.signbit(x), axis=-1).mean(axis=-1)
    return np.concatenate([skewness(x), kurtosis(x), crossings, np.abs(x).mean(axis=-1)], axis=1)


def _spectrum(x: np.ndarray, fs: float) -> np.ndarray:
    """Shares of power in four bands: (B, 4·C)."""
    power = np.abs(np.fft.rfft(x * np.hanning(x.shape[-1]), axis=-1)) ** 2
    f = np.fft.rfftfreq(x.shape[-1], 1 / fs)
    total = power.sum(axis=-1) + 1e-9
    bands = [
        power[..., (f >= low) & (f < high)].sum(axis=-1) / total for low, high in pairwise(_BANDS)
    ]
    return np.concatenate(bands, axis=1)
