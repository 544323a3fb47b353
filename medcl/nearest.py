"""Nearest neighbours among many rows: exact up to a number of them, by an index above it.

Rows are unit embeddings, compared by cosine, or 64-bit codes, compared by Hamming's distance. Codes
are always compared exactly: of two that differ in at most r bits, one of four 16-bit parts differs
in at most r // 4 (multi-index hashing: Norouzi 2012, doi 10.1109/CVPR.2012.6248043). Above `EXACT`
embeddings an inverted file looks at the rows of the `PROBED` of about 4 √N clusters that are
nearest to a query (Jégou 2011, doi 10.1109/TPAMI.2010.57). Both are faiss's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from medcl.errors import MedclError

Floats = NDArray[np.float32]

EXACT = 100_000
"""With more rows, an index is used."""
PROBED = 64
"""Clusters that are looked into: `benchmarks/scale.py` measures the recall."""
_TRAINED_ON = 48  # rows for each cluster
_ROUNDS = 6  # of k-means
_ROUNDING = 1e-6  # of a cosine in single precision
_MOST_FLIPS = 3  # of 16 bits: with more, comparing all codes is faster


class Near(NamedTuple):
    """Pairs within a distance: the position of the query (P,), of the row (P,), and (P,)."""

    query: NDArray[np.int64]
    row: NDArray[np.int64]
    distance: NDArray[np.float64]


class Known(Protocol):
    """Rows that were added so far, counted from 0."""

    def add(self, rows: NDArray[Any]) -> None:
        """Add rows (M, …)."""
        ...

    def near(self, rows: NDArray[Any]) -> Near:
        """The known rows within the limit of each of ``rows``."""
        ...


def close(rows: Floats, others: Floats, limit: float) -> Near:
    """All pairs of two blocks of unit rows whose 1 − cosine is at most ``limit``."""
    cosine = rows @ others.T
    query, row = np.nonzero(cosine >= 1 - limit - _ROUNDING)
    return Near(query, row, np.maximum(1 - cosine[query, row].astype(np.float64), 0))


def alike(codes: NDArray[np.uint64], others: NDArray[np.uint64], bits: int) -> Near:
    """All pairs of two blocks of codes that differ in at most ``bits``."""
    distance = np.bitwise_count(codes[:, None] ^ others)
    query, row = np.nonzero(distance <= bits)
    return Near(query, row, distance[query, row].astype(np.float64))


class Embeddings:
    """Unit embeddings by cosine: `Known`."""

    def __init__(self, limit: float, rows: Floats) -> None:
        """Rows whose 1 − cosine is at most ``limit`` are near; ``rows`` (N, D) are all to come."""
        import faiss

        self._limit = limit
        self._index: Any = faiss.IndexFlatIP(rows.shape[1])
        if len(rows) > EXACT:
            learnt = inverted(len(rows), rows[sampled(len(rows))])
            self._index = _Lists(learnt.quantizer.reconstruct_n(0, learnt.nlist), PROBED)

    def add(self, rows: Floats) -> None:
        """Add unit rows (M, D)."""
        self._index.add(np.ascontiguousarray(rows, np.float32))

    def near(self, rows: Floats) -> Near:
        """The known rows of which 1 − cosine is at most the limit."""
        if not self._index.ntotal:
            return _NOTHING
        least = 1 - self._limit - _ROUNDING
        found = self._index.range_search(np.ascontiguousarray(rows, np.float32), least)
        near = _near(*found)
        return near._replace(distance=np.maximum(1 - near.distance, 0))


class _Lists:
    """An inverted file whose clusters are each compared with all queries of a block that ask it.

    faiss's, which takes the queries one by one, reads a row for each of them; here a product of two
    matrices reads it once. The pairs are the same. `benchmarks/scale.py` measures both.
    """

    def __init__(self, centres: Floats, probed: int) -> None:
        self._centres, self._probed = centres, min(probed, len(centres))
        self._rows = [np.zeros((0, centres.shape[1]), np.float32)] * len(centres)
        self._numbers = [np.zeros(0, np.int64)] * len(centres)
        self._counts = np.zeros(len(centres), np.int64)
        self.ntotal = 0

    def add(self, rows: Floats) -> None:
        """Add rows (M, D)."""
        for cluster, some in _runs(np.argmax(rows @ self._centres.T, axis=1)):
            start, end = self._counts[cluster], self._counts[cluster] + len(some)
            if end > len(self._rows[cluster]):  # room for half as much again
                more = int(end + end // 2)
                self._rows[cluster] = _longer(self._rows[cluster], more)
                self._numbers[cluster] = _longer(self._numbers[cluster], more)
            self._rows[cluster][start:end] = rows[some]
            self._numbers[cluster][start:end] = self.ntotal + some
            self._counts[cluster] = end
        self.ntotal += len(rows)

    def range_search(self, rows: Floats, least: float) -> tuple[NDArray[Any], ...]:
        """As faiss's: where the pairs of each query (M,) begin, their cosines, and their rows."""
        cosine = rows @ self._centres.T
        asked = np.argpartition(-cosine, self._probed - 1, axis=1)[:, : self._probed]
        found = [(np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0, np.int64))]
        for cluster, places in _runs(asked.ravel()):
            queries, count = places // self._probed, self._counts[cluster]
            cosine = rows[queries] @ self._rows[cluster][:count].T
            query, row = np.nonzero(cosine >= least)
            if len(query):
                numbers = self._numbers[cluster][row]
                found.append((queries[query], cosine[query, row], numbers))
        query, near, row = map(np.concatenate, zip(*found, strict=True))
        order = np.lexsort((row, query))
        return np.searchsorted(query[order], np.arange(len(rows) + 1)), near[order], row[order]


