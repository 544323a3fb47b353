"""A linear classifier on frozen embeddings that can be kept: numbers in a file, no pickle."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medcl.embeddings import linear
from medcl.labels.target import Target

Floats = NDArray[np.float32]
Link = Literal["softmax", "sigmoid", "identity"]
LINK: dict[str, Link] = {
    "multiclass": "softmax",
    "binary": "softmax",
    "multilabel": "sigmoid",
    "regression": "identity",
}


@dataclass(frozen=True)
class Head:
    """Scores are link((x − mean) / scale · weights + bias).

    Attributes:
        classes: names of the columns; of a regression, of its label.
        link: softmax over classes, sigmoid for each label, or none for a value.
        mean: (D,) and
        scale: (D,): of the training embeddings.
        weights: (D, C).
        bias: (C,); −inf for a class that no training sample has.
    """

    classes: tuple[str, ...]
    link: Link
    mean: Floats
    scale: Floats
    weights: Floats
    bias: Floats

    def predict(self, x: Floats) -> Floats:
        """(N, D) embeddings → (N, C) probabilities, or values."""
        logits = ((x - self.mean) / self.scale) @ self.weights + self.bias
        if self.link == "identity":
            return np.asarray(logits, np.float32)
        if self.link == "sigmoid":
            return np.asarray(1 / (1 + np.exp(-np.clip(logits, -60, 60))), np.float32)
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(odds / odds.sum(axis=1, keepdims=True), np.float32)


def fit(x: Floats, truth: Target, patients: NDArray, *, seed: int = 0) -> Head:
    """The probe's classifier (`medcl.embeddings.linear`), with the regularisation chosen in its way.

    Args:
        x: (N, D) embeddings.
        truth: of the N samples, all known (of several labels: at least one).
        patients: (N,).
        seed: of the folds that C is chosen by.
    """
    strengths = linear.fit(x, truth, patients, seed=seed).c
    mean, scale = x.mean(axis=0), x.std(axis=0)
    scale[scale == 0] = 1
    z = (x - mean) / scale
    weights = np.zeros((x.shape[1], len(truth.classes)), np.float32)
    bias = np.zeros(len(truth.classes), np.float32)
    if truth.kind == "regression":
        from sklearn.linear_model import Ridge

        model = Ridge(alpha=1 / strengths[0]).fit(z, truth.y)
        weights[:, 0], bias[0] = model.coef_, model.intercept_
    elif truth.kind == "multilabel":
        for label, c in enumerate(strengths):
            known = truth.y[:, label] >= 0
            slope, offset = _logistic(z[known], truth.y[known, label], 2, c)
            weights[:, label] = slope[:, 1] - slope[:, 0]
            bias[label] = np.clip(offset[1] - offset[0], -60, 60)
    else:
        weights, bias = _logistic(z, truth.y, len(truth.classes), strengths[0])
    mean, scale = mean.astype(np.float32), scale.astype(np.float32)
    return Head(truth.classes, LINK[truth.kind], mean, scale, weights, bias)


def _logistic(z: Floats, y: NDArray, classes: int, c: float) -> tuple[Floats, Floats]:
    """Balanced logistic regression: weights (D, classes) and bias (classes,) of a softmax."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    seen = np.unique(y)
    weights = np.zeros((z.shape[1], classes), np.float32)
    bias = np.full(classes, -np.inf, np.float32)
    bias[seen] = 0
    if len(seen) < 2:
        return weights, bias
    model = LogisticRegression(C=c, class_weight="balanced", tol=1e-3, max_iter=500)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(z, y)
    if len(seen) == 2:  # one row of coefficients, for the second class
        weights[:, seen[1]], bias[seen[1]] = model.coef_[0], model.intercept_[0]
    else:
        weights[:, seen], bias[seen] = model.coef_.T, model.intercept_
    return weights, bias
