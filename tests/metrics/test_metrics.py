"""Measures against scikit-learn, plain and weighted."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as reference

from medcl.metrics import metrics
from medcl.metrics.metrics import Counted

N, C, P, R = 400, 4, 9, 7


@pytest.fixture(scope="module", params=[None, 1], ids=["continuous", "tied"])
def drawn(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray, Counted]:
    """Truth, scores (tied ones rounded to one digit), random whole-number weights by cluster."""
    rng = np.random.default_rng(3)
    truth = rng.choice(C, N, p=[0.6, 0.25, 0.1, 0.05])
    scores = rng.random((N, C))
    scores[np.arange(N), truth] += 0.3
    if request.param is not None:
        scores = scores.round(request.param)
    weight = Counted(rng.integers(0, P, N), rng.integers(0, 4, (P, R)).astype(np.float32))
    return truth, scores, weight


def by_sample(weight: Counted) -> np.ndarray:
    return weight.counts[weight.cluster]  # (N, R)


def test_macro_figures(drawn: tuple[np.ndarray, np.ndarray, Counted]) -> None:
    truth, scores, weight = drawn
    found = metrics.classification(truth, scores, weight)
    onehot, predicted = np.eye(C)[truth], scores.argmax(1)
    for r, w in enumerate(by_sample(weight).T):
        expected = {
            "auroc": reference.roc_auc_score(onehot, scores, sample_weight=w),
            "auprc": reference.average_precision_score(onehot, scores, sample_weight=w),
            "balanced_accuracy": reference.balanced_accuracy_score(
                truth, predicted, sample_weight=w
            ),
            "f1": reference.f1_score(truth, predicted, average="macro", sample_weight=w),
        }
        for name, value in expected.items():
            assert found[name][r] == pytest.approx(value, abs=1e-6), name


def test_per_class_figures(drawn: tuple[np.ndarray, np.ndarray, Counted]) -> None:
    truth, scores, weight = drawn
    found = metrics.classification(truth, scores, weight)
    for r, w in enumerate(by_sample(weight).T):
        ppv, sensitivity, f1, _ = reference.precision_recall_fscore_support(
            truth, scores.argmax(1), sample_weight=w
        )
        np.testing.assert_allclose(found["class_ppv"][:, r], ppv, atol=1e-6)
        np.testing.assert_allclose(found["class_sensitivity"][:, r], sensitivity, atol=1e-6)
        np.testing.assert_allclose(found["class_f1"][:, r], f1, atol=1e-6)


def test_once_is_the_plain_figure(drawn: tuple[np.ndarray, np.ndarray, Counted]) -> None:
    truth, scores, _ = drawn
    found = metrics.classification(truth, scores, metrics.once(N))
    assert found["auroc"][0] == pytest.approx(reference.roc_auc_score(np.eye(C)[truth], scores))
    np.testing.assert_array_equal(
        metrics.confusion(truth, scores.argmax(1), metrics.once(N), C)[..., 0],
        reference.confusion_matrix(truth, scores.argmax(1)),
    )


def test_binary_speaks_of_class_one(drawn: tuple[np.ndarray, np.ndarray, Counted]) -> None:
    truth, scores, _ = drawn
    y, s = (truth == 2).astype(int), scores[:, [0, 2]]
    found = metrics.measure("binary", y, s, metrics.once(N))
    assert found["auroc"][0] == pytest.approx(reference.roc_auc_score(y, s[:, 1]))
    assert found["auprc"][0] == pytest.approx(reference.average_precision_score(y, s[:, 1]))
    assert found["f1"][0] == pytest.approx(reference.f1_score(y, s.argmax(1), average="macro"))


def test_multilabel_leaves_out_the_unknown(
    drawn: tuple[np.ndarray, np.ndarray, Counted],
) -> None:
    truth, scores, weight = drawn
    rng = np.random.default_rng(0)
    y = np.column_stack([truth > 0, truth % 2])
    y = np.where(rng.random(y.shape) < 0.2, -1, y)
    s = np.clip(scores[:, 1:3], 0, 1)
    found = metrics.measure("multilabel", y, s, weight)
    for r, w in enumerate(by_sample(weight).T):
        auroc, balanced = [], []
        for c in range(2):
            k = y[:, c] >= 0
            auroc.append(reference.roc_auc_score(y[k, c], s[k, c], sample_weight=w[k]))
            balanced.append(
                reference.balanced_accuracy_score(y[k, c], s[k, c] >= 0.5, sample_weight=w[k])
            )
        assert found["auroc"][r] == pytest.approx(np.mean(auroc), abs=1e-6)
        assert found["balanced_accuracy"][r] == pytest.approx(np.mean(balanced), abs=1e-6)


def test_regression(drawn: tuple[np.ndarray, np.ndarray, Counted]) -> None:
    truth, scores, weight = drawn
    y, predicted = truth + 1000.0, truth + 1000.0 + scores[:, :1].ravel()
    found = metrics.measure("regression", y, predicted[:, None], weight)
    for r, w in enumerate(by_sample(weight).T):
        mse = reference.mean_squared_error(y, predicted, sample_weight=w)
        assert found["rmse"][r] == pytest.approx(mse**0.5)
        mae = reference.mean_absolute_error(y, predicted, sample_weight=w)
        assert found["mae"][r] == pytest.approx(mae)
        r2 = reference.r2_score(y, predicted, sample_weight=w)
        assert found["r2"][r] == pytest.approx(r2)


def test_what_is_not_defined_is_nan() -> None:
    truth, scores = (
        np.array([0, 0, 1, 1]),
        np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6]]),
    )
    without_one = Counted(np.array([0, 0, 1, 1]), np.array([[1, 1], [1, 0]], np.float32))
    found = metrics.classification(truth, scores, without_one)
    assert found["auroc"][0] == 1
    for name in metrics.MACRO:
        assert np.isnan(found[name][1]), name
    nobody_is_two = metrics.classification(truth, np.c_[scores, np.zeros(4)], metrics.once(4))
    assert np.isnan(nobody_is_two["class_auroc"][2])
    assert nobody_is_two["auroc"][0] == 1  # a class that the truth never holds does not count
    constant = metrics.regression(np.ones(4), np.ones(4), metrics.once(4))
    assert np.isnan(constant["r2"][0])
    assert constant["mae"][0] == 0


def test_constant_scores_are_chance() -> None:
    truth = np.array([0, 1, 1, 0, 1])
    auroc, auprc = metrics.ranking(truth == 1, np.zeros(5), metrics.once(5))
    assert (auroc[0], auprc[0]) == (0.5, pytest.approx(0.6))
