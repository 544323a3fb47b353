"""Figures of out-of-fold predictions, with intervals over patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from medcl.labels.activation import CALIBRATED, probabilities
from medcl.labels.target import Target
from medcl.metrics import calibration, figures
from medcl.metrics.bootstrap import Interval, Resampled, bootstrap
from medcl.metrics.measures import measure
from medcl.metrics.metrics import Counted, Measures, once
from medcl.metrics.table import Class


@dataclass(frozen=True)
class Predicted:
    """Predictions of one fold on its test samples.

    Attributes:
        repeat: number of the drawing of the folds.
        rows: (n,) positions of the samples.
        scores: (n, size), as the classifier returns them.
        temperature: fitted on the validation samples.
        threshold: of the second class's calibrated probability.
    """

    repeat: int
    rows: NDArray[np.int64]
    scores: NDArray[np.float32]
    temperature: float = 1.0
    threshold: float = 0.5


@dataclass(frozen=True)
class Spread:
    """A figure over trainings: mean, deviation over folds, and over the repeats' means."""

    mean: float
    folds: float
    repeats: float | None


@dataclass(frozen=True)
class Figures:
    """All figures of a study.

    Attributes:
        metrics: over all folds of a repeat pooled, a mean over repeats.
        classes: per class; of two classes, at the thresholds chosen on validation patients.
        confusion: rows are the target; summed over repeats; at these thresholds too.
        thresholded: two classes only: metrics at these thresholds.
        folds: each fold measured by itself, as in published tables.
        calibration: expected calibration error before (``ece``) and after temperature scaling
            (``ece_scaled``).
        reliability: confidence, accuracy and count of each bin, after scaling.
    """

    metrics: dict[str, Interval]
    classes: list[Class]
    confusion: list[list[int]]
    thresholded: dict[str, Interval]
    folds: dict[str, Spread]
    calibration: dict[str, Interval]
    reliability: list[tuple[float, float, int]]


def scored(
    target: Target,
    patients: NDArray,
    predictions: Sequence[Predicted],
    *,
    resamples: int,
    seed: int,
) -> Figures:
    """Measure predictions.

    Args:
        target: the labels of all samples.
        patients: (N,) keys, one per sample.
        predictions: by fold.
        resamples: of patients.
        seed: of the resamples.
    """
    rows = np.concatenate([fold.rows for fold in predictions])
    fold_of = np.repeat(np.arange(len(predictions)), [len(fold.rows) for fold in predictions])
    repeat = np.array([fold.repeat for fold in predictions])[fold_of]

    def resampled(probability: NDArray) -> Resampled:
        pooled = partial(_over_repeats, target.at(rows), probability, repeat, fold_of)
        return bootstrap(pooled, patients[rows], resamples=resamples, seed=seed)

    probability = np.concatenate([probabilities(target.kind, fold.scores) for fold in predictions])
    over = resampled(probability)
    cut = over
    predicted = probability
    if target.kind == "binary":
        predicted = np.concatenate([_cut(fold) for fold in predictions])
        cut = resampled(predicted)
    classes = figures.per_class(
        target.kind, target.classes, target.y[tested := np.unique(rows)], patients[tested], over
    )
    for code, each in enumerate(classes):
        each.metrics.update({n: cut.interval(f"class_{n}", code) for n in ("sensitivity", "ppv")})
    errors, bins = _calibration(target, patients, predictions, resamples, seed)
    return Figures(
        metrics=figures.macro(over),
        classes=classes,
        confusion=figures.confusion(target.kind, target.classes, target.y[rows], predicted),
        thresholded=_thresholded(cut) if target.kind == "binary" else {},
        folds=_by_fold(target, predictions),
        calibration=errors,
        reliability=bins,
    )


def _thresholded(over: Resampled) -> dict[str, Interval]:
    """Metrics of two classes at each fold's own threshold."""
    out = {name: over.interval(name) for name in ("accuracy", "balanced_accuracy", "f1")}
    for name in ("sensitivity", "ppv"):
        out[name] = over.interval(f"class_{name}", 1)
    return {**out, "specificity": over.interval("class_sensitivity", 0)}


def _over_repeats(
    target: Target, probability: NDArray, repeat: NDArray, fold: NDArray, weight: Counted
) -> Measures:
    """The mean over repeats: scores of different trainings are never ranked together twice."""
    each = []
    for number in np.unique(repeat):
        mine = np.flatnonzero(repeat == number)
        each.append(
            measure(target.kind, target.y[mine], probability[mine], weight.at(mine), fold[mine])
        )
    return {name: np.mean([one[name] for one in each], axis=0) for name in each[0]}


def _cut(fold: Predicted) -> NDArray[np.float64]:
    """(n, 2) of 0 and 1: the prediction at the threshold."""
    over = probabilities("binary", fold.scores, fold.temperature)[:, 1] >= fold.threshold
    return np.stack([~over, over], 1).astype(np.float64)


def _by_fold(target: Target, predictions: Sequence[Predicted]) -> dict[str, Spread]:
    each: dict[str, list[float]] = {}
    for fold in predictions:
        probability = probabilities(target.kind, fold.scores)
        measured = measure(target.kind, target.y[fold.rows], probability, once(len(fold.rows)))
        for name, value in measured.items():
            if not name.startswith("class_"):
                each.setdefault(name, []).append(float(value[0]))
    repeat = np.array([fold.repeat for fold in predictions])
    out = {}
    for name, fold_values in each.items():
        values = np.array(fold_values)
        defined = np.isfinite(values)
        if not defined.any():
            continue
        means = [
            values[defined & (repeat == r)].mean()
            for r in np.unique(repeat)
            if (defined & (repeat == r)).any()
        ]
        out[name] = Spread(
            mean=float(values[defined].mean()),
            folds=float(values[defined].std()),
            repeats=float(np.std(means)) if len(means) > 1 else None,
        )
    return out


def _calibration(
    target: Target, patients: NDArray, predictions: Sequence[Predicted], resamples: int, seed: int
) -> tuple[dict[str, Interval], list[tuple[float, float, int]]]:
    if target.kind not in CALIBRATED:
        return {}, []
    errors = {}
    for name, scaled in (("ece", False), ("ece_scaled", True)):
        confidence, correct, owners = _confidence(target, patients, predictions, scaled)

        def measured(
            weight: Counted, confidence: NDArray = confidence, correct: NDArray = correct
        ) -> Measures:
            return {"ece": calibration.expected_error(confidence, correct, weight)}

        over = bootstrap(measured, owners, resamples=resamples, seed=seed)
        errors[name] = over.interval("ece")
    curve = calibration.reliability(confidence, correct)
    bins = [
        (float(c), float(r), int(n))
        for c, r, n in zip(curve.confidence, curve.right, curve.samples, strict=True)
        if n
    ]
    return errors, bins


def _confidence(
    target: Target, patients: NDArray, predictions: Sequence[Predicted], scaled: bool
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray]:
    """For every prediction: its probability, whether it is correct, and its patient."""
    confidence, correct, owners = [], [], []
    for fold in predictions:
        probability = probabilities(target.kind, fold.scores, fold.temperature if scaled else 1.0)
        y = target.y[fold.rows]
        if target.kind == "multilabel":
            known = np.isfinite(y)
            confidence.append(probability[known])
            correct.append(y[known] == 1)
            owners.append(patients[fold.rows][known.nonzero()[0]])
        else:
            confidence.append(probability.max(1))
            correct.append(probability.argmax(1) == y)
            owners.append(patients[fold.rows])
    return np.concatenate(confidence), np.concatenate(correct), np.concatenate(owners)
