"""Values as grey values of 16 bits: HU as they are, MR and PET on one scale from −1000 to 1000.

So windows, views and encoders see every kind in the same range. MR has no unit: −1000 and 1000 are
the 0.5th and the 99.5th percentile of a volume. PET is 100 · SUVbw − 1000, so that SUV 0 to 20 are
the same range, or by percentiles where its header does not say how to get to SUV.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medcl_ct.kinds import Kind
from medcl_ct.pixels import PADDING, Source

LOW, HIGH = -1000.0, 1000.0
PERCENTILES = (0.5, 99.5)
PER_SUV = 100.0
BODY: dict[Kind, float] = {"ct": -400.0, "mr": -800.0, "pet": -950.0}
"""Above which a voxel is of the body: HU between lung and fat, a tenth of MR's range, SUV 0.5."""
_SAMPLE = 65_536  # values of a slice


def scale(kind: Kind, source: Source) -> tuple[float, float]:
    """Slope and intercept: value · slope + intercept = grey value.

    Args:
        kind: of the item.
        source: is read once more where percentiles are needed.
    """
    if kind == "ct":
        return 1.0, 0.0
    if kind == "pet" and source.suv is not None:
        return PER_SUV * source.suv, LOW
    low, high = _range(source)
    slope = (HIGH - LOW) / (high - low) if high > low else 1.0
    return slope, LOW - low * slope


def _range(source: Source) -> tuple[float, float]:
    """The two percentiles of a volume, from evenly spread values of every slice, without padding.

    Where most of a volume is of one value, as in a black frame, those of the rest.
    """
    found: list[NDArray[Any]] = []
    for _, values in source.slices():
        flat = values.ravel()
        flat = flat[:: max(1, len(flat) // _SAMPLE)]
        found.append(flat[flat != PADDING])
    every = np.concatenate(found)
    if not len(every):
        return 0.0, 0.0
    low, high = np.percentile(every, PERCENTILES)
    if high <= low:
        rest = every[every != low]
        low, high = (every.min(), np.percentile(rest, PERCENTILES[1])) if len(rest) else (low, low)
    return float(low), float(high)
