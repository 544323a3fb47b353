"""Bags as samples, packed: the instances of a whole batch one after the other, never padded."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medcl.errors import MedclError, MedclWarning, UsageError
from medcl.plugin import Arrays, Samples
from medcl_pathology import bagfiles
from medcl_pathology.prepare import pixels_per_unit
from medcl_pathology.texts import columns, vectors

ONE_ENCODER = (
    "Choose a folder when indexing: medcl index … -s reader.features=features_uni_v1 (or, of "
    "medcl finetune on a folder, the same)."
)


def bags(
    items: pl.DataFrame,
    arrays: Arrays,
    folder: Path | None,
    labels: Callable[[list[dict[str, Any]]], dict[str, NDArray[Any]]],
    texts: Sequence[str] = (),
) -> Samples:
    """One sample for each item that is a file of features, or has one in ``folder``.

    ``texts``: names of vectors of each item, see `medcl_pathology.texts`.

    Raises:
        UsageError: if the folder is missing, the slides have no features, or widths differ.
        MedclError: if there is no bag.
    """
    rows = items.to_dicts()
    if folder is not None:
        if not folder.is_dir():
            raise UsageError(
                f"dataset.bags: there is no folder {folder}. Make it with "
                "medcl embed, or say where it lies: -s dataset.bags=BAGS."
            )
        there = [row for row in rows if (folder / f"{row['id']}.h5").is_file()]
        if len(there) < len(rows) and there:
            warnings.warn(
                f"{len(rows) - len(there)} of {len(rows)} items have no bag in {folder}; they are "
                "left out.",
                MedclWarning,
                stacklevel=2,
            )
        rows = there
    else:
        rows = [row for row in rows if row.get("kind") == "bag"]
    if not rows:
        raise MedclError(
            "There is no bag. Make bags of slides with medcl embed … --data IDX --out BAGS, "
            "and give them with -s dataset.bags=BAGS."
        )
    found = [_heading(row, arrays, folder) for row in rows]
    widths = {bag.features for bag in found}
    if len(widths) > 1:
        raise UsageError(
            f"The bags' features differ in width ({', '.join(map(str, sorted(widths)))}): index "
            f"the bags of one encoder. {ONE_ENCODER}"
        )
    encoders = {row.get("encoder") for row in rows} - {None} if folder is None else set()
    if len(encoders) > 1:
        raise UsageError(
            f"The bags are of several encoders ({', '.join(sorted(map(str, encoders)))}). "
            f"{ONE_ENCODER}"
        )
    ids = tuple(row["id"] for row in rows)
    told = None
    if texts:
        mine = pl.DataFrame({"id": ids}).join(items, on="id", how="left", maintain_order="left")
        told = vectors(mine, texts)
        numbers = {column for name in texts for column in columns(items, name)}
        rows = [{k: v for k, v in row.items() if k not in numbers} for row in rows]
    return Samples(
        ids=ids,
        items=ids,
        patients=[row["patient"] for row in rows],
        read=partial(
            _read,
            arrays=arrays,
            ids=ids,
            folder=folder,
            placed=all(bag.placed for bag in found),
            told=told,
        ),
        labels=labels(rows),
        facts={
            row["id"]: {
                "instances": bag.instances,
                "tile": bag.tile,
                "unit": bag.unit,
                "untrained": bag.untrained,
            }
            for row, bag in zip(rows, found, strict=True)
        },
    )


@dataclass(frozen=True)
class _Heading:
    """Of a bag: its shape, whether it has coordinates, their unit, and a tile's side in it."""

    instances: int
    features: int
    placed: bool
    tile: float | None
    unit: str = "px"
    untrained: bool = False


def _heading(row: dict[str, Any], arrays: Arrays, folder: Path | None) -> _Heading:
    if folder is None:
        held = arrays(row["id"])
        count, width = held["features"].shape
        scale, tile = pixels_per_unit(row), row.get("tile")
        tile = tile if tile is None or scale is None else tile * float(scale[0])
        unit = str(row.get("unit") or "px") if scale is None else "px"
        random = bool(row.get("untrained"))
        return _Heading(int(count), int(width), "coords" in held, tile, unit, random)
    import h5py

    try:
        with h5py.File(folder / f"{row['id']}.h5", "r") as file:
            count, width = file["features"].shape
            tile = file.attrs.get("span_x")
            return _Heading(
                int(count),
                int(width),
                "coords" in file,
                None if tile is None else float(tile),
                untrained=bool(file.attrs.get("untrained", False)),
            )
    except (OSError, KeyError, ValueError):
        raise MedclError(
            f"The bag of item {row['id']} is damaged. Remove {row['id']}.h5 and run the same "
            "medcl embed."
        ) from None


def _read(
    positions: NDArray[np.int64],
    *,
    arrays: Arrays,
    ids: Sequence[str],
    folder: Path | None,
    placed: bool,
    told: NDArray[np.float32] | None,
) -> dict[str, NDArray[Any]]:
    """A packed batch. Files are opened for each read: no handle outlives it or is forked."""
    features, coords, counts = [], [], []
    for position in positions:
        name = ids[position]
        if folder is None:
            held = arrays(name)
            bag = bagfiles.Bag(np.asarray(held["features"]), held.get("coords"))
        else:
            try:
                bag = bagfiles.load(folder / f"{name}.h5", None)
            except MedclError as error:
                raise MedclError(f"The bag of item {name}: {error}") from None
        features.append(bag.features.astype(np.float32, copy=False))
        coords.append(bag.coords)
        counts.append(len(bag.features))
    out: dict[str, NDArray[Any]] = {
        "x": np.concatenate(features),
        "bag": np.repeat(np.arange(len(counts)), counts),
    }
    if placed:
        out["coords"] = np.concatenate([np.asarray(c, dtype=np.float32) for c in coords])
    if told is not None:
        out["text"] = told[positions]
    return out
