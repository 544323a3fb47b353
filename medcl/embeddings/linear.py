"""Linear models on frozen features: standardise, then L2-regularised logistic or ridge regression.

The protocol of the field's foundation models (PaPaGei, Pillai 2024, arXiv 2410.20542; Pulse-PPG,
Saha 2025, arXiv 2502.01108), with one correction: the scaler is part of the pipeline, so it never
sees a patient that it is judged on, neither outside nor inside the training patients.

Classes are weighted inversely to their frequency (``class_weight="balanced"``): medical classes are
skewed, and all the figures reported are macro figures.

Groups of features side by side get the same total variance ("hard block scaling", Eriksson 2006,
Multi- and Megavariate Data Analysis): one penalty for all columns would otherwise all but mute four
interval ratios beside an embedding of 512 numbers.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medcl.labels.target import Target
from medcl.metrics.metrics import Floats, measure, once

GRID = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Inverse regularisation strengths to choose from; a ridge regression's alpha is 1/C."""
FIXED = 0.1
"""Taken where there are too few patients to choose."""
FOLDS = 3
CHOOSE_FROM = 6000
"""C is chosen on at most so many samples, drawn evenly from the classes."""
ONE_THREAD = 2**23
"""Smaller matrices are fitted on one thread: 13,000 × 128 took a third of the CPU time of two."""


@dataclass(frozen=True)
class Linear:
    """A fitted linear model.

    Attributes:
        predict: features (N, D) → scores (N, C): probabilities, or values.
        c: the inverse regularisation strength (of several labels: each one's).
        chosen: whether C was chosen by cross-validation, or is `FIXED`.
    """

    predict: Callable[[Floats], NDArray[np.float32]]
    c: tuple[float, ...]
    chosen: bool


def beside(groups: Sequence[Floats]) -> tuple[Floats, tuple[int, ...]]:
    """Groups of features (N, D₁), (N, D₂), … as one (N, D), and the widths, for `fit`."""
    return np.concatenate(groups, axis=1), tuple(group.shape[1] for group in groups)


def block_weights(widths: Sequence[int]) -> NDArray[np.float32]:
    """(D,) factors for standardised columns: 1 in the widest group, more in narrower ones."""
    widest = max(widths)
    return np.concatenate([np.full(w, (widest / w) ** 0.5, np.float32) for w in widths if w])


def fit(
    x: Floats, truth: Target, patients: NDArray, *, blocks: Sequence[int] = (), seed: int = 0
) -> Linear:
    """Fit on training samples; C is chosen among `GRID` by cross-validation over their patients.

    The C that is best by macro AUROC (R² for values) of the pooled held-out predictions is taken,
    the smallest one of equals. Classes that the training samples lack get the score 0.

    Args:
        x: (N, D).
        truth: of the N samples, all known.
        patients: (N,): no patient is both fitted and scored on while choosing.
        blocks: widths of the groups of columns that x consists of, of equal weight; () for one.
        seed: of the folds.

    Raises:
        ValueError: if the blocks are not D columns in all.
    """
    if blocks and sum(blocks) != x.shape[1]:
        raise ValueError(f"blocks of {list(blocks)} columns, but {x.shape[1]} features")
    if truth.kind == "multilabel":
        return _fit_each_label(x, truth, patients, blocks, seed)
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    weights = block_weights(blocks) if len(blocks) > 1 else None
    with threadpool_limits(limits=1 if x.size < ONE_THREAD else None):
        c, chosen = _choose(x, truth, patients, weights, seed)
        predict = _fitted(_model(truth, c, weights), x, truth)
    return Linear(predict, (c,), chosen)


def _fit_each_label(
    x: Floats, truth: Target, patients: NDArray, blocks: Sequence[int], seed: int
) -> Linear:
    parts = []
    for label, name in enumerate(truth.classes):
        known = truth.y[:, label] >= 0
        one = Target("binary", (f"not {name}", name), truth.y[known, label])
        parts.append(fit(x[known], one, patients[known], blocks=blocks, seed=seed))

    def predict(features: Floats) -> NDArray[np.float32]:
        return np.column_stack([part.predict(features)[:, 1] for part in parts])

    return Linear(predict, tuple(p.c[0] for p in parts), all(p.chosen for p in parts))


