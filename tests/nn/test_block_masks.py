"""I-JEPA's blocks: rectangles of the drawn sizes, and contexts without the targets."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from medcl.nn.block_masks import block_masks, block_numbers


@pytest.mark.parametrize("grid", [(64,), (14, 14), (6, 8, 8)])
def test_targets_are_blocks_and_the_context_is_the_rest_of_a_larger_one(
    grid: tuple[int, ...],
) -> None:
    count = math.prod(grid)
    for seed in range(20):
        keep, targets = block_masks(16, grid, np.random.default_rng(seed))
        assert keep.shape[0] == targets.shape[0] == 16
        assert targets.shape[1] == 4
        share = targets.shape[2] / count
        assert 0.08 <= share <= 0.3  # 0.15 to 0.2 before sides are rounded
        assert count // 20 <= keep.shape[1] <= count
        for row, blocks in zip(keep.tolist(), targets.tolist(), strict=True):
            assert row == sorted(set(row))
            for block in blocks:
                assert not set(row) & set(block)
                at = np.stack(np.unravel_index(block, grid))
                sides = np.ptp(at, axis=1) + 1
                assert math.prod(sides) == len(block) == len(set(block))  # a full rectangle
                assert all(1 <= side < n for side, n in zip(sides, grid, strict=True))


def test_places_differ_from_row_to_row_and_draws_from_step_to_step() -> None:
    keep, targets = block_masks(8, (14, 14), np.random.default_rng(0))
    assert len({tuple(row) for row in targets[:, 0].tolist()}) > 4
    again, _ = block_masks(8, (14, 14), np.random.default_rng(0))
    other, _ = block_masks(8, (14, 14), np.random.default_rng(1))
    assert torch.equal(keep, again)
    assert keep.shape != other.shape or not torch.equal(keep, other)


def test_where_targets_leave_nothing_they_may_overlap_the_context() -> None:
    keep, targets = block_masks(
        4, (3, 3), np.random.default_rng(0), targets=8, target_share=(0.4, 0.4)
    )
    assert keep.shape[1] >= 1
    assert targets.shape == (4, 8, 4)


@pytest.mark.parametrize("grid", [(64,), (14, 14), (6, 8, 8)])
def test_numbered_blocks_are_boxes_of_at_most_the_largest_share(grid: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    numbers = block_numbers(64, grid, 0.3, torch.device("cpu"), blocks=8)
    assert numbers.shape == (64, math.prod(grid))
    assert numbers.min() == 0
    assert numbers.max() == 8  # what none covers
    sizes = []
    for row in numbers.view(64, *grid).numpy():
        at = np.argwhere(row == 0)  # the first block is hidden by none before it
        sides = at.max(0) - at.min(0) + 1
        assert len(at) == math.prod(sides)
        sizes.append(len(at) / row.size)
    assert max(sizes) <= 0.3 * 1.35  # sides are rounded
    assert min(sizes) < 0.1
    assert len(set(sizes)) > 5
