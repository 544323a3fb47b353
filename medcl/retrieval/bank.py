"""What is searched: the embeddings of an index, in groups that are compared as one.

Up to `medcl.nearest.EXACT` groups are compared exactly. Of more, an index lies beside the
embeddings (``RUN/search/…/neighbours-item.faiss``), built once, in half precision: it proposes
cases, whose similarity is then computed from the embeddings. What a query does not look at stays on
disk.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medcl import manifest, nearest
from medcl.archive.index import Index
from medcl.embeddings import names
from medcl.embeddings.embeddings import Embeddings, unit

Level = Literal["item", "sample"]
_BLOCK = 16_384  # groups
PAIRS = 4000
"""Drawn to see what similarity random pairs have."""
_REMEDY = "Remove it and search again: it is built anew."


@dataclass(frozen=True)
class Bank:
    """The samples of an index, embedded.

    Attributes:
        index: of the samples' items.
        embeddings: of its samples, in the order of the plugin.
        folder: where they lie; an index of them is kept there too.
        present: whether a sample without the modality is a row of zeros, and left out.
    """

    index: Index
    embeddings: Embeddings
    folder: Path
    present: bool = False

    @cached_property
    def ids(self) -> pl.Series:
        """(N,) ids of the samples."""
        return names.column(self.embeddings.ids)

    @cached_property
    def items(self) -> pl.Series:
        """(N,) the item of each sample."""
        return names.column(self.embeddings.items)

    @cached_property
    def patients(self) -> pl.Series:
        """(N,) the patient of each sample."""
        return names.column(self.embeddings.patients)

    @cached_property
    def by_sample(self) -> Groups:
        """Each sample by itself."""
        rows = self._rows()
        return Groups(self, "sample", rows, np.arange(len(rows) + 1))

    @cached_property
    def by_item(self) -> Groups:
        """The samples of an item together, in the order of the items' ids."""
        rows = self._rows()
        items = self.items.gather(rows)
        order = items.arg_sort()
        runs = items.gather(order).rle().struct.field("len").to_numpy()
        starts = np.append(0, np.cumsum(runs, dtype=np.int64))
        return Groups(self, "item", rows[order.to_numpy()], starts)

    def groups(self, level: Level) -> Groups:
        """Samples or items."""
        return self.by_item if level == "item" else self.by_sample

    def _rows(self) -> NDArray[np.int64]:
        x = self.embeddings.x
        if not self.present:
            return np.arange(len(x))
        blocks = [x[start : start + _BLOCK].any(axis=1) for start in range(0, len(x), _BLOCK)]
        return np.flatnonzero(np.concatenate(blocks))


