"""Volumes that were cut out of a scan, or padded, and lie in a frame of one value."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_WIDTH = 0.05  # of a side, at least, and two voxels
_FULL = 0.8
"""Of the plane behind a frame is of other values. Air that was clipped, or cut away around a body,
is of one value too, but a body ends round."""


def inside(hu: NDArray[Any]) -> tuple[slice, ...] | None:
    """The box within a frame: three slices; None where there is no frame.

    A frame is of one and the same value on all its sides, behind at least one of which nearly all
    voxels have others.

    Args:
        hu: (Z, Y, X).
    """
    low, high = hu.min(axis=0), hu.max(axis=0)  # (Y, X)
    planes = [
        (hu.reshape(len(hu), -1).min(axis=1), hu.reshape(len(hu), -1).max(axis=1)),
        (low.min(axis=1), high.max(axis=1)),
        (low.min(axis=0), high.max(axis=0)),
    ]
    box, sides = [], []
    for axis, (least, most) in enumerate(planes):
        varied = np.flatnonzero(least != most)
        if not len(varied):
            return None
        first, last = int(varied[0]), int(varied[-1]) + 1
        wide = max(2, _WIDTH * hu.shape[axis])
        box.append(slice(first, last))
        sides += [(axis, first, least[0])] if first >= wide else []
        sides += [(axis, last - 1, least[-1])] if hu.shape[axis] - last >= wide else []
    if len({int(value) for _, _, value in sides}) != 1:
        return None
    within = tuple(box)
    for axis, at, value in sides:
        plane = hu[within].take(at - box[axis].start, axis=axis)
        if (plane != value).mean() >= _FULL:
            return within
    return None
