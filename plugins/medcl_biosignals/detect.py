"""Plain detectors of R peaks and of pulses, for recordings that come without annotations."""

from __future__ import annotations

import numpy as np
from scipy import signal as sp
from scipy.ndimage import percentile_filter, uniform_filter1d

from medcl_biosignals.pulses import period

_PEAK, _BEAT, _AROUND = 0.111, 0.667, 30.0
"""Seconds: of a systolic peak and a beat in Elgendi 2013, and of what the level is taken over."""
_OFFSET = 0.02
_REPEATING = 8.0
_PULSE_BAND = (0.5, 8.0)


def r_peaks(x: np.ndarray, fs: float) -> np.ndarray:
    """Positions of R peaks in a filtered recording of the heart.

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


def pulse_peaks(x: np.ndarray, fs: float) -> np.ndarray:
    """Positions of systolic peaks in a filtered recording of the pulse: PPG or arterial pressure.

    Two moving averages (Elgendi 2013, doi 10.1371/journal.pone.0076585): where the squared signal's
    mean over a peak's width (111 ms) lies above that over a beat (667 ms), offset by 2 % of its
    general level, and does so for a peak's width or more, its largest value is the systolic peak.

    Three things are added. Of several channels the one that repeats itself best is taken, by its
    autocorrelation in windows of 8 s. If it rises for longer than it falls it is turned over: a
    camera sees less light as the pulse arrives, which is fast. The level is taken over 30 s, not
    over the whole recording, so that an artefact does not hide the beats of the rest.

    Args:
        x: (C, T) signal.
        fs: its sampling rate in Hz.

    Returns:
        (K,) int64, rising. Empty for a flat or too short signal.
    """
    if x.shape[1] < 2 * fs:
        return np.zeros(0, dtype=np.int64)
    pulse, best = np.zeros(x.shape[1], dtype=np.float32), -np.inf
    for channel in x:  # one at a time, for memory
        y = _pulse_band(channel, fs)
        repeats = _repeats(y, fs)
        if y.std() > 1e-6 * np.abs(channel).max() and repeats > best:
            pulse, best = y, repeats
    slope = np.diff(pulse)
    if (slope > 0).sum() > (slope < 0).sum():  # rises are shorter than falls, or it is turned over
        pulse = -pulse
    squared = np.maximum(pulse, 0) ** 2
    peak, beat, around = (_mean_over(squared, s * fs) for s in (_PEAK, _BEAT, _AROUND))
    block = np.flatnonzero(np.diff(np.pad(peak > beat + _OFFSET * around, 1).astype(np.int8)))
    first, last = block[::2], block[1::2]
    wide = last - first >= round(_PEAK * fs)
    found = [a + int(pulse[a:b].argmax()) for a, b in zip(first[wide], last[wide], strict=True)]
    return np.array(found, dtype=np.int64)


def _pulse_band(x: np.ndarray, fs: float) -> np.ndarray:
    """Zero-phase Butterworth of order 2; the upper edge is dropped where ``fs`` is too low."""
    low, high = _PULSE_BAND
    if high < 0.45 * fs:
        sos = sp.butter(2, (low, high), "bandpass", fs=fs, output="sos")
    else:
        sos = sp.butter(2, low, "highpass", fs=fs, output="sos")
    return sp.sosfiltfilt(sos, x).astype(np.float32)


def _repeats(x: np.ndarray, fs: float) -> float:
    """How well a channel repeats itself within two seconds, at most 1: a mean over windows."""
    length = min(round(_REPEATING * fs), len(x))
    windows = min(200, len(x) // length)
    first = np.linspace(0, len(x) - length, windows).astype(np.int64)
    rows = x[first[:, None] + np.arange(length)]
    return float(np.mean(period(rows, fs)[0]))


def _mean_over(x: np.ndarray, width: float) -> np.ndarray:
    """The moving average over an odd number of samples."""
    return uniform_filter1d(x, 2 * int(width / 2) + 1, mode="nearest")
