"""Whole volumes with the class of each voxel, and patches of them, for segmentation."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medcl.errors import MedclError, UsageError
from medcl.plugin import Arrays, Samples
from medcl.strings import encoded
from medcl_ct import mask_classes, placing
from medcl_ct.mask_classes import UNKNOWN

AIR = -1024


def dataset(
    items: pl.DataFrame,
    arrays: Arrays,
    size: tuple[int, ...],
    classes: mask_classes.Named | None,
    foreground: float,
) -> Samples:
    """One sample for each volume, with or without a mask.

    Args:
        items, arrays: see `medcl_ct.dataset.dataset`.
        size: of a patch (Z, Y, X).
        classes: see `medcl_ct.mask_classes.classes`.
        foreground: share of patches around a voxel of a class.

    Returns:
        samples with ``x`` (1, 1, Z, Y, X) in HU, ``mask`` (1, Z, Y, X), −1 without one, and
        ``spacing`` (1, 3) in mm along (z, y, x). ``draw`` gives patches. Label ``masked``: whether
        there is a mask.

    Raises:
        UsageError: for a share outside of 0 … 1.
        MedclError: if there is no volume, or the masks do not draw the same classes.
    """
    if not 0 <= foreground <= 1:
        raise UsageError("dataset.foreground is a share: from 0 to 1.")
    rows = items.to_dicts()
    found: list[tuple[int, int, int]] = []  # of each volume: item, part, number of its table
    drawn: list[mask_classes.Drawn] = []
    owners: list[str] = []
    for number, row in enumerate(rows):
        held = arrays(row["id"])
        for part in range(sum(name.startswith("hu") for name in held)):
            if len(held[f"hu{part}"]) < 2 or placing.unrelated(held, held[f"hu{part}"].shape):
                continue
            masked = f"mask{part}" in held
            found.append((number, part, len(drawn) if masked else -1))
            if masked:
                values = np.unique(np.asarray(held[f"drawn{part}"])[:, 0]).tolist()
                files = arrays.files(row["id"]) if classes is None else ()
                drawn.append(mask_classes.drawn(files, values))
                owners.append(row["patient"])
    if not found:
        raise MedclError("No volume is left: series of one slice cannot be segmented.")
    names: tuple[str, ...] = ("background",)
    tables: NDArray[np.int16] = np.zeros((1, 256), dtype=np.int16)
    if drawn:
        known = mask_classes.classes(mask_classes.shared(drawn, owners), classes)
        names, tables = known.names, known.tables
    item, part, table = np.array(found).T
    source = _Source(arrays, tuple(row["id"] for row in rows), item, part, table, tables)
    keys = encoded([rows[n]["id"] for n in item])
    return Samples(
        ids=[f"{rows[n]['id']}:{p}" for n, p in zip(item, part, strict=True)],
        items=keys,
        patients=encoded([rows[n]["patient"] for n in item]),
        read=source.read,
        draw=partial(source.draw, size=tuple(size), foreground=foreground),
        labels={"masked": table >= 0},
        mask_classes=names,
    )


class _Source:
    """Reads volumes and patches; picklable."""

    def __init__(
        self,
        arrays: Arrays,
        ids: tuple[str, ...],
        item: NDArray[np.int64],
        part: NDArray[np.int64],
        table: NDArray[np.int64],
        tables: NDArray[np.int16],
    ) -> None:
        self.arrays, self.ids, self.item, self.part = arrays, ids, item, part
        self.table, self.tables = table, tables

    def _open(
        self, position: int
    ) -> tuple[Mapping[str, NDArray[Any]], NDArray[Any], NDArray[Any] | None, NDArray[np.float32]]:
        """Everything of an item; its volume, its mask, and the spacing in mm."""
        held, part = self.arrays(self.ids[self.item[position]]), self.part[position]
        spacing = np.linalg.norm(np.asarray(held[f"affine{part}"])[:3, :3], axis=0)
        return held, held[f"hu{part}"], held.get(f"mask{part}"), spacing.astype(np.float32)

    def read(self, positions: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """One whole volume.

        Raises:
            UsageError: for more than one: volumes differ in size.
        """
        if len(positions) != 1:
            raise UsageError(
                "Whole volumes differ in size, so they come one by one: only classifiers that "
                "segment take dataset.kind whole."
            )
        _, volume, mask, spacing = self._open(int(positions[0]))
        target = np.full(volume.shape, UNKNOWN, dtype=np.int64)
        if mask is not None:
            target = self.tables[self.table[positions[0]]][np.asarray(mask)].astype(np.int64)
        x = np.asarray(volume).astype(np.float32)
        return {"x": x[None, None], "mask": target[None], "spacing": spacing[None]}

    def draw(
        self,
        positions: NDArray[np.int64],
        seeds: NDArray[np.uint64],
        *,
        size: tuple[int, ...],
        foreground: float,
    ) -> dict[str, NDArray[Any]]:
        """Patches (B, 1, *size), each a function of its seed; outside of the volume is unknown."""
        x = np.full((len(positions), 1, *size), AIR, dtype=np.float32)
        target = np.full((len(positions), *size), UNKNOWN, dtype=np.int64)
        spacings = np.zeros((len(positions), 3), dtype=np.float32)
        for row, position in enumerate(positions.tolist()):
            held, volume, mask, spacings[row] = self._open(position)
            random = np.random.default_rng(seeds[row])
            around = random.random() < foreground
            first = _centred(random.integers(0, volume.shape), volume.shape, size)
            if mask is not None:
                table = self.tables[self.table[position]]
                drawn = np.asarray(held[f"drawn{self.part[position]}"])
                if around and (centred := _around(drawn, table, volume.shape, size, random)):
                    first = centred
                patch = np.zeros(size, dtype=np.uint8)
                inside = np.zeros(size, dtype=bool)
                placing.paste(patch, mask, first)
                placing.paste(inside, np.broadcast_to(np.True_, mask.shape), first)
                target[row] = np.where(inside, table[patch], UNKNOWN)
            placing.paste(x[row, 0], volume, first)
        return {"x": x, "mask": target, "spacing": spacings}


def _around(
    drawn: NDArray[np.int32],
    table: NDArray[np.int16],
    shape: tuple[int, ...],
    size: tuple[int, ...],
    random: np.random.Generator,
) -> tuple[int, ...] | None:
    """The first voxel of a box around a voxel of a random class; None where there is none."""
    of_class = table[drawn[:, 0]]
    present = np.unique(of_class[of_class > 0])
    if not len(present):
        return None
    rows = np.flatnonzero(of_class == random.choice(present))
    return _centred(drawn[random.choice(rows), 1:], shape, size)


def _centred(voxel: NDArray[Any], shape: tuple[int, ...], size: tuple[int, ...]) -> tuple[int, ...]:
    """The first voxel of a box around a voxel, moved into the volume.

    Boxes around all voxels reach the volume's edges and the air there as often as its middle.
    Windows of a prediction do too, and a network that never saw air alone finds organs in it.
    """
    return tuple(
        int(np.clip(c - s // 2, *_bounds(n, s))) for c, s, n in zip(voxel, size, shape, strict=True)
    )


def _bounds(count: int, size: int) -> tuple[int, int]:
    """Where a box may begin; one that is larger than the volume lies around its middle."""
    return (0, count - size) if count >= size else ((count - size) // 2,) * 2
