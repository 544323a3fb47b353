"""Masks of whole blocks of patches: to foretell and foretell from (I-JEPA), to hide (iBOT)."""

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


def block_numbers(
    rows: int,
    grid: Sequence[int],
    largest: float,
    device: torch.device,
    *,
    blocks: int = 16,
    least: int = 4,
    aspect: tuple[float, float] = (0.3, 1 / 0.3),
) -> Tensor:
    """The first of several random blocks that covers each patch: (rows, Π grid) from 0 on.

    Whoever hides patches in this order hides one block after the other, as iBOT and DINOv2 do (the
    masks of BEiT: Bao 2022, arXiv 2106.08254, algorithm 1), for any number of axes. All rows are
    drawn at once, on the device.

    Args:
        rows: of the batch.
        grid: patches along each axis.
        largest: share of the patches in the largest block.
        device: of the batch.
        blocks: their number; what none covers comes last.
        least: patches of the smallest block.
        aspect: smallest and largest ratio of the first axis to the others, drawn on a log scale.
    """
    axes, count = len(grid), math.prod(grid)
    draw = torch.rand(rows, blocks, axes + 2, device=device)
    smallest = min(least / count, largest)
    share = smallest + (largest - smallest) * draw[..., 0]
    low, high = math.log(aspect[0]), math.log(aspect[1])
    stretch = (low + (high - low) * draw[..., 1]).exp() if axes > 1 else torch.ones_like(share)
    covered = torch.ones(rows, blocks, 1, dtype=torch.bool, device=device)
    for axis, n in enumerate(grid):
        power = (axes - 1) / axes if axis == 0 else -1 / axes
        side = (n * share ** (1 / axes) * stretch**power).round().clamp(1, n)
        start = (draw[..., 2 + axis] * (n - side + 1)).floor()
        at = torch.arange(n, device=device)
        along = (at >= start[..., None]) & (at < (start + side)[..., None])  # (rows, blocks, n)
        covered = (covered[..., None] & along[:, :, None]).flatten(2)
    first = covered.to(torch.uint8).argmax(1)  # the first of equal ones
    return torch.where(covered.any(1), first, blocks)


def hidden_blocks(rows: int, grid: Sequence[int], share: float, device: torch.device) -> Tensor:
    """True where a patch is hidden, in blocks: (rows, Π grid), as many in each row.

    The blocks of `block_numbers`, whose last one is cut so that the count is right.

    Args:
        rows: of the batch.
        grid: patches along each axis.
        share: of the patches to hide; at least one is hidden and one is not.
        device: of the batch.
    """
    count = math.prod(grid)
    number = max(1, min(round(share * count), count - 1))
    order = torch.rand(rows, count, device=device) + block_numbers(rows, grid, share, device)
    first = order.argsort(dim=1)[:, :number]
    return torch.zeros(rows, count, dtype=torch.bool, device=device).scatter(1, first, True)


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
