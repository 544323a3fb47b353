"""k-nearest-neighbour prediction by cosine similarity, in tiles: the N × M matrix never exists."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medcl.metrics.metrics import Floats

if TYPE_CHECKING:
    import torch

K = 20
"""Default number of neighbours."""
LARGEST_BANK = 50_000
"""Of more training samples the probe takes so many as neighbours, an even share of each patient's:
all of them would take a time that grows with the square of their number."""
TILE = 256, 16384
"""Queries × bank rows compared at once: 16 MiB of similarities, some of it still in the caches."""
MANY = 2048
"""Bank rows from which on faiss selects faster than `_largest`."""
FEW = 256
"""Bank rows below which torch selects faster than by blocks."""


def neighbours(
    query: Floats,
    bank: Floats,
    *,
    k: int = K,
    query_groups: NDArray | None = None,
    bank_groups: NDArray | None = None,
    by_faiss: bool | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The k most similar bank rows of every query.

    Equally similar rows come in any order; all else is the same with and without faiss, but for
    rounding.

    Args:
        query: (M, D).
        bank: (N, D).
        k: number of neighbours, at most N.
        query_groups: (M,) and
        bank_groups: (N,): rows of the query's own group (its patient) are not neighbours.
        by_faiss: compare with faiss, which knows no groups; None: where it is installed, there are
            no groups, and the bank is large enough for it to be faster.

    Returns:
        cosine similarity (M, k), best first, −inf if fewer than k rows are of other
        groups; and the rows' positions (M, k).
    """
    import torch

    own = _same_group(query_groups, bank_groups)
    if by_faiss is None:
        many = MANY if torch.get_num_threads() == 1 else MANY // 4  # NumPy chooses with one
        by_faiss = own is None and len(bank) >= many and find_spec("faiss") is not None
    k = min(k, len(bank))
    queries = np.ascontiguousarray(query, np.float32)
    # Of a query only the length differs: the nearest are chosen first, and k values divided by it.
    length = _lengths(queries)
    b = np.divide(bank, _lengths(bank), dtype=np.float32, order="C", casting="same_kind")
    if by_faiss:
        near, where = _faiss(queries, b, k)
    else:
        of_torch = _nearest(torch.from_numpy(queries), torch.from_numpy(b), k, own)
        near, where = of_torch[0].numpy(), of_torch[1].numpy()
    near /= length
    return near, where


def _nearest(
    q: torch.Tensor, b: torch.Tensor, k: int, own: tuple[torch.Tensor, torch.Tensor] | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The k largest products of each row of ``q`` (M, D) with rows of ``b`` (N, D), and where."""
    import torch

    if own is None and len(q) <= TILE[0] and len(b) <= TILE[1]:  # one tile
        return _largest(q @ b.T, k)
    tiles = []
    for row in range(0, len(q), TILE[0]):
        rows = slice(row, row + TILE[0])
        best = torch.empty((len(q[rows]), 0))
        at = best.to(torch.int64)
        for column in range(0, len(b), TILE[1]):
            columns = slice(column, column + TILE[1])
            products = q[rows] @ b[columns].T  # (m, n)
            if own is not None:
                products[own[0][rows, None] == own[1][columns]] = -torch.inf
            largest, where = _largest(products, min(k, products.shape[1]))
            best, at = torch.cat([best, largest], dim=1), torch.cat([at, where + column], dim=1)
            if best.shape[1] > k:
                best, pick = best.topk(k, dim=1)
                at = at.gather(1, pick)
        tiles.append((best, at))
    return torch.cat([best for best, _ in tiles]), torch.cat([at for _, at in tiles])


def _largest(products: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The k largest of each row (M, N), best first, and their columns.

    Exact: a row's columns are dealt to blocks of a few. The k largest values lie in the k blocks
    with the largest maxima, so that k are chosen of the maxima, and of the members of k blocks.
    NumPy chooses: its ``argpartition`` takes a vector of values at a time, torch's ``topk`` one.
    """
    import torch

    rows, columns = products.shape
    size = max(4, columns // 256)
    width = columns // size  # blocks
    if columns < FEW or width <= 2 * k:
        near, where = products.topk(k, dim=1)
        return near, where
    maxima = products[:, : size * width].unflatten(1, (size, width)).amax(dim=1)
    first = torch.arange(0, size * width, width)[:, None]
    rest = torch.arange(size * width, columns).expand(rows, -1)  # in no block: fewer than ``size``
    members = torch.cat([(_first(maxima, k)[:, None] + first).view(rows, -1), rest], dim=1)
    values = products.gather(1, members)
    chosen = _first(values, k)
    near, order = values.gather(1, chosen).sort(dim=1, descending=True)
    return near, members.gather(1, chosen.gather(1, order))


def _first(values: torch.Tensor, k: int) -> torch.Tensor:
    """Columns of the k largest values of each row (M, N), in any order: (M, k)."""
    import torch

    from_here = values.shape[1] - k
    return torch.from_numpy(np.argpartition(values.numpy(), from_here, axis=1)[:, from_here:])


def _lengths(x: Floats) -> NDArray[np.float32]:
    """Of the rows of (N, D): (N, 1), never 0. By NumPy: threads of torch's that wait for more work
    would take the cores from faiss."""
    squares = np.einsum("nd,nd->n", x, x, dtype=np.float32, casting="same_kind")
    return np.maximum(np.sqrt(squares), np.float32(1e-12))[:, None]


def _faiss(
    queries: NDArray[np.float32], bank: NDArray[np.float32], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    import faiss

    near, where = faiss.knn(queries, bank, k, metric=faiss.METRIC_INNER_PRODUCT)  # copies nothing
    return near, where


def _same_group(
    query: NDArray | None, bank: NDArray | None
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Groups as integer codes, comparable across both."""
    import torch

    if query is None or bank is None:
        return None
    _, code = np.unique(np.concatenate([query, bank]), return_inverse=True)
    return torch.as_tensor(code[: len(query)]), torch.as_tensor(code[len(query) :])


def knn(
    query: Floats,
    bank: Floats,
    targets: Floats,
    *,
    k: int = K,
    temperature: float = 0.07,
    query_groups: NDArray | None = None,
    bank_groups: NDArray | None = None,
) -> NDArray[np.float32]:
    """Mean target of the nearest neighbours, weighted by exp(cosine / temperature).

    The weighting is that of Wu 2018 (arXiv 1805.01978). NaN targets do not vote.

    Args:
        query: (M, D).
        bank: (N, D).
        targets: (N, C): one column per class (0/1), label, or value.
        k: number of neighbours.
        temperature: smaller values give the nearest more weight.
        query_groups: see `neighbours`.
        bank_groups: see `neighbours`.

    Returns:
        (M, C); the bank's mean target if no neighbour has a known one.
    """
    near, where = neighbours(query, bank, k=k, query_groups=query_groups, bank_groups=bank_groups)
    top = np.where(np.isfinite(near[:, :1]), near[:, :1], 0)  # (M, 1)
    weight = np.exp((near - top) / temperature)[..., None]  # (M, k, 1); 0 for −inf
    votes = np.asarray(targets, np.float32)[where]  # (M, k, C)
    known = np.isfinite(votes)
    total = (weight * known).sum(1)  # (M, C)
    sums = (weight * np.where(known, votes, 0)).sum(1)
    fallback = np.nan_to_num(np.nanmean(np.asarray(targets, np.float32), axis=0))
    return np.where(total > 0, sums / np.maximum(total, 1e-30), fallback).astype(np.float32)
