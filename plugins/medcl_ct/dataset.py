"""Prepared volumes → slices, crops, stacks or whole volumes, read whole batches at a time."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medcl.errors import MedclError, UsageError
from medcl.plugin import Arrays, Samples

AIR = -1024
LABEL = "label."

Kind = Literal["slice", "crop", "volume", "stack"]


def dataset(
    items: pl.DataFrame,
    arrays: Arrays,
    *,
    kind: Kind = "slice",
    size: tuple[int, ...] = (256, 256),
    every: int = 1,
    neighbours: int = 0,
    crops: int = 8,
    seed: int = 0,
) -> Samples:
    """The samples of a set of volumes.

    Args:
        items: rows of the index; ``id``, ``patient``, ``label.*`` and, in a curated index, ``keep``
            (the heights of the slices that were kept, in mm) are used.
        arrays: their prepared arrays.
        kind: "slice": single slices. "crop": boxes at random places, the same ones every epoch.
            "volume": the middle of each volume, at its own spacing. "stack": slices spread evenly
            over each volume.
        size: of a sample: (Y, X) of slices, (Z, Y, X) of all else. What a volume lacks is air.
        every: of kind slice, take each n-th.
        neighbours: of kind slice, how many slices on each side come along as channels.
        crops: of kind crop, how many of each volume.
        seed: of kind crop, of their places.

    Returns:
        samples with ``x`` in HU, (B, 1 + 2·neighbours, Y, X) or (B, 1, Z, Y, X) float32. A volume
        of one slice gives slices only. Labels: those of the index, those of a benchmark's file
        (``organ``, ``nodule``), and ``region``: the most frequent value of the mask, 0 for none.

    Raises:
        UsageError: for a size of the wrong length, or settings below one.
        MedclError: if there is no sample.
    """
    flat = kind == "slice"
    if len(size) != (2 if flat else 3) or min(size) < 1 or min(every, crops) < 1 or neighbours < 0:
        axes = "(Y, X)" if flat else "(Z, Y, X)"
        raise UsageError(f"dataset.size of kind {kind} is {axes}; counts are at least 1.")
    random = np.random.default_rng(seed)
    places: list[tuple[int, int, tuple[int, ...]]] = []  # item, part, first voxel
    labels: dict[str, list[Any]] = {}
    rows = items.to_dicts()
    for number, row in enumerate(rows):
        held = arrays(row["id"])
        for part in range(sum(name.startswith("hu") for name in held)):
            shape = held[f"hu{part}"].shape
            chosen = _chosen(row.get("keep"), held, part)[::every]
            for first in _first(kind, shape, size, chosen, crops, random):
                places.append((number, part, first))
                for name, value in _labels(row, held, part, first, flat, shape, size).items():
                    labels.setdefault(name, [None] * (len(places) - 1)).append(value)
        for values in labels.values():
            values += [None] * (len(places) - len(values))
    if not places:
        raise MedclError(
            f"No {kind} is left: series of one slice make no volume, and an empty index nothing."
        )
    item = np.array([n for n, _, _ in places])
    read = partial(
        _read,
        arrays=arrays,
        ids=tuple(row["id"] for row in rows),
        item=item,
        part=np.array([p for _, p, _ in places]),
        first=np.array([f for _, _, f in places]),
        size=tuple(size),
        kind=kind,
        neighbours=neighbours,
    )
    return Samples(
        ids=[f"{rows[n]['id']}:{p}:{'.'.join(map(str, f))}" for n, p, f in places],
        items=[rows[n]["id"] for n in item],
        patients=[rows[n]["patient"] for n in item],
        read=read,
        labels={name: _column(values) for name, values in labels.items()},
    )


def _first(
    kind: Kind,
    shape: tuple[int, ...],
    size: tuple[int, ...],
    chosen: NDArray[np.int64],
    crops: int,
    random: np.random.Generator,
) -> list[tuple[int, ...]]:
    """The first voxels of a volume's samples; below zero where the volume is smaller."""
    if kind == "slice":
        y, x = ((n - s) // 2 for n, s in zip(shape[1:], size, strict=True))
        return [(z, y, x) for z in chosen.tolist()]
    if shape[0] < 2:
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


def heights(held: Mapping[str, NDArray[Any]], part: int) -> NDArray[np.float64]:
    """Where the slices of a part lie along the patient, in mm; their numbers if that is unknown."""
    count = len(held[f"hu{part}"])
    affine = held.get(f"affine{part}")
    if affine is None:
        return np.arange(count, dtype=np.float64)
    found: NDArray[np.float64] = affine[2, 3] + affine[2, 0] * np.arange(count)
    return found


def _chosen(
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


def _labels(
    row: Mapping[str, Any],
    held: Mapping[str, NDArray[Any]],
    part: int,
    first: tuple[int, ...],
    flat: bool,
    shape: tuple[int, ...],
    size: tuple[int, ...],
) -> dict[str, Any]:
    found = {
        name.removeprefix(LABEL): value for name, value in row.items() if name.startswith(LABEL)
    }
    if "label" in held:  # of a benchmark: one a slice, or one a volume
        one_each = len(held["label"]) == shape[0] and flat and "hu1" not in held
        found[str(row["task"])] = int(held["label"][first[0] if one_each else part])
    mask = held.get(f"mask{part}")
    if mask is not None:
        inside = (slice(first[0], first[0] + 1),) if flat else _within(first, size, shape)
        counts = np.bincount(np.asarray(mask[inside]).ravel(), minlength=1)
        found["region"] = int(counts[1:].argmax() + 1) if counts[1:].any() else 0
    return found


def _within(
    first: tuple[int, ...], size: tuple[int, ...], shape: tuple[int, ...]
) -> tuple[slice, ...]:
    return tuple(
        slice(max(f, 0), min(f + s, n)) for f, s, n in zip(first, size, shape, strict=True)
    )


def _column(values: list[Any]) -> NDArray[Any]:
    """Numbers as numbers, −1 or NaN where there is none; anything else as text."""
    known = [value for value in values if value is not None]
    if known and all(isinstance(value, bool | int) for value in known):
        return np.array([-1 if v is None else int(v) for v in values], dtype=np.int64)
    if known and all(isinstance(value, int | float) for value in known):
        return np.array([np.nan if v is None else v for v in values], dtype=np.float64)
    return np.array(["" if v is None else str(v) for v in values])


def _read(
    positions: NDArray[np.int64],
    *,
    arrays: Arrays,
    ids: tuple[str, ...],
    item: NDArray[np.int64],
    part: NDArray[np.int64],
    first: NDArray[np.int64],
    size: tuple[int, ...],
    kind: Kind,
    neighbours: int,
) -> dict[str, NDArray[Any]]:
    """A batch; items are visited one after the other, so that each is mapped once."""
    channels = 1 + 2 * neighbours if kind == "slice" else 1
    x = np.full((len(positions), channels, *size), AIR, dtype=np.float32)
    for row in np.lexsort((part[positions], item[positions])):
        position = positions[row]
        volume = arrays(ids[item[position]])[f"hu{part[position]}"]
        z, y, left = first[position].tolist()
        if kind == "slice":
            for channel, at in enumerate(range(z - neighbours, z + neighbours + 1)):
                at = min(max(at, 0), len(volume) - 1)
                _paste(x[row, channel], volume[at], (y, left))
        elif kind == "stack":
            for n, at in enumerate(_spread(len(volume), size[0])):
                _paste(x[row, 0, n], volume[at], (y, left))
        else:
            _paste(x[row, 0], volume, (z, y, left))
    return {"x": x}


def _spread(count: int, wanted: int) -> NDArray[np.int64]:
    """Evenly spread slices, each in the middle of its share; repeated where there are too few."""
    return ((np.arange(wanted) + 0.5) * count / wanted).astype(np.int64)


def _paste(out: NDArray[np.float32], volume: NDArray[Any], first: tuple[int, ...]) -> None:
    """Copy the box that starts at ``first`` into ``out``, as far as there is volume."""
    inside = _within(first, out.shape, volume.shape)
    there = tuple(
        slice(part.start - f, part.stop - f) for part, f in zip(inside, first, strict=True)
    )
    if all(part.stop > part.start for part in inside):
        out[there] = volume[inside]
