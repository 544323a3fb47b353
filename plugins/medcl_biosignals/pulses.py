"""Heart rate, its variability and the pulse's shape in windows of ECG or PPG, all at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d, uniform_filter1d

FEATURES = (
    "rate",  # log beats a second
    "spread",  # standard deviation of intervals / mean (SDNN, relative)
    "jitter",  # root mean square of successive differences / mean (RMSSD, relative)
    "uneven",  # share of successive differences above 10 % of the mean
    "steady",  # autocorrelation at the heart's period
    "period",  # log of that period in seconds
    "rising",  # share of time in which the signal rises: a pulse's upstroke is short
    "strength",  # beats' largest slope / the window's mean slope
    "varied",  # standard deviation of beats' slopes / mean: every second beat weak, say
    "tone",  # log Hz of the strongest frequency from 0.5 Hz
    "pure",  # its share of the power
    "breath",  # share of the power from 0.1 to 0.5 Hz
)
_SLOWEST, _FASTEST = 0.5, 4.0  # beats a second: 30 to 240 a minute


def pulses(x: NDArray[np.float32], fs: float) -> NDArray[np.float32]:
    """`FEATURES` of each window and channel; zero where there is no beat, or no signal.

    Beats are the peaks of the slope's energy (as in `medcl_biosignals.detect`), at least a quarter
    of a second apart: R peaks of an ECG, upstrokes of a pulse.

    Args:
        x: (B, C, T) windows.
        fs: sampling rate in Hz.

    Returns:
        (B, 12·C) float32, the C channels of one feature side by side.
    """
    batch, channels, length = x.shape
    rows = x.reshape(-1, length)
    spread = rows.std(axis=-1, keepdims=True)
    flat = spread[:, 0] <= 1e-6 * np.abs(rows).max(axis=-1, initial=0.0)
    power = np.exp2(np.round(np.log2(np.where(spread > 0, spread, 1))))  # exact, to divide by
    rows = np.where(flat[:, None], 0, rows / power)
    slope = np.diff(rows, axis=-1, prepend=rows[:, :1])
    energy = np.sqrt(np.maximum(uniform_filter1d(slope**2, max(int(0.1 * fs), 1), axis=-1), 0))
    timing = _timing(energy, fs)
    tone = _tone(rows, fs)
    rising = (slope > 0).mean(axis=-1)
    columns = np.stack([*timing[:4], *period(rows, fs), rising, *timing[4:], *tone])
    columns[:, flat] = 0
    made = np.nan_to_num(columns).reshape(len(FEATURES), batch, channels)
    return made.transpose(1, 0, 2).reshape(batch, -1).astype(np.float32)


def _timing(energy: NDArray, fs: float) -> list[NDArray]:
    """rate, spread, jitter, uneven, strength, varied: each (N,)."""
    high = np.quantile(energy, 0.9, axis=-1, keepdims=True)
    top = maximum_filter1d(energy, 2 * max(int(0.25 * fs), 1) + 1, axis=-1, mode="nearest")
    row, at = np.nonzero((energy == top) & (energy > 0.5 * high))
    again = np.zeros(len(row), dtype=bool)  # a plateau is one peak
    again[1:] = (row[1:] == row[:-1]) & (at[1:] - at[:-1] < 0.25 * fs)
    row, at = row[~again], at[~again]
    count = len(energy)
    gap = np.diff(at) / fs
    inside = row[1:] == row[:-1]
    mean, deviation = _moments(gap[inside], row[1:][inside], count)
    twice = inside[1:] & inside[:-1]
    change = np.diff(gap)[twice]
    owner = row[2:][twice]
    typical = np.maximum(mean, 1e-6)
    jitter = np.sqrt(_mean(change**2, owner, count)) / typical
    uneven = _mean((np.abs(change) > 0.1 * mean[owner]).astype(float), owner, count)
    height, varied = _moments(energy[row, at], row, count)
    rate = np.where(mean > 0, -np.log(np.clip(mean, 1 / _FASTEST, 1 / _SLOWEST)), 0)
    strength = height / np.maximum(energy.mean(axis=-1), 1e-9)
    return [
        rate, deviation / typical, jitter, uneven, strength, varied / np.maximum(height, 1e-9)
    ]  # fmt: skip


def period(rows: NDArray, fs: float) -> tuple[NDArray, NDArray]:
    """The largest autocorrelation among lags that a heart may have, and the log of its lag."""
    length = rows.shape[-1]
    spectrum = np.fft.rfft(rows - rows.mean(axis=-1, keepdims=True), 2 * length)
    correlation = np.fft.irfft(np.abs(spectrum) ** 2)[:, :length]
    correlation = correlation / np.maximum(correlation[:, :1], 1e-12)
    first, last = int(fs / _FASTEST), min(int(fs / _SLOWEST) + 1, length)
    if last - first < 2:
        return np.zeros(len(rows)), np.zeros(len(rows))
    lags = np.arange(first, last)
    among = correlation[:, first:last] * length / (length - lags)  # fewer products at longer lags
    best = among.argmax(axis=-1)
    return among[np.arange(len(rows)), best], np.log(lags[best] / fs)


def _tone(rows: NDArray, fs: float) -> tuple[NDArray, NDArray, NDArray]:
    """tone, pure, breath: each (N,)."""
    power = np.abs(np.fft.rfft(rows * np.hanning(rows.shape[-1]), axis=-1)) ** 2
    f = np.fft.rfftfreq(rows.shape[-1], 1 / fs)
    total = power.sum(axis=-1) + 1e-12
    heart = power * (f >= _SLOWEST)
    best = heart.argmax(axis=-1)
    breath = power[:, (f >= 0.1) & (f < 0.5)].sum(axis=-1) / total
    return np.log(np.maximum(f[best], 0.1)), heart.max(axis=-1) / total, breath


def _mean(values: NDArray, row: NDArray, rows: int) -> NDArray:
    """The mean of each row's values, zero where it has none."""
    count = np.bincount(row, minlength=rows)
    return np.bincount(row, values, minlength=rows) / np.maximum(count, 1)


def _moments(values: NDArray, row: NDArray, rows: int) -> tuple[NDArray, NDArray]:
    """Mean and standard deviation of each row's values."""
    mean = _mean(values, row, rows)
    return mean, np.sqrt(np.maximum(_mean((values - mean[row]) ** 2, row, rows), 0))
