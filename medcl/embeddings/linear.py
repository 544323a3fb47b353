"""Linear models on frozen features: standardised, L2-regularised logistic or ridge regression.

The protocol of the field's foundation models (PaPaGei, Pillai 2024, arXiv 2410.20542; Pulse-PPG,
Saha 2025, arXiv 2502.01108), with one correction: the scaler is part of the pipeline, so it never
sees a held-out patient, in the outer split or the inner cross-validation.

Classes are weighted inversely to their frequency (``class_weight="balanced"``): medical classes are
skewed, and all reported figures are macro figures.

Concatenated groups of features are weighted by `medcl.nn.feature_groups`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medcl.embeddings.head import LINK, Head, side_by_side
from medcl.labels.target import Target
from medcl.metrics.measures import measure
from medcl.metrics.metrics import Floats, once
from medcl.nn.feature_groups import LEARNED, group_weights

GRID = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Inverse regularisation strengths to choose from; a ridge regression's alpha is 1/C."""
FIXED = 0.1
"""Used if there are too few patients for cross-validation."""
FOLDS = 3
CHOOSE_FROM = 6000
"""Maximum number of samples for choosing C, drawn evenly from the classes."""
ONE_THREAD = 2**23
"""Smaller matrices are fitted on one thread: 13,000 × 128 took a third of the CPU time of two."""


@dataclass(frozen=True)
class Linear:
    """A fitted linear model.

    Attributes:
        head: its parameters, used for export and prediction.
        c: the inverse regularisation strength (multilabel: one per label).
        chosen: True if cross-validation chose C, False if it is `FIXED` or was given.
        learned: the weight of an encoder's features, likewise; 1 of one group.
    """

    head: Head
    c: tuple[float, ...]
    chosen: bool
    learned: tuple[float, ...] = (1.0,)

    def predict(self, features: Floats) -> NDArray[np.float32]:
        """Features (N, D) → scores (N, C): probabilities, or values."""
        return self.head.predict(np.asarray(features, np.float32))


def concatenated(groups: Sequence[Floats]) -> tuple[Floats, tuple[int, ...]]:
    """Groups of features (N, D₁), (N, D₂), … as one (N, D), and the widths, for `fit`."""
    return np.concatenate(groups, axis=1), tuple(group.shape[1] for group in groups)


def fit(
    x: Floats,
    target: Target,
    patients: NDArray,
    *,
    blocks: Sequence[int] = (),
    seed: int = 0,
    c: float | None = None,
) -> Linear:
    """Fit on training samples; C is given, or chosen among `GRID` by folds over their patients, and
    so is then the weight of an encoder's features beside others, among `feature_groups.LEARNED`.

    They maximise macro AUROC (R² for values) of the pooled held-out predictions; ties go to the
    smallest. Classes without training samples get the score 0.

    Args:
        x: (N, D).
        target: of the N samples, all known.
        patients: (N,): no patient is both fitted and scored on while C is chosen.
        blocks: widths of the groups of columns that x consists of, an encoder's first; () for one.
        seed: of the folds.
        c: the inverse regularisation strength.

    Raises:
        ValueError: if the blocks are not D columns in all.
    """
    if blocks and sum(blocks) != x.shape[1]:
        raise ValueError(f"blocks of {list(blocks)} columns, but {x.shape[1]} features")
    if target.kind == "multilabel":
        return _fit_each_label(x, target, patients, blocks, seed, c)
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    several = len(blocks) > 1
    with threadpool_limits(limits=1 if x.size < ONE_THREAD else None):
        if c is not None:
            learned, strength, figure = LEARNED[0] if several else 1.0, c, None
        else:
            tried = [
                (learned, *_choose(x, target, patients, _weights(blocks, learned), seed))
                for learned in (LEARNED if several else (1.0,))
            ]
            learned, strength, figure = max(tried, key=lambda one: round(one[-1] or 0, 4))
        seen = _scaled(x, _weights(blocks, learned))
        head = _fitted(_model(target, strength), seen, target)
    return Linear(head, (strength,), figure is not None, (learned,))


def _weights(blocks: Sequence[int], learned: float) -> NDArray[np.float32] | None:
    return group_weights(blocks, learned=learned) if len(blocks) > 1 else None


def _fit_each_label(
    x: Floats,
    target: Target,
    patients: NDArray,
    blocks: Sequence[int],
    seed: int,
    c: float | None,
) -> Linear:
    parts = []
    for label, name in enumerate(target.classes):
        known = target.y[:, label] >= 0
        one = Target("binary", (f"not {name}", name), target.y[known, label].astype(np.int64))
        parts.append(fit(x[known], one, patients[known], blocks=blocks, seed=seed, c=c))

    head = side_by_side(tuple(part.head for part in parts))
    return Linear(
        head,
        tuple(p.c[0] for p in parts),
        all(p.chosen for p in parts),
        tuple(p.learned[0] for p in parts),
    )


