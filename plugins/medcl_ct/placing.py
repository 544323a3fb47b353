"""Where the samples of a volume lie: their first voxels, their heights, their centres in mm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

TRIES = 4
ENOUGH = 0.25
Kind = Literal["slice", "crop", "volume", "stack", "whole"]


def first(
    kind: Kind,
    shape: tuple[int, ...],
    size: tuple[int, ...],
    chosen: NDArray[np.int64],
    crops: int,
    images: bool,
    random: np.random.Generator,
) -> list[tuple[int, ...]]:
    """The first voxels of a volume's samples; below zero where the volume is smaller."""
    if kind == "slice":
        y, x = ((n - s) // 2 for n, s in zip(shape[1:], size, strict=True))
        return [(z, y, x) for z in chosen.tolist()]
    if shape[0] < 2 and not (images and len(chosen)):
        return []
    middle = tuple((n - s) // 2 for n, s in zip(shape, size, strict=True))
    if kind == "stack":
        return [(0, *middle[1:])]
    if kind == "volume":
        return [middle]
    return [
        tuple(
            int(random.integers(0, n - s + 1)) if n > s else m
            for n, s, m in zip(shape, size, middle, strict=True)
        )
        for _ in range(crops)
    ]


def drawn(
    volume: NDArray[Any], size: tuple[int, ...], body: float, random: np.random.Generator
) -> tuple[int, ...]:
    """The first voxel of a box at a random place, of those that hold enough of the body.

    The body is what has values above ``body`` (`medcl_ct.grey.BODY`). Of `TRIES` boxes it is the
    first of which a quarter is body, or else the one with most of it: what is all air teaches
    nothing, and what is half air is not left out.
    """
    best: tuple[int, ...] = (0, 0, 0)
    most = -1.0
    for _ in range(TRIES):
        (place,) = first("crop", volume.shape, size, np.arange(1), 1, False, random)
        inside = tuple(
            slice(max(f, 0), max(f, 0) + min(s, n), max(1, s // 8))
            for f, s, n in zip(place, size, volume.shape, strict=True)
        )
        share = float((volume[inside] > body).mean())
        if share >= ENOUGH:
            return place
        if share > most:
            best, most = place, share
    return best


def unrelated(held: Mapping[str, NDArray[Any]], shape: tuple[int, ...]) -> bool:
    """Whether the slices of a part are single images of a benchmark, each with its label."""
    return "label" in held and "hu1" not in held and len(held["label"]) == shape[0]


def centre(
    kind: Kind,
    held: Mapping[str, NDArray[Any]],
    part: int,
    first: tuple[int, ...],
    shape: tuple[int, ...],
    size: tuple[int, ...],
) -> NDArray[np.float64]:
    """Where a sample lies in its scanner's space, in mm: its height (1,), or of a crop (3,)."""
    affine = held.get(f"affine{part}")
    if affine is None:
        return np.full(3 if kind == "crop" else 1, np.nan)
    middle = [(n - 1) / 2 for n in shape]
    if kind == "slice":
        middle[0] = float(first[0])
    elif kind != "stack":
        middle = [f + (s - 1) / 2 for f, s in zip(first, size, strict=True)]
    where: NDArray[np.float64] = affine[:3, :3] @ np.array(middle) + affine[:3, 3]
    return where if kind == "crop" else where[2:]


def heights(held: Mapping[str, NDArray[Any]], part: int) -> NDArray[np.float64]:
    """Where the slices of a part lie along the patient, in mm; their numbers if that is unknown."""
    count = len(held[f"hu{part}"])
    affine = held.get(f"affine{part}")
    if affine is None:
        return np.arange(count, dtype=np.float64)
    found: NDArray[np.float64] = affine[2, 3] + affine[2, 0] * np.arange(count)
    return found


def chosen(
    keep: list[float] | None, held: Mapping[str, NDArray[Any]], part: int
) -> NDArray[np.int64]:
    """The slices of a part that a curated index kept: the nearest to each height; else all."""
    where = heights(held, part)
    if keep is None:
        return np.arange(len(where))
    reach = 0.5 * float(np.abs(np.diff(where)).max()) + 1e-3 if len(where) > 1 else 1e-3
    away = np.abs(where[None] - np.array(keep, dtype=np.float64).reshape(-1, 1))  # (K, Z)
    nearest = away.argmin(axis=1)[away.min(axis=1, initial=np.inf) <= reach]
    return np.unique(nearest)


def within(
    first: tuple[int, ...], size: tuple[int, ...], shape: tuple[int, ...]
) -> tuple[slice, ...]:
    """The part of a box that lies in the volume."""
    return tuple(
        slice(max(f, 0), min(f + s, n)) for f, s, n in zip(first, size, shape, strict=True)
    )


def paste(out: NDArray[Any], volume: NDArray[Any], first: tuple[int, ...]) -> None:
    """Copy the box that starts at ``first`` into ``out``, as far as there is volume."""
    inside = within(first, out.shape, volume.shape)
    there = tuple(
        slice(part.start - f, part.stop - f) for part, f in zip(inside, first, strict=True)
    )
    if all(part.stop > part.start for part in inside):
        out[there] = volume[inside]
