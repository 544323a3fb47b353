"""Whether a stretch of signal looks like a heart's: a logistic model over a few indices of shape.

All indices are those of six seconds at a rate and in a band of their own, whatever those of the
signal are, and none depends on its amplitude, its sign or how regular its rhythm is. The model's
coefficients, and how they were found, are in `heartlike.yaml`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import uniform_filter1d

Floats = NDArray[np.float32]

SECONDS = 6.0
SHORTEST = 4.0
"""Seconds below which there are too few beats to compare."""
INDICES = ("alike", "peaked", "upstroke")
_PEAKS, _TEMPLATES, _OTHERS = 6, 4, 2
_APART = 0.3  # seconds between two peaks
_ENVELOPE = 0.1  # seconds: a QRS complex
_SHARPEST = 3.5  # of an index: more is an artefact's
_HUM, _BEATS = 0.2, 0.5  # log of high over usual energy: of a hum at most, of heart beats at least
_NOTHING, _ENOUGH = -5.8, -4.6  # log of the share of the power that beats have: 0.3 %, 1 %
_ARTEFACT, _EVEN = -3.0, -2.0  # log of the third strongest beat's height over the strongest's
_CHUNK = 2048  # windows at a time, for memory


@dataclass(frozen=True)
class _Shape:
    """Where the indices look at a kind of signal: Hz, and seconds about a beat."""

    rate: float
    band: tuple[float, float]
    slope: tuple[float, float]
    half: float
    slack: float
    envelope: bool


_SHAPES = {
    "ECG": _Shape(100.0, (1.0, 40.0), (5.0, 20.0), 0.15, 0.04, envelope=True),
    "PPG": _Shape(32.0, (0.5, 8.0), (0.5, 8.0), 0.35, 0.1, envelope=False),
}
MODELS: Mapping[str, tuple[str, ...]] = {
    "ECG": ("ECG",),
    "PPG": ("PPG",),
    "pressure": ("PPG",),
    "other": ("ECG", "PPG"),
}
"""Kind of signal → the models that may hold for it; a signal is as good as the best says."""


def heartlike(x: np.ndarray, fs: float, kind: str) -> Floats | None:
    """The probability that each stretch of `SECONDS` is one that an expert would use.

    Args:
        x: (T,) filtered signal.
        fs: its sampling rate in Hz.
        kind: of signal.

    Returns:
        (ceil(T / (fs · `SECONDS`)),): the last stretch is the recording's last six seconds. None
        for a kind that does not beat, and for a signal of less than `SHORTEST` seconds.
    """
    if kind not in MODELS or len(x) < SHORTEST * fs:
        return None
    size = min(round(SECONDS * fs), len(x))
    first = np.arange(0, len(x), size)
    first = np.minimum(first, len(x) - size)
    windows = np.lib.stride_tricks.sliding_window_view(x, size)
    found = np.zeros(len(first), dtype=np.float32)
    for begin in range(0, len(first), _CHUNK):
        part = slice(begin, begin + _CHUNK)
        each = [probability(windows[first[part]], fs, model) for model in MODELS[kind]]
        found[part] = np.max(each, axis=0)
    return found


def probability(windows: np.ndarray, fs: float, model: str) -> Floats:
    """That of windows (N, n) by one model, "ECG" or "PPG": (N,); see `heartlike`."""
    made, fit = indices(windows, fs, model)
    intercept, weights = _coefficients(model)
    score = intercept + sum(weight * made[name] for name, weight in weights.items())
    return np.asarray(fit / (1 + np.exp(-score)), dtype=np.float32)


def indices(windows: np.ndarray, fs: float, model: str) -> tuple[dict[str, Floats], Floats]:
    """The indices of windows of one length, and which windows they can be trusted on.

    "alike": the correlation of the strongest beats with the two that are most like them, whenever
    these come (a median over four; Orphanidou 2015, doi 10.1109/JBHI.2014.2338351, compares all
    with a template). "peaked": log of the kurtosis (Clifford 2012, doi
    10.1088/0967-3334/33/9/1419). "upstroke": the skewness of the slope without its sign; a pulse
    rises faster than it falls.

    Args:
        windows: (N, n) filtered signal.
        fs: its rate in Hz.
        model: "ECG" or "PPG".

    Returns:
        name → (N,); and (N,) from 0, a steady hum or one artefact far above all beats, to 1.
    """
    shape = _SHAPES[model]
    length = windows.shape[1]
    points = round(length / fs * shape.rate)
    spectrum = fft.rfft(_levelled(windows) * _taper(length, round((shape.half + shape.slack) * fs)))
    every = np.arange(spectrum.shape[1], dtype=np.float32) * np.float32(fs / length)
    share = _log_ratio(
        _power(spectrum, _within(every, shape.slope)), _power(spectrum, every >= shape.band[0])
    )
    bins = points // 2 + 1
    if spectrum.shape[1] < bins:  # slower than the model's rate: nothing is up there
        spectrum = np.pad(spectrum, ((0, 0), (0, bins - spectrum.shape[1])))
    frequency = np.arange(bins, dtype=np.float32) * np.float32(fs / length)
    spectrum = spectrum[:, :bins] * _within(frequency, shape.band)
    z = fft.irfft(spectrum, points)
    slope = fft.irfft(spectrum * (1j * frequency * _within(frequency, shape.slope)), points)
    skew = _moment(slope, 3)
    if shape.envelope:
        wide = round(_ENVELOPE * shape.rate)
        squared = uniform_filter1d(slope * slope, wide, axis=-1, mode="wrap")
        beat = np.sqrt(np.maximum(squared, 0))
    else:
        beat = np.where(skew[:, None] < 0, -slope, slope)
    half, slack = round(shape.half * shape.rate), round(shape.slack * shape.rate)
    peaks = _strongest(beat, round(_APART * shape.rate), half + slack + 1)
    height = np.maximum(np.take_along_axis(beat, peaks, axis=1), 0)
    made = {
        "alike": _alike(z, peaks, half, slack),
        "peaked": np.minimum(np.log(np.maximum(_moment(z, 4), 1)), _SHARPEST),
        "upstroke": np.minimum(np.abs(skew), _SHARPEST),
    }
    even = _log_ratio(height[:, 2], height[:, 0])
    fit = _between(even, _ARTEFACT, _EVEN) * _between(share, _NOTHING, _ENOUGH)
    if shape.envelope:
        low, high = int(0.4 * points), int(0.95 * points)
        ordered = np.partition(beat, (low, high), axis=1)
        fit = fit * _between(_log_ratio(ordered[:, high], ordered[:, low]), _HUM, _BEATS)
    return made, fit


def _between(x: Floats, low: float, high: float) -> Floats:
    """0 up to ``low``, 1 from ``high``, and a line between."""
    return np.clip((x - low) / (high - low), 0, 1)


def _power(spectrum: np.ndarray, which: np.ndarray) -> Floats:
    """Of those frequencies, (N,)."""
    part = spectrum[:, which.astype(bool)]
    return np.einsum("nf,nf->n", part.real, part.real) + np.einsum("nf,nf->n", part.imag, part.imag)


def _log_ratio(x: Floats, y: Floats) -> Floats:
    tiny = np.float32(1e-30)
    return np.log(np.maximum(x, tiny) / np.maximum(y, tiny))


def _levelled(windows: np.ndarray) -> Floats:
    """(N, n) of standard deviation one, without the line through its two ends."""
    x = np.asarray(windows, dtype=np.float32)
    end = max(x.shape[1] // 8, 1)
    first, last = x[:, :end].mean(axis=1), x[:, -end:].mean(axis=1)
    rise = (last - first) * np.float32(x.shape[1] / (x.shape[1] - end))
    line = np.linspace(-0.5, 0.5, x.shape[1], dtype=np.float32)
    x = x - ((first + last) / 2)[:, None] - rise[:, None] * line
    return np.asarray(_over(x, x.std(axis=1)[:, None]), dtype=np.float32)


def _taper(length: int, ramp: int) -> Floats:
    """(length,) rising from 0 to 1 and falling again: where a filter began is no beat."""
    rise = np.sin(0.5 * np.pi * (np.arange(ramp, dtype=np.float32) + 0.5) / ramp) ** 2
    return np.concatenate([rise, np.ones(length - 2 * ramp, dtype=np.float32), rise[::-1]])


def _within(frequency: Floats, band: tuple[float, float]) -> Floats:
    return ((frequency >= band[0]) & (frequency <= band[1])).astype(np.float32)


def _over(x: np.ndarray, by: np.ndarray) -> np.ndarray:
    return np.divide(x, by, out=np.zeros_like(x), where=by > 0)


def _moment(x: Floats, order: int) -> Floats:
    """A standardised moment of rows of mean zero, (N,); 0 for a constant."""
    second = np.einsum("nt,nt->n", x, x) / x.shape[1]
    squares = x * x
    high = np.einsum("nt,nt->n", squares, squares if order == 4 else x) / x.shape[1]
    return np.asarray(_over(high, second ** (order / 2)), dtype=np.float32)


def _strongest(beat: Floats, apart: int, edge: int) -> NDArray[np.int64]:
    """Positions (N, `_PEAKS`) of the largest values, each ``apart`` from those before it."""
    left = beat.copy()
    left[:, :edge] = left[:, -edge:] = -np.inf
    row = np.arange(len(left))[:, None]
    near = np.arange(-apart, apart + 1)
    at = np.empty((len(left), _PEAKS), dtype=np.int64)
    for number in range(_PEAKS):
        at[:, number] = left.argmax(axis=1)
        left[row, np.clip(at[:, number, None] + near, 0, left.shape[1] - 1)] = -np.inf
    return at


def _alike(z: Floats, peaks: NDArray[np.int64], half: int, slack: int) -> Floats:
    """How like the strongest beats are those most like them: (N,) in −1…1.

    Args:
        z: (N, n).
        peaks: (N, K) positions.
        half: samples of a beat to either side of its peak.
        slack: by as many samples peaks may be off.
    """
    reach = half + slack
    at = np.clip(peaks, reach, z.shape[1] - 1 - reach)
    row = np.arange(len(z))[:, None, None]
    beats = z[row, at[:, :, None] + np.arange(-reach, reach + 1)]  # (N, K, L)
    width = 2 * half + 1
    template = beats[:, :_TEMPLATES, slack : slack + width]
    template = template - template.mean(axis=-1, keepdims=True)
    template = _over(template, np.sqrt(np.square(template).sum(axis=-1, keepdims=True)))
    moved = np.lib.stride_tricks.sliding_window_view(beats, width, axis=-1)  # (N, K, S, width)
    count, known, shifts = moved.shape[:3]
    flat = moved.reshape(count, known * shifts, width)
    power = np.einsum("nsw,nsw->ns", flat, flat) - width * np.square(flat.mean(axis=-1))
    match = np.matmul(template, flat.transpose(0, 2, 1))
    match = _over(match, np.sqrt(np.maximum(power, 0))[:, None].repeat(_TEMPLATES, axis=1))
    best = match.reshape(count, _TEMPLATES, known, shifts).max(axis=-1)
    itself = np.arange(_TEMPLATES)
    best[:, itself, itself] = -1
    others = np.partition(best, known - _OTHERS, axis=-1)[:, :, -_OTHERS:].mean(axis=-1)
    return np.asarray(np.median(others, axis=1), dtype=np.float32)


@lru_cache(maxsize=4)
def _coefficients(model: str) -> tuple[float, Mapping[str, float]]:
    """Intercept and weights by index, of `heartlike.yaml`."""
    import yaml

    text = (Path(__file__).parent / "heartlike.yaml").read_text(encoding="utf-8")
    found = yaml.safe_load(text)[model]
    return float(found["intercept"]), {name: float(w) for name, w in found["weights"].items()}
