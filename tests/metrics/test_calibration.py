"""Calibration, thresholds and concordance against plain formulas."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from medcl.metrics.calibration import expected_error, reliability, temperature, threshold
from medcl.metrics.metrics import Counted, once
from medcl.metrics.survival import concordance

RNG = np.random.default_rng(0)


def test_the_error_is_the_weighted_gap_of_the_bins() -> None:
    curve = reliability(np.array([0.95, 0.91, 0.15, 1.0]), np.array([1, 0, 0, 1], bool), bins=10)
    # Bin 9: confidence 0.9533, right 2/3, three samples; bin 1: 0.15, 0, one sample.
    assert curve.error == pytest.approx(0.75 * (0.95333333 - 2 / 3) + 0.25 * 0.15)


def test_the_error_under_weights_is_that_of_repeated_samples() -> None:
    sure, right = RNG.uniform(0.3, 1, 60), RNG.random(60) < 0.6
    whose = np.repeat(np.arange(6), 10)
    counts = np.array([[1, 2], [1, 0], [1, 1], [1, 0], [1, 3], [1, 0]], np.float32)
    got = expected_error(sure, right, Counted(whose, counts))
    assert got[0] == pytest.approx(reliability(sure, right).error, rel=1e-5)
    drawn = np.concatenate([np.flatnonzero(whose == p) for p in (0, 0, 2, 4, 4, 4)])
    assert got[1] == pytest.approx(reliability(sure[drawn], right[drawn]).error, rel=1e-5)


def test_a_temperature_mends_what_is_too_sure() -> None:
    z = RNG.normal(size=(4000, 3)) * 2
    chance = softmax(z, axis=1)
    y = np.array([RNG.choice(3, p=p) for p in chance])
    assert temperature(z, y) == pytest.approx(1, abs=0.08)
    assert temperature(z * 5, y) == pytest.approx(5, abs=0.4)
    before = reliability(softmax(z * 5, axis=1).max(1), (z.argmax(1) == y)).error
    assert before > 0.1


def test_a_temperature_ignores_unknown_labels() -> None:
    z = RNG.normal(size=(4000, 2))
    y = (RNG.random((4000, 2)) < 1 / (1 + np.exp(-z))).astype(float)
    y[:1000, 0] = np.nan
    assert temperature(z * 3, y) == pytest.approx(3, abs=0.4)


def test_the_threshold_is_the_best_one_and_the_nearest_to_a_half() -> None:
    score = np.array([0.1, 0.2, 0.3, 0.4])
    assert threshold(score, np.array([0, 0, 1, 1], bool)) == pytest.approx(0.25)
    assert threshold(score, np.zeros(4, bool)) == 0.5
    assert threshold(np.array([0.1, 0.9]), np.array([0, 1], bool)) == 0.5


def naive(time, event, risk, times) -> float:
    """Every pair, as often as its two people are counted."""
    right = total = 0.0
    for i in range(len(time)):
        for j in range(len(time)):
            first = time[i] < time[j] or (time[i] == time[j] and not event[j])
            if i != j and event[i] and first:
                total += times[i] * times[j]
                right += times[i] * times[j] * ((risk[i] > risk[j]) + 0.5 * (risk[i] == risk[j]))
    return right / total


def test_concordance_matches_every_pair_under_weights() -> None:
    n = 40
    time, risk = RNG.integers(1, 12, n).astype(float), RNG.normal(size=n).round(1)
    event = RNG.random(n) < 0.6
    counts = RNG.integers(0, 3, (n, 4)).astype(np.float32)
    found = concordance(time, event, risk, Counted(np.arange(n), counts))["c_index"]
    expected = [naive(time, event, risk, counts[:, r]) for r in range(4)]
    assert found == pytest.approx(expected)
    plain = concordance(time, event, risk, once(n))["c_index"][0]
    assert plain == pytest.approx(naive(time, event, risk, np.ones(n)))


def test_people_of_different_folds_are_not_compared() -> None:
    time, event = np.array([1.0, 2.0, 1.0, 2.0]), np.ones(4, bool)
    risk = np.array([2.0, 1.0, 102.0, 101.0])  # right within each fold
    fold = np.array([0, 0, 1, 1])
    assert concordance(time, event, risk, once(4), fold)["c_index"][0] == 1
    assert concordance(time, event, risk, once(4))["c_index"][0] < 1
    assert np.isnan(concordance(time, np.zeros(4, bool), risk, once(4))["c_index"][0])
