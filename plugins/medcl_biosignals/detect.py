"""A plain R-peak detector, for recordings that come without annotations."""

from __future__ import annotations

import numpy as np
from scipy import signal as sp
from scipy.ndimage import percentile_filter, uniform_filter1d


def r_peaks(x: np.ndarray, fs: float) -> np.ndarray:
    """Positions of R peaks (or pulse upstrokes) in a filtered recording.

    The energy of the slope, summed over leads and smoothed over a QRS width (as Pan & Tompkins
    1985, doi 10.1109/TBME.1985.325532), is compared with a running level of itself; the peak is
    then moved to the largest deflection nearby.

    Args:
        x: (C, T) band-passed signal.
        fs: its sampling rate in Hz.

    Returns:
        (K,) int64, rising. Empty for a flat or too short signal.
    """
    if x.shape[1] < 2 * fs:
        return np.zeros(0, dtype=np.int64)
    energy = np.zeros(x.shape[1], dtype=np.float32)
    height = np.zeros(x.shape[1], dtype=np.float32)
    for lead in x:  # one at a time: a day of four leads would take half a gigabyte more at once
        scale = lead.std()
        if scale > 0:
            z = lead / scale
            energy += np.diff(z, prepend=z[:1]) ** 2
            np.maximum(height, np.abs(z), out=height)
    energy = np.sqrt(np.maximum(uniform_filter1d(energy, max(int(0.1 * fs), 1)), 0))
    step = max(int(fs / 10), 1)  # the running level needs no more than ten points a second
    coarse = energy[: len(energy) // step * step].reshape(-1, step).max(axis=1)
    level = percentile_filter(coarse, 90, size=min(50, len(coarse)))
    grid = (np.arange(len(coarse)) + 0.5) * step
    threshold = 0.5 * np.interp(np.arange(len(energy)), grid, level)
    peaks, _ = sp.find_peaks(energy, distance=max(int(0.25 * fs), 1))
    peaks = peaks[(energy[peaks] > threshold[peaks]) & (energy[peaks] > 0)]
    reach = max(int(0.06 * fs), 1)
    near = np.clip(peaks[:, None] + np.arange(-reach, reach + 1), 0, x.shape[1] - 1)  # (K, R)
    return np.unique(near[np.arange(len(peaks)), height[near].argmax(axis=1)]).astype(np.int64)
