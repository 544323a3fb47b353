"""Curation across items: a part near one of an earlier item, which is kept, is dropped.

Parts are taken in order, a block at a time: each is looked up among those kept so far
(`medcl.nearest`) and among its block. Only kept parts are looked up, so what is there a thousand
times (air) costs no more than what is there twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medcl import nearest
from medcl.curate.within import Reduced, Strategy, distance_of
from medcl.nearest import Near
from medcl.plugin import Arrays
from medcl.registry import Lazy, resolve

_CANDIDATE_BITS = 12  # of 64: largest Hamming distance of codes for a full comparison
_BLOCK = 1024  # parts
_AT_ONCE = 16  # full comparisons of a part

Features = Mapping[str, NDArray[np.float32]]


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


class _Parts:
    """The parts that are left within items, in their order.

    Attributes:
        item, part: (M,) the position of the part's item, and its number there.
        group: (M,) equal for parts that are never compared: of one item, or of items of one group.
    """

    def __init__(self, reduced: Sequence[Reduced], items: pl.DataFrame) -> None:
        groups = dict(items.select("id", "group").iter_rows()) if "group" in items.columns else {}
        codes: dict[str, int] = {}
        of_item = [
            codes.setdefault(f"group {group}" if group else f"item {r.item}", len(codes))
            for r in reduced
            for group in (groups.get(r.item),)
        ]
        counts = [len(r.kept) for r in reduced]
        self.item = np.repeat(np.arange(len(reduced)), counts)
        self.part = np.array([part for r in reduced for part in r.kept], np.int64)
        self.group = np.repeat(np.array(of_item, np.int64), counts)

    def __len__(self) -> int:
        return len(self.item)


def across(
    reduced: Sequence[Reduced],
    items: pl.DataFrame,
    limit: float,
    strategy: Strategy,
    *,
    features: Features | None = None,
    pictures: Pictures | None = None,
) -> Iterator[Dropped]:
    """Parts near a kept part of an earlier item.

    Args:
        reduced: the items, after curation within each.
        items: with the column ``group``, if there are groups.
        limit: distance by the strategy.
        strategy: of `medcl.curate.curate.curate`.
        features: item → (parts, D), for "embedding"; one row if the modality has no parts.
        pictures: for "ssim" and "mi".
    """
    parts = _Parts(reduced, items)
    if not len(parts):
        return
    if features is not None:
        x = _rows(reduced, features)
        known: nearest.Known = nearest.Embeddings(limit, x)
        found = _drop(parts, x, known, lambda rows: nearest.close(rows, rows, limit), None)
    else:
        codes = np.concatenate([r.bits[r.kept] for r in reduced])
        exact = strategy in ("dhash", "every-n")
        bits = min(int(limit), 64) if exact else _CANDIDATE_BITS
        whole = None if exact else _Whole(reduced, parts, strategy, limit, pictures)
        within = lambda rows: nearest.alike(rows, rows, bits)  # noqa: E731
        found = _drop(parts, codes, nearest.Codes(bits), within, whole)
    for n, other, distance in found:
        (a, b), (c, d) = ((int(parts.item[m]), int(parts.part[m])) for m in (n, other))
        yield Dropped(reduced[a].item, b, reduced[c].item, d, distance, "across")


def _rows(reduced: Sequence[Reduced], features: Features) -> NDArray[np.float32]:
    """(M, D) unit features of the parts that are left."""
    blocks = [
        # an item of a modality without parts is one, the mean of its rows
        f[r.kept] if len(f) == len(r.locations) else f.mean(axis=0, keepdims=True)
        for r in reduced
        for f in (features[r.item],)
    ]
    x = np.concatenate(blocks).astype(np.float32, copy=False)
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    return x


class _Whole:
    """The comparison of pictures, where codes only say which are worth it."""

    def __init__(
        self,
        reduced: Sequence[Reduced],
        parts: _Parts,
        strategy: Strategy,
        limit: float,
        pictures: Pictures | None,
    ) -> None:
        assert pictures is not None
        self._reduced, self._parts, self._strategy = reduced, parts, strategy
        self._limit, self._pictures = limit, pictures

    def first(self, n: int, candidates: NDArray[np.int64]) -> tuple[int, float] | None:
        """Of candidates in their order, the first that is near, and its distance."""
        for start in range(0, len(candidates), _AT_ONCE):
            some = candidates[start : start + _AT_ONCE]
            stacked = np.stack([self._picture(m) for m in (n, *some.tolist())])
            distance = distance_of(self._strategy, stacked, None, np.zeros(0, np.uint64))
            values = distance(0, np.arange(1, len(stacked)))
            near = np.flatnonzero(values <= self._limit)
            if len(near):
                return int(some[near[0]]), float(values[near[0]])
        return None

    def _picture(self, n: int) -> NDArray[np.uint8]:
        return self._pictures(self._reduced[self._parts.item[n]].item, int(self._parts.part[n]))


def _drop(
    parts: _Parts,
    rows: NDArray,
    known: nearest.Known,
    within: Callable[[NDArray], Near],
    whole: _Whole | None,
) -> Iterator[tuple[int, int, float]]:
    """(part, the kept part that it is near to, their distance) by position."""
    kept = np.zeros(0, np.int64)  # known row → part
    for start in range(0, len(parts), _BLOCK):
        block = rows[start : start + _BLOCK]
        earlier, own = known.near(block), within(block)
        before = own.row < own.query
        own = Near(own.query[before], own.row[before], own.distance[before])
        query = np.concatenate([earlier.query, own.query])
        other = np.concatenate([kept[earlier.row], own.row + start])
        distance = np.concatenate([earlier.distance, own.distance])
        order = np.lexsort((other, distance, query))
        order = order[parts.group[query[order] + start] != parts.group[other[order]]]
        query, other, distance = query[order], other[order], distance[order]
        ends = np.searchsorted(query, np.arange(len(block) + 1))
        left = np.ones(len(block), bool)
        for n in np.flatnonzero(np.diff(ends)).tolist():
            near, far = other[ends[n] : ends[n + 1]], distance[ends[n] : ends[n + 1]]
            there = (near < start) | left[np.maximum(near - start, 0)]
            if not there.any():
                continue
            if whole is None:
                best = int(np.argmax(there))
                hit: tuple[int, float] | None = (int(near[best]), float(far[best]))
            else:
                hit = whole.first(n + start, near[there])
            if hit is not None:
                left[n] = False
                yield n + start, *hit
        known.add(block[left])
        kept = np.concatenate([kept, start + np.flatnonzero(left)])
