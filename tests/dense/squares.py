"""Images of bright squares on a dark ground with their masks: a dense task of two axes."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from medcl.plugin import Samples

SIDE, PATCH = 24, 16


def image(number: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """(1, SIDE, SIDE) and the class of each pixel; the last column's is unknown."""
    random = np.random.default_rng(number)
    x = random.normal(0, 0.3, (1, SIDE, SIDE)).astype(np.float32)
    mask = np.zeros((SIDE, SIDE), dtype=np.int64)
    top, left = random.integers(2, SIDE - 10, 2)
    mask[top : top + 8, left : left + 8] = 1
    x[0][mask == 1] += 2
    mask[:, -1] = -1
    return x, mask


def read(positions: NDArray[np.int64]) -> dict[str, NDArray]:
    x, mask = image(int(positions[0]))
    return {"x": x[None], "mask": mask[None], "spacing": np.ones((1, 2), np.float32)}


def draw(positions: NDArray[np.int64], seeds: NDArray[np.uint64]) -> dict[str, NDArray]:
    parts = []
    for position, seed in zip(positions, seeds, strict=True):
        top, left = np.random.default_rng(seed).integers(0, SIDE - PATCH + 1, 2)
        x, mask = image(int(position))
        inside = slice(top, top + PATCH), slice(left, left + PATCH)
        parts.append((x[:, *inside], mask[inside]))
    return {
        "x": np.stack([x for x, _ in parts]),
        "mask": np.stack([mask for _, mask in parts]),
        "spacing": np.ones((len(parts), 2), np.float32),
    }


def samples(count: int) -> Samples:
    names = [f"square-{n}" for n in range(count)]
    return Samples(
        names,
        names,
        names,
        read,
        labels={"masked": np.ones(count, bool)},
        draw=partial(draw),
        mask_classes=("background", "square"),
    )
