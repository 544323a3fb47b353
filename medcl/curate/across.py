"""Curation across items: near-duplicates found by their codes, then compared in full."""

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

_CANDIDATE_BITS = 12  # of 64: how far apart codes of parts may be that are then compared in full


class Dropped(NamedTuple):
    """A part that went, the part that stands for it, and how far apart they are."""

    item: str
    part: int
    kept_item: str
    kept_part: int
    distance: float
    scope: Literal["within", "across"]


class Pictures:
    """Pictures of a part by item; the last few items are kept."""

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

    def __call__(self, one: tuple[str, int], other: tuple[str, int]) -> float:
        """Of parts given as (item, part)."""
        nobody = np.zeros(0, dtype=np.uint64)
        if self._features is not None:
            x = np.stack([self._row(*one), self._row(*other)])
            return float(compare.cosine(x)(0, np.array([1]))[0])
        assert self._pictures is not None
        both = np.stack([self._pictures(*one), self._pictures(*other)])
        return float(distance_of(self._strategy, both, None, nobody)(0, np.array([1]))[0])

    def _row(self, item: str, part: int) -> NDArray[np.float32]:
        assert self._features is not None
        x = self._features[item]
        row: NDArray[np.float32] = x.mean(axis=0) if self._whole else x[part]
        return row


def across(
    reduced: Sequence[Reduced], items: pl.DataFrame, limit: float, pairs: Pairs
) -> Iterator[Dropped]:
    """Parts that are near one of another item, which came before and was kept."""
    group = dict(items.select("id", "group").iter_rows()) if "group" in items.columns else {}
    codes = Codes(int(limit) if pairs.bits_only else _CANDIDATE_BITS)
    owners: list[tuple[str, int]] = []
    for one in reduced:
        fresh: list[int] = []
        for part in one.kept:
            code = int(one.bits[part])
            near = _nearest((one.item, part), codes.near(code), owners, group, limit, pairs)
            if near is None:
                fresh.append(part)
            else:
                yield Dropped(one.item, part, *near, "across")
        for part in fresh:
            codes.add(int(one.bits[part]))
            owners.append((one.item, part))


def _nearest(
    one: tuple[str, int],
    candidates: Sequence[tuple[int, int]],
    owners: Sequence[tuple[str, int]],
    group: Mapping[str, str | None],
    limit: float,
    pairs: Pairs,
) -> tuple[str, int, float] | None:
    mine = group.get(one[0])
    for number, bits in candidates:
        other = owners[number]
        if mine is not None and group.get(other[0]) == mine:
            continue
        away = float(bits) if pairs.bits_only else pairs(one, other)
        if away <= limit:
            return (*other, away)
    return None
