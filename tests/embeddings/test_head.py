"""The exported classifier: the numbers say what scikit-learn's own pipeline says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from medcl.embeddings import head, linear
from medcl.labels.target import Target
from medcl.nn.feature_groups import group_weights

PEOPLE, EACH, WIDTH = 12, 20, 6


def drawn(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((PEOPLE * EACH, WIDTH)) * 3 + 100).astype(np.float32)
    value = x[:, 0] - 100 + rng.standard_normal(len(x))
    return x, value, np.repeat([f"p{n}" for n in range(PEOPLE)], EACH)


def naive(x: np.ndarray, y: np.ndarray, c: float) -> np.ndarray:
    model = LogisticRegression(C=c, class_weight="balanced", tol=1e-3, max_iter=500)
    return make_pipeline(StandardScaler(), model).fit(x, y).predict_proba(x)


@pytest.mark.parametrize("classes", [2, 3])
def test_classes(classes: int) -> None:
    x, value, patients = drawn()
    y = np.digitize(value, [0] if classes == 2 else [-2, 2]).astype(np.int64)
    found = Target("multiclass", (*"abc"[:classes], "absent"), y)
    fitted = linear.fit(x, found, patients)
    scores = fitted.head.predict(x)
    np.testing.assert_allclose(scores[:, :classes], naive(x, y, fitted.c[0]), atol=2e-3)
    assert (scores[:, classes] == 0).all()


def test_several_labels_each_fitted_where_it_is_known() -> None:
    x, value, patients = drawn()
    y = np.stack([value > 0, x[:, 1] > 100], 1).astype(float)
    y[::7, 1] = np.nan
    fitted = linear.fit(x, Target("multilabel", ("a", "b"), y), patients)
    scores = fitted.head.predict(x)
    for label in range(2):
        known = np.isfinite(y[:, label])
        want = naive(x[known], y[known, label].astype(int), fitted.c[label])[:, 1]
        np.testing.assert_allclose(scores[known, label], want, atol=2e-3)


def test_a_label_without_exception_is_certain() -> None:
    x, value, patients = drawn()
    y = np.stack([value > 0, np.ones(len(x))], 1).astype(float)
    scores = linear.fit(x, Target("multilabel", ("a", "always"), y), patients).head.predict(x)
    assert scores[:, 1].min() > 0.999999


def test_values() -> None:
    x, value, patients = drawn()
    fitted = linear.fit(x, Target("regression", ("age",), value.astype(float)), patients)
    ridge = make_pipeline(StandardScaler(), Ridge(alpha=1 / fitted.c[0])).fit(x, value)
    np.testing.assert_allclose(fitted.head.predict(x)[:, 0], ridge.predict(x), rtol=1e-3, atol=1e-3)


def test_groups_of_features_keep_their_weights() -> None:
    x, value, patients = drawn()
    y = (value > 0).astype(np.int64)
    fitted = linear.fit(x, Target("binary", ("no", "yes"), y), patients, blocks=(5, 1))
    z = (x - x.mean(0)) / x.std(0) * group_weights((5, 1), learned=fitted.learned[0])
    model = LogisticRegression(C=fitted.c[0], class_weight="balanced", tol=1e-3, max_iter=500)
    np.testing.assert_allclose(fitted.predict(x), model.fit(z, y).predict_proba(z), atol=2e-3)


def test_classes_weigh_alike_however_rare() -> None:
    """Without balanced weights the rare class would hardly ever be predicted."""
    rng = np.random.default_rng(0)
    y = (np.arange(400) % 20 == 0).astype(np.int64)
    x = (rng.standard_normal((400, 1)) + 1.5 * y[:, None]).astype(np.float32)
    found = Target("binary", ("often", "seldom"), y)
    scores = linear.fit(x, found, np.arange(400) // 10).predict(x)
    at_middle = linear.fit(x, found, np.arange(400) // 10).predict(np.full((1, 1), 0.75, "f"))
    assert at_middle[0, 1] == pytest.approx(0.5, abs=0.1)
    assert ((scores[:, 1] > 0.5) & (y == 1)).sum() / (y == 1).sum() > 0.5


def test_kept_and_read_back(tmp_path: Path) -> None:
    x, value, patients = drawn()
    fitted = linear.fit(x, Target("binary", ("no", "yes"), (value > 0).astype(int)), patients).head
    head.save(tmp_path / "h.safetensors", fitted, "weights 1")
    again = head.load(tmp_path / "h.safetensors", "weights 1")
    assert again is not None
    assert np.array_equal(again.predict(x), fitted.predict(x))
    assert head.load(tmp_path / "h.safetensors", "weights 2") is None
    assert head.load(tmp_path / "absent", "weights 1") is None
