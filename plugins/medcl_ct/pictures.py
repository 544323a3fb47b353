"""Small pictures of slices, by which near-duplicates are told (`medcl.curate.curate`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medcl_ct.placing import heights
from medcl_ct.resample import over, weights

SIDE = 64
LOW, HIGH = -1000.0, 1000.0
"""HU that are black and white. Fixed: a window that followed each slice's own range would make
slices alike that are not, and the other way round."""


def pictures(held: Mapping[str, NDArray[Any]]) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """The slices of an item, small.

    Args:
        held: its prepared arrays.

    Returns:
        heights (N,) in mm, as `medcl_ct.dataset.dataset` finds them in a column ``keep``, and
        pictures (N, 64, 64), averaged down.
    """
    where, made = [], []
    for part in range(sum(name.startswith("hu") for name in held)):
        volume = held[f"hu{part}"]
        rows, columns = (
            weights(grid, over(0.0, n - 1.0, 1.0, n / SIDE))
            for n in volume.shape[1:]
            for grid in (over(0.0, n - 1.0, 1.0, None),)
        )
        small = np.stack([(columns @ (rows @ one.astype(np.float32)).T).T for one in volume])
        made.append(np.clip((small - LOW) * (255 / (HIGH - LOW)), 0, 255).astype(np.uint8))
        where.append(heights(held, part))
    return np.concatenate(where), np.concatenate(made)
