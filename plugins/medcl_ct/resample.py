"""Resampling as sparse matrices, one an axis: exact in mm, anti-aliased where it shrinks.

A triangle filter as wide as the coarser of the two grids: linear interpolation when enlarging, an
average when shrinking. Where the grids are the same it is the identity, to the bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Grid:
    """Evenly spaced places on a line: ``first`` + i · ``step``, i < ``count``; all in mm."""

    first: float
    step: float
    count: int

    @property
    def places(self) -> Floats:
        """(count,) mm."""
        return self.first + self.step * np.arange(self.count, dtype=np.float64)


def over(low: float, high: float, step: float, target: float | None) -> Grid:
    """The grid that covers places ``low`` … ``high``, each the middle of a cell of size ``step``.

    Args:
        low, high: the first and last place.
        step: what the cells are now.
        target: what they shall be; None leaves them. The middle stays where it was, and
            so do the outer edges, to half a cell.
    """
    count = round((high - low) / step) + 1
    if target is None or abs(target - step) < 1e-6:
        return Grid(low, step, count)
    width = (high - low) + step
    cells = max(1, round(width / target))
    middle = (low + high) / 2
    return Grid(middle - target * (cells - 1) / 2, target, cells)


def weights(source: Grid, target: Grid) -> sparse.csr_array:
    """(target.count, source.count): rows sum to 1, or to 0 outside of the source's cells."""
    width = max(source.step, target.step)
    at = (target.places - source.first) / source.step  # in source cells
    reach = width / source.step
    first = np.ceil(at - reach).astype(int)
    span = np.arange(int(np.ceil(2 * reach)) + 1)
    column = first[:, None] + span  # (T, S)
    value = np.maximum(0.0, 1 - np.abs(column - at[:, None]) / reach)
    value[value < 1e-9] = 0
    value[(at < -0.5 - 1e-6) | (at > source.count - 0.5 + 1e-6)] = 0  # beyond the outer edges
    column = np.clip(column, 0, source.count - 1)  # a cell at the edge stands for what is beyond
    total = value.sum(axis=1, keepdims=True)
    value = np.divide(value, total, out=np.zeros_like(value), where=total > 0)
    row = np.broadcast_to(np.arange(target.count)[:, None], column.shape)
    matrix = sparse.coo_array(
        (value.ravel(), (row.ravel(), column.ravel())), (target.count, source.count)
    ).tocsr()
    matrix.eliminate_zeros()
    return matrix


def uneven(places: Floats, target: Grid) -> sparse.csr_array:
    """As `weights`, from places (N,) that rise but are not even: linear, by way of an even grid."""
    steps = np.diff(places)
    fine = over(float(places[0]), float(places[-1]), float(steps.min()), None)
    right = np.clip(np.searchsorted(places, fine.places, side="right"), 1, len(places) - 1)
    share = np.clip((fine.places - places[right - 1]) / steps[right - 1], 0, 1)
    row = np.arange(fine.count)
    linear = sparse.coo_array(
        (
            np.concatenate([1 - share, share]),
            (np.concatenate([row, row]), np.concatenate([right - 1, right])),
        ),
        (fine.count, len(places)),
    ).tocsr()
    return (weights(fine, target) @ linear).tocsr()


def is_identity(matrix: sparse.csr_array) -> bool:
    """Whether applying it changes nothing."""
    rows, columns = matrix.shape
    return bool(
        rows == columns
        and matrix.nnz == rows
        and np.array_equal(matrix.indices, np.arange(rows))
        and np.array_equal(matrix.data, np.ones(rows))
    )
