"""Concordance of risks with survival times, under weights (see `medcl.metrics.metrics`)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medcl.metrics.metrics import Counted, Floats, Measures

_ROWS = 512  # samples per block of pairs


def concordance(
    time: Floats,
    event: NDArray[np.bool_],
    risk: Floats,
    weight: Counted,
    group: NDArray[np.integer] | None = None,
) -> Measures:
    """Harrell's C-index (1982): share of pairs in which the higher risk has the event first.

    A pair counts if the earlier time is an event's; equal risks count half, pairs with equal times
    do not count unless one of them was censored then.

    Args:
        time: (N,) of the event or of censoring.
        event: (N,) True if it was observed.
        risk: (N,) higher means sooner.
        weight: of the N samples.
        group: (N,) only pairs within a group are compared: models of different folds do not share
            a scale.

    Returns:
        ``c_index`` (R,); NaN without a comparable pair.
    """
    group = np.zeros(len(time), np.int64) if group is None else group
    columns = weight.counts[weight.cluster].astype(np.float64)  # (N, R)
    right = np.zeros(columns.shape[1])
    total = np.zeros(columns.shape[1])
    for start in range(0, len(time), _ROWS):
        i = slice(start, start + _ROWS)
        first = (time[i, None] < time) | ((time[i, None] == time) & ~event)
        pair = event[i, None] & first & (group[i, None] == group)
        pair[np.arange(len(pair)), np.arange(start, start + len(pair))] = False
        ahead = (risk[i, None] > risk) + 0.5 * (risk[i, None] == risk)
        right += np.einsum("ir,ir->r", columns[i], (pair * ahead) @ columns)
        total += np.einsum("ir,ir->r", columns[i], pair @ columns)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {"c_index": np.where(total > 0, right / total, np.nan)}
