"""Features made by hand: what a pretrained encoder has to beat to be worth its while."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from medcl_pathology.tissue import HED

_BINS = np.array([-0.1, 0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 1.0])
_LEVELS = 8
_STEPS = (1, 3)

Floats = NDArray[np.float32]


def handcrafted(batch: Mapping[str, np.ndarray]) -> Floats:
    """Colour and texture of tiles; turning a tile by quarters changes next to nothing.

    After Kather 2016 (doi 10.1038/srep27988), who found grey-level histograms, co-occurrence and
    perception features best for the eight classes of colorectal tissue. Of each stain, in optical
    density: the histogram's mean, spread, skewness and shares of ten ranges; of brightness,
    Haralick's contrast, correlation, energy, homogeneity and entropy (1973) at two distances over
    both axes and both diagonals; and the mean size of the gradient.

    Args:
        batch: ``x`` (B, 3, H, W) in 0 … 1.

    Returns:
        (B, 54) float32.
    """
    x = np.asarray(batch["x"], dtype=np.float32)
    grey = x.mean(axis=1)
    stains = _stains(x).reshape(len(x), 3, -1)
    parts = [_histogram(stains), *(_haralick(grey, step) for step in _STEPS)]
    down, right = np.diff(grey, axis=1), np.diff(grey, axis=2)
    steep = np.sqrt(down[:, :, :-1] ** 2 + right[:, :-1] ** 2)
    sizes = np.stack([np.abs(down).mean((1, 2)) + np.abs(right).mean((1, 2))], axis=1)
    parts += [sizes, *(np.quantile(steep, q, axis=(1, 2))[:, None] for q in (0.5, 0.9))]
    parts += [grey.mean((1, 2))[:, None], grey.std((1, 2))[:, None]]
    return np.concatenate(parts, axis=1).astype(np.float32)


def _stains(x: Floats) -> Floats:
    """(B, 3, H, W) → amounts of haematoxylin, eosin and the rest, the same shape."""
    unit = HED / np.linalg.norm(HED, axis=1, keepdims=True)
    density = -np.log10(np.maximum(x, 1 / 255))
    return np.asarray(np.einsum("ck,bchw->bkhw", np.linalg.inv(unit), density), dtype=np.float32)


def _histogram(stains: Floats) -> Floats:
    """(B, 3, P) → (B, 3 · 13)."""
    mean, std = stains.mean(axis=2), stains.std(axis=2)
    third = ((stains - mean[..., None]) ** 3).mean(axis=2) / np.maximum(std, 1e-4) ** 3
    edges = [-np.inf, *_BINS[1:-1], np.inf]
    ranges = [((stains >= low) & (stains < high)).mean(axis=2) for low, high in pairwise(edges)]
    return np.stack([mean, std, third, *ranges], axis=2).reshape(len(stains), -1)


def _haralick(grey: Floats, step: int) -> Floats:
    """Of the co-occurrence of eight levels at a distance, over four directions: (B, 5)."""
    level = np.minimum((grey * _LEVELS).astype(np.int64), _LEVELS - 1)
    n = len(level)
    table = np.zeros((n, _LEVELS * _LEVELS))
    height, width = level.shape[1:]
    for dy, dx in ((0, step), (step, 0), (step, step), (step, -step)):
        a = level[:, : height - dy, max(-dx, 0) : width - max(dx, 0)]
        b = level[:, dy:, max(dx, 0) : width + min(dx, 0)]
        code = (a * _LEVELS + b + np.arange(n)[:, None, None] * _LEVELS**2).ravel()
        table += np.bincount(code, minlength=n * _LEVELS**2).reshape(n, -1)
    p = table.reshape(n, _LEVELS, _LEVELS)
    p = (p + p.transpose(0, 2, 1)) / (2 * p.sum(axis=(1, 2), keepdims=True))
    i, j = np.mgrid[:_LEVELS, :_LEVELS]
    mean = (p * i).sum(axis=(1, 2))
    variance = (p * (i - mean[:, None, None]) ** 2).sum(axis=(1, 2))
    both = (p * (i - mean[:, None, None]) * (j - mean[:, None, None])).sum(axis=(1, 2))
    return np.stack(
        [
            (p * (i - j) ** 2).sum(axis=(1, 2)),
            both / np.maximum(variance, 1e-6),
            (p**2).sum(axis=(1, 2)),
            (p / (1 + np.abs(i - j))).sum(axis=(1, 2)),
            -(p * np.log(p + 1e-9)).sum(axis=(1, 2)),
        ],
        axis=1,
    ).astype(np.float32)
