"""Tiles and bags as samples: read from the slide, from the store, or from files of features."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medcl.errors import MedclError, UsageError
from medcl.plugin import Arrays, Samples
from medcl.strings import Formatted, encoded, smallest
from medcl_pathology import bagset, multiplex
from medcl_pathology.reader import BadSlide, open_slide
from medcl_pathology.tiles import Grid, read_tile

LABEL = "label."
_TRIES = 8  # other tiles of the slide that may stand in for a damaged one


def dataset(
    items: pl.DataFrame,
    arrays: Arrays,
    *,
    kind: Literal["tile", "bag", "multiplex"] = "tile",
    size: int | None = None,
    tiles: int | None = None,
    seed: int = 0,
    neighbours: float = 0.0,
    bags: Path | None = None,
    texts: tuple[str, ...] = (),
    channels: tuple[str, ...] | None = None,
    scale: multiplex.Scale = "range",
) -> Samples:
    """The samples of a set of slides, tiles and bags.

    Args:
        items: rows of the index; ``id``, ``patient``, ``kind`` and ``label.*`` are used.
        arrays: their prepared arrays, and where their files lie.
        kind: "tile": all tiles of slides, and plain tiles. "bag": files of features, or slides
            whose features lie in ``bags``. "multiplex": tiles of images of channels.
        size: of kind tile, pixels along each side: the middle of larger tiles, smaller ones
            mirrored at their edges; None: as prepared, which must be the same for all.
        tiles: of kind tile, at most this many of each slide, drawn under ``seed``.
        seed: of that draw.
        neighbours: of kind tile, positive partners are the nearest tiles of the slide, at most so
            many µm away (corner to corner); 0: any tile of the patient.
        bags: of kind bag, a folder that medcl embed wrote of these very items.
        texts: of kind bag, names of vectors of texts about the slides: columns NAME.0, NAME.1, … of
            a table given to medcl index --table.
        channels, scale: of kind multiplex, see `medcl_pathology.multiplex.samples`.

    Returns:
        kind tile: ``x`` (B, 3, S, S) float32 in 0 … 1, ``coords`` (B, 2) the corner in full-size
        pixels (0 for plain tiles), ``ok`` (B,) False where a damaged tile was replaced by another
        of its slide. Kind bag: ``x`` (I, F) float32, the instances of all bags; ``bag`` (I,) which
        of the batch each belongs to; ``coords`` (I, 2) float32 where all bags have them; ``text``
        (B, T, D) the vectors of ``texts``, zero where a slide has none.

    Raises:
        UsageError: for settings that do not fit the items.
        MedclError: if there is no sample, or a bag that is read holds NaN.
    """
    kinds = items["kind"] if "kind" in items.columns else pl.Series([], dtype=pl.String)
    if kind == "bag":
        folder = None if bags is None else Path(bags)
        return bagset.bags(items, arrays, folder, labels, texts)
    if kind == "multiplex":
        of_channels = items.filter(kinds == "multiplex").to_dicts() if len(kinds) else []
        return multiplex.samples(
            of_channels,
            arrays,
            labels(of_channels),
            channels=channels,
            scale=scale,
            tiles=tiles,
            seed=seed,
        )
    if min(1 if size is None else size, 1 if tiles is None else tiles) < 1:
        raise UsageError("dataset.size and dataset.tiles are at least 1, or left out.")
    rows = items.filter(kinds.is_in(["slide", "tile"])).to_dicts() if len(kinds) else []
    random = np.random.default_rng(seed)
    which: list[NDArray[np.int64]] = []
    facts: dict[str, dict[str, Any]] = {}
    sides: set[tuple[int, int]] = set()
    for row in rows:
        held = arrays(row["id"])
        count = len(held["coords"]) if "coords" in held else len(held["pixels"])
        chosen = np.arange(count)
        if tiles is not None and count > tiles:
            chosen = np.sort(random.permutation(count)[:tiles])
        which.append(chosen)
        facts[row["id"]] = _facts(held)
        if "pixels" in held:
            sides.add(held["pixels"].shape[1:3])
        else:
            sides.add((int(held["grid"][0]),) * 2)
    if not rows:
        if len(kinds) and (kinds == "multiplex").any():
            raise UsageError(
                "The index holds images of channels and no RGB: -s dataset.kind=multiplex, with an "
                "encoder of as many channels (-s encoder.channels=…) and views without stain."
            )
        raise MedclError("There is no tile: the index holds no slide or tile image.")
    if size is None and len(sides) > 1:
        some = ", ".join(f"{w}×{h}" for h, w in sorted(sides)[:4])
        raise UsageError(f"The tiles differ in size ({some}): set dataset.size.")
    item = smallest(np.repeat(np.arange(len(rows)), [len(chosen) for chosen in which]))
    place = smallest(np.concatenate(which))
    ids = [row["id"] for row in rows]
    owners = encoded(ids, item)
    return Samples(
        ids=Formatted("{}:{}", owners, (place,)),
        items=owners,
        patients=encoded([row["patient"] for row in rows], item),
        read=partial(_read, arrays=arrays, ids=tuple(ids), item=item, place=place, size=size),
        labels={n: values[item] for n, values in labels(rows).items()}
        | _own_labels(rows, arrays, which),
        facts=facts,
        **_nearness(rows, arrays, which, neighbours),
    )


def _own_labels(
    rows: list[dict[str, Any]], arrays: Arrays, which: list[NDArray[np.int64]]
) -> dict[str, NDArray[np.int64]]:
    """Labels of tiles by themselves, as blocks of MedMNIST have them; −1 for all other tiles."""
    held = [arrays(row["id"]).get("label") if row.get("task") else None for row in rows]
    found = {}
    for task in sorted({str(row["task"]) for row in rows if row.get("task")}):
        found[task] = np.concatenate(
            [
                np.full(len(chosen), -1)
                if label is None or row["task"] != task
                else np.asarray(label)[chosen]
                for row, label, chosen in zip(rows, held, which, strict=True)
            ]
        )
    return found


def _nearness(
    rows: list[dict[str, Any]], arrays: Arrays, which: list[NDArray[np.int64]], reach: float
) -> dict[str, Any]:
    """Where the tiles lie, in µm; NaN for those that are of no slide."""
    if reach <= 0:
        return {}
    locations = []
    for row, chosen in zip(rows, which, strict=True):
        held = arrays(row["id"])
        if "coords" in held:
            size, span_x, span_y, mpp = held["grid"].tolist()
            locations.append(held["coords"][chosen] * (size * mpp / np.array([span_x, span_y])))
        else:
            locations.append(np.full((len(chosen), 2), np.nan))
    return {"locations": np.concatenate(locations), "reach": reach, "unit": "µm"}


def labels(rows: list[dict[str, Any]]) -> dict[str, NDArray[Any]]:
    """The label columns of items, −1, NaN or empty where there is none."""
    names = [name for name in (rows[0] if rows else {}) if name.startswith(LABEL)]
    return {name.removeprefix(LABEL): _column([row[name] for row in rows]) for name in names}


def _column(values: list[Any]) -> NDArray[Any]:
    known = [value for value in values if value is not None]
    if known and all(isinstance(value, bool | int) for value in known):
        return np.array([-1 if v is None else int(v) for v in values], dtype=np.int64)
    if known and all(isinstance(value, int | float) for value in known):
        return np.array([np.nan if v is None else v for v in values], dtype=np.float64)
    return np.array(["" if v is None else str(v) for v in values])


def _facts(held: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """What bags of these tiles should say; TRIDENT's names where it has one."""
    if "grid" not in held:
        return {"patch_size": int(held["pixels"].shape[1])}
    size, span_x, span_y, mpp = held["grid"].tolist()
    failed = len(held["failed"]) if "failed" in held else 0
    return {
        "mpp": mpp,
        "patch_size": int(size),
        "patch_size_level0": round(span_x),
        "span_x": span_x,
        "span_y": span_y,
        "damaged_tiles": failed,
    }


