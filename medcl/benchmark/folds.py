"""Folds for sets, or parts of sets, that bring none of their own."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence

import numpy as np

from medcl.errors import UsageError

FOLDS = 5


def folds(
    labels: Sequence[str], groups: Sequence[str], count: int = FOLDS, *, seed: int = 0
) -> list[int]:
    """Folds with a like share of every class; rows of one group share one.

    Args:
        labels: (N,) class of each row.
        groups: (N,) its person, or whatever must not be on both sides.
        count: of folds.
        seed: of the draw.

    Raises:
        UsageError: for fewer groups than folds.
    """
    from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

    if len(set(groups)) < count:
        raise UsageError(f"{len(set(groups))} people are too few for {count} folds of people.")
    fold = np.zeros(len(labels), np.int64)
    stratified = max(Counter(labels).values()) >= count
    of_kind = StratifiedGroupKFold if stratified else GroupKFold
    split = of_kind(count, shuffle=True, random_state=seed)
    with warnings.catch_warnings():  # a rare class may have fewer rows than there are folds
        warnings.simplefilter("ignore", UserWarning)
        for number, (_, test) in enumerate(split.split(labels, labels, groups)):
            fold[test] = number
    return fold.tolist()
