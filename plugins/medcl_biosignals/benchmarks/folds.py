"""Folds for sets, or parts of sets, that bring none of their own."""

from __future__ import annotations

import numpy as np

FOLDS = 5


def folds(labels: list[str], groups: list[str], seed: int = 0) -> list[int]:
    """Five folds, each with its share of every class; recordings of one group share one."""
    from sklearn.model_selection import StratifiedGroupKFold

    fold = np.zeros(len(labels), np.int64)
    split = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    for number, (_, test) in enumerate(split.split(labels, labels, groups)):
        fold[test] = number
    return fold.tolist()
