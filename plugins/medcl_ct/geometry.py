"""One geometric resample of a batch of slices or volumes, in one `grid_sample`.

A view's crop, flip, rotation, anisotropic scale and elastic deformation are one free-form
deformation (Rueckert 1999, doi 10.1109/42.796284): a coarse lattice of control points, moved as the
parameters say, with a cubic B-spline between them. B-splines reproduce linear maps exactly, so
an affine view is the same computation with nothing added, and the sampling grid of any view is one
small matrix product along each axis. Written once for two and three axes.

Positions are in the input's own coordinates from −1 to 1 along each axis (D, H, W), −1 and 1 being
the outer edges of the first and last voxel. All parameters have one row a sample.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from medcl_ct import geometry_cpu

FOLDS_FROM = 0.4
"""Shifts of control points below this share of their spacing cannot fold space: B-spline
deformations are one-to-one below 1/2.05 in two axes and 1/2.48 in three (Choi & Lee 2000,
doi 10.1006/gmod.1999.0531)."""


def rotation(angles: Tensor) -> Tensor:
    """Rotations in voxel space: radians (B, 1) → (B, 2, 2), or (B, 3) → (B, 3, 3).

    Three angles turn about the D, H and W axis in this order; the first one is the turn within an
    axial slice.
    """
    planes = [(0, 1)] if angles.shape[1] == 1 else [(1, 2), (0, 2), (0, 1)]
    axes = 2 if angles.shape[1] == 1 else 3
    total = torch.eye(axes, device=angles.device, dtype=angles.dtype).expand(len(angles), -1, -1)
    for angle, (a, b) in zip(angles.unbind(1), planes, strict=True):
        turn = torch.eye(axes, device=angles.device, dtype=angles.dtype).repeat(len(angles), 1, 1)
        turn[:, a, a] = turn[:, b, b] = angle.cos()
        turn[:, a, b], turn[:, b, a] = -angle.sin(), angle.sin()
        total = total @ turn
    return total


def linear(angles: Tensor, side: Tensor, flip: Tensor, space: Sequence[int]) -> Tensor:
    """The linear part of a view: output position → input position, (B, axes, axes).

    Args:
        angles: radians, as in `rotation`.
        side: (B, axes) the crop's sides as shares of the input's; below 1 magnifies.
        flip: (B, axes) −1 where the axis is turned round, else 1.
        space: the input's size in voxels, so that a rotation keeps angles where axes differ.
    """
    size = torch.tensor(space, device=side.device, dtype=side.dtype)
    half = torch.diag_embed((flip * side) * size)  # output position → voxels from the centre
    return rotation(angles) @ half / size[:, None]


@lru_cache(maxsize=64)
def _weights(points: int, knots: int) -> Tensor:
    """Cubic B-spline weights (points, knots + 3): position p is Σ_k w[p, k]·control[k].

    The control points lie at (k − 1) steps of `knots` equal steps over −1 … 1; `control` gives it.
    """
    at = (torch.arange(points, dtype=torch.float64) + 0.5) * knots / points  # in steps
    cell = at.floor().clamp(max=knots - 1)
    u = at - cell
    four = torch.stack(
        [
            (1 - u) ** 3 / 6,
            (3 * u**3 - 6 * u**2 + 4) / 6,
            (-3 * u**3 + 3 * u**2 + 3 * u + 1) / 6,
            u**3 / 6,
        ],
        dim=1,
    )
    columns = cell.long()[:, None] + torch.arange(4)
    return torch.zeros(points, knots + 3, dtype=torch.float64).scatter(1, columns, four).float()


def control(axes: int, knots: int, device: torch.device) -> Tensor:
    """Where the control points lie when nothing is deformed: (axes, *(knots + 3,)·axes)."""
    line = (torch.arange(knots + 3, device=device) - 1.0) * 2 / knots - 1
    return torch.stack(torch.meshgrid(*[line] * axes, indexing="ij"))


def lattice(matrix: Tensor, centre: Tensor, shifts: Tensor | None) -> Tensor:
    """Control points of a view, in the input's coordinates: (B, axes, *lattice).

    Args:
        matrix: (B, axes, axes) from `linear`.
        centre: (B, axes) where the view's centre lies in the input, −1 … 1.
        shifts: (B, axes, *(K,)·axes) of the control points, in steps of the lattice, or None.
    """
    axes = matrix.shape[1]
    knots = 1 if shifts is None else shifts.shape[-1] - 3
    at = control(axes, knots, matrix.device)[None]
    if shifts is not None:
        at = at + shifts * (2 / knots)
    moved = matrix @ at.expand(len(matrix), *at.shape[1:]).flatten(2)  # (B, axes, points)
    return (moved + centre[..., None]).unflatten(2, at.shape[2:])


def sampling_grid(points: Tensor, size: Sequence[int]) -> Tensor:
    """The spline through control points (B, axes, *lattice) at every voxel of the view.

    Returns:
        (B, *size, axes), the last dimension in (x, y, z) order, as `grid_sample` wants it.
    """
    field = points.flip(1)  # (z, y, x) → (x, y, z)
    for count in size:
        weights = _weights(count, field.shape[2] - 3).to(points)
        # The axis in hand moves to the end and becomes long; after all, they are in order again.
        field = field.movedim(2, -1) @ weights.T  # (B, axes, ..., count)
    return field.movedim(1, -1)


def resample(x: Tensor, points: Tensor, size: Sequence[int]) -> Tensor:
    """Read (B, C, *space) where the control points say: (B, C, *size), linear between voxels.

    What lies outside is the nearest voxel.
    """
    rows = math.prod(x.shape[2:4])
    if x.dim() == 5 and x.device.type == "cpu" and rows <= geometry_cpu.MOST_ROWS:
        weights = [_weights(n, points.shape[2] - 3).to(points) for n in size]
        return geometry_cpu.sample_volume(x, points, weights)
    grid = sampling_grid(points, size).to(x.dtype)
    return F.grid_sample(x, grid, "bilinear", "border", align_corners=False)


def nearest(labels: Tensor, points: Tensor, size: Sequence[int]) -> Tensor:
    """Read labels (B, *space) int64 where the control points say, by the nearest voxel."""
    grid = sampling_grid(points, size)
    read = F.grid_sample(labels[:, None].to(grid), grid, "nearest", "border", align_corners=False)
    return read[:, 0].round().long()


def shrink(x: Tensor, size: Sequence[int], smallest: float) -> Tensor:
    """Average whole blocks of voxels first where the view would skip over some (anti-aliasing).

    Args:
        x: (B, C, *space).
        size: of the view.
        smallest: the smallest side that a view may cut out, as a share of the input's.
    """
    blocks = [max(int(n * smallest / m), 1) for n, m in zip(x.shape[2:], size, strict=True)]
    if max(blocks) == 1:
        return x
    coarse = [n // block for n, block in zip(x.shape[2:], blocks, strict=True)]
    return F.interpolate(x, size=coarse, mode="area")


def runs(x: Tensor, start: Tensor, length: int) -> Tensor:
    """``length`` slices in a row from ``start`` (B,): (B, C, D, H, W) → (B, C, length, H, W)."""
    at = start[:, None] + torch.arange(length, device=x.device)  # (B, length)
    index = at[:, None, :, None, None].expand(-1, x.shape[1], -1, *x.shape[3:])
    return x.gather(2, index)
