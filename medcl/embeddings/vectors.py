"""Vectors that come with every sample: a teacher's cached features, or a text's, joined by key."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medcl.embeddings.embeddings import Embeddings
from medcl.errors import MedclError, UsageError
from medcl.plugin import Samples

KEYS = ("id", "sample", "item", "patient")
"""Columns by which a table of vectors is joined, the first that it has."""

_Read = Callable[..., Mapping[str, NDArray]]


def with_vectors(samples: Samples, sources: Mapping[str, str]) -> Samples:
    """Samples that also carry vectors, float32 (B, D), each under its batch key.

    Args:
        samples: of a recipe.
        sources: batch key → a folder of `medcl embed`, or a Parquet table: a column ``id``,
            ``item`` or ``patient``, and a column of lists or columns of numbers.

    Raises:
        UsageError: if a source is neither, or lacks a sample.
    """
    for key, source in sources.items():
        keys, by, matrix = _opened(Path(source), f"vectors.{key}")
        own = {"item": samples.items, "patient": samples.patients}.get(by, samples.ids)
        place = {name: row for row, name in enumerate(keys)}
        if len(place) < len(keys):
            raise UsageError(f"vectors.{key}: {source} holds a value of '{by}' more than once.")
        rows = np.array([place.get(name, -1) for name in own])
        if lacking := int((rows < 0).sum()):
            raise UsageError(
                f"vectors.{key}: {lacking:,} of {len(own):,} samples have no vector in {source}, "
                f"joined by '{by}'. Make it with the same index and dataset settings."
            )
        read = partial(_beside, samples.read, key, matrix, rows)
        draw = None if samples.draw is None else partial(_beside, samples.draw, key, matrix, rows)
        samples = replace(samples, read=read, draw=draw)
    return samples


def _opened(path: Path, where: str) -> tuple[Sequence[str], str, NDArray[np.float32]]:
    """Keys (N,), the column that they are of, and the matrix (N, D)."""
    if path.is_dir():
        found = Embeddings.load(path)
        return found.ids, "id", np.asarray(found.x, np.float32)
    if not path.is_file():
        raise UsageError(f"{where}: there is no folder or file {path}.")
    try:
        table = pl.read_parquet(path)
    except Exception:  # polars raises several kinds
        raise UsageError(
            f"{where}: {path} is no Parquet table, nor a folder of medcl embed."
        ) from None
    by = next((name for name in KEYS if name in table.columns), None)
    if by is None:
        raise UsageError(f"{where}: {path} has none of the columns {', '.join(KEYS)}.")
    lists = [name for name, kind in table.schema.items() if isinstance(kind, pl.List | pl.Array)]
    numbers = [name for name, kind in table.schema.items() if kind.is_numeric() and name != by]
    if len(lists) > 1 or not (lists or numbers):
        raise UsageError(f"{where}: {path} must have one column of lists, or columns of numbers.")
    try:
        values = table[lists[0]].to_list() if lists else table.select(numbers).to_numpy()
        matrix = np.asarray(values, np.float32)
    except ValueError:
        matrix = np.empty(0, np.float32)
    if matrix.ndim != 2 or not np.isfinite(matrix).all():
        raise MedclError(f"{where}: the vectors of {path} differ in length, or are not finite.")
    return table[by].cast(pl.String).to_list(), by, matrix


def _beside(
    read: _Read,
    key: str,
    matrix: NDArray[np.float32],
    rows: NDArray[np.int64],
    positions: NDArray[np.int64],
    *seeds: NDArray,
) -> dict[str, NDArray]:
    return {**read(positions, *seeds), key: matrix[rows[positions]]}
