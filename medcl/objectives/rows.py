"""Row losses that need whole rows of a B×N matrix, some rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from medcl.objectives.eager import eager

ELEMENTS = 2**21
"""Maximum number of matrix entries in memory at once."""


def blocks(rows: int, width: int) -> Iterator[slice]:
    """Slices of the rows of a matrix, of at most `ELEMENTS` entries each (one row at least)."""
    step = max(1, ELEMENTS // max(width, 1))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


@eager
def by_rows(fn: Callable[[slice], Tensor], rows: int, width: int) -> Tensor:
    """Concatenate ``fn(slice)`` over slices of the rows, each computed again in the backward pass.

    For losses whose gradient needs more of a row than its sums (ranks, focal weights): memory is
    that of a few rows of ``width`` entries instead of all.

    Example:
        >>> x = torch.arange(4.0)
        >>> by_rows(lambda i: (x[i, None] - x).abs().sum(1), rows=4, width=4)
        tensor([6., 4., 4., 6.])
    """
    # Without rows on this rank fn still runs, on none: every rank must have the same graph.
    every = list(blocks(rows, width)) or [slice(0, 0)]
    parts = [checkpoint(fn, i, use_reentrant=False) for i in every]
    return torch.cat(parts)
