"""Slices in space: their order along the normal, and whether they make one regular volume.

Positions come from ImagePositionPatient alone, projected on the normal of the slices.
InstanceNumber may be missing or count something else, SliceLocation and SpacingBetweenSlices are
often wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SAME_PLACE = 1e-2  # mm
SAME_VIEW = 2e-3
"""Of a direction's components, and of the logarithm of a pixel's size: 0.1 degrees, 0.2 %."""
NON_UNIFORM = 0.10  # of the median distance
UNEVEN = 0.01
TILT = 0.05  # sine of the angle between the normal and the way from the first slice to the last
OBLIQUE = np.sin(np.deg2rad(10.0))

Floats = NDArray[np.float64]


def normal(orientation: Floats) -> Floats:
    """The unit normal (3,) of slices from their row and column directions (6,)."""
    n = np.cross(orientation[:3], orientation[3:])
    length = np.linalg.norm(n)
    return n / length if length > 0 else n


def clusters(values: Floats, tolerance: Floats | float) -> NDArray[np.int64]:
    """Which rows (N, K) are the same but for small differences: a code for each, (N,).

    Rows are joined across every gap up to ``tolerance`` (a number, or one for each column), so that
    no jitter below it parts them, wherever they lie; rounding would, at its edges.
    """
    values = np.asarray(values, dtype=np.float64).reshape(len(values), -1)
    order = np.argsort(values, axis=0, kind="stable")
    gaps = np.diff(np.take_along_axis(values, order, axis=0), axis=0) > tolerance
    codes = np.zeros(values.shape, dtype=np.int64)
    steps = np.concatenate([np.zeros((1, values.shape[1]), np.int64), np.cumsum(gaps, axis=0)])
    np.put_along_axis(codes, order, steps, axis=0)
    return np.unique(codes, axis=0, return_inverse=True)[1].ravel().astype(np.int64)


def is_frame(orientation: Sequence[float]) -> bool:
    """Whether row and column directions (6,) are unit vectors at a right angle."""
    a, b, c, x, y, z = orientation
    lengths = abs(a * a + b * b + c * c - 1), abs(x * x + y * y + z * z - 1)
    return max(lengths) < 1e-2 and abs(a * x + b * y + c * z) < 1e-2


def places(positions: Floats, orientation: Floats) -> Floats:
    """Where each slice lies along the normal, in mm: (N, 3) → (N,)."""
    return positions @ normal(orientation)


@dataclass(frozen=True)
class Regularity:
    """How regular a stack is.

    Attributes:
        spacing: the median distance of neighbours in mm; 0 for a single slice.
        findings: names of `medcl_ct.findings`.
        steps: slices (S,) at which the distance to the one before leaves that of the stretch before
            by over 10 %: cut there, every stretch is uniform.
        changes: slices (C,) that are thicker or thinner than the one before.
    """

    spacing: float
    findings: tuple[str, ...]
    steps: tuple[int, ...] = ()
    changes: tuple[int, ...] = ()


def regularity(
    positions: Floats, orientation: Floats, thickness: Floats | None = None
) -> Regularity:
    """Judge slices that are in order: positions (N, 3), orientation (6,), thickness (N,) in mm."""
    count = len(positions)
    found = []
    if np.abs(np.abs(normal(orientation)).max() - 1) > 1 - np.sqrt(1 - OBLIQUE**2):
        found.append("oblique")  # a tilted gantry is told apart below: its slices drift
    if count < 2:
        return Regularity(0.0, ("single-slice", *found))
    distance = np.diff(places(positions, orientation))
    spacing = float(np.median(distance))
    if tilted(positions, orientation):
        found = ["gantry-tilt"]
    off = np.abs(distance / spacing - 1)
    if off.max() > NON_UNIFORM:
        times = distance[off > NON_UNIFORM] / spacing
        gaps = (times > 1.5) & (np.abs(times - np.rint(times)) < NON_UNIFORM)
        found.append("missing-slices" if gaps.all() else "non-uniform-spacing")
    elif off.max() > UNEVEN:
        found.append("uneven-spacing")
    changes: tuple[int, ...] = ()
    if thickness is not None and np.ptp(thickness) > 1e-3:
        found.append("mixed-thickness")
        changes = tuple((1 + np.flatnonzero(np.abs(np.diff(thickness)) > 1e-3)).tolist())
    return Regularity(spacing, tuple(found), _steps(distance), changes)


def tilted(positions: Floats, orientation: Floats) -> bool:
    """Whether the way from the first slice to the last leaves the normal."""
    way = positions[-1] - positions[0]
    length = np.linalg.norm(way)
    along = abs(way @ normal(orientation)) / length if length > 0 else 1.0
    return bool(np.sqrt(max(0.0, 1 - along**2)) > TILT)


def _steps(distance: Floats) -> tuple[int, ...]:
    steps: list[int] = []
    first: float | None = None
    for i, step in enumerate(distance.tolist(), start=1):  # leads from slice i − 1 to slice i
        if first is None:
            first = step
        elif abs(step / first - 1) > NON_UNIFORM:
            steps.append(i)
            first = None
    return tuple(steps)