def _model(truth: Target, c: float, weights: NDArray[np.float32] | None) -> Any:
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    steps: list[Any] = [StandardScaler()]
    if weights is not None:
        steps.append(FunctionTransformer(partial(np.multiply, weights)))
    if truth.kind == "regression":
        return make_pipeline(*steps, Ridge(alpha=1 / c))
    # warm_start serves the path over C. At tol 1e-3 the AUROC equals that at 1e-4 to three digits,
    # at a fifth of the time.
    logistic = LogisticRegression(
        C=c, class_weight="balanced", warm_start=True, tol=1e-3, max_iter=500
    )
    return make_pipeline(*steps, logistic)


def _fitted(model: Any, x: Floats, truth: Target) -> Callable[[Floats], NDArray[np.float32]]:
    """Fit, and return how to predict one column for each of the target's classes."""
    width = len(truth.classes)
    if truth.kind != "regression" and len(np.unique(truth.y)) < 2:
        only = np.eye(width, dtype=np.float32)[truth.y[:1]].sum(0)  # all zero if there is no sample
        return lambda features: np.tile(only, (len(features), 1))
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():  # the path's weakest regularisation may stop early: no matter
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x, truth.y)
    if truth.kind == "regression":
        return lambda features: model.predict(features).astype(np.float32)[:, None]
    seen = model[-1].classes_

    def predict(features: Floats) -> NDArray[np.float32]:
        out = np.zeros((len(features), width), np.float32)
        out[:, seen] = model.predict_proba(features)
        return out

    return predict


def _choose(
    x: Floats, truth: Target, patients: NDArray, weights: NDArray[np.float32] | None, seed: int
) -> tuple[float, bool]:
    """The best C of `GRID`, and True; or `FIXED` and False if folds of patients cannot be made."""
    some = _thinned(truth, seed)
    x_some, y_some, groups = x[some], truth.at(some), patients[some]
    folds = list(_folds(y_some, groups, seed))
    if not folds:
        return FIXED, False
    # C multiplies a sum over samples: fewer samples need a larger C for the same strength.
    scale = len(truth) / len(some)
    held_out = np.zeros((len(GRID), len(some), len(truth.classes)), np.float32)
    for train, test in folds:
        model = _model(truth, GRID[0], weights)
        for i, c in enumerate(GRID):
            strength = {"ridge__alpha": 1 / (c * scale)}
            if truth.kind != "regression":
                strength = {"logisticregression__C": c * scale}
            model.set_params(**strength)
            held_out[i, test] = _fitted(model, x_some[train], y_some.at(train))(x_some[test])
    name = "r2" if truth.kind == "regression" else "auroc"
    weight = once(len(some))
    figures = [measure(truth.kind, y_some.y, s, weight)[name][0] for s in held_out]
    if not np.isfinite(figures).all():
        return FIXED, False
    return GRID[int(np.argmax(np.round(figures, 6)))], True


def _folds(truth: Target, groups: NDArray, seed: int) -> Iterator[tuple[NDArray, NDArray]]:
    """Folds of whole patients, none if there are fewer than two patients or classes."""
    from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

    patients = len(np.unique(groups))
    if patients < 2:
        return
    folds = min(FOLDS, patients)
    if truth.kind == "regression":
        split = GroupKFold(folds, shuffle=True, random_state=seed)
    else:
        if len(np.unique(truth.y)) < 2:
            return
        split = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():  # a class with fewer samples than folds: expected of rare ones
        warnings.simplefilter("ignore", UserWarning)
        yield from split.split(np.zeros(len(groups)), truth.y, groups)


def _thinned(truth: Target, seed: int) -> NDArray[np.int64]:
    """Positions of at most about `CHOOSE_FROM` samples: all of rare classes, some of common ones.

    Class weighting makes the fit indifferent to the proportions that this changes.
    """
    if len(truth) <= CHOOSE_FROM:
        return np.arange(len(truth))
    shuffled = np.random.default_rng(seed).permutation(len(truth))
    if truth.kind == "regression":
        return np.sort(shuffled[:CHOOSE_FROM])
    y = truth.y[shuffled]
    counts = np.bincount(y)
    share = CHOOSE_FROM // np.count_nonzero(counts)
    return np.sort(np.concatenate([shuffled[y == c][:share] for c in np.flatnonzero(counts)]))
