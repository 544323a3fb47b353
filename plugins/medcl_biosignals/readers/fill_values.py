"""Numbers that recorders write where they have no sample, such as −9999 or 32767 → missing."""

from __future__ import annotations

import numpy as np

FINDING = "fill-values"
"""The finding of a channel in which such a number was taken for missing samples."""
_NINES = tuple(sign * (10.0**digits - 1) for digits in range(3, 11) for sign in (1, -1))
_LIMITS = (255.0, 32767.0, 65535.0, 8388607.0, 16777215.0, 2147483647.0, 4294967295.0)
_LOWER = (-32768.0, -8388608.0, -2147483648.0)
_POWERS = tuple(sign * 10.0**power for power in (10, 20, 30, 35, 36, 37, 38) for sign in (1, -1))
FILL_VALUES = (*_NINES, *_LIMITS, *_LOWER, *_POWERS)
"""999 … 9,999,999,999 and below zero; the limits of integers; 1e10 … 1e38. Not zero: a
cadence, a power may well be that."""
_LEAST = 2  # times that it is there: one such sample may be anything
_APART = 0.01  # of the value, to the next other sample: a channel at its limit comes nearer
_TAIL = 0.5  # per cent of the other samples at either end, which may be spikes


def without_fill(x: np.ndarray) -> np.ndarray:
    """A channel with NaN in the place of its fill values; ``x`` itself where it has none.

    One of `FILL_VALUES` is taken for that if it is there twice or more and stands alone: outside
    the range of the other samples (but for the half per cent at either end), by that range or
    more and by a hundredth of the value, with no other sample nearer. A signal that reaches the
    recorder's limit passes through values below it, so clipping stays what it is
    (`medcl_biosignals.gaps`). Of a channel that is else constant nothing is known.

    Args:
        x: (N,) floats as recorded, in any unit, NaN where missing.
    """
    finite = x[np.isfinite(x)]
    if len(finite) < 2 * _LEAST:
        return x
    low, high = float(finite.min()), float(finite.max())
    known = np.unique(np.array(FILL_VALUES, x.dtype))
    there = known[(known >= low) & (known <= high)]
    held = [value for value in there if int((finite == value).sum()) >= _LEAST]
    if not held:
        return x
    rest = finite[~np.isin(finite, held)].astype(np.float64)
    if len(rest) < 2:
        return x
    bottom, top = np.percentile(rest, [_TAIL, 100 - _TAIL])
    spread = float(top - bottom)
    fill = [
        value
        for value in held
        if spread > 0
        and (value <= bottom - spread or value >= top + spread)
        and not (np.abs(rest - value) < max(spread, _APART * abs(value))).any()
    ]
    if not fill:
        return x
    return np.where(np.isin(x, fill), x.dtype.type(np.nan), x)