@dataclass(frozen=True)
class Groups:
    """Samples that are compared as one: their mean direction.

    Attributes:
        bank: the samples.
        level: what they are.
        rows: (N,) positions of samples, those of a group together.
        starts: (G + 1,) where each group begins in ``rows``.
    """

    bank: Bank
    level: Level
    rows: NDArray[np.int64]
    starts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts) - 1

    @cached_property
    def owners(self) -> NDArray[np.int64]:
        """(G,) codes of patients: equal for one patient."""
        first = self.bank.patients.gather(self.rows[self.starts[:-1]])
        return first.cast(pl.Categorical).to_physical().to_numpy().astype(np.int64)

    @cached_property
    def items(self) -> pl.Series:
        """(G,) the item of each."""
        return self.bank.items.gather(self.rows[self.starts[:-1]])

    def members(self, group: int) -> NDArray[np.int64]:
        """Positions of a group's samples."""
        return self.rows[self.starts[group] : self.starts[group + 1]]

    def of_patients(self, patients: Sequence[str]) -> NDArray[np.bool_]:
        """(G,) whether a group is one of these patients'."""
        first = self.bank.patients.gather(self.rows[self.starts[:-1]])
        return first.is_in(list(patients)).to_numpy()

    def sizes(self) -> NDArray[np.int64]:
        """(G,) samples of each."""
        return np.diff(self.starts)

    def directions(self, groups: NDArray[np.int64]) -> NDArray[np.float32]:
        """(M, D) the unit mean of the unit embeddings of some groups."""
        sizes = self.starts[groups + 1] - self.starts[groups]
        ends = np.cumsum(sizes)
        within = np.arange(ends[-1]) - np.repeat(ends - sizes, sizes)
        x = unit(self.bank.embeddings.x[self.rows[np.repeat(self.starts[groups], sizes) + within]])
        if len(x) > len(groups):
            x = np.add.reduceat(x, ends - sizes, axis=0) / sizes[:, None]
        return unit(x)

    @cached_property
    def known(self) -> Any:
        """All directions (G, D), or of too many an index."""
        if len(self) <= nearest.EXACT:
            return np.concatenate(list(self._blocks()))
        path = self.bank.folder / f"neighbours-{self.level}.faiss"
        if not path.is_file():
            sample = self.directions(nearest.sampled(len(self)))
            with manifest.replacing(path) as temporary:
                nearest.write(temporary, self._blocks(), len(self), sample)
        manifest.check(path, _REMEDY)
        return nearest.read(path)

    def _blocks(self) -> Iterator[NDArray[np.float32]]:
        for start in range(0, len(self), _BLOCK):
            yield self.directions(np.arange(start, min(start + _BLOCK, len(self))))
            _forget(self.bank.embeddings.x)

    def similar(
        self, query: NDArray[np.float32], k: int, allowed: NDArray[np.bool_]
    ) -> tuple[list[tuple[int, float]], bool]:
        """The (group, cosine) of the ``k`` nearest allowed ones, best first.

        Args:
            query: (D,), of unit length.
            k: how many.
            allowed: (G,).

        Returns:
            them, and whether there are no more.
        """
        some = np.flatnonzero(allowed)
        if len(self) <= nearest.EXACT:
            cosine = np.where(allowed, self.known @ query, -np.inf)
            where = nearest.best(cosine, min(k, len(some)))
            return _pairs(cosine[where], where), len(some) <= k
        if len(some) > nearest.EXACT:
            some = self._proposed(query, k, allowed)
        cosine = self.directions(some) @ query
        where = nearest.best(cosine, k)
        return _pairs(cosine[where], some[where]), len(some) <= k

    def _proposed(
        self, query: NDArray[np.float32], k: int, allowed: NDArray[np.bool_]
    ) -> NDArray[np.int64]:
        """More than ``k`` allowed groups that are near, if the index has them."""
        wanted, probed = 2 * k + 16, nearest.PROBED
        while True:
            where = nearest.proposed(self.known, query, min(wanted, len(self)), probed=probed)
            where = np.sort(where[allowed[where]])
            if len(where) > k or probed >= self.known.nlist:
                return where
            wanted, probed = wanted * 4, probed * 4

    @cached_property
    def random_pairs(self) -> tuple[float, float, float] | None:
        """`random_pairs` of all groups."""
        return random_pairs(self, np.arange(len(self)))


def random_pairs(groups: Groups, some: NDArray[np.int64]) -> tuple[float, float, float] | None:
    """The 5th, 50th and 95th percentile of the cosine of random pairs of different patients."""
    draw = some[np.random.default_rng(0).integers(0, len(some), (2, PAIRS))]
    one, other = draw[:, groups.owners[draw[0]] != groups.owners[draw[1]]]
    if not len(one):
        return None
    drawn, code = np.unique(np.concatenate([one, other]), return_inverse=True)
    x = groups.directions(drawn)[code]
    cosine = (x[: len(one)] * x[len(one) :]).sum(1)
    low, middle, high = (round(float(v), 4) for v in np.percentile(cosine, (5, 50, 95)))
    return low, middle, high


def _pairs(near: NDArray[np.float32], where: NDArray[np.int64]) -> list[tuple[int, float]]:
    return list(zip(where.tolist(), near.tolist(), strict=True))


def _forget(x: NDArray[Any]) -> None:
    """Of a memory-mapped file, let go of what was read: it stays in the system's cache."""
    mapped = getattr(x, "_mmap", None)
    if isinstance(mapped, mmap.mmap):
        mapped.madvise(mmap.MADV_DONTNEED)