def _model(target: Target, c: float) -> Any:
    from sklearn.linear_model import LogisticRegression, Ridge

    if target.kind == "regression":
        return Ridge(alpha=1 / c)
    # warm_start serves the path over C. At tol 1e-3 the AUROC equals that at 1e-4 to three digits,
    # at a fifth of the time.
    return LogisticRegression(C=c, class_weight="balanced", warm_start=True, tol=1e-3, max_iter=500)


@dataclass(frozen=True)
class _Scaled:
    """Training samples as the model sees them, and how they became so."""

    z: Floats
    mean: NDArray[np.float32]
    scale: NDArray[np.float32]


def _scaled(x: Floats, weights: NDArray[np.float32] | None) -> _Scaled:
    """Standardised columns, times the weights of their groups."""
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler()
    z, scale = scaler.fit_transform(x), scaler.scale_.astype(np.float64)
    if weights is not None:
        z, scale = z * weights, scale / weights
    return _Scaled(z, scaler.mean_.astype(np.float32), scale.astype(np.float32))


def _fitted(model: Any, x: _Scaled, target: Target) -> Head:
    """Fit, and take the parameters out of scikit-learn's model."""
    classes, link = target.classes, LINK[target.kind]
    weights = np.zeros((x.z.shape[1], len(classes)), np.float32)
    if target.kind != "regression" and len(np.unique(target.y)) < 2:
        bias = np.full(len(classes), -np.inf, np.float32)
        bias[target.y[:1]] = 0  # the only class; none without samples
        return Head(classes, link, np.zeros_like(x.mean), np.ones_like(x.scale), weights, bias)
    import sklearn
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings(), sklearn.config_context(skip_parameter_validation=True):
        # The weakest regularisation may stop early: harmless.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x.z, target.y)
    if target.kind == "regression":
        weights[:, 0] = model.coef_
        bias = np.array([model.intercept_], np.float32)
        return Head(classes, link, x.mean, x.scale, weights, bias)
    present = model.classes_
    bias = np.full(len(classes), -np.inf, np.float32)
    bias[present] = 0
    if len(present) == 2:  # one row of coefficients, for the second class
        weights[:, present[1]], bias[present[1]] = model.coef_[0], model.intercept_[0]
    else:
        weights[:, present], bias[present] = model.coef_.T, model.intercept_
    return Head(classes, link, x.mean, x.scale, weights, bias)


def _choose(
    x: Floats, target: Target, patients: NDArray, weights: NDArray[np.float32] | None, seed: int
) -> tuple[float, float | None]:
    """The best C of `GRID` and its figure; `FIXED` and None if there are no folds of patients."""
    some = _thinned(target, seed)
    x_some, y_some, groups = x[some], target.at(some), patients[some]
    folds = list(_folds(y_some, groups, seed))
    if not folds:
        return FIXED, None
    # C multiplies a sum over samples: fewer samples need a larger C for the same strength.
    scale = len(target) / len(some)
    held_out = np.zeros((len(GRID), len(some), len(target.classes)), np.float32)
    for train, test in folds:
        model, seen = _model(target, GRID[0]), _scaled(x_some[train], weights)
        for i, c in enumerate(GRID):
            if target.kind == "regression":
                model.alpha = 1 / (c * scale)
            else:
                model.C = c * scale
            held_out[i, test] = _fitted(model, seen, y_some.at(train)).predict(x_some[test])
    name = "r2" if target.kind == "regression" else "auroc"
    weight = once(len(some))
    figures = [measure(target.kind, y_some.y, s, weight)[name][0] for s in held_out]
    if not np.isfinite(figures).all():
        return FIXED, None
    best = int(np.argmax(np.round(figures, 6)))
    return GRID[best], float(figures[best])


def _folds(target: Target, groups: NDArray, seed: int) -> Iterator[tuple[NDArray, NDArray]]:
    """Folds of whole patients.

    There are none with fewer than two patients or classes, or one sample of each class.
    """
    from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

    patients = len(np.unique(groups))
    if patients < 2:
        return
    folds = min(FOLDS, patients)
    if target.kind == "regression":
        split = GroupKFold(folds, shuffle=True, random_state=seed)
    else:
        _, counts = np.unique(target.y, return_counts=True)
        folds = min(folds, counts.max())
        if len(counts) < 2 or folds < 2:
            return
        split = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():  # a rare class may have fewer samples than folds
        warnings.simplefilter("ignore", UserWarning)
        yield from split.split(np.zeros(len(groups)), target.y, groups)


def _thinned(target: Target, seed: int) -> NDArray[np.int64]:
    """Positions of at most about `CHOOSE_FROM` samples: all of rare classes, some of common ones.

    Class weighting makes the fit independent of the class proportions, which this changes.
    """
    if len(target) <= CHOOSE_FROM:
        return np.arange(len(target))
    shuffled = np.random.default_rng(seed).permutation(len(target))
    if target.kind == "regression":
        return np.sort(shuffled[:CHOOSE_FROM])
    y = target.y[shuffled]
    counts = np.bincount(y)
    share = CHOOSE_FROM // np.count_nonzero(counts)
    return np.sort(np.concatenate([shuffled[y == c][:share] for c in np.flatnonzero(counts)]))
