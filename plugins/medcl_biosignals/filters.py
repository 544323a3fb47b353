"""Filters and polyphase resampling of whole recordings, zero-phase or causal, never over a gap."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import signal as sp

from medcl.errors import MedclError
from medcl_biosignals.gaps import runs
from medcl_biosignals.vocabulary import Band

Floats = NDArray[np.float64]

NOTCH_Q = 30.0  # centre frequency over width: 1.7 Hz at 50 Hz


def clean(
    x: np.ndarray, why: np.ndarray, fs: float, to: float, band: Band, notch: float | None
) -> np.ndarray:
    """Filter and resample a channel, each stretch between gaps by itself.

    Args:
        x: (N,) with finite values.
        why: (N,) not zero where it is lost.
        fs: its rate in Hz.
        to: rate of the result.
        band: pass-band in Hz.
        notch: frequency of the mains.

    Returns:
        (T,) float32 with T = ceil(N · to / fs); zero where it is lost.
    """
    if not why.any():
        return resample(bandpass(notched(x, fs, notch), fs, band), fs, to)
    up, down = _ratio(fs, to)
    out = np.zeros(new_length(len(x), fs, to), dtype=np.float32)
    for first, last in runs(why == 0):
        part = bandpass(notched(x[first:last], fs, notch), fs, band)
        # Resampling starts where an old and a new sample fall together; the stretch is mirrored
        # up to there, so that nothing from beyond the gap comes in.
        ahead = int(first % down)
        padded = _mirrored(part, ahead)
        fine = resample(padded, fs, to)
        zero = (int(first) - ahead) // down * up  # the place of fine[0]
        begin, end = -(-int(first) * up // down), -(-int(last) * up // down)
        end = min(end, zero + len(fine), len(out))
        out[begin:end] = fine[begin - zero : end - zero]
    return out


def clean_causally(
    x: np.ndarray, fs: float, to: float, band: Band, notch: float | None
) -> np.ndarray:
    """As `clean`, forwards alone, as a stream is filtered (`medcl_biosignals.streaming`).

    Args:
        x: (N,), NaN where missing. The filter begins at rest on the first value; through a gap it
            sees the last value before it.
        fs: its rate in Hz.
        to: rate of the result.
        band: pass-band in Hz.
        notch: frequency of the mains.
    """
    finite = np.isfinite(x)
    first = int(finite.argmax())
    at = np.maximum.accumulate(np.where(finite, np.arange(len(x)), first))
    y = x[at].astype(np.float64) - float(x[first])
    sos = sections(fs, band, notch)
    return resample(sp.sosfilt(sos, y) if len(sos) else y, fs, to)


def _mirrored(x: np.ndarray, ahead: int) -> np.ndarray:
    """(N,) with ``ahead`` samples before it, mirrored about the first value."""
    if ahead == 0:
        return x
    reach = min(ahead, len(x) - 1)
    mirror = 2 * x[0] - x[reach:0:-1]
    return np.concatenate([np.full(ahead - reach, mirror[0] if reach else x[0]), mirror, x])


def bandpass(x: np.ndarray, fs: float, band: Band) -> np.ndarray:
    """Zero-phase Butterworth band-pass of order 3 along the last axis of (..., N)."""
    if band is None:
        return x
    low, high = band
    if not 0 <= low < high:
        raise MedclError(f"prepare.band = {band} is not a pass-band: give (low, high) in Hz.")
    if low >= fs / 2:
        raise MedclError(f"prepare.band starts at {low} Hz but this recording has {fs} Hz only.")
    if low == 0 and high >= 0.45 * fs:
        return x
    sos = butterworth(3, low, high, fs)
    pad = min(int(3 * fs / max(low, 0.5)), x.shape[-1] - 1)
    return np.asarray(sp.sosfiltfilt(sos, x, axis=-1, padlen=pad), dtype=np.float32)


@lru_cache(maxsize=64)
def butterworth(order: int, low: float, high: float, fs: float) -> Floats:
    """Second-order sections (S, 6) of a pass-band in Hz; an edge is dropped where the signal is too
    slow to have it, or where it is 0. Designed once for all recordings of a rate."""
    if high >= 0.45 * fs:
        return (
            sp.butter(order, low, "highpass", fs=fs, output="sos") if low > 0 else np.zeros((0, 6))
        )
    if low == 0:
        return sp.butter(order, high, "lowpass", fs=fs, output="sos")
    return sp.butter(order, (low, high), "bandpass", fs=fs, output="sos")


def notched(x: np.ndarray, fs: float, mains: float | None) -> np.ndarray:
    """Take the mains and its harmonics out of (..., N), without phase shift."""
    if mains is None:
        return x
    if mains <= 0:
        raise MedclError(f"prepare.notch = {mains:g} is no frequency: give 50 or 60 (Hz).")
    for frequency in np.arange(mains, 0.45 * fs, mains):
        b, a = sp.iirnotch(frequency, NOTCH_Q, fs=fs)
        pad = min(int(NOTCH_Q * fs / mains), x.shape[-1] - 1)
        x = np.asarray(sp.filtfilt(b, a, x, axis=-1, padlen=pad), dtype=np.float32)
    return x


def resample(x: np.ndarray, fs: float, to: float) -> np.ndarray:
    """Polyphase resampling of (..., N) to ``to`` Hz; the first sample stays the first."""
    if fs == to:
        return x.copy()
    up, down = _ratio(fs, to)
    return np.asarray(sp.resample_poly(x, up, down, axis=-1), dtype=np.float32)


def new_length(length: int, fs: float, to: float) -> int:
    """Samples after resampling."""
    up, down = _ratio(fs, to)
    return -(-length * up // down)


def _ratio(fs: float, to: float) -> tuple[int, int]:
    ratio = Fraction(to / fs).limit_denominator(1000)
    return ratio.numerator, ratio.denominator


def sections(fs: float, band: Band, mains: float | None) -> Floats:
    """Those of a notch and its harmonics, and of a band-pass: (S, 6)."""
    notches = [] if mains is None else notch(fs, mains)
    passed = [] if band is None else [band_pass(fs, band)]
    return np.concatenate([np.zeros((0, 6)), *notches, *passed])


def notch(fs: float, mains: float) -> list[Floats]:
    """What takes the mains and its harmonics out, as `notched` does."""
    if mains <= 0:
        raise MedclError(f"prepare.notch = {mains:g} is no frequency: give 50 or 60 (Hz).")
    found = (sp.iirnotch(f, NOTCH_Q, fs=fs) for f in np.arange(mains, 0.45 * fs, mains))
    return [np.concatenate([b, a])[None] for b, a in found]


def band_pass(fs: float, band: tuple[float, float]) -> Floats:
    """Second-order sections; an edge is dropped where the signal is too slow to have it."""
    low, high = band
    if not 0 <= low < high or low >= fs / 2:
        raise MedclError(f"prepare.band = {band} is no pass-band of a signal at {fs:g} Hz.")
    return butterworth(3, low, high, fs)
