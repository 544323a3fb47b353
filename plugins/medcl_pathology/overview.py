"""A slide at low magnification, of any size, without holding more of it than a strip."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medcl_pathology.reader import BadSlide, Pixels, Slide

_STRIP = 4 * 1024 * 1024  # pixels of a level that are held at once
_GIVEN_UP = 64  # pixels: the side of what is white around a damaged block


def overview(slide: Slide, down: float) -> Pixels:
    """The whole slide, smaller by ``down`` along both axes: (H, W, 3) uint8.

    It is made of the smallest level that is larger, by averaging; strip by strip, so that a slide
    of one level costs time and no memory.
    """
    about = slide.about
    width, height = about.levels[0]
    size = max(round(width / down), 1), max(round(height / down), 1)
    level = level_for(about.downsamples, (width / size[0], height / size[1]))
    full_w, full_h = about.levels[level]
    out = np.empty((size[1], size[0], 3), dtype=np.uint8)
    step = full_h / size[1]  # rows of the level for each row of the overview
    rows = max(int(_STRIP / max(full_w, 1) / step), 1)
    for first in range(0, size[1], rows):
        last = min(first + rows, size[1])
        top, bottom = first * step, last * step
        y0, y1 = int(top), min(int(np.ceil(bottom)), full_h)
        strip = _lenient(slide, level, 0, y0, full_w, y1 - y0)
        box = (0.0, top - y0, float(full_w), min(bottom, full_h) - y0)
        out[first:last] = shrink(strip, (size[0], last - first), box)
    return out


def _lenient(slide: Slide, level: int, x: int, y: int, width: int, height: int) -> Pixels:
    """A region, white around damaged blocks."""
    try:
        return slide.region(level, x, y, width, height)
    except BadSlide:
        if max(width, height) <= _GIVEN_UP:
            return np.full((height, width, 3), 255, dtype=np.uint8)
    out = np.empty((height, width, 3), dtype=np.uint8)
    if width >= height:
        half = width // 2
        out[:, :half] = _lenient(slide, level, x, y, half, height)
        out[:, half:] = _lenient(slide, level, x + half, y, width - half, height)
    else:
        half = height // 2
        out[:half] = _lenient(slide, level, x, y, width, half)
        out[half:] = _lenient(slide, level, x, y + half, width, height - half)
    return out


def level_for(downsamples: tuple[tuple[float, float], ...], wanted: tuple[float, float]) -> int:
    """The smallest level that is no coarser than wanted along either axis, by at most 1 %."""
    fits = [
        n for n, (x, y) in enumerate(downsamples) if x <= wanted[0] * 1.01 and y <= wanted[1] * 1.01
    ]
    return max(fits, key=lambda n: downsamples[n][0]) if fits else 0


def shrink(
    pixels: Pixels, size: tuple[int, int], box: tuple[float, float, float, float]
) -> NDArray[np.uint8]:
    """Resample the part ``box`` (left, top, right, bottom; in fractions too) to ``size``."""
    image = Image.fromarray(pixels)
    return np.asarray(image.resize(size, Image.Resampling.BOX, box=box))
