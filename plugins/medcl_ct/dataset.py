"""Prepared volumes → slices, crops, stacks or whole volumes, read whole batches at a time."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medcl.archive.clinical import Category, table
from medcl.archive.scanning import LABEL
from medcl.errors import MedclError, UsageError
from medcl.plugin import Arrays, Samples
from medcl.strings import Formatted, encoded, smallest
from medcl_ct import benchmark, grey, kinds, placing, whole
from medcl_ct.placing import Kind, paste, within

AIR = -1024


def dataset(
    items: pl.DataFrame,
    arrays: Arrays,
    *,
    kind: Kind = "slice",
    size: tuple[int, ...] = (256, 256),
    every: int = 1,
    neighbours: int = 0,
    crops: int = 8,
    images: bool = False,
    categories: Mapping[str, tuple[Category, ...]] | None = None,
    numbers: Mapping[str, tuple[float, float]] | None = None,
    positives: Literal["anatomy", "patient"] = "anatomy",
    reach: float = 10.0,
    classes: Mapping[str, tuple[int, ...]] | None = None,
    foreground: float = 0.33,
    modality: kinds.Kind = "ct",
    seed: int = 0,
) -> Samples:
    """The samples of a set of volumes.

    Args:
        items: rows of the index; ``id``, ``patient``, ``group``, ``label.*``, the columns of the
            table and, in a curated index, ``keep`` (the heights of the slices that were kept, in
            mm) are used.
        arrays: their prepared arrays.
        kind: "slice": single slices. "crop": boxes at random places; pretraining draws them anew
            at every step, more often where the body is, unless positives or labels are of a box.
            "volume": the middle of each volume, at its own spacing. "stack": slices spread evenly
            over each volume. "whole": each volume in full, with the class of each voxel where it
            has a mask, for classifiers that segment; see `medcl_ct.whole`.
        size: of a sample: (Y, X) of slices, (Z, Y, X) of all else. What a volume lacks is air.
        every: of kind slice, take each n-th.
        neighbours: of kind slice, how many slices on each side come along as channels.
        crops: of kind crop, how many of each volume in an epoch.
        images: of kind stack, let series of one slice come along as images: each is a sample of
            ``depth`` 1, its slice repeated. Methods for both (joint2d3d) read the depth, and never
            take an image for a volume.
        categories: categorical columns of the table, name → categories; see
            `medcl.archive.clinical.table`. Leave out what you want to predict later.
        numbers: numeric columns of the table, name → (centre, scale).
        positives: what a positive partner is, for methods that ask for one. "anatomy": the nearest
            sample of another item of the same group (two kernels of a scan, at the same height), or
            else of its own item. "patient": any other sample of the patient.
        reach: how far away a partner may lie, in mm: in height, or of kind crop in space.
        classes: of kind whole, class → values of the masks; "ignore": values of unknown class.
            None: all that the data set names (`medcl_ct.mask_classes`).
        foreground: of kind whole, the share of patches that are drawn around a voxel of a class,
            each class equally often; the others lie around any voxel.
        modality: of kind crop, what the volumes are, from ``prepare.modality``: it says which
            values are of the body.
        seed: of kind crop, of their places.

    Returns:
        samples with ``x`` in HU, (B, 1 + 2·neighbours, Y, X) or (B, 1, Z, Y, X) float32; with
        ``images`` also ``depth`` (B,), how many slices are real; with ``categories`` or ``numbers``
        also ``table`` (B, columns) float32, the categorical ones first, −1 or NaN where missing. A
        volume of one slice, and the images of a 2D benchmark, give slices only.
        Labels: those of the index, those of a benchmark's file (``organ``, ``nodule``,
        ``chest.effusion``, …), and ``region``: the most frequent value of the mask, 0 for none.

    Raises:
        UsageError: for a size of the wrong length, settings below one, or a table's column that
            the index does not hold.
        MedclError: if there is no sample.
    """
    flat = kind == "slice"
    if len(size) != (2 if flat else 3) or min(size) < 1 or min(every, crops) < 1 or neighbours < 0:
        axes = "(Y, X)" if flat else "(Z, Y, X)"
        raise UsageError(f"dataset.size of kind {kind} is {axes}; counts are at least 1.")
    if kind == "whole":
        return whole.dataset(items, arrays, size, classes, foreground)
    if images and kind != "stack":
        raise UsageError("dataset.images goes with dataset.kind stack alone.")
    random = np.random.default_rng(seed)
    found: list[tuple[int, int, int, int]] = []  # of each part: item, part, depth, samples
    corners: list[NDArray[Any]] = []  # of each part: first voxels (M, 3)
    centres: list[NDArray[np.float64]] = []
    count = 0
    labels: dict[str, list[Any]] = {}
    clinical = table(items, categories or {}, numbers or {})
    rows = items.to_dicts()
    for number, row in enumerate(rows):
        held = arrays(row["id"])
        for part in range(sum(name.startswith("hu") for name in held)):
            shape = held[f"hu{part}"].shape
            if placing.unrelated(held, shape) and (not flat or neighbours):
                continue
            chosen = placing.chosen(row.get("keep"), held, part)[::every]
            firsts = placing.first(kind, shape, size, chosen, crops, images, random)
            if not firsts:
                continue
            found.append((number, part, 1 if shape[0] == 1 else size[0], len(firsts)))
            corners.append(smallest(np.array(firsts)))
            centres.append(
                np.stack([placing.centre(kind, held, part, f, shape, size) for f in firsts])
            )
            extent = (shape[0], *size[1:]) if kind == "stack" else size
            for first in firsts:
                for name, value in _labels(row, held, part, first, flat, shape, extent).items():
                    labels.setdefault(name, [None] * count).append(value)
                count += 1
            for values in labels.values():  # what this part does not say
                values += [None] * (count - len(values))
    if not count:
        raise MedclError(
            f"No {kind} is left: series of one slice, and the images of a 2D benchmark, make no "
            "volume, and an empty index nothing."
        )
    *columns, counts = np.array(found).T
    item, parts, depth = (np.repeat(smallest(column), counts) for column in columns)
    corner = np.concatenate(corners)
    ids = [row["id"] for row in rows]
    owners = encoded(ids, item)
    read = partial(
        _read,
        arrays=arrays,
        ids=tuple(ids),
        item=item,
        part=parts,
        first=corner,
        size=tuple(size),
        kind=kind,
        neighbours=neighbours,
        depth=depth if images else None,
        clinical=clinical,
    )
    draw = partial(
        _draw,
        arrays=arrays,
        ids=tuple(ids),
        item=item,
        part=parts,
        size=tuple(size),
        body=grey.BODY[modality],
        clinical=clinical,
    )
    near = positives == "anatomy"
    names = Formatted("{}:{}:{}.{}.{}", owners, (parts, corner))
    return Samples(
        ids=names,
        items=owners,
        patients=encoded([row["patient"] for row in rows], item),
        read=read,
        labels={name: _column(values) for name, values in labels.items()},
        groups=encoded([r.get("group") or r["id"] for r in rows], item) if near else None,
        locations=np.concatenate(centres) if near else None,
        reach=reach,
        unit="mm",
        where=partial(
            _where, names=names, part=parts, first=corner, places=np.concatenate(centres)
        ),
        draw=draw if kind == "crop" else None,
    )


def _where(
    positions: NDArray[np.int64],
    *,
    names: Formatted,
    part: NDArray[Any],
    first: NDArray[Any],
    places: NDArray[np.float64],
) -> dict[str, NDArray[Any]]:
    """Where samples lie: id, part and first slice of its prepared volume, height in mm (LPS z)."""
    height = places[positions, -1].astype(np.float64)
    sample = np.array([names[int(n)] for n in positions])
    return {"sample": sample, "part": part[positions], "slice": first[positions, 0], "z_mm": height}


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
        at = first[0] if placing.unrelated(held, shape) else part
        found |= benchmark.labels(str(row["task"]), np.asarray(held["label"][at]))
    mask = held.get(f"mask{part}")
    if mask is not None:
        inside = (slice(first[0], first[0] + 1),) if flat else within(first, size, shape)
        counts = np.bincount(np.asarray(mask[inside]).ravel(), minlength=1)
        found["region"] = int(counts[1:].argmax() + 1) if counts[1:].any() else 0
    return found


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
    item: NDArray[Any],
    part: NDArray[Any],
    first: NDArray[Any],
    size: tuple[int, ...],
    kind: Kind,
    neighbours: int,
    depth: NDArray[Any] | None,
    clinical: NDArray[np.float32] | None,
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
                paste(x[row, channel], volume[at], (y, left))
        elif kind == "stack":
            for n, at in enumerate(_spread(len(volume), size[0])):
                paste(x[row, 0, n], volume[at], (y, left))
        else:
            paste(x[row, 0], volume, (z, y, left))
    batch: dict[str, NDArray[Any]] = {"x": x}
    if depth is not None:
        batch["depth"] = depth[positions].astype(np.int64)
    if clinical is not None:
        batch["table"] = clinical[item[positions]]
    return batch


def _draw(
    positions: NDArray[np.int64],
    seeds: NDArray[np.uint64],
    *,
    arrays: Arrays,
    ids: tuple[str, ...],
    item: NDArray[np.int64],
    part: NDArray[np.int64],
    size: tuple[int, ...],
    body: float,
    clinical: NDArray[np.float32] | None,
) -> dict[str, NDArray[Any]]:
    """A batch of boxes, each drawn from its own volume by its own seed."""
    x = np.full((len(positions), 1, *size), AIR, dtype=np.float32)
    for row in np.lexsort((part[positions], item[positions])):
        position = positions[row]
        volume = arrays(ids[item[position]])[f"hu{part[position]}"]
        random = np.random.default_rng(seeds[row])
        paste(x[row, 0], volume, placing.drawn(volume, size, body, random))
    batch: dict[str, NDArray[Any]] = {"x": x}
    if clinical is not None:
        batch["table"] = clinical[item[positions]]
    return batch


def _spread(count: int, wanted: int) -> NDArray[np.int64]:
    """Evenly spread slices, each in the middle of its share; repeated where there are too few."""
    return ((np.arange(wanted) + 0.5) * count / wanted).astype(np.int64)
