"""Features relative to those of the same recording: how a part of it differs from its usual one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_LEAST = 0.05  # of the spread over all: a recording whose parts are alike must not be blown up
_LIMIT = 20.0


def relative(x: NDArray[np.float32], owners: Sequence[str] | NDArray) -> NDArray[np.float32]:
    """Each feature less its median over the recording, by its spread; needs no label.

    The spread is the geometric mean of the robust one over the recording and the standard deviation
    over all.

    Args:
        x: (N, D).
        owners: (N,) the recording of each row.

    Returns:
        (N, D), within ±20.
    """
    out = np.empty_like(x)
    everywhere = x.std(axis=0) + 1e-6
    _, code = np.unique(np.asarray(owners), return_inverse=True)
    order = np.argsort(code, kind="stable")
    for mine in np.split(order, np.flatnonzero(np.diff(code[order])) + 1):
        middle = np.median(x[mine], axis=0)
        spread = 1.4826 * np.median(np.abs(x[mine] - middle), axis=0)
        scale = np.sqrt(everywhere * np.maximum(spread, _LEAST * everywhere))
        out[mine] = (x[mine] - middle) / scale
    return np.clip(out, -_LIMIT, _LIMIT)
