"""Kaplan-Meier curves and the log-rank test, against their formulae."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from medcl.metrics.kaplan_meier import kaplan_meier


def naive_curve(time: np.ndarray, event: np.ndarray) -> dict[float, float]:
    """Π (1 − d/n) over the times of events (Kaplan & Meier 1958)."""
    survival, out = 1.0, {}
    for t in np.unique(time):
        survival *= 1 - (event & (time == t)).sum() / (time >= t).sum()
        out[float(t)] = survival
    return out


def naive_logrank(time: np.ndarray, event: np.ndarray, high: np.ndarray) -> float:
    """(O − E) / √V over the times of events (Mantel 1966), two-sided p."""
    difference = variance = 0.0
    for t in np.unique(time[event]):
        n, n1 = (time >= t).sum(), ((time >= t) & high).sum()
        d, d1 = (event & (time == t)).sum(), (event & (time == t) & high).sum()
        difference += d1 - d * n1 / n
        if n > 1:
            variance += d * (n1 / n) * (1 - n1 / n) * (n - d) / (n - 1)
    return float(2 * norm.sf(abs(difference) / np.sqrt(variance)))


@pytest.mark.parametrize("seed", range(5))
def test_it_is_its_formula(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = 60
    risk = rng.normal(size=n)
    time = np.ceil(rng.exponential(20 * np.exp(-risk)))  # with ties
    event = rng.random(n) < 0.6
    fold = np.arange(n) % 3
    found = kaplan_meier(time, event, risk + 5 * fold, np.arange(n).astype(str), fold)
    assert found is not None
    high = np.concatenate([[risk[i] > np.median(risk[fold == fold[i]])] for i in range(n)])
    for group, which in zip(found.groups, (~high, high), strict=True):
        assert (group.patients, group.events) == (which.sum(), event[which].sum())
        assert (group.time[0], group.survival[0]) == (0, 1)
        expected = naive_curve(time[which], event[which])
        held = dict(zip(group.time[1:].tolist(), group.survival[1:].tolist(), strict=True))
        assert held == pytest.approx({t: expected[t] for t in held})
        inside = np.isfinite(group.low) & np.isfinite(group.high)
        assert (group.low <= group.survival + 1e-12)[inside].all()
        assert (group.survival <= group.high + 1e-12)[inside].all()
    assert found.p == pytest.approx(naive_logrank(time, event, high))


def test_a_patient_with_two_samples_counts_once() -> None:
    time, event = np.array([5.0, 5, 9, 2, 7]), np.array([1, 1, 0, 1, 1], bool)
    risk, patients = np.array([0.0, 4.0, 1.0, 3.0, 0.5]), np.array(["a", "a", "b", "c", "d"])
    found = kaplan_meier(time, event, risk, patients)
    assert found is not None
    assert [g.patients for g in found.groups] == [2, 2]  # a has the mean risk 2
    assert found.groups[1].time.tolist() == [0, 2, 5]


def test_too_few_patients_give_no_curve() -> None:
    three = np.array(["a", "b", "c"])
    assert kaplan_meier(np.ones(3), np.ones(3, bool), np.arange(3.0), three) is None
    four = np.array(["a", "b", "c", "d"])
    assert kaplan_meier(np.ones(4), np.zeros(4, bool), np.arange(4.0), four) is None
