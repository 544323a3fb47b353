"""Tiles of a requested size in µm: where they lie, and their pixels on demand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medcl_pathology.overview import level_for
from medcl_pathology.reader import About, Pixels, Slide

_SAME = 1e-3  # a scale this close to 1 is 1: no resampling


@dataclass(frozen=True)
class Grid:
    """How tiles are cut.

    Attributes:
        size: pixels along each side of what is read.
        span: full-size pixels that a tile covers along x and y; not whole in general.
    """

    size: int
    span: tuple[float, float]

    @classmethod
    def at(cls, mpp: float, size: int, source: tuple[float, float]) -> Grid:
        """Tiles of ``size`` pixels of ``mpp`` µm, in a slide whose pixels are ``source`` µm."""
        return cls(size, (size * mpp / source[0], size * mpp / source[1]))

    def corners(self, about: About, overlap: float = 0.0) -> NDArray[np.int64]:
        """The top left corners (N, 2) x, y of all tiles that lie within the slide, row by row.

        Corners are whole pixels; the steps between them are not accumulated, so that they are
        right to half a pixel anywhere.
        """
        width, height = about.levels[0]
        axes = []
        for extent, span in zip((width, height), self.span, strict=True):
            step = span * (1 - overlap)
            count = int((extent - span) / step + 1e-9) + 1 if extent >= span else 0
            axes.append(np.rint(np.arange(count) * step).astype(np.int64))
        x, y = np.meshgrid(axes[0], axes[1])
        return np.stack([x.ravel(), y.ravel()], axis=1)


def covered(
    corners: NDArray[np.int64],
    grid: Grid,
    mask: NDArray[np.bool_],
    scale: tuple[float, float],
) -> NDArray[np.float32]:
    """How much of each tile is tissue (N,), by a mask whose pixels are ``scale`` full-size ones.

    Exact for tiles that begin and end within a pixel of the mask: its integral is interpolated.
    """
    total = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1))
    total[1:, 1:] = mask.cumsum(axis=0, dtype=np.float64).cumsum(axis=1)
    left, top = corners[:, 0] / scale[0], corners[:, 1] / scale[1]
    right = np.minimum(left + grid.span[0] / scale[0], mask.shape[1])
    bottom = np.minimum(top + grid.span[1] / scale[1], mask.shape[0])

    def at(y: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
        y0 = np.clip(y.astype(np.int64), 0, mask.shape[0] - 1)
        x0 = np.clip(x.astype(np.int64), 0, mask.shape[1] - 1)
        fy, fx = y - y0, x - x0
        above = total[y0, x0] * (1 - fx) + total[y0, x0 + 1] * fx
        below = total[y0 + 1, x0] * (1 - fx) + total[y0 + 1, x0 + 1] * fx
        return np.asarray(above * (1 - fy) + below * fy)

    inside = at(bottom, right) - at(top, right) - at(bottom, left) + at(top, left)
    whole = np.maximum((right - left) * (bottom - top), 1e-9)
    return np.asarray(inside / whole, dtype=np.float32).clip(0, 1)


def read_tile(slide: Slide, x: int, y: int, grid: Grid) -> Pixels:
    """The pixels of a tile, (size, size, 3), of exactly the physical size that was asked for.

    Of the smallest level that is fine enough, averaged down by the exact ratio.

    Raises:
        BadSlide: if a block under it is damaged.
    """
    level = level_for(slide.about.downsamples, (grid.span[0] / grid.size, grid.span[1] / grid.size))
    down_x, down_y = slide.about.downsamples[level]
    left, top = x / down_x, y / down_y
    width, height = grid.span[0] / down_x, grid.span[1] / down_y
    same = abs(width / grid.size - 1) < _SAME and abs(height / grid.size - 1) < _SAME
    if same and level == 0:
        return slide.region(0, x, y, grid.size, grid.size)
    # OpenSlide takes its place in full-size pixels, so this is where it really begins.
    x0, y0 = int(left), int(top)
    right, bottom = int(np.ceil(left + width)), int(np.ceil(top + height))
    whole = (left, top, width, height) == (x0, y0, right - x0, bottom - y0)
    if whole and grid.size < width <= 4 * grid.size and grid.size < height <= 4 * grid.size:
        return _shrunk(slide.region(level, x0, y0, right - x0, bottom - y0), grid.size)
    image = slide.picture(level, x0, y0, max(right - x0, 1), max(bottom - y0, 1))
    box = (left - x0, top - y0, left - x0 + width, top - y0 + height)
    filter_ = Image.Resampling.BICUBIC if width <= 4 * grid.size else Image.Resampling.BOX
    return np.asarray(image.resize((grid.size, grid.size), filter_, box=box))


def _shrunk(pixels: Pixels, size: int) -> Pixels:
    """(H, W, 3) → (size, size, 3) by Pillow's bicubic filter, in a fifth of its time.

    PyTorch's is the same but for one grey level in one pixel of ten thousands; it takes no box of
    fractions, for which Pillow is there.
    """
    import torch

    x = torch.from_numpy(np.require(pixels, requirements="W")).permute(2, 0, 1)[None]
    small = torch.nn.functional.interpolate(x, (size, size), mode="bicubic", antialias=True)
    return np.ascontiguousarray(small[0].permute(1, 2, 0).numpy())
