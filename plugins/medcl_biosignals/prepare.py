"""A recording → filtered, resampled arrays, its beats, and how good each lead is over time."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np
from scipy import signal as sp

from medcl.errors import MedclError
from medcl_biosignals.aami import beats as read_beats
from medcl_biosignals.detect import r_peaks
from medcl_biosignals.leads import canonical, choose
from medcl_biosignals.likeness import likeness
from medcl_biosignals.quality import block_quality


def prepare(
    root: Path,
    files: Sequence[str],
    fields: Mapping[str, object],
    *,
    fs: float = 125.0,
    band: tuple[float, float] | None = (0.5, 40.0),
    leads: tuple[str, ...] | None = None,
    channels: int = 2,
    dtype: Literal["float32", "float16"] = "float16",
) -> dict[str, np.ndarray]:
    """Decode a WFDB record once, for training.

    Args:
        root: the archive.
        files: the record's files, its header first.
        fields: the row of the index; not needed here.
        fs: sampling rate of the result in Hz.
        band: pass-band in Hz of a zero-phase Butterworth filter of order 3 (the upper edge is
            dropped where the recording is too slow to have it); None leaves the signal as it is.
        leads: what each channel of the result holds: alternatives by preference such as
            ``"MLII|II"``, or ``"*"`` for any other. A slot that nothing fits is zero and marked
            absent. None: the first ``channels`` signals as they come.
        channels: channels of the result where ``leads`` is None.
        dtype: of the stored signal. float16 keeps 11 bits, as many as most recorders give.

    Returns:
        ``x`` (C, T) in the recording's units, gaps filled with zero; ``present`` (C,) bool;
        ``scale`` (C,) robust standard deviation; ``gaps`` (G, 2) int64 stretches without signal,
        half open; ``beats`` (K,) int64 positions of R peaks; ``aami`` (K,) int8 classes, −1 where
        detected rather than annotated; ``likeness`` (K, 6·C) float32, see
        `medcl_biosignals.likeness`; ``quality`` (C, blocks) float32 in 0–1, see
        `medcl_biosignals.quality`; ``fs`` (1,). Positions are in samples at the new rate.

    Raises:
        MedclError: if the signal cannot be decoded, or holds no sample.
    """
    header = root / files[0]
    raw, names, rate = read_signal(header)
    slots = leads if leads is not None else ("*",) * channels
    picked = choose([canonical(name) for name in names], slots)
    present = np.array([i is not None for i in picked])
    if not present.any():
        raise MedclError(f"{files[0]}: none of the leads {', '.join(slots)} is in this recording.")
    chosen = raw[[i for i in picked if i is not None]]  # (P, N)
    missing = ~np.isfinite(chosen)
    if missing.all():
        raise MedclError(f"{files[0]}: the recording holds no valid sample.")
    filled = fill(chosen, missing)
    clean = resample(bandpass(filled, rate, band), rate, fs)
    if missing.any():
        clean[_stretched(missing, clean.shape[1])] = 0.0
    quality = block_quality(chosen, rate, clean, fs)

    x = np.zeros((len(slots), clean.shape[1]), dtype=np.float32)
    x[present] = clean
    blocks = np.zeros((len(slots), quality.shape[1]), dtype=np.float32)
    blocks[present] = quality
    annotation = next((f for f in files if f.endswith(".atr")), None)
    if annotation is not None:
        samples, classes, _ = read_beats(root / annotation)
        positions = np.rint(samples * (fs / rate)).astype(np.int64)
        inside = (positions >= 0) & (positions < x.shape[1])
        positions, classes = positions[inside], classes[inside]
    else:
        positions = r_peaks(clean, fs)
        classes = np.full(len(positions), -1, dtype=np.int8)
    return {
        "x": _narrow(x, dtype),
        "present": present,
        "scale": (np.median(np.abs(x), axis=1) * 1.4826).astype(np.float32),
        "gaps": _runs(_stretched(missing.all(axis=0, keepdims=True), x.shape[1])[0]),
        "beats": positions,
        "aami": classes,
        "likeness": likeness(x, positions, fs),
        "quality": blocks,
        "fs": np.array([fs]),
    }


def read_signal(header: Path) -> tuple[np.ndarray, list[str], float]:
    """All signals of a WFDB record in physical units, invalid samples as NaN.

    Returns:
        signals (channels, frames) float32, their names, and the frame rate in Hz. Signals with
        several samples a frame are averaged over the frame, as `wfdb.rdrecord` does.

    Raises:
        MedclError: if wfdb cannot decode the record.
    """
    import wfdb

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            record = wfdb.rdrecord(str(header.with_suffix("")), return_res=32)
    except Exception as error:  # wfdb raises many kinds, often without a message
        raise MedclError(
            f"{header.name}: the signal cannot be decoded ({type(error).__name__})."
        ) from error
    return np.ascontiguousarray(record.p_signal.T), list(record.sig_name), float(record.fs)


def fill(x: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Bridge missing samples of (C, N) by straight lines, so that a filter does not ring there."""
    if not missing.any():
        return x
    x = x.copy()
    grid = np.arange(x.shape[1])
    for row, gone in zip(x, missing, strict=True):
        row[gone] = 0.0 if gone.all() else np.interp(grid[gone], grid[~gone], row[~gone])
    return x


