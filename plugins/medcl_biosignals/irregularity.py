"""How regular a heart beats: numbers of the intervals around a window, the same for every rate.

Shares and ratios to the mean or median interval; entropies after Lake & Moorman 2011 (doi
10.1152/ajpheart.00561.2010), who tell atrial fibrillation by them from as few as twelve beats.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FEATURES = (
    "rr",  # log of the mean interval in seconds
    "intervals",  # log of their number
    "sdnn",  # standard deviation / mean
    "mad",  # median absolute deviation / median
    "rmssd",  # root mean square of successive differences / mean
    "uneven",  # share of successive differences above 10 % of the mean
    "pnn50",  # share of successive differences above 50 ms
    "early",  # share of intervals below 85 % of the median
    "late",  # share above 115 %
    "shortest",  # log of the shortest / median
    "longest",  # log of the longest / median
    "sd12",  # log SD1 / SD2 of the Poincaré plot
    "turning",  # share of intervals that are longer, or shorter, than both neighbours
    "memory",  # correlation of successive intervals
    "second",  # correlation of intervals two apart: bigeminy has a high one
    "entropy",  # Shannon entropy of intervals / median in bins of 5 %, in bits
    "differences",  # the same of successive differences
    "cosen",  # coefficient of sample entropy, m = 1
)
_SHORTEST, _LONGEST, _FEWEST = 0.2, 3.0, 3
_TOLERANCE, _GROWTH, _MATCHES = 0.03, 1.3, 5  # seconds, and how it grows until there are matches


def irregularity(intervals: NDArray[np.floating]) -> NDArray[np.float32]:
    """`FEATURES` of each window.

    Args:
        intervals: (B, K) seconds between beats in their order; zero, or outside of 0.2–3 s: none.

    Returns:
        (B, 18) float32; zero for less than three intervals.
    """
    made = np.zeros((len(intervals), len(FEATURES)), np.float32)
    for row, given in enumerate(np.asarray(intervals, np.float64)):
        rr = given[(given >= _SHORTEST) & (given <= _LONGEST)]
        if len(rr) >= _FEWEST:
            made[row] = np.nan_to_num(_measured(rr), nan=0.0, posinf=0.0, neginf=0.0)
    return made


def _measured(rr: NDArray[np.float64]) -> list[float]:
    mean, median = rr.mean(), np.median(rr)
    change = np.diff(rr)
    size = np.abs(change)
    short, long = change.std() / 2**0.5, np.sqrt(max(2 * rr.var() - change.var() / 2, 1e-8))
    return [
        np.log(mean),
        np.log(len(rr)),
        rr.std() / mean,
        np.median(np.abs(rr - median)) / median,
        np.sqrt((change**2).mean()) / mean,
        (size > 0.1 * mean).mean(),
        (size > 0.05).mean(),
        (rr < 0.85 * median).mean(),
        (rr > 1.15 * median).mean(),
        np.log(rr.min() / median),
        np.log(rr.max() / median),
        np.log(max(short, 1e-4) / long),
        (change[1:] * change[:-1] < 0).mean(),
        _correlation(rr[1:], rr[:-1]),
        _correlation(rr[2:], rr[:-2]),
        _shannon(rr / median),
        _shannon(change / median),
        _cosen(rr),
    ]


def _correlation(one: NDArray, other: NDArray) -> float:
    """Zero for less than three pairs, or where one does not vary."""
    if len(one) < _FEWEST or one.std() < 1e-6 or other.std() < 1e-6:
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])


def _shannon(ratio: NDArray) -> float:
    _, count = np.unique(np.round(ratio / 0.05), return_counts=True)
    share = count / count.sum()
    return float(-(share * np.log2(share)).sum())


def _cosen(rr: NDArray) -> float:
    """−ln(conditional probability of a match) + ln(2r) − ln(mean interval)."""
    apart = np.abs(rr[:, None] - rr[None, :])
    pairs = np.triu_indices(len(rr) - 1, 1)
    now, then = apart[:-1, :-1][pairs], apart[1:, 1:][pairs]
    tolerance = _TOLERANCE
    while tolerance < _LONGEST:
        one, both = now < tolerance, (now < tolerance) & (then < tolerance)
        if both.sum() >= min(_MATCHES, len(now)):
            return float(-np.log(both.sum() / one.sum()) + np.log(2 * tolerance / rr.mean()))
        tolerance *= _GROWTH
    return 0.0
