"""Masks of whole blocks of patches: several to foretell, and one to foretell them from."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

TRIES = 20
"""Draws of target blocks that leave too few patches of the context, before they may overlap it."""


def block_masks(
    rows: int,
    grid: Sequence[int],
    rng: np.random.Generator,
    *,
    targets: int = 4,
    target_share: tuple[float, float] = (0.15, 0.2),
    aspect: tuple[float, float] = (0.75, 1.5),
    context_share: tuple[float, float] = (0.85, 1.0),
) -> tuple[Tensor, Tensor]:
    """I-JEPA's multi-block masks (Assran 2023, arXiv 2301.08243), for any number of axes.

    As in the authors' code the sizes of blocks are drawn once and their places for each row, and
    contexts, which are a block less the targets, are cut to the shortest of the rows. It runs on
    the processor, so that the host knows the counts without waiting for a device.

    Args:
        rows: of the batch of all ranks, which draw alike, so that their counts are the same.
        grid: patches along each axis.
        rng: of the processor.
        targets: M, blocks to foretell.
        target_share: smallest and largest share of the patches that is in a target block.
        aspect: of target blocks, the first axis against the others; none in one axis.
        context_share: of the context block, which is a cube.

    Returns:
        positions of the context (rows, K), ascending, and of the targets (rows, M, P).
    """

    target = _sides(grid, rng.uniform(*target_share), rng.uniform(*aspect))
    context = _sides(grid, rng.uniform(*context_share), 1.0)
    inside = np.zeros((rows, math.prod(grid)), dtype=bool)
    np.put_along_axis(inside, _blocks(rows, 1, grid, context, rng)[:, 0], True, axis=1)
    chosen = np.empty((rows, targets, math.prod(target)), dtype=np.int64)
    seen = inside.copy()
    undecided = np.arange(rows)
    least = max(1, math.prod(grid) // 20)  # 10 of the authors' 196
    for _ in range(TRIES):
        chosen[undecided] = _blocks(len(undecided), targets, grid, target, rng)
        left = inside[undecided]
        np.put_along_axis(left, chosen[undecided].reshape(len(left), -1), False, axis=1)
        enough = left.sum(axis=1) >= least
        seen[undecided[enough]] = left[enough]
        undecided = undecided[~enough]
        if not len(undecided):
            break
    shortest = seen.sum(axis=1).min()
    keep = np.argsort(~seen, axis=1, kind="stable")[:, :shortest]
    return torch.from_numpy(keep), torch.from_numpy(chosen)


def _sides(grid: Sequence[int], share: float, aspect: float) -> tuple[int, ...]:
    """A block's patches along each axis: ``share`` of the grid, always less than all of an axis."""
    axes = len(grid)
    stretch = [aspect ** ((axes - 1) / axes), *[aspect ** (-1 / axes)] * (axes - 1)]
    return tuple(
        max(1, min(round(n * share ** (1 / axes) * a), n - 1))
        for n, a in zip(grid, stretch, strict=True)
    )


def _blocks(
    rows: int, count: int, grid: Sequence[int], sides: Sequence[int], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Positions in blocks of one size at random places: (rows, count, Π sides), ascending."""
    at = np.zeros((rows, count, 1), dtype=np.int64)
    for n, side in zip(grid, sides, strict=True):
        start = rng.integers(0, n - side, size=(rows, count, 1, 1), endpoint=True)
        at = (at[..., None] * n + start + np.arange(side)).reshape(rows, count, -1)
    return at
