"""Curation within each item, in processes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medcl.archive.store import Prepared
from medcl.curate import fingerprints as compare
from medcl.errors import MedclError, UsageError
from medcl.io.failure import Failure
from medcl.io.pmap import pmap
from medcl.plugin import Arrays
from medcl.registry import Lazy, resolve

Strategy = Literal["dhash", "every-n", "ssim", "mi", "embedding"]


@dataclass(frozen=True)
class Reduced:
    """An item after curation within it.

    Attributes:
        item: its id.
        locations: (N,) of all its parts.
        bits: (N,) the 64-bit codes of all its parts; zeros where embeddings are compared.
        kept: the kept parts.
        dropped: (dropped part, part kept instead, distance).
    """

    item: str
    locations: NDArray[np.float64]
    bits: NDArray[np.uint64]
    kept: list[int]
    dropped: list[tuple[int, int, float]]


def within(
    prepared: Prepared,
    target: Lazy | None,
    strategy: Strategy,
    limit: float,
    features: dict[str, NDArray[np.float32]] | None,
    workers: int,
) -> list[Reduced]:
    """Curate each prepared item, in processes; returned in the order of their ids."""
    jobs = [
        (item, None if features is None else features.get(item)) for item in prepared.items["id"]
    ]
    if features is not None:
        jobs = [(item, x) for item, x in jobs if x is not None]
    work = partial(_reduce, prepared.arrays, target, strategy, limit)
    reduced: list[Reduced] = []
    for (item, _), outcome in pmap(work, jobs, workers=workers, label="Curating"):
        if isinstance(outcome, Failure):
            if outcome.error == UsageError.__name__:
                raise UsageError(outcome.reason)
            raise MedclError(f"The item {item} could not be curated. {outcome.reason}")
        reduced.append(outcome)
    return sorted(reduced, key=lambda r: r.item)


def _reduce(
    arrays: Arrays,
    target: Lazy | None,
    strategy: Strategy,
    limit: float,
    job: tuple[str, NDArray[np.float32] | None],
) -> Reduced:
    item, x = job
    if target is None:
        assert x is not None
        # an item without parts is kept or dropped as a whole
        return Reduced(item, np.zeros(1), np.zeros(1, np.uint64), [0], [])
    locations, pictures = resolve(target)(arrays(item))
    count = len(locations)
    if x is not None and len(x) != count:
        raise UsageError(
            f"The embeddings have {len(x)} rows for an item of {count} parts. Embed every part "
            "once, in order, with the same preparation."
        )
    bits = compare.dhash(pictures) if x is None else np.zeros(count, np.uint64)
    if strategy == "every-n":
        step = int(limit)
        kept = list(range(0, count, step))
        dropped = [(i, i - i % step, float(i % step)) for i in range(count) if i % step]
        return Reduced(item, locations, bits, kept, dropped)
    distance = distance_of(strategy, pictures, x, bits)
    return Reduced(item, locations, bits, *compare.greedy(count, distance, limit))


def distance_of(
    strategy: Strategy,
    pictures: NDArray[np.uint8],
    x: NDArray[np.float32] | None,
    bits: NDArray[np.uint64],
) -> compare.Distance:
    """The distance of a comparing strategy, over an item's pictures, features or codes."""
    if strategy == "ssim":
        return compare.ssim(pictures)
    if strategy == "mi":
        return compare.mutual_information(pictures)
    if strategy == "embedding":
        assert x is not None
        return compare.cosine(x)
    return compare.hamming(bits)
