"""DeLong's test against its definition by pairs, and its errors of the first kind by simulation."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from medcl.errors import UsageError
from medcl.metrics.delong import delong


def _by_pairs(truth: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Difference and variance as DeLong 1988 writes them: a matrix of ψ over all pairs."""
    components = []
    for s in (a, b):
        x, y = s[truth], s[~truth]
        psi = (x[:, None] > y) + 0.5 * (x[:, None] == y)
        components.append((psi.mean(1), psi.mean(0), psi.mean()))
    (va, wa, aa), (vb, wb, ab) = components
    s10, s01 = np.cov(np.stack([va, vb])), np.cov(np.stack([wa, wb]))
    s = s10 / len(va) + s01 / len(wa)
    return aa - ab, s[0, 0] + s[1, 1] - 2 * s[0, 1]


def test_it_is_the_definition_by_pairs() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random(60) < 0.4
    a = np.round(truth + rng.normal(size=60), 1)  # rounded: with ties
    b = np.round(truth + 2 * rng.normal(size=60), 1)
    difference, variance = _by_pairs(truth, a, b)
    got = delong(truth, a, b)
    assert got.a == pytest.approx(roc_auc_score(truth, a))
    assert got.b == pytest.approx(roc_auc_score(truth, b))
    assert got.difference == pytest.approx(difference)
    assert (got.high - got.low) / 2 == pytest.approx(1.959964 * np.sqrt(variance))


def test_single_samples_as_patients_give_nearly_the_same() -> None:
    rng = np.random.default_rng(1)
    truth = rng.random(400) < 0.5
    a, b = truth + rng.normal(size=400), truth + rng.normal(size=400)
    plain, grouped = delong(truth, a, b), delong(truth, a, b, np.arange(400))
    assert grouped.p == pytest.approx(plain.p, rel=0.02)


def test_copies_of_a_patient_are_no_evidence() -> None:
    rng = np.random.default_rng(2)
    truth = rng.random(50) < 0.5
    a, b = truth + rng.normal(size=50), truth + 1.3 * rng.normal(size=50)
    once = delong(truth, a, b, np.arange(50))
    many = delong(*(np.repeat(v, 20) for v in (truth, a, b)), np.repeat(np.arange(50), 20))
    assert many.p == pytest.approx(once.p)
    assert delong(*(np.repeat(v, 20) for v in (truth, a, b))).p < once.p  # the plain one is fooled


def test_errors_of_the_first_kind_with_several_samples_a_patient() -> None:
    rng = np.random.default_rng(3)
    p_grouped, p_plain = [], []
    for _ in range(400):
        who = np.repeat(np.arange(40), 8)
        truth = (rng.random(40) < 0.5)[who]
        a, b = (truth + rng.normal(size=40)[who] + 0.3 * rng.normal(size=320) for _ in range(2))
        p_grouped.append(delong(truth, a, b, who).p)
        p_plain.append(delong(truth, a, b).p)
    assert np.mean(np.array(p_grouped) < 0.05) == pytest.approx(0.05, abs=0.035)
    assert np.mean(np.array(p_plain) < 0.05) > 0.3


def test_the_same_score_does_not_differ() -> None:
    truth = np.array([True, False, True, False])
    score = np.array([0.9, 0.1, 0.4, 0.6])
    got = delong(truth, score, score)
    assert (got.difference, got.p) == (0, 1)


def test_one_class_alone_is_refused() -> None:
    with pytest.raises(UsageError, match="positive and negative"):
        delong(np.ones(3, bool), np.arange(3), np.arange(3))
