"""Dice and surface Dice of a predicted mask, for each class."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from medcl.nn.dense_loss import UNKNOWN

MEASURES = {"dice": "Dice", "surface_dice": "surface Dice"}
Floats = NDArray[np.float64]


def measured(
    predicted: NDArray[np.integer],
    truth: NDArray[np.integer],
    classes: int,
    spacing: Sequence[float],
    tolerance: float,
) -> dict[str, Floats]:
    """Measures of each class but the background: name → (classes − 1,), NaN where it is in neither.

    ``dice``: 2|P ∩ T| / (|P| + |T|). ``surface_dice``: the share of both surfaces that lies within
    a tolerance of the other (Nikolov 2021, doi 10.2196/26151), by MONAI. A class that is in one of
    the two alone has 0 in both. Positions of unknown class count as background in both.

    Args:
        predicted, truth: (*space) classes; truth −1 where it is unknown.
        classes: their number, the background included.
        spacing: distances of positions along each axis, in mm or the image's unit.
        tolerance: in the same unit.
    """
    known = truth != UNKNOWN
    predicted, truth = np.where(known, predicted, 0), np.where(known, truth, 0)
    dice, surface = np.full((2, classes - 1), np.nan)
    for number in range(1, classes):
        p, t = predicted == number, truth == number
        total = int(p.sum()) + int(t.sum())
        if not total:
            continue
        dice[number - 1] = 2 * int((p & t).sum()) / total
        surface[number - 1] = _surface(p, t, spacing, tolerance) if p.any() and t.any() else 0.0
    return {"dice": dice, "surface_dice": surface}


def _surface(
    p: NDArray[np.bool_], t: NDArray[np.bool_], spacing: Sequence[float], tolerance: float
) -> float:
    from monai.metrics import compute_surface_dice

    box = _around(p | t)
    one, two = (torch.from_numpy(np.ascontiguousarray(m[box]))[None, None].float() for m in (p, t))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes that are in one alone, which are not here
        value = compute_surface_dice(
            one, two, [tolerance], include_background=True, spacing=[float(s) for s in spacing]
        )
    return float(value)


def _around(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    """The box of a mask with a margin of one, as far as there is any."""
    box = []
    for axis in range(mask.ndim):
        at = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        box.append(slice(max(int(at[0]) - 1, 0), int(at[-1]) + 2))
    return tuple(box)
