"""Images of channels (fluorescence, multiplex): their tissue, and their tiles (C, H, W).

Nothing here knows of stains: a channel is light that a marker sent out, dark where there is none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from medcl.errors import MedclError, UsageError
from medcl.plugin import Arrays, Samples
from medcl_pathology.overview import level_for
from medcl_pathology.reader import BadSlide, Channels, open_slide
from medcl_pathology.tiles import Grid, covered
from medcl_pathology.tissue import otsu

_STRIP = 4 * 1024 * 1024  # values of a level that are held at once
_BRIGHT = 99.8  # percentile of a channel that counts as its most

Floats = NDArray[np.float32]
Scale = Literal["range", "percentile"]


def opened(path: Path) -> Channels:
    """An image of channels.

    Raises:
        BadSlide: if it is none.
    """
    slide = open_slide(path)
    if not isinstance(slide, Channels) or not slide.about.channels:
        raise BadSlide("It is no image of channels.", "unsupported")
    return slide


def overview(slide: Channels, down: float) -> Floats:
    """The whole image, smaller by ``down``, in shares of the largest value: (C, H, W)."""
    about = slide.about
    width, height = about.levels[0]
    size = max(round(width / down), 1), max(round(height / down), 1)
    level = level_for(about.downsamples, (width / size[0], height / size[1]))
    full_w, full_h = about.levels[level]
    out = np.empty((len(about.channels), size[1], size[0]), dtype=np.float32)
    step = full_h / size[1]
    rows = max(int(_STRIP / (full_w * len(about.channels)) / step), 1)
    for first in range(0, size[1], rows):
        last = min(first + rows, size[1])
        y0, y1 = int(first * step), min(int(np.ceil(last * step)), full_h)
        strip = shares(slide.channels(level, 0, y0, full_w, y1 - y0))
        box = (0.0, first * step - y0, float(full_w), min(last * step, full_h) - y0)
        out[:, first:last] = resized(strip, (size[0], last - first), box)
    return out


def shares(values: NDArray[Any]) -> Floats:
    """Whole numbers as shares of the largest that their type can hold; decimals as they are."""
    kind = values.dtype.kind
    most = np.float32(np.iinfo(values.dtype).max if kind in "iu" else 1)
    out: Floats = values.astype(np.float32) / most
    return out


def resized(
    planes: Floats, size: tuple[int, int], box: tuple[float, float, float, float]
) -> Floats:
    """The part ``box`` of planes (C, H, W), averaged or interpolated to a width and height."""
    larger = box[2] - box[0] >= size[0] * 2
    how = Image.Resampling.BOX if larger else Image.Resampling.BILINEAR
    return np.stack(
        [np.asarray(Image.fromarray(plane).resize(size, how, box=box)) for plane in planes]
    )


def tissue(small: Floats, *, closing: float, smallest: float) -> NDArray[np.bool_]:
    """Where any channel is brighter than the glass: (C, H, W) → (H, W).

    Otsu's threshold on the mean of the channels, each by its brightest and in logarithms, since a
    few cells outshine the rest of the tissue. What is no brighter than noise is none.
    """
    dark = np.median(small, axis=(1, 2), keepdims=True)
    low = np.minimum(dark, np.percentile(small, 25, axis=(1, 2), keepdims=True))
    most = np.percentile(small, _BRIGHT, axis=(1, 2), keepdims=True) - low
    noise = np.abs(np.diff(small, axis=2)).mean(axis=(1, 2))[:, None, None]
    seen = most[:, 0, 0] > 3 * noise[:, 0, 0]
    if not seen.any():
        return np.zeros(small.shape[1:], dtype=bool)
    bright = ((small - low) / np.maximum(most, 1e-6)).clip(0, 1)[seen].mean(axis=0)
    values = np.log1p(20 * ndimage.gaussian_filter(bright, 1.0))
    found = values > otsu(values)
    reach = int(np.ceil(closing)) + 1
    padded = np.pad(found, reach, mode="edge")
    found = ndimage.binary_closing(padded, iterations=max(int(closing), 1))[
        reach:-reach, reach:-reach
    ]
    label, count = ndimage.label(found)
    sizes = np.bincount(label.ravel(), minlength=count + 1)
    sizes[0] = 0
    return np.asarray(ndimage.binary_fill_holes((sizes >= smallest)[label]))


def prepare(
    path: Path,
    grid: Grid,
    source: tuple[float, float],
    *,
    mpp: float,
    overlap: float,
    least: float,
    mask_mpp: float,
    smallest: float,
) -> dict[str, np.ndarray]:
    """Tiles of an image of channels; see `medcl_pathology.prepare.prepare`.

    Returns:
        ``coords``, ``tissue``, ``grid``, ``mask``, ``mask_scale`` as for slides, and ``bright``
        (C,): what counts as bright in each channel, in shares of the largest value.

    Raises:
        MedclError: if nothing shines, or no tile holds enough of it.
    """
    slide = opened(path)
    small = overview(slide, mask_mpp / source[0])
    mask = tissue(small, closing=16.0 / mask_mpp, smallest=smallest / mask_mpp**2)
    if not mask.any():
        raise MedclError("no-tissue: no channel of this image is brighter than its background.")
    width, height = slide.about.levels[0]
    scale = (width / small.shape[2], height / small.shape[1])
    corners = grid.corners(slide.about, overlap)
    share = covered(corners, grid, mask, scale)
    chosen = share >= max(least, 1e-6)
    if not chosen.any():
        raise MedclError(
            f"no-tiles: no tile of {grid.size} pixels at {mpp} µm holds {least:.0%} tissue. "
            "Lower prepare.tissue or prepare.size."
        )
    bright = np.percentile(small[:, mask], _BRIGHT, axis=1)
    return {
        "grid": np.array([grid.size, *grid.span, mpp]),
        "mask": mask.astype(np.uint8),
        "mask_scale": np.array(scale),
        "bright": np.maximum(bright, 1e-6).astype(np.float32),
        "coords": corners[chosen],
        "tissue": share[chosen],
    }


def read_tile(slide: Channels, x: int, y: int, grid: Grid) -> Floats:
    """A tile's channels, (C, size, size), in shares of the largest value.

    Raises:
        BadSlide: if a block under it is damaged.
    """
    wanted = (grid.span[0] / grid.size, grid.span[1] / grid.size)
    level = level_for(slide.about.downsamples, wanted)
    down_x, down_y = slide.about.downsamples[level]
    left, top = x / down_x, y / down_y
    width, height = grid.span[0] / down_x, grid.span[1] / down_y
    x0, y0 = int(left), int(top)
    right, bottom = int(np.ceil(left + width)), int(np.ceil(top + height))
    planes = slide.channels(level, x0, y0, max(right - x0, 1), max(bottom - y0, 1))
    if planes.shape[1:] == (grid.size, grid.size) and (left, top) == (x0, y0):
        return shares(planes)
    box = (left - x0, top - y0, left - x0 + width, top - y0 + height)
    return resized(shares(planes), (grid.size, grid.size), box)


def samples(
    rows: Sequence[Mapping[str, Any]],
    arrays: Arrays,
    labels: Mapping[str, NDArray[Any]],
    *,
    channels: Sequence[str] | None,
    scale: Scale,
    tiles: int | None,
    seed: int,
) -> Samples:
    """Tiles of images of channels as samples: ``x`` (B, C, S, S) float32, ``coords``, ``ok``.

    Args:
        rows: of the index.
        arrays: prepared.
        labels: of the rows.
        channels: names, in the order wanted; None: all, which must then be the same everywhere.
        scale: "range": shares of the largest value of the file's type; "percentile": of what is
            bright in each channel of the image, at most 1.
        tiles: at most this many of each image, drawn under ``seed``.
        seed: of that draw.

    Raises:
        UsageError: if a channel is not in every image, or tiles differ in size.
    """
    if not rows:
        raise MedclError("There is no image of channels in the index.")
    had = [str(row["channels"]).split("|") for row in rows]
    common = [name for name in had[0] if all(name in each for each in had)]
    if channels is None and any(each != had[0] for each in had):
        raise UsageError(
            "The images have different channels: name those to use, in their order, of "
            f"{', '.join(common) or 'none that all have'}: -s dataset.channels=[{common[0]},…]"
            if common
            else "The images have no channel in common: index those of one panel."
        )
    wanted = list(channels or had[0])
    absent = [name for name in wanted if name not in common]
    if absent:
        raise UsageError(
            f"dataset.channels: not every image has '{absent[0]}'. There are: {', '.join(common)}."
        )
    random = np.random.default_rng(seed)
    item, place, sizes = [], [], set()
    for n, row in enumerate(rows):
        held = arrays(row["id"])
        count = len(held["coords"])
        chosen = np.arange(count)
        if tiles is not None and count > tiles:
            chosen = np.sort(random.permutation(count)[:tiles])
        item.append(np.full(len(chosen), n))
        place.append(chosen)
        sizes.add(int(held["grid"][0]))
    if len(sizes) > 1:
        raise UsageError("The tiles differ in size: prepare all images alike.")
    of, at = np.concatenate(item), np.concatenate(place)
    ids = [str(row["id"]) for row in rows]
    order = tuple(tuple(each.index(name) for name in wanted) for each in had)
    return Samples(
        ids=[f"{ids[n]}:{p}" for n, p in zip(of.tolist(), at.tolist(), strict=True)],
        items=[ids[n] for n in of],
        patients=[rows[n]["patient"] for n in of],
        read=partial(
            _read, arrays=arrays, ids=tuple(ids), item=of, place=at, order=order, scale=scale
        ),
        labels={name: values[of] for name, values in labels.items()},
    )


def _read(
    positions: NDArray[np.int64],
    *,
    arrays: Arrays,
    ids: tuple[str, ...],
    item: NDArray[np.int64],
    place: NDArray[np.int64],
    order: tuple[tuple[int, ...], ...],
    scale: Scale,
) -> dict[str, NDArray[Any]]:
    tiles, corners, ok = [], [], []
    for position in positions:
        n = int(item[position])
        held = arrays(ids[n])
        grid = Grid(int(held["grid"][0]), (float(held["grid"][1]), float(held["grid"][2])))
        x, y = (int(v) for v in held["coords"][place[position]])
        chosen = list(order[n])
        try:
            tile = read_tile(opened(arrays.files(ids[n])[0]), x, y, grid)[chosen]
            ok.append(True)
        except BadSlide:  # dark, and said: no feature is made of it
            tile = np.zeros((len(chosen), grid.size, grid.size), np.float32)
            ok.append(False)
        if scale == "percentile":
            tile = (tile / np.asarray(held["bright"])[chosen][:, None, None]).clip(0, 1)
        tiles.append(tile)
        corners.append((x, y))
    return {
        "x": np.stack(tiles).astype(np.float32, copy=False),
        "coords": np.array(corners, dtype=np.int64),
        "ok": np.array(ok),
    }
