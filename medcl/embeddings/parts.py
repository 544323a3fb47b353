"""A bag in the making: the batches that are done, in small files, so that a second call goes on.

::

    BAGS/.parts/<item>/<n>.npz    batches from the n-th sample of the item on

A file that is damaged, or of other samples or another encoder, counts as not there.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medcl.io.atomic import replacing

Batch = tuple[NDArray[Any], NDArray[Any] | None, int]
"""Features (B, F), places (B, K) or None, and how many samples of the batch were left out."""


def samples(batches: Sequence[Batch]) -> int:
    """How many samples batches were made of."""
    return sum(len(features) + left_out for features, _, left_out in batches)


def save(folder: Path, made_from: str, first: int, batches: Sequence[Batch]) -> None:
    """Keep batches that begin with the ``first``-th sample; atomic."""
    full = [batch for batch in batches if len(batch[0])]
    held: dict[str, Any] = {
        "made_from": np.array(made_from),
        "sizes": np.array([len(features) for features, _, _ in batches], dtype=np.int64),
        "left_out": np.array([left_out for _, _, left_out in batches], dtype=np.int64),
    }
    if full:
        held["features"] = np.concatenate([features for features, _, _ in full])
        coords = [places for _, places, _ in full if places is not None]
        held |= {"coords": np.concatenate(coords)} if coords else {}
    with replacing(folder / f"{first}.npz") as temporary, temporary.open("wb") as file:
        np.savez(file, **held)


def stored(folder: Path, made_from: str) -> Iterator[Batch]:
    """The batches that are kept, from the first sample on, as they were."""
    done = 0
    while batches := _part(folder / f"{done}.npz", made_from):
        yield from batches
        done += samples(batches)


def _part(path: Path, made_from: str) -> list[Batch]:
    try:
        with np.load(path, allow_pickle=False) as held:
            if str(held["made_from"]) != made_from:
                return []
            sizes, left_out = held["sizes"], held["left_out"]
            features = held["features"] if "features" in held else np.empty((0, 0))
            coords = held.get("coords")
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return []
    ends = np.cumsum(sizes)
    return [
        (features[end - size : end], None if coords is None else coords[end - size : end], int(bad))
        for end, size, bad in zip(ends, sizes, left_out, strict=True)
    ]
