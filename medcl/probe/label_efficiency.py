"""Label fractions: which training patients are labelled, in nested draws.

A fraction is one of *patients*, not of samples: a person who labels goes through recordings one by
one, and a few samples of every patient would show the probe more variety than that buys. With 14
patients 1% and 10% are 1 and 2 patients, which is why every point of the curve states its number of
patients and samples.
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
    """The labelled part of a draw: of its patients all samples."""

    fraction: float
    positions: NDArray[np.int64]
    patients: int


def subsets(
    truth: Target, patients: NDArray, fractions: Sequence[float], *, seed: int
) -> list[Subset]:
    """One draw: patients in random order, each fraction taking the first ⌈fraction · P⌉ of them.

    So the subsets are nested. A fraction is enlarged until it holds two classes (of a regression,
    two patients): with less, nothing can be fitted.

    Args:
        truth: of the N training samples.
        patients: (N,).
        fractions: in (0, 1].
        seed: of the order.
    """
    keys, code = np.unique(patients, return_inverse=True)
    rank = np.empty(len(keys), np.int64)
    rank[np.random.default_rng(seed).permutation(len(keys))] = np.arange(len(keys))
    place = rank[code]  # (N,) when a sample's patient is labelled
    least = _least(truth, place)
    out = []
    for fraction in sorted(fractions):
        taken = min(len(keys), max(least, math.ceil(round(fraction * len(keys), 9))))
        out.append(Subset(fraction, np.flatnonzero(place < taken), taken))
    return out


def _least(truth: Target, place: NDArray[np.int64]) -> int:
    """The fewest patients, in their order, that hold two classes."""
    if truth.kind == "regression":
        return 2
    columns = truth.y if truth.kind == "multilabel" else truth.y[:, None]
    needed = []
    for y in columns.T:
        first = [place[y == c].min() for c in np.unique(y[y >= 0])]
        if len(first) > 1:
            needed.append(int(np.sort(first)[1]) + 1)
    return min(needed, default=1)
