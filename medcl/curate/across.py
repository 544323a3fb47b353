"""Curation across items: candidate near-duplicates by their codes, then a full comparison."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medcl.curate import fingerprints as compare
from medcl.curate.lsh import Codes
from medcl.curate.within import Reduced, Strategy, distance_of
from medcl.plugin import Arrays
from medcl.registry import Lazy, resolve

_CANDIDATE_BITS = 12  # of 64: largest Hamming distance of codes for a full comparison


class Dropped(NamedTuple):
    """A dropped part, the part kept instead, and their distance."""

    item: str
    part: int
    kept_item: str
    kept_part: int
    distance: float
    scope: Literal["within", "across"]


class Pictures:
    """Pictures of parts by item; the last 64 items are cached."""

    def __init__(self, arrays: Arrays, target: Lazy) -> None:
        make = resolve(target)
        self._of = lru_cache(maxsize=64)(lambda item: make(arrays(item))[1])

    def __call__(self, item: str, part: int) -> NDArray[np.uint8]:
        """(S, S)."""
        picture: NDArray[np.uint8] = self._of(item)[part]
        return picture


class Pairs:
    """The distance of two parts of different items, by the strategy."""

    def __init__(
        self,
        arrays: Arrays,
        target: Lazy | None,
        strategy: Strategy,
        features: dict[str, NDArray[np.float32]] | None,
    ) -> None:
        self.bits_only = strategy in ("dhash", "every-n")
        self._strategy, self._features, self._whole = strategy, features, target is None
        self._pictures = None if target is None else Pictures(arrays, target)

    def __call__(self, first: tuple[str, int], second: tuple[str, int]) -> float:
        """The distance of two parts, each (item, part)."""
        no_bits = np.zeros(0, dtype=np.uint64)
        if self._features is not None:
            x = np.stack([self._row(*first), self._row(*second)])
            return float(compare.cosine(x)(0, np.array([1]))[0])
        assert self._pictures is not None
        stacked = np.stack([self._pictures(*first), self._pictures(*second)])
        return float(distance_of(self._strategy, stacked, None, no_bits)(0, np.array([1]))[0])

    def _row(self, item: str, part: int) -> NDArray[np.float32]:
        assert self._features is not None
        x = self._features[item]
        row: NDArray[np.float32] = x.mean(axis=0) if self._whole else x[part]
        return row


def across(
    reduced: Sequence[Reduced], items: pl.DataFrame, limit: float, pairs: Pairs
) -> Iterator[Dropped]:
    """Parts near a kept part of an earlier item."""
    group = dict(items.select("id", "group").iter_rows()) if "group" in items.columns else {}
    codes = Codes(int(limit) if pairs.bits_only else _CANDIDATE_BITS)
    owners: list[tuple[str, int]] = []
    for reduction in reduced:
        new_parts: list[int] = []
        for part in reduction.kept:
            code = int(reduction.bits[part])
            near = _nearest((reduction.item, part), codes.near(code), owners, group, limit, pairs)
            if near is None:
                new_parts.append(part)
            else:
                yield Dropped(reduction.item, part, *near, "across")
        for part in new_parts:
            codes.add(int(reduction.bits[part]))
            owners.append((reduction.item, part))


def _nearest(
    part: tuple[str, int],
    candidates: Sequence[tuple[int, int]],
    owners: Sequence[tuple[str, int]],
    group: Mapping[str, str | None],
    limit: float,
    pairs: Pairs,
) -> tuple[str, int, float] | None:
    own_group = group.get(part[0])
    for number, bits in candidates:
        owner = owners[number]
        if own_group is not None and group.get(owner[0]) == own_group:
            continue
        distance = float(bits) if pairs.bits_only else pairs(part, owner)
        if distance <= limit:
            return (*owner, distance)
    return None
