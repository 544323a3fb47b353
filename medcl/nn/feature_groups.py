"""Weights of groups of features side by side under one penalty: an encoder's, and hand-crafted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

LEARNED = (0.5, 1.0)
"""Of the first group, an encoder's, where others follow: a linear classifier of frozen features
chooses among them, all else takes the first. Found on folds 1–7 of PTB-XL:
docs/research-log-biosignals.md, "How much of the encoder"."""


def group_weights(widths: Sequence[int], *, learned: float = LEARNED[0]) -> NDArray[np.float32]:
    """(D,) factors for standardised columns, by the widths of their groups, the encoder's first.

    Groups get the same total variance ("hard block scaling", Eriksson 2006, Multi- and Megavariate
    Data Analysis): otherwise one penalty for all columns would suppress four interval ratios next
    to an embedding of 512 numbers. Then the encoder's is multiplied by ``learned``: where labels
    are few, features that somebody made for the task may deserve more trust than those of any.
    """
    widest = max(widths)
    each = [np.full(w, (widest / w) ** 0.5, np.float32) for w in widths if w]
    if len(each) > 1:
        each[0] *= learned
    return np.concatenate(each)
