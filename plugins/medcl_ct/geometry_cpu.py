"""Trilinear sampling on a CPU, twice as fast as torch's or more.

torch's three-axis `grid_sample` handles one point at a time on a CPU, its two-axis one eight or
sixteen. So the volume is read as one tall image, its slices below each other, and of two channels:
the slice before a point and the slice after it, which is the same memory read one slice further on.
Twice bilinear, with a share of each, is trilinear. A view is done in small chunks, so that what is
in hand stays in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

MOST_ROWS = 2**15
"""Positions are in single precision over all rows of the tall image: up to here they are good to
a few thousandths of a voxel."""
_ROUNDED = 2.5e-7
"""What rounding may add to a position: at the edge of a slice it must not reach into the next."""
CHUNK = 2**17  # points


def sample_volume(x: Tensor, points: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """Read a volume along a spline, as `medcl_ct.geometry.resample` does.

    Args:
        x: (B, C, D, H, W) with D·H ≤ `MOST_ROWS`.
        points: (B, 3, kz, ky, kx) control points, −1 … 1 along D, H and W.
        weights: for each axis (size, k) of the spline.

    Returns:
        (B, C, *size).
    """
    depth, height = x.shape[2:4]
    size = tuple(len(w) for w in weights)
    tall = _tall(x)  # (B, C, 2, rows, W)
    rows, pairs = tall.shape[3], tall.shape[3] // height
    across, row, place = points.flip(1).unbind(1)
    place = (place + 1) * (depth / 2) - 0.5  # in slices
    row = (row + 1) / pairs - 1  # in the tall image, within its first slice
    first, last = 1 / rows - 1 + _ROUNDED, (2 - 1 / height) / pairs - 1 - _ROUNDED  # voxel centres
    control = torch.stack([across, row, place], dim=1).movedim(2, -1) @ weights[0].T
    out = x.new_empty(*x.shape[:2], *size)
    slab = max(1, CHUNK // (size[1] * size[2]))
    for sample, image, lines in zip(out, tall, control, strict=True):
        for start in range(0, size[0], slab):
            part = lines[..., start : start + slab].movedim(-1, 1)  # (3, d, ky, kx)
            part = (part.movedim(2, -1) @ weights[1].T).movedim(2, -1) @ weights[2].T
            _, row, place = part  # (d, H, W) each
            place.clamp_(0, depth - 1)
            before = place.floor().clamp_(max=pairs - 1)
            place -= before  # the share of the slice after
            row.clamp_(first, last).add_(before, alpha=2 / pairs)
            grid = part[:2].movedim(0, -1)  # a view: (d, H, W, 2)
            for channel, both in zip(sample, image, strict=True):
                read = F.grid_sample(
                    both.expand(len(grid), -1, -1, -1),  # each slice of the view reads them
                    grid,
                    "bilinear",
                    "border",
                    align_corners=False,
                )
                torch.lerp(read[:, 0], read[:, 1], place, out=channel[start : start + slab])
    return out


def _tall(x: Tensor) -> Tensor:
    """(B, C, D, H, W) → (B, C, 2, (D − 1)·H, W): a view, the second image a slice further on."""
    if x.shape[2] == 1:
        x = x.expand(-1, -1, 2, -1, -1)
    x = x.contiguous()
    batch, channels, depth, height, width = x.shape
    strides = (*x.stride()[:2], height * width, width, 1)
    return x.as_strided((batch, channels, 2, (depth - 1) * height, width), strides)
