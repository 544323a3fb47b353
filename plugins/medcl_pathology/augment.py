"""Geometry and focus of a batch of tiles: pure functions of (x, parameters), no randomness inside.

``x`` is (B, 3, H, W); parameters have one row a tile. `medcl_pathology.augmentations` draws them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

FOCUS = 4
"""The largest radius of defocus, in pixels."""

# Every symmetry of the square is a reflection at its diagonal, then at its middle row, then at its
# middle column, or not: which of the eight in `turned` have each.
_TURNS: tuple[tuple[tuple[int, ...], Callable[[Tensor], Tensor]], ...] = (
    ((1, 3, 5, 7), lambda x: x.transpose(2, 3)),
    ((1, 2, 6, 7), lambda x: x.flip(2)),
    ((2, 3, 4, 7), lambda x: x.flip(3)),
)


def crop(x: Tensor, size: int, zoom: Tensor, corner: Tensor, smallest: float) -> Tensor:
    """Squares of size / zoom pixels, at most the image, resampled to ``size``.

    Args:
        x: (B, 3, H, W).
        size: of the result.
        zoom: (B,).
        corner: (B, 2) where in the free room along y, x, 0 … 1.
        smallest: a bound of ``zoom`` from below, known without looking at it: where such a crop is
            much larger than ``size``, images are averaged first.

    Returns:
        (B, 3, size, size).
    """
    height, width = x.shape[2:]
    side = (size / zoom).clamp(max=min(height, width))  # (B,) pixels
    largest = min(height, width, size / smallest)
    if largest > 1.5 * size:  # averaged first, or fine detail would turn into coarse noise
        factor = largest / size
        x = F.interpolate(x, size=(round(height / factor), round(width / factor)), mode="area")
        side = side * (x.shape[2] / height)
        height, width = x.shape[2:]
    extent = torch.tensor([height, width], device=x.device, dtype=x.dtype)
    first = corner * (extent - side[:, None])  # (B, 2)
    middle_ = (first + side[:, None] / 2) / extent * 2 - 1  # (B, 2) in −1 … 1
    theta = torch.zeros(len(x), 2, 3, device=x.device, dtype=x.dtype)
    theta[:, 0, 0], theta[:, 1, 1] = side / width, side / height
    theta[:, 0, 2], theta[:, 1, 2] = middle_[:, 1], middle_[:, 0]
    grid = F.affine_grid(theta, [len(x), x.shape[1], size, size], align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


def middle(x: Tensor, size: int) -> Tensor:
    """The middle of images, which are left as they are where they are smaller."""
    top, left = (max((n - size) // 2, 0) for n in x.shape[2:])
    return x[..., top : top + size, left : left + size]


def turned(x: Tensor, turn: Tensor) -> Tensor:
    """One of the eight symmetries of the square for each image, exact: turn (B,) in 0 … 7.

    ``turn % 4`` quarter turns, after a reflection where ``turn`` is 4 or more.
    """
    for turns, change in _TURNS:
        chosen = torch.stack([turn == n for n in turns]).any(dim=0)
        x = torch.where(chosen[:, None, None, None], change(x), x)
    return x


def gaussian(x: Tensor, sigma: Tensor, largest: float) -> Tensor:
    """Gaussian blur of each image by its own standard deviation (B,) ≤ ``largest``, in pixels."""
    reach = max(int(3 * largest + 0.5), 1)
    place = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-(place**2) / (2 * sigma[:, None].clamp(min=1e-3) ** 2))
    kernel = kernel / kernel.sum(dim=1, keepdim=True)  # (B, K)
    for shape in ((1, -1), (-1, 1)):
        x = _filtered(x, kernel.unflatten(1, shape))
    return x


def defocus(x: Tensor, radius: Tensor) -> Tensor:
    """Out of focus: the mean over a disk of each image's own radius (B,), in pixels."""
    place = torch.arange(-FOCUS, FOCUS + 1, device=x.device, dtype=x.dtype)
    away = (place[:, None] ** 2 + place**2).sqrt()
    kernel = (radius[:, None, None] + 0.5 - away).clamp(0, 1)  # soft at its edge
    return _filtered(x, kernel / kernel.sum(dim=(1, 2), keepdim=True))


def _filtered(x: Tensor, kernel: Tensor) -> Tensor:
    """Each image with its own kernel (B, Kh, Kw); edges are mirrored."""
    high, wide = kernel.shape[1] // 2, kernel.shape[2] // 2
    mode = "reflect" if high < x.shape[2] and wide < x.shape[3] else "replicate"
    padded = F.pad(x, (wide, wide, high, high), mode=mode)
    batch, channels = x.shape[:2]
    each = kernel.repeat_interleave(channels, dim=0)[:, None]  # (B·C, 1, Kh, Kw)
    out = F.conv2d(padded.flatten(0, 1)[None], each, groups=batch * channels)
    return out.unflatten(1, (batch, channels))[0]