def bandpass(x: np.ndarray, fs: float, band: tuple[float, float] | None) -> np.ndarray:
    """Zero-phase Butterworth band-pass of order 3 along the last axis of (C, N)."""
    if band is None:
        return x
    low, high = band
    if not 0 <= low < high:
        raise MedclError(f"prepare.band = {band} is not a pass-band: give (low, high) in Hz.")
    if low >= fs / 2:
        raise MedclError(f"prepare.band starts at {low} Hz but this recording has {fs} Hz only.")
    if low == 0:
        sos = sp.butter(3, high, "lowpass", fs=fs, output="sos")
    elif high >= 0.45 * fs:
        sos = sp.butter(3, low, "highpass", fs=fs, output="sos")
    else:
        sos = sp.butter(3, (low, high), "bandpass", fs=fs, output="sos")
    pad = min(int(3 * fs / max(low, 0.5)), x.shape[1] - 1)
    return sp.sosfiltfilt(sos, x, axis=-1, padlen=pad).astype(np.float32)


def resample(x: np.ndarray, fs: float, to: float) -> np.ndarray:
    """Polyphase resampling of (C, N) from ``fs`` to ``to`` Hz; the first sample stays the first."""
    if fs == to:
        return x.copy()
    ratio = Fraction(to / fs).limit_denominator(1000)
    return sp.resample_poly(x, ratio.numerator, ratio.denominator, axis=-1).astype(np.float32)


def _stretched(mask: np.ndarray, length: int) -> np.ndarray:
    """A mask (C, N) at another rate: a new sample is masked if any old one that it covers is."""
    if not mask.any():
        return np.zeros((len(mask), length), dtype=bool)
    count = np.concatenate([np.zeros((len(mask), 1), dtype=np.int64), mask.cumsum(axis=1)], axis=1)
    edges = np.linspace(0, mask.shape[1], length + 1)
    first, last = np.floor(edges[:-1]).astype(int), np.ceil(edges[1:]).astype(int)
    return count[:, last] > count[:, first]


def _runs(mask: np.ndarray) -> np.ndarray:
    """The stretches of True in (N,), as (G, 2) half-open bounds."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return edges.reshape(-1, 2).astype(np.int64)


def _narrow(x: np.ndarray, dtype: str) -> np.ndarray:
    """To the stored type; values that float16 cannot hold are clipped, not made infinite."""
    if dtype == "float16":
        limit = float(np.finfo(np.float16).max)
        x = np.clip(x, -limit, limit)
    return x.astype(dtype)
