"""Plain detectors of R peaks and of pulses, for recordings that come without annotations."""

from __future__ import annotations

import numpy as np
from scipy import signal as sp
from scipy.ndimage import median_filter, percentile_filter, uniform_filter1d

from medcl_biosignals.filters import butterworth
from medcl_biosignals.pulses import period

_PEAK, _BEAT, _AROUND = 0.111, 0.667, 30.0
"""Seconds: of a systolic peak and a beat in Elgendi 2013, and of what the level is taken over."""
_QRS, _QRS_TOP = 0.1, 20.0  # seconds of a QRS complex; Hz of its band's upper edge
_LEVEL = 50  # points of a running level: 5 s
_HIGH, _GROUND = 90, 40  # percentiles: QRS complexes, and what lies between them
_CLEAR, _NOISE = 8.0, 1.5  # level over background: no clearer than that counts; that of noise
_LEAST = 0.02  # of a weight: noise is better than nothing where all leads are noise
_FAINT = 1e-3  # of the usual level: what is fainter is no heart beat
_REFRACTORY, _T_WAVE, _T_SHARE, _P_SHARE = 0.25, 0.36, 0.5, 0.4
"""Seconds between two beats at least; and beside a beat, in which a peak of so small a share of it
is its T wave, if after it, or its P wave."""
_WEAK, _TOO_LONG = 0.25, 1.6  # of the level: not noise; of the usual interval: a beat is missing
_OFFSET = 0.02
_REPEATING = 8.0
_PULSE_BAND = (0.5, 8.0)


def r_peaks(
    x: np.ndarray,
    fs: float,
    *,
    threshold: float = 0.35,
    low: float = 5.0,
    power: float = 2.0,
) -> np.ndarray:
    """Positions of R peaks in a filtered ECG of any number of leads.

    Of each lead the energy of the QRS band's slope, smoothed over a QRS width (as Pan & Tompkins
    1985, doi 10.1109/TBME.1985.325532), is divided by its running level, and weighted by how far
    that level stands out of the lead's own background: a noisy lead is never as quiet as a good one
    is between two QRS complexes, so it counts for little where, and as long as, it is noisy. Peaks
    of the leads' weighted mean are compared with its running level. A far weaker peak soon after a
    QRS complex is a T wave, one soon before it a P wave. Where an interval is far longer than those
    around it, the strongest of the weaker peaks inside is taken.

    The defaults are those that MIT-BIH DS1 chooses (`benchmarks/biosignals/r_peaks.py`).

    Args:
        x: (C, T) band-passed signal.
        fs: its sampling rate in Hz.
        threshold: share of the running level from which on a peak is a QRS complex.
        low: lower edge of the QRS band in Hz.
        power: exponent of the leads' weights; 0: all count alike.

    Returns:
        (K,) int64, rising. Empty for a flat or too short signal.
    """
    length = x.shape[1]
    energy = np.zeros(length, dtype=np.float32)
    height = np.zeros(length, dtype=np.float32)
    total: np.ndarray | float = 0.0
    step = max(int(fs / 10), 1)  # the running level needs no more than ten points a second
    for lead in x if length >= 2 * fs else ():  # one at a time, for memory
        band = _qrs_band(lead, fs, low)
        if band.std() <= 1e-6 * np.abs(lead).max():  # what rounding leaves of a constant
            continue
        slope = _slope_energy(band, fs)
        level, ground = _running(slope, step, _HIGH), _running(slope, step, _GROUND)
        level = np.maximum(level, _FAINT * np.median(level[level > 0]))
        clear = np.minimum(level / np.maximum(ground, level / _CLEAR), _CLEAR)
        weight = uniform_filter1d(np.maximum(clear - _NOISE, _LEAST) ** power, _LEVEL)
        gain = _stretched(weight / level, step, length)
        energy += slope * gain
        height += np.abs(band) * gain
        total = total + weight
    if not np.any(total):
        return np.zeros(0, dtype=np.int64)
    energy /= _stretched(np.asarray(total), step, length)
    level = _stretched(_running(energy, step, _HIGH), step, length)
    peaks, _ = sp.find_peaks(energy, distance=max(int(_REFRACTORY * fs), 1))
    tall = np.divide(energy[peaks], level[peaks], out=np.zeros(len(peaks)), where=level[peaks] > 0)
    beats = peaks[tall > threshold]
    beats = beats[~_beside_stronger(energy[beats], np.diff(beats) < _T_WAVE * fs)]
    beats = _searched_back(beats, peaks[tall > _WEAK], energy, fs)
    reach = max(int(0.06 * fs), 1)
    near = np.clip(beats[:, None] + np.arange(-reach, reach + 1), 0, length - 1)  # (K, R)
    return np.unique(near[np.arange(len(beats)), height[near].argmax(axis=1)]).astype(np.int64)


def _qrs_band(lead: np.ndarray, fs: float, low: float) -> np.ndarray:
    """(T,) through a zero-phase Butterworth of order 2, as far as ``fs`` has the band."""
    sos = butterworth(2, min(low, 0.225 * fs), _QRS_TOP, fs)
    return sp.sosfiltfilt(sos, lead).astype(np.float32)


def _slope_energy(band: np.ndarray, fs: float) -> np.ndarray:
    """Root of the squared slope's mean over a QRS width, (T,)."""
    slope = np.diff(band, prepend=band[:1])
    squared = uniform_filter1d(slope * slope, max(round(_QRS * fs), 1))
    return np.sqrt(np.maximum(squared, 0))


def _running(energy: np.ndarray, step: int, percentile: float) -> np.ndarray:
    """A percentile over `_LEVEL` points of the largest of each ``step`` samples."""
    coarse = energy[: len(energy) // step * step].reshape(-1, step).max(axis=1)
    return percentile_filter(coarse, percentile, size=min(_LEVEL, len(coarse)))


def _stretched(coarse: np.ndarray, step: int, length: int) -> np.ndarray:
    """Points that stand for ``step`` samples each → (length,) float32, by lines."""
    grid = (np.arange(len(coarse)) + 0.5) * step
    return np.interp(np.arange(length), grid, coarse).astype(np.float32)


def _beside_stronger(strength: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Which peaks (K,) are T or P waves: far weaker than one ``near`` (K − 1,) to them."""
    weak = np.zeros(len(strength), dtype=bool)
    weak[1:] |= near & (strength[1:] < _T_SHARE * strength[:-1])
    weak[:-1] |= near & (strength[:-1] < _P_SHARE * strength[1:])
    return weak


def _searched_back(
    beats: np.ndarray, weak: np.ndarray, energy: np.ndarray, fs: float
) -> np.ndarray:
    """Beats (K,) and the strongest of ``weak`` peaks in each interval that is far too long."""
    if len(beats) < 3:
        return beats
    interval = np.diff(beats)
    missing = np.flatnonzero(interval > _TOO_LONG * median_filter(interval, 9, mode="nearest"))
    first = np.searchsorted(weak, beats[missing] + _T_WAVE * fs)
    last = np.searchsorted(weak, beats[missing + 1] - _T_WAVE * fs)
    found = [a + int(energy[weak[a:b]].argmax()) for a, b in zip(first, last, strict=True) if a < b]
    return np.sort(np.concatenate([beats, weak[found]]))


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
    return sp.sosfiltfilt(butterworth(2, *_PULSE_BAND, fs), x).astype(np.float32)


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
