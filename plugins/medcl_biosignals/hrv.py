"""Heart rate variability of intervals between normal beats: definitions and names of NeuroKit2.

Makowski 2021 (doi 10.3758/s13428-020-01516-y), after the Task Force 1996 (doi
10.1161/01.CIR.93.5.1043). An interval is one of normal beats (NN) if neither beat is marked as
ectopic, no gap lies between them, it lasts 0.3 to 2 s, and it differs by at most 20 % from the
median of the eleven around it (as Malik 1989): what is early, late or missing is left out, not
mended. Successive differences are those of intervals that follow one another.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import signal as sp
from scipy.interpolate import interp1d
from scipy.ndimage import median_filter

Floats = NDArray[np.float64]

TIME = ("HR", "HRV_MeanNN", "HRV_SDNN", "HRV_RMSSD", "HRV_SDSD", "HRV_pNN50", "HRV_pNN20")
"""Beats a minute; ms; pNN in percent."""
FREQUENCY = ("HRV_VLF", "HRV_LF", "HRV_HF", "HRV_LFHF", "HRV_LFn")
"""ms² of 0.0033–0.04, 0.04–0.15 and 0.15–0.4 Hz; LF/HF; LF over all three."""
_BANDS = ((0.0033, 0.04), (0.04, 0.15), (0.15, 0.4))
_SHORTEST, _LONGEST, _OFF, _AROUND = 0.3, 2.0, 0.2, 11
_FEWEST = 3
_RATE = 4.0  # Hz of the evenly spaced intervals
_SPECTRUM, _SLOW = 60.0, 270.0  # seconds below which there is no spectrum, and no VLF


def normal(
    beats: NDArray[np.int64], fs: float, classes: NDArray[np.int8], gaps: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Which intervals between beats are of normal ones.

    Args:
        beats: (K,) positions, rising.
        fs: their rate in Hz.
        classes: (K,) 0 for normal, −1 for unknown, else ectopic, paced or unclassifiable.
        gaps: (G, 2) stretches without signal, half open.

    Returns:
        (K − 1,); empty for less than two beats.
    """
    rr = np.diff(beats) / fs
    if not len(rr):
        return np.zeros(0, dtype=bool)
    sinus = (classes[1:] <= 0) & (classes[:-1] <= 0)
    bare = np.searchsorted(gaps[:, 0], beats[1:]) == np.searchsorted(gaps[:, 0], beats[:-1])
    possible = sinus & bare & (rr >= _SHORTEST) & (rr <= _LONGEST)
    kept = np.zeros(len(rr), dtype=bool)
    usual = median_filter(rr[possible], _AROUND, mode="nearest") if possible.any() else rr[:0]
    kept[possible] = np.abs(rr[possible] - usual) <= _OFF * usual
    return kept


def time_domain(nn: Floats, follows: NDArray[np.bool_]) -> dict[str, float]:
    """`TIME` of NN intervals.

    Args:
        nn: (K,) ms.
        follows: (K,) whether each comes right after the one before it.

    Returns:
        NaN throughout for less than three intervals.
    """
    if len(nn) < _FEWEST:
        return dict.fromkeys(TIME, np.nan)
    change = np.diff(nn)[follows[1:]]
    many = len(change) > 1
    return {
        "HR": 60_000 / nn.mean(),
        "HRV_MeanNN": nn.mean(),
        "HRV_SDNN": nn.std(ddof=1),
        "HRV_RMSSD": np.sqrt(np.mean(change**2)) if many else np.nan,
        "HRV_SDSD": change.std(ddof=1) if many else np.nan,
        "HRV_pNN50": 100 * (np.abs(change) > 50).sum() / (len(change) + 1) if many else np.nan,
        "HRV_pNN20": 100 * (np.abs(change) > 20).sum() / (len(change) + 1) if many else np.nan,
    }


def frequency_domain(nn: Floats, at: Floats) -> dict[str, float]:
    """`FREQUENCY` of NN intervals, by Welch's method on quadratically interpolated intervals.

    Args:
        nn: (K,) ms.
        at: (K,) seconds at which each ends.

    Returns:
        NaN throughout for less than a minute; for VLF, less than four and a half.
    """
    if len(nn) < _FEWEST or at[-1] - at[0] < _SPECTRUM:
        return dict.fromkeys(FREQUENCY, np.nan)
    grid = np.arange(at[0], at[-1], 1 / _RATE)
    even = interp1d(at, nn, kind="quadratic")(grid)
    segment = min(len(even), round(300 * _RATE))
    frequency, power = sp.welch(even - even.mean(), _RATE, nperseg=segment, nfft=4 * segment)
    inside = [power[(frequency >= a) & (frequency < b)].sum() for a, b in _BANDS]
    vlf, low, high = (float(part * frequency[1]) for part in inside)
    return {
        "HRV_VLF": vlf if at[-1] - at[0] >= _SLOW else np.nan,
        "HRV_LF": low,
        "HRV_HF": high,
        "HRV_LFHF": low / high if high > 0 else np.nan,
        "HRV_LFn": low / (vlf + low + high) if vlf + low + high > 0 else np.nan,
    }
