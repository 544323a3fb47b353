"""How far a stretch of signal can be trusted, as a number from 0 (useless) to 1."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medcl_biosignals.heartlike import SECONDS, heartlike

BLOCK_SECONDS = 2.0
_FLAT, _CLIP = 0.5, 0.2  # shares of flat or clipped samples at which a block is worth nothing


PARTS = ("there", "moving", "inside")
"""Of a block's samples: those that are there, move, and are not at the recorder's limits."""


def block_quality(
    raw: np.ndarray, fs: float, clean: np.ndarray, clean_fs: float, kind: str = "ECG"
) -> np.ndarray:
    """Quality of each lead for every `BLOCK_SECONDS` of a recording: `worth` of `block_parts`.

    Args:
        raw: (C, N) as recorded, NaN where missing.
        fs: its sampling rate.
        clean: (C, T) filtered and resampled.
        clean_fs: its sampling rate.
        kind: of signal: "ECG", "PPG", "pressure" …

    Returns:
        (C, blocks) float32; the last block may be shorter than the others.
    """
    parts = block_parts(raw, fs, clean.shape[1] / clean_fs)
    return worth(parts, clean, clean_fs, [kind] * len(clean))


def block_parts(raw: np.ndarray, fs: float, seconds: float) -> np.ndarray:
    """What the signal as recorded says of its quality, block by block.

    Args:
        raw: (C, N) as recorded, NaN where missing.
        fs: its sampling rate.
        seconds: length of the recording.

    Returns:
        (C, blocks, 3) in 0–1: `PARTS`.
    """
    blocks = block_count(seconds)
    raw_blocks = blocked(raw, round(BLOCK_SECONDS * fs), blocks)  # (C, blocks, n)
    there = np.isfinite(raw_blocks).mean(axis=-1)
    moving = np.clip(1 - flat_share(raw_blocks) / _FLAT, 0, 1)
    inside = np.clip(1 - clip_share(raw_blocks, raw) / _CLIP, 0, 1)
    return np.stack([there, moving, inside], axis=-1)


def worth(parts: np.ndarray, x: np.ndarray, fs: float, kinds: Sequence[str]) -> np.ndarray:
    """How far each block can be trusted, from 0 to 1.

    The product of its parts and of the probability that the six seconds around it are a heart's
    signal (`medcl_biosignals.heartlike`): not noise, not the mains, not an artefact. A kind that
    does not beat, and less than four seconds, have the product of the parts alone.

    Args:
        parts: (C, blocks, 3) of `block_parts`.
        x: (C, T) filtered and resampled.
        fs: its sampling rate.
        kinds: of each channel; empty for one that is absent.

    Returns:
        (C, blocks) float32.
    """
    made = parts.prod(axis=-1)
    for row, signal, kind in zip(made, x, kinds, strict=True):
        seen = heartlike(signal, fs, kind)
        if seen is not None:
            stretch = (np.arange(len(row)) * BLOCK_SECONDS / SECONDS).astype(int)
            row *= seen[np.minimum(stretch, len(seen) - 1)]
    return np.asarray(made, dtype=np.float32)


def block_count(seconds: float) -> int:
    """Blocks of a recording; the last may be shorter."""
    return max(int(np.ceil(seconds / BLOCK_SECONDS)), 1)


def flat_share(x: np.ndarray) -> np.ndarray:
    """Share of steps of (..., n) without any change that are part of a longer standstill."""
    still = np.diff(x, axis=-1) == 0
    if still.shape[-1] < 5:
        return still.all(axis=-1).astype(float)
    two = still[..., 1:] & still[..., :-1]
    five = two[..., 3:] & two[..., :-3] & still[..., 2:-2]
    return five.mean(axis=-1)


def clip_share(x: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Share of samples of (C, ..., n) that stand at the extremes of the recording (C, N)."""
    rows = (len(whole),) + (1,) * (x.ndim - 1)
    top, bottom = np.nanmax(whole, axis=1).reshape(rows), np.nanmin(whole, axis=1).reshape(rows)
    at_limit = ((x >= top) | (x <= bottom)) & (top > bottom)
    # A single sample is always the largest: only two or more in a row are clipping.
    return (at_limit[..., 1:] & at_limit[..., :-1]).mean(axis=-1)


def kurtosis(x: np.ndarray) -> np.ndarray:
    """Fourth standardised moment over the last axis (3 for Gaussian noise, 0 for a constant)."""
    squares = x - x.mean(axis=-1, keepdims=True)
    squares *= squares
    second = squares.mean(axis=-1)
    fourth = np.einsum("...n,...n->...", squares, squares) / x.shape[-1]
    return np.divide(fourth, second**2, out=np.zeros_like(second), where=second > 1e-12)


def skewness(x: np.ndarray) -> np.ndarray:
    """Third standardised moment over the last axis (0 for a constant); for PPG, higher is better.

    Elgendi 2016, doi 10.3390/bioengineering3040021.
    """
    d = x - x.mean(axis=-1, keepdims=True)
    squares = d * d
    second = squares.mean(axis=-1)
    third = np.einsum("...n,...n->...", squares, d) / x.shape[-1]
    return np.divide(third, second**1.5, out=np.zeros_like(second), where=second > 1e-12)


def blocked(x: np.ndarray, size: int, blocks: int) -> np.ndarray:
    """(C, N) → (C, blocks, size); the end is filled up by repeating the last sample."""
    short = max(blocks * size - x.shape[1], 0)
    padded = np.pad(x, ((0, 0), (0, short)), mode="edge") if short else x
    return padded[:, : blocks * size].reshape(len(x), blocks, size)
