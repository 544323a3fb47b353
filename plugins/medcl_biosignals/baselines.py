"""Features made by hand: what a pretrained encoder has to beat to be worth its while."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np

from medcl_biosignals import median_beat as shape
from medcl_biosignals import pulses as timing
from medcl_biosignals.detect import r_peaks
from medcl_biosignals.irregularity import FEATURES as RHYTHM
from medcl_biosignals.irregularity import irregularity
from medcl_biosignals.median_beat import median_beat
from medcl_biosignals.pulses import pulses
from medcl_biosignals.quality import kurtosis, skewness

_QRS = 0.1  # seconds to either side of the R peak that hold the QRS complex
_BANDS = (0.5, 4.0, 8.0, 15.0, 40.0)


def handcrafted(batch: Mapping[str, np.ndarray]) -> np.ndarray:
    """For beats: how early, how unlike its neighbours, how wide and high. For windows: how regular
    the beats of the minute around it are (`medcl_biosignals.irregularity`), the waves of the median
    beat of each lead (`medcl_biosignals.median_beat`), rate and pulse (`medcl_biosignals.pulses`),
    moments and spectrum.

    After de Chazal 2004 (doi 10.1109/TBME.2004.827359) and Llamedo 2011 (doi
    10.1109/TBME.2010.2068048), who found few, person-normalised features to carry over to unseen
    people best; adding the shape sample by sample, spectra and moments made it worse here
    (`docs/research-log-biosignals.md`).

    Args:
        batch: ``x`` (B, C, T), ``fs`` (B,); where samples are beats ``rr`` (B, 4) and ``likeness``
            (B, 6·C), else ``unit`` (B, C), ``peaks`` and ``intervals``, as
            `medcl_biosignals.dataset` reads them. Without those beats are detected in the window,
            and amplitudes are in the units of ``x``.

    Returns:
        (B, F) float32: F = 4 + 13·C for beats, 25 + 63·C for windows: see `names`.
    """
    x, fs = np.nan_to_num(np.asarray(batch["x"], dtype=np.float32)), float(batch["fs"][0])
    if "rr" not in batch:
        peaks, between = _beats(batch, x, fs)
        unit = np.asarray(batch.get("unit", np.ones(x.shape[:2])), np.float32)
        parts = [irregularity(between), median_beat(x * unit[..., None], fs, peaks)]
        parts += [_moments(x), _spectrum(x, fs), pulses(x, fs)]
        return np.concatenate(parts, axis=1).astype(np.float32)
    centre = x.shape[-1] // 2
    reach = round(_QRS * fs)
    qrs = x[..., max(centre - reach, 0) : centre + reach]
    parts = [batch["rr"], batch["likeness"], _qrs(qrs, fs)]
    return np.concatenate(parts, axis=1).astype(np.float32)


def names(channels: int) -> list[str]:
    """Names of the columns of `handcrafted` for windows; ``.0`` … says which channel."""
    each = [*_MOMENTS, *(f"power{n}" for n in range(len(_BANDS) - 1)), *timing.FEATURES]
    of_leads = [f"{name}.{c}" for name in each for c in range(channels)]
    return [*RHYTHM, *shape.names(channels), *of_leads]


def _beats(
    batch: Mapping[str, np.ndarray], x: np.ndarray, fs: float
) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the beats in windows, and the intervals around: the batch's, or detected."""
    if "peaks" in batch:
        return batch["peaks"], batch["intervals"]
    found = [r_peaks(window, fs) for window in x]
    most = max(map(len, found))
    peaks = np.stack([np.pad(at, (0, most - len(at)), constant_values=-1) for at in found])
    return peaks, np.diff(peaks, axis=1) * (peaks[:, 1:] >= 0) / fs


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


_MOMENTS = ("skewness", "kurtosis", "crossings", "size")


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
