"""Anomaly scores of embeddings, on synthetic ones whose strangeness is known."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.covariance import LedoitWolf

from medcl.embeddings import head
from medcl.labels.target import Target
from medcl.retrieval import anomaly_score


def synthetic(people: int = 20, each: int = 50, width: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """People who scatter around a common mean, far from the origin."""
    rng = np.random.default_rng(0)
    centre = rng.standard_normal((people, 1, width)) * [3, 2, 1, 1, 0.5, 0.1]
    x = 100 + centre + rng.standard_normal((people, each, width)) * [3, 2, 1, 1, 0.5, 0.1]
    return x.reshape(-1, width).astype(np.float32), np.repeat(np.arange(people), each)


def test_scores_rise_with_strangeness_and_share_is_calibrated() -> None:
    x, patients = synthetic()
    known = anomaly_score.learn(x[patients < 15], patients[patients < 15])
    usual = known.score(x[patients >= 15])
    assert 0.2 < usual.anomaly.mean() < 0.8  # unseen people are like any other
    shifted = x[patients >= 15] + np.float32([0, 0, 0, 0, 0, 2])  # far along the narrowest axis
    odd = known.score(shifted)
    assert odd.mahalanobis.min() > np.quantile(usual.mahalanobis, 0.99)
    assert np.median(odd.anomaly) > np.median(usual.anomaly)


def test_mahalanobis_is_that_of_scikit_learn() -> None:
    x, patients = synthetic(people=4)
    known = anomaly_score.learn(x, patients)
    rows = ((x - known.mean) / known.scale).astype(np.float64)
    want = LedoitWolf(assume_centered=True).fit(rows).mahalanobis(rows)
    np.testing.assert_allclose(known.score(x).mahalanobis ** 2, want, rtol=1e-3)


def test_one_person_alone_is_compared_with_its_own() -> None:
    x, _ = synthetic(people=1)
    known = anomaly_score.learn(x, np.zeros(len(x)))
    assert np.isfinite(known.usual).all()
    assert known.usual.max() < 2


@pytest.mark.parametrize("kind", ["multiclass", "binary", "multilabel", "regression"])
def test_a_kept_classifier_predicts_what_the_probe_would(kind: str) -> None:
    from medcl.embeddings import linear

    x, patients = synthetic(people=12)
    rng = np.random.default_rng(1)
    value = x[:, 0] - 100 + rng.standard_normal(len(x))
    if kind == "regression":
        truth = Target("regression", ("age",), value.astype(np.float64))
    elif kind == "multilabel":
        y = np.stack([value > 0, x[:, 1] > 100], axis=1).astype(np.int64)
        y[::7, 1] = -1
        truth = Target("multilabel", ("a", "b"), y)
    elif kind == "binary":
        truth = Target("binary", ("no", "yes"), (value > 0).astype(np.int64))
    else:
        truth = Target("multiclass", ("a", "b", "c", "absent"), np.digitize(value, [-2, 2]))
    made = head.fit(x, truth, patients)
    want = linear.fit(x, truth, patients).predict(x)
    got = made.predict(x)
    if kind == "multilabel":
        np.testing.assert_allclose(got, want, atol=0.02)
    else:
        np.testing.assert_allclose(got, want, atol=0.02 * max(1, np.abs(want).max()))
    if kind == "multiclass":
        assert (got[:, 3] == 0).all()