def _read(
    positions: NDArray[np.int64],
    *,
    arrays: Arrays,
    ids: tuple[str, ...],
    item: NDArray[Any],
    place: NDArray[Any],
    size: int | None,
) -> dict[str, NDArray[Any]]:
    """A batch; in the order of items and places, so that blocks are decoded once."""
    coords = np.zeros((len(positions), 2), dtype=np.int64)
    ok = np.ones(len(positions), dtype=bool)
    x: NDArray[np.float32] | None = None
    for row in np.lexsort((place[positions], item[positions])):
        name, n = ids[item[positions[row]]], int(place[positions[row]])
        held = arrays(name)
        if "coords" in held:
            coords[row] = held["coords"][n]
        if "pixels" in held:
            tile = held["pixels"][n]
        else:
            tile, ok[row] = _from_slide(arrays.files(name)[0], held, n)
        if size is not None and tile.shape[:2] != (size, size):
            tile = _fit(tile, size)
        if x is None:
            x = np.empty((len(positions), 3, *tile.shape[:2]), dtype=np.float32)
        np.multiply(tile.transpose(2, 0, 1), np.float32(1 / 255), out=x[row], casting="unsafe")
    assert x is not None, "an empty batch"
    return {"x": x, "coords": coords, "ok": ok}


def _from_slide(
    path: Path, held: Mapping[str, NDArray[Any]], n: int
) -> tuple[NDArray[np.uint8], bool]:
    """The pixels of a tile; of the next that can be read, and False, where it is damaged."""
    grid = Grid(int(held["grid"][0]), (float(held["grid"][1]), float(held["grid"][2])))
    corners = held["coords"]
    for step in range(min(_TRIES, len(corners))):
        x, y = (int(v) for v in corners[(n + step) % len(corners)])
        try:
            return read_tile(open_slide(path), x, y, grid), step == 0
        except BadSlide:
            continue
    return np.full((grid.size, grid.size, 3), 255, dtype=np.uint8), False


def _fit(tile: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """The middle of a tile, mirrored at its edges where it is too small."""
    for axis in (0, 1):
        n = tile.shape[axis]
        if n < size:
            before = (size - n) // 2
            widths = [(0, 0)] * 3
            widths[axis] = (before, size - n - before)
            tile = np.pad(tile, widths, mode="symmetric")
        else:
            first = (n - size) // 2
            tile = tile[first : first + size] if axis == 0 else tile[:, first : first + size]
    return tile
