"""Survival of patients of low and high risk: Kaplan-Meier curves and the log-rank test."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medcl.metrics.metrics import Floats


@dataclass(frozen=True)
class RiskGroup:
    """Survival of one group of patients.

    Attributes:
        name: "low risk" or "high risk".
        patients: their number.
        events: how many of them had the event.
        time: (K,) in the unit of the labels, ascending; survival changes there. It begins at 0.
        survival: (K,) share without the event after each time.
        low: (K,) and
        high: (K,) its 95% interval (log-log; Greenwood 1926); NaN where it is undefined.
    """

    name: str
    patients: int
    events: int
    time: Floats
    survival: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True)
class KaplanMeier:
    """Two groups of patients, cut at the median risk, and whether their survival differs.

    Attributes:
        groups: those of low and of high risk.
        p: of the log-rank test (Mantel 1966), two-sided.
    """

    groups: tuple[RiskGroup, RiskGroup]
    p: float


def kaplan_meier(
    time: Floats,
    event: NDArray[np.bool_],
    risk: Floats,
    patients: NDArray[np.str_],
    fold: NDArray[np.integer] | None = None,
) -> KaplanMeier | None:
    """Survival of patients above and below the median risk.

    A patient with several samples counts once: the mean risk and the latest time. The median is of
    each fold's own test patients, since risks of two models have no common scale; so it is chosen
    on the patients that are shown, but without their outcomes.

    Args:
        time: (N,) of the event or of censoring.
        event: (N,) True if it was observed.
        risk: (N,) higher means sooner.
        patients: (N,) of each sample.
        fold: (N,) the model of each risk.

    Returns:
        None if a group would have fewer than two patients, or nobody has the event.
    """
    from scipy.stats import logrank

    _, first, row = np.unique(patients, return_index=True, return_inverse=True)
    mean = np.bincount(row, risk) / np.bincount(row)
    latest = np.full(len(first), -np.inf)
    np.maximum.at(latest, row, time)
    seen = np.bincount(row, event) > 0
    of = np.zeros(len(first), np.int64) if fold is None else fold[first]
    high = np.zeros(len(first), bool)
    for f in np.unique(of):
        high[of == f] = mean[of == f] > np.median(mean[of == f])
    if min(high.sum(), (~high).sum()) < 2 or not seen.any():
        return None
    low_group, high_group = (_censored(latest[g], seen[g]) for g in (~high, high))
    return KaplanMeier(
        (
            _group("low risk", latest[~high], seen[~high]),
            _group("high risk", latest[high], seen[high]),
        ),
        float(logrank(low_group, high_group).pvalue),
    )


def _censored(time: Floats, event: NDArray[np.bool_]) -> Any:  # scipy's types are narrower
    from scipy.stats import CensoredData

    return CensoredData(uncensored=time[event], right=time[~event])


def _group(name: str, time: Floats, event: NDArray[np.bool_]) -> RiskGroup:
    from scipy.stats import ecdf

    curve: Any = ecdf(_censored(time, event)).sf
    with warnings.catch_warnings():  # log-log has no interval where survival is 1 or 0: NaN
        warnings.simplefilter("ignore", RuntimeWarning)
        bounds = curve.confidence_interval(0.95, method="log-log")
    return RiskGroup(
        name,
        len(time),
        int(event.sum()),
        _from(0.0, curve.quantiles),
        _from(1.0, curve.probabilities),
        _from(1.0, bounds.low.probabilities),
        _from(1.0, bounds.high.probabilities),
    )


def _from(first: float, values: Floats) -> Floats:
    return np.concatenate((np.array([first]), np.asarray(values, dtype=np.float64)))