def _runs(codes: NDArray[Any]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Each code that occurs (N,), and where."""
    order = np.argsort(codes, kind="stable")
    ends = np.flatnonzero(np.diff(codes[order], append=-1)) + 1
    for start, end in zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True):
        yield int(codes[order[start]]), order[start:end]


def _longer(values: NDArray[Any], length: int) -> NDArray[Any]:
    """The same, with room for ``length``."""
    out = np.empty((length, *values.shape[1:]), values.dtype)
    out[: len(values)] = values
    return out


class Codes:
    """64-bit codes by Hamming's distance: `Known`."""

    def __init__(self, bits: int) -> None:
        """Codes that differ in at most ``bits`` are near."""
        import faiss

        self._bits, flips = bits, bits // 4
        self._index: Any = faiss.IndexBinaryFlat(64)
        if flips <= _MOST_FLIPS:
            self._index = faiss.IndexBinaryMultiHash(64, 4, 16)
            self._index.nflip = flips

    def add(self, rows: NDArray[np.uint64]) -> None:
        """Add codes (M,)."""
        self._index.add(_bytes(rows))

    def near(self, rows: NDArray[np.uint64]) -> Near:
        """The known codes that differ in at most so many bits."""
        if not self._index.ntotal:
            return _NOTHING
        return _near(*self._index.range_search(_bytes(rows), self._bits + 1))


_NOTHING = Near(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))


def _near(starts: NDArray[Any], distance: NDArray[Any], row: NDArray[Any]) -> Near:
    """What faiss's search within a radius returned."""
    counts: NDArray[np.int64] = np.diff(starts).astype(np.int64)
    query = np.repeat(np.arange(len(counts)), counts)
    return Near(query, row.astype(np.int64), distance.astype(np.float64))


def _bytes(codes: NDArray[np.uint64]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(codes, np.uint64).view(np.uint8).reshape(-1, 8)


# --- an index for many queries --------------------------------------------------------------------


def inverted(rows: int, sample: Floats, *, half: bool = False) -> Any:
    """An empty inverted file for about so many unit rows, its clusters learnt from some of them.

    Args:
        rows: how many will come.
        sample: (M, D) some of them.
        half: keep rows in half precision, to propose candidates.
    """
    import faiss

    dim = sample.shape[1]
    clusters = max(1, min(int(4 * rows**0.5), len(sample) // _TRAINED_ON))
    coarse, metric = faiss.IndexFlatIP(dim), faiss.METRIC_INNER_PRODUCT
    index: Any = faiss.IndexIVFFlat(coarse, dim, clusters, metric)
    if half:
        fp16 = faiss.ScalarQuantizer.QT_fp16
        index = faiss.IndexIVFScalarQuantizer(coarse, dim, clusters, fp16, metric)
    index.cp.niter, index.cp.seed = _ROUNDS, 0
    index.cp.min_points_per_centroid = 1
    index.train(np.ascontiguousarray(sample, np.float32))
    index.nprobe = min(PROBED, clusters)
    return index


def sampled(rows: int) -> NDArray[np.int64]:
    """The positions of the rows, of so many, from which `inverted` should learn."""
    wanted = min(rows, _TRAINED_ON * int(4 * rows**0.5))
    return np.sort(np.random.default_rng(0).choice(rows, wanted, replace=False))


def write(path: Path, blocks: Iterable[Floats], rows: int, sample: Floats) -> None:
    """Build an index of ``rows`` unit rows, given block by block, into a file."""
    import faiss

    index = inverted(rows, sample, half=True)
    for block in blocks:
        index.add(np.ascontiguousarray(block, np.float32))
    faiss.write_index(index, str(path))


def read(path: Path) -> Any:
    """An index written by `write`. What a query does not look at stays on disk.

    Raises:
        MedclError: if it is none.
    """
    import faiss

    try:
        return faiss.read_index(str(path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
    except RuntimeError:
        raise MedclError(f"{path} is no index of embeddings: remove it and search again.") from None


def proposed(index: Any, query: Floats, k: int, *, probed: int = PROBED) -> NDArray[np.int64]:
    """About the k rows of the highest cosine to a unit query (D,); fewer if it found fewer.

    Args:
        index: of `read`.
        query: (D,).
        k: how many.
        probed: clusters that are looked into; all of them, if there are no more.
    """
    index.nprobe = min(probed, index.nlist)
    _, where = index.search(np.ascontiguousarray(query[None], np.float32), k)
    return where[0][where[0] >= 0].astype(np.int64)


def best(cosine: Floats, k: int) -> NDArray[np.int64]:
    """The positions of the k largest (N,), the largest first, of equal ones the first."""
    some = np.argpartition(-cosine, k - 1)[:k] if k < len(cosine) else np.arange(len(cosine))
    least = cosine[some].min() if len(some) else 0
    some = np.flatnonzero(cosine >= least)  # of equal ones, argpartition takes any
    return some[np.argsort(-cosine[some], kind="stable")][:k]
