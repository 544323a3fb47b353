"""Intervals: against a naive loop, and whether they cover what they should."""

from __future__ import annotations

import tracemalloc
from functools import partial

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from medcl.metrics import bootstrap as module
from medcl.metrics import metrics
from medcl.metrics.bootstrap import bootstrap, resample, summarise
from medcl.metrics.measures import measure


def drawn(seed: int, people: int = 8, each: int = 30) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    patients = np.repeat(np.arange(people), each)
    truth = rng.integers(0, 2, people * each)
    shift = rng.standard_normal(people)[patients]
    one = truth + shift + rng.standard_normal(len(truth))
    other = truth + shift + 2 * rng.standard_normal(len(truth))
    return truth, one, other, patients


def columns(score: np.ndarray) -> np.ndarray:
    return np.column_stack([-score, score])


def test_it_equals_a_naive_loop() -> None:
    truth, score, _, patients = drawn(0)
    measured = partial(measure, "binary", truth, columns(score))
    found = bootstrap(measured, patients, resamples=100, seed=5)
    (counts,) = resample(8, 100, seed=5)
    naive = []
    for r in range(100):
        taken = np.concatenate(
            [np.flatnonzero(patients == p).repeat(counts[p, r]) for p in range(8)]
        )
        naive.append(roc_auc_score(truth[taken], score[taken]))
    np.testing.assert_allclose(found.draws["auroc"], naive, atol=1e-6)
    interval = found.interval("auroc")
    assert interval.value == pytest.approx(roc_auc_score(truth, score))
    odds = np.log(interval.value / (1 - interval.value))
    spread = np.std(naive, ddof=1) * np.sqrt(8 / 7) / (interval.value * (1 - interval.value))
    ends = odds + np.array([-1, 1]) * 2.3646 * spread  # Student's t with 7 degrees of freedom
    assert (interval.low, interval.high) == pytest.approx(1 / (1 + np.exp(-ends)), abs=1e-4)


def test_the_parts_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    truth, score, _, patients = drawn(1)
    measured = partial(measure, "binary", truth, columns(score))
    whole = bootstrap(measured, patients, resamples=100)
    monkeypatch.setattr(module, "CELLS", 7 * len(truth))
    parts = bootstrap(measured, patients, resamples=100)
    for name in whole.draws:
        np.testing.assert_array_equal(whole.draws[name], parts.draws[name])


def test_the_difference_is_paired() -> None:
    truth, one, other, patients = drawn(2)
    a = bootstrap(partial(measure, "binary", truth, columns(one)), patients)
    b = bootstrap(partial(measure, "binary", truth, columns(other)), patients)
    gain = a.minus(b, "auroc")
    assert gain.value == pytest.approx(roc_auc_score(truth, one) - roc_auc_score(truth, other))
    apart = [np.ptp([i.low, i.high]) for i in (a.interval("auroc"), b.interval("auroc"))]
    assert gain.high - gain.low < sum(apart)
    none = a.minus(a, "auroc")
    assert (none.value, none.low, none.high) == (0, 0, 0)


def test_resamples_without_a_class_are_counted() -> None:
    truth = np.array([0, 0, 0, 0, 1])
    score = columns(np.arange(5.0))
    patients = np.array(["a", "a", "b", "b", "c"])
    measured = partial(measure, "binary", truth, score)
    found = bootstrap(measured, patients, resamples=2000).interval("auroc")
    assert found.undefined / 2000 == pytest.approx((2 / 3) ** 3 + (1 / 3) ** 3, abs=0.04)
    assert (found.value, found.low, found.high) == (1, pytest.approx(0.025 ** (1 / 3)), 1)
    alone = bootstrap(measured, np.zeros(5), resamples=100).interval("auroc")
    assert (alone.low, alone.high, alone.undefined) == (1, 1, 0)
    never = summarise(np.nan, np.full(10, np.nan), 3)
    assert (never.value, never.low, never.high, never.undefined) == (None, None, None, 10)


@pytest.mark.slow
def test_intervals_cover_the_truth_and_those_over_samples_would_not() -> None:
    """60 patients with an effect of their own: intervals of a mean should cover it about 95%."""
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(60), 10)
    covered = {"patients": 0, "samples": 0}
    for trial in range(200):
        error = rng.standard_normal(60)[patients] + rng.standard_normal(600)
        measured = partial(_mean, error)
        for name, clusters in (("patients", patients), ("samples", np.arange(600))):
            found = bootstrap(measured, clusters, resamples=200, seed=trial).interval("mean")
            covered[name] += found.low <= 0 <= found.high
    assert 0.88 <= covered["patients"] / 200 <= 0.99
    assert covered["samples"] / 200 < 0.75


def test_a_share_stays_within_its_range_and_a_difference_need_not() -> None:
    draws = np.array([0.9, 0.95, 1.0, 0.97, 0.99])
    share, other = (summarise(0.98, draws, 5, share=s) for s in (True, False))
    assert 0 < share.low < 0.98 < share.high < 1 < other.high
    perfect, never = (summarise(v, np.full(5, v), 5, share=True) for v in (1.0, 0.0))
    assert perfect.low == pytest.approx(0.478, abs=1e-3)  # Clopper–Pearson for 5 of 5
    assert never.high == pytest.approx(0.522, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("people", [5, 10, 22])
def test_intervals_of_few_patients_cover_the_truth(people: int) -> None:
    """Shares of beats that are told, with an ability of each patient's own: truth 0.808."""
    rng = np.random.default_rng(people)
    held = 0
    for trial in range(250):
        ability = 1 / (1 + np.exp(-(2.0 + 1.5 * rng.standard_normal(people))))
        right = (rng.random((people, 20)) < ability[:, None]).astype(float).ravel()

        def accuracy(weight: metrics.Counted, right: np.ndarray = right) -> dict[str, np.ndarray]:
            return {"accuracy": weight.total(right) / weight.total(np.ones(len(right)))}

        patients = np.repeat(np.arange(people), 20)
        found = bootstrap(accuracy, patients, resamples=200, seed=trial).interval("accuracy")
        held += found.low <= 0.808 <= found.high
    assert 0.89 <= held / 250 <= 0.99


def _mean(error: np.ndarray, weight: metrics.Counted) -> dict[str, np.ndarray]:
    return {"mean": weight.total(error) / weight.total(np.ones(len(error)))}


def test_each_sample_its_own_patient_takes_no_more_memory() -> None:
    """The draws of 30,000 patients are 120 MB at once; in blocks they are a few."""
    n = 30_000
    score = np.random.default_rng(0).standard_normal(n)

    def mean(weight: metrics.Counted) -> metrics.Measures:
        return {"mean": weight.total(score) / weight.total(np.ones(n))}

    tracemalloc.start()
    found = bootstrap(mean, np.arange(n), resamples=1000).interval("mean")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 150e6, "counts of a block, as integers and as numbers"
    half = 1.96 * score.std() / np.sqrt(n)
    assert found.low == pytest.approx(score.mean() - half, abs=0.15 * half)
    assert found.high == pytest.approx(score.mean() + half, abs=0.15 * half)
