"""Label fractions: nested draws of labelled training patients.

Fractions are of *patients*, not of samples: annotators label recording by recording, and a few
samples of every patient would give the probe more variety than that. With 14 patients 1% and 10%
are 1 and 2 patients; therefore every point of the curve states its numbers of patients and samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medcl.labels.target import Target

DRAWS = 5


@dataclass(frozen=True)
class Subset:
    """The labelled part of a draw: all samples of its patients."""

    fraction: float
    positions: NDArray[np.int64]
    patients: int


def subsets(
    target: Target, patients: NDArray, fractions: Sequence[float], *, seed: int
) -> list[Subset]:
    """One draw: patients in random order, each fraction taking the first ⌈fraction · P⌉ of them.

    The subsets are nested. A fraction is enlarged until it holds two classes (for a regression,
    two patients), the minimum for a fit.

    Args:
        target: of the N training samples.
        patients: (N,).
        fractions: in (0, 1].
        seed: of the order.
    """
    keys, code = np.unique(patients, return_inverse=True)
    rank = np.empty(len(keys), np.int64)
    rank[np.random.default_rng(seed).permutation(len(keys))] = np.arange(len(keys))
    rank_of = rank[code]  # (N,) rank of the sample's patient
    minimum = _least(target, rank_of)
    out = []
    for fraction in sorted(fractions):
        count = min(len(keys), max(minimum, math.ceil(round(fraction * len(keys), 9))))
        out.append(Subset(fraction, np.flatnonzero(rank_of < count), count))
    return out


def _least(target: Target, rank_of: NDArray[np.int64]) -> int:
    """The fewest patients, in their order, that hold two classes."""
    if target.kind == "regression":
        return 2
    columns = target.y if target.kind == "multilabel" else target.y[:, None]
    needed = []
    for y in columns.T:
        first = [rank_of[y == c].min() for c in np.unique(y[y >= 0])]
        if len(first) > 1:
            needed.append(int(np.sort(first)[1]) + 1)
    return min(needed, default=1)
