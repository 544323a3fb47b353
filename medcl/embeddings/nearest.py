"""Nearest rows of a matrix to query rows, by a choice of libraries."""

from __future__ import annotations

import importlib.util
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from medcl.embeddings.embeddings import unit
from medcl.embeddings.knn import neighbours
from medcl.errors import UsageError

Backend = Literal["auto", "exact", "faiss", "hnswlib"]
PACKAGES = {"faiss": "faiss-cpu", "hnswlib": "hnswlib"}


def nearest(
    query: NDArray[np.float32], bank: NDArray[np.float32], k: int, *, backend: Backend = "auto"
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The k bank rows of highest cosine to every query: similarity (M, k), positions (M, k).

    Args:
        query: (M, D).
        bank: (N, D).
        k: number of rows, at most N.
        backend: "faiss" compares all rows, as "exact" does without it; "auto" is one of the two.
            "hnswlib" builds a graph first and approximates: for many queries of one bank.

    Raises:
        UsageError: if the backend is unknown or not installed.
    """
    if backend not in get_args(Backend):
        raise UsageError(f"Unknown backend '{backend}': take {', '.join(get_args(Backend))}.")
    if backend in PACKAGES and importlib.util.find_spec(backend) is None:
        raise UsageError(
            f"{backend} is not installed: pip install {PACKAGES[backend]}, or --backend exact."
        )
    k = min(k, len(bank))
    if backend == "hnswlib":
        import hnswlib

        q, b = unit(query), unit(bank)
        graph = hnswlib.Index(space="ip", dim=b.shape[1])
        graph.init_index(max_elements=len(b), ef_construction=200, M=32, random_seed=0)
        graph.add_items(b, num_threads=1)
        graph.set_ef(max(200, 2 * k))
        where, distance = graph.knn_query(q, k=k)
        return 1 - distance, where.astype(np.int64)
    by_faiss = None if backend == "auto" else backend == "faiss"
    return neighbours(query, bank, k=k, by_faiss=by_faiss)
