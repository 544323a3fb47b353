"""Quality indices of prepared recordings, block by block, computed when they are asked for."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from medcl_biosignals.quality import BLOCK_SECONDS, PARTS, blocked, kurtosis, skewness

INDICES = ("quality", *PARTS, "kurtosis", "skewness", "spectral", "template")
"""`quality` and its parts are stored; the others are computed here."""
_AROUND = (-0.25, 0.45)  # seconds about a beat: QRS and T wave, or a pulse
_NEIGHBOURS = 10  # beats to either side that make the template
# Share of the power in the first band in that of the second, in Hz. ECG: Li 2008, doi
# 10.1088/0967-3334/29/1/002; PPG: Elgendi 2016, doi 10.3390/bioengineering3040021.
_BANDS = {"ECG": ((5.0, 15.0), (5.0, 40.0)), "PPG": ((1.0, 2.25), (0.5, 8.0))}


def index(record: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """One of `INDICES` of a prepared recording.

    Args:
        record: the arrays that `medcl_biosignals.prepare` gives.
        name: "quality", "there", "moving" and "inside": see `medcl_biosignals.quality`.
            "kurtosis" and "skewness" of the filtered signal: high for ECG and for PPG. "spectral":
            share of the power where heart beats have it (other kinds: how far the spectrum is from
            flat). "template": mean correlation of the beats with those around them (after
            Orphanidou 2015, doi 10.1109/JBHI.2014.2338351), 0 where there is no beat; ectopic
            beats lower it, as they should: they are not like their neighbours.

    Returns:
        (C, blocks), a block is `BLOCK_SECONDS` long; 0 for an absent lead.
    """
    if name == "quality":
        return np.asarray(record["quality"])
    if name in PARTS:
        return np.asarray(record["parts"])[..., PARTS.index(name)]
    fs, blocks = float(record["fs"][0]), record["quality"].shape[1]
    out = np.zeros((len(record["x"]), blocks), dtype=np.float32)
    for c in np.flatnonzero(record["present"]):
        x = np.asarray(record["x"][c], dtype=np.float32)
        if name == "template":
            out[c] = template(x, np.asarray(record["beats"]), fs, blocks)
            continue
        cut = blocked(x[None], round(BLOCK_SECONDS * fs), blocks)[0]  # (blocks, n)
        if name == "kurtosis":
            out[c] = kurtosis(cut)
        elif name == "skewness":
            out[c] = skewness(cut)
        else:
            out[c] = spectral(cut, fs, bytes(record["kinds"][c]).decode())
    return out


def template(x: np.ndarray, beats: np.ndarray, fs: float, blocks: int) -> np.ndarray:
    """Mean correlation of each block's beats with the mean of the beats around each.

    Args:
        x: (T,) filtered signal.
        beats: (K,) positions, rising.
        fs: sampling rate in Hz.
        blocks: how many.

    Returns:
        (blocks,) in −1…1.
    """
    lags = np.arange(round(_AROUND[0] * fs), round(_AROUND[1] * fs))
    whole = (beats + lags[0] >= 0) & (beats + lags[-1] < len(x))
    beats = beats[whole]
    if len(beats) < 3:
        return np.zeros(blocks)
    shape = x[beats[:, None] + lags]  # (K, L)
    shape = shape - shape.mean(axis=1, keepdims=True)
    power = np.sqrt((shape**2).sum(axis=1, keepdims=True))
    shape = np.divide(shape, power, out=np.zeros_like(shape), where=power > 0)
    total = np.concatenate([np.zeros((1, len(lags))), shape.cumsum(axis=0, dtype=np.float64)])
    at = np.arange(len(beats))
    first = np.maximum(at - _NEIGHBOURS, 0)
    last = np.minimum(at + _NEIGHBOURS + 1, len(beats))
    around = total[last] - total[first] - shape  # without the beat itself
    length = np.sqrt((around**2).sum(axis=1))
    like = np.divide(
        (around * shape).sum(axis=1), length, out=np.zeros(len(beats)), where=length > 0
    )
    block = np.minimum((beats / (BLOCK_SECONDS * fs)).astype(int), blocks - 1)
    count = np.bincount(block, minlength=blocks)
    return np.bincount(block, like, minlength=blocks) / np.maximum(count, 1)


def spectral(cut: np.ndarray, fs: float, kind: str) -> np.ndarray:
    """Share of the power where a kind of signal has it: (blocks, n) → (blocks,) in 0–1."""
    power = np.abs(np.fft.rfft(cut - cut.mean(axis=1, keepdims=True), axis=1)) ** 2
    frequency = np.fft.rfftfreq(cut.shape[1], 1 / fs)
    if kind in _BANDS:
        inner, outer = (
            power[:, (frequency >= low) & (frequency <= high)].sum(axis=1)
            for low, high in _BANDS[kind]
        )
        return np.divide(inner, outer, out=np.zeros(len(cut)), where=outer > 0)
    power = power[:, 1:]
    mean = power.mean(axis=1)
    floor = 1e-12 * np.maximum(power.max(axis=1, keepdims=True), 1e-30)
    geometric = np.exp(np.log(power + floor).mean(axis=1))
    flatness = np.divide(geometric, mean, out=np.ones(len(cut)), where=mean > 0)
    return np.asarray(np.clip(1 - flatness, 0, 1))
