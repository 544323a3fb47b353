"""Trilinear sampling on a CPU, about twice as fast as torch's.

torch's three-axis `grid_sample` handles one point at a time on a CPU, its two-axis one eight or
sixteen. So the volume is read as one tall image, its slices below each other: twice bilinear, in
the slices before and after each point, is trilinear. Slabs of the view are done in turn, so that
what is in hand stays in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

MOST_ROWS = 2**15
"""Positions are in single precision over all rows of the tall image: up to here they are good to
a few thousandths of a voxel."""
SLAB = 16


def sample_volume(x: Tensor, points: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """Read a volume along a spline, as `medcl_ct.geometry.resample` does.

    Args:
        x: (B, C, D, H, W) with D·H ≤ `MOST_ROWS`.
        points: (B, 3, kz, ky, kx) control points, −1 … 1 along D, H and W.
        weights: for each axis (size, k) of the spline.

    Returns:
        (B, C, *size).
    """
    batch, channels, depth, height, _ = x.shape
    size = tuple(len(w) for w in weights)
    tall = x.reshape(batch, channels, depth * height, -1)
    across, row, place = points.flip(1).unbind(1)
    place = (place + 1) * (depth / 2) - 0.5  # in slices
    row = (row + 1) / depth - 1  # in the tall image, within its first slice
    first, last = 1 / (depth * height) - 1, (2 - 1 / height) / depth - 1  # voxel centres
    control = torch.stack([across, row, place], dim=1).movedim(2, -1) @ weights[0].T
    out = x.new_empty(batch, channels, *size)
    for start in range(0, size[0], SLAB):
        slab = slice(start, start + SLAB)
        part = control[..., slab].movedim(-1, 2)  # (B, 3, d, ky, kx)
        part = (part.movedim(3, -1) @ weights[1].T).movedim(3, -1) @ weights[2].T  # (B, 3, d, H, W)
        _, row, place = part.unbind(1)
        place.clamp_(0, depth - 1)
        before = place.floor()
        place -= before  # the share of the slice after
        row.clamp_(first, last).add_(before, alpha=2 / depth)
        grid = part[:, :2].movedim(1, -1).flatten(1, 2)  # a view: (B, d·H, W, 2)
        one = F.grid_sample(tall, grid, "bilinear", "border", align_corners=False)
        row += 2 / depth
        two = F.grid_sample(tall, grid, "bilinear", "border", align_corners=False)
        shape = (batch, channels, -1, *size[1:])
        torch.lerp(one.view(shape), two.view(shape), place[:, None], out=out[:, :, slab])
    return out
