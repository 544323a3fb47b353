"""Distances of two parts of recordings: by hash, structure, information or embedding.

Pictures are (N, S, S) uint8, made by a plugin with a fixed grey scale. All distances are 0 for
identical parts.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.uint64]
Distance = Callable[[int, NDArray[np.int64]], NDArray[np.float64]]
"""``(i, others (K,))`` → distances (K,) of part i to each of the others."""


def shrink(pictures: NDArray[np.uint8], rows: int, columns: int) -> NDArray[np.float64]:
    """Average (N, H, W) down to (N, rows, columns); cells may contain fractions of pixels."""
    small = pictures.astype(np.float64)
    for axis, count in ((1, rows), (2, columns)):
        size = small.shape[axis]
        total = np.concatenate(
            [np.zeros_like(small.take([0], axis)), small.cumsum(axis=axis)], axis=axis
        )
        edges = np.linspace(0, size, count + 1)
        low = np.minimum(edges.astype(int), size - 1)
        shape = [1, 1, 1]
        shape[axis] = count + 1
        part = (edges - low).reshape(shape)
        integral = total.take(low, axis) * (1 - part) + total.take(low + 1, axis) * part
        small = np.diff(integral, axis=axis) * (count / size)
    return small


def dhash(pictures: NDArray[np.uint8]) -> Bits:
    """The 64-bit difference hash: is each of 8 × 8 cells brighter than the one to its left?

    Wolf 2024 ("Less is more", doi 10.1016/j.compbiomed.2024.109242) reduce CT volumes with it.
    (N, S, S) → (N,).
    """
    small = shrink(pictures, 8, 9)
    brighter = (small[:, :, 1:] > small[:, :, :-1] + 1e-9).reshape(len(small), 64)
    packed = np.packbits(brighter, axis=1)  # (N, 8)
    return np.ascontiguousarray(packed).view(">u8").reshape(-1).astype(np.uint64)


def hamming(bits: Bits) -> Distance:
    """The number of bits that differ."""
    return lambda i, others: np.bitwise_count(bits[others] ^ bits[i]).astype(np.float64)


def ssim(pictures: NDArray[np.uint8]) -> Distance:
    """1 − structural similarity (Wang 2004, doi 10.1109/TIP.2003.819861), 7 × 7 means."""
    from scipy.ndimage import uniform_filter

    x = pictures.astype(np.float64)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        out: NDArray[np.float64] = uniform_filter(values, size=(1, 7, 7), mode="reflect")
        return out

    def distance(i: int, others: NDArray[np.int64]) -> NDArray[np.float64]:
        a, b = x[[i]], x[others]
        mu_a, mu_b = mean(a), mean(b)
        var_a, var_b = mean(a * a) - mu_a**2, mean(b * b) - mu_b**2
        covariance = mean(a * b) - mu_a * mu_b
        top = (2 * mu_a * mu_b + c1) * (2 * covariance + c2)
        map_ = top / ((mu_a**2 + mu_b**2 + c1) * (var_a + var_b + c2))
        return 1 - np.asarray(map_.mean(axis=(1, 2)))

    return distance


def mutual_information(pictures: NDArray[np.uint8], bins: int = 32) -> Distance:
    """1 − normalised mutual information 2·I(a; b) / (H(a) + H(b)) of grey values."""
    level = (pictures.reshape(len(pictures), -1).astype(np.int64) * bins) // 256

    def entropy(counts: NDArray[np.int64]) -> float:
        p = counts[counts > 0] / counts.sum()
        return float(-(p * np.log(p)).sum())

    entropies = [entropy(np.bincount(row, minlength=bins)) for row in level]

    def distance(i: int, others: NDArray[np.int64]) -> NDArray[np.float64]:
        out = np.empty(len(others))
        for n, j in enumerate(others.tolist()):
            joint = entropy(np.bincount(level[i] * bins + level[j], minlength=bins * bins))
            total = entropies[i] + entropies[j]
            shared = total - joint
            out[n] = 1 - (2 * shared / total if total > 0 else 1.0)
        return out

    return distance


def cosine(x: NDArray[np.float32]) -> Distance:
    """1 − cosine of embeddings (N, D)."""
    unit = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    return lambda i, others: 1 - (unit[others] @ unit[i]).astype(np.float64)


def greedy(
    count: int, distance: Distance, limit: float
) -> tuple[list[int], list[tuple[int, int, float]]]:
    """Keep the first part, drop all within ``limit`` of it, and repeat with the remaining parts.

    Returns:
        the kept parts, in order; and (dropped part, part kept instead, distance).
    """
    kept: list[int] = []
    dropped: list[tuple[int, int, float]] = []
    remaining = np.arange(count)
    while len(remaining):
        first, others = int(remaining[0]), remaining[1:]
        kept.append(first)
        distances = distance(first, others)
        near = distances <= limit
        dropped += [
            (int(j), first, float(d)) for j, d in zip(others[near], distances[near], strict=True)
        ]
        remaining = others[~near]
    return kept, sorted(dropped)
