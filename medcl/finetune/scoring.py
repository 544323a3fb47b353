"""Figures of out-of-fold predictions, with intervals over patients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from medcl.labels.activation import CALIBRATED, probabilities
from medcl.labels.target import ONE_CLASS, SURVIVAL, Target
from medcl.metrics import calibration, metrics
from medcl.metrics.bootstrap import Interval, Resampled, bootstrap
from medcl.metrics.metrics import Counted, Measures
from medcl.metrics.survival import concordance
from medcl.metrics.table import Class


@dataclass(frozen=True)
class Predicted:
    """What one fold predicted of its test samples.

    Attributes:
        repeat: which drawing of the folds.
        rows: (n,) positions of the samples.
        scores: (n, size), as they left the classifier.
        temperature: that the validation samples ask for.
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
        classes: per class.
        confusion: rows are the truth; summed over repeats.
        thresholded: of two classes: what comes of the threshold chosen on validation patients.
        folds: each fold measured by itself, as published tables do.
        calibration: expected calibration error as it is (``ece``), and after temperature scaling
            (``ece_scaled``).
        reliability: confidence, share right and count of each bin, after scaling.
    """

    metrics: dict[str, Interval]
    classes: list[Class]
    confusion: list[list[int]]
    thresholded: dict[str, Interval]
    folds: dict[str, Spread]
    calibration: dict[str, Interval]
    reliability: list[tuple[float, float, int]]


def figures(
    found: Target, patients: NDArray, made: Sequence[Predicted], *, resamples: int, seed: int
) -> Figures:
    """Measure predictions.

    Args:
        found: the labels of all samples.
        patients: (N,) whose each is.
        made: by fold.
        resamples: of patients.
        seed: of the resamples.
    """
    rows = np.concatenate([fold.rows for fold in made])
    fold_of = np.repeat(np.arange(len(made)), [len(fold.rows) for fold in made])
    repeat = np.array([fold.repeat for fold in made])[fold_of]

    def resampled(probability: NDArray) -> Resampled:
        pooled = partial(_over_repeats, found.at(rows), probability, repeat, fold_of)
        return bootstrap(pooled, patients[rows], resamples=resamples, seed=seed)

    probability = np.concatenate([probabilities(found.kind, fold.scores) for fold in made])
    over = resampled(probability)
    names = [name for name in over.values if not name.startswith("class_")]
    errors, bins = _calibration(found, patients, made, resamples, seed)
    return Figures(
        metrics={name: over.interval(name) for name in names},
        classes=_per_class(found, patients, np.unique(rows), over),
        confusion=_confusion(found.at(rows), probability),
        thresholded=_thresholded(resampled, made) if found.kind == "binary" else {},
        folds=_by_fold(found, made),
        calibration=errors,
        reliability=bins,
    )


def _per_class(found: Target, patients: NDArray, rows: NDArray, over: Resampled) -> list[Class]:
    """Each class with its tested samples and patients."""
    if found.kind not in (*ONE_CLASS, "multilabel"):
        return []
    out = []
    for c, name in enumerate(found.classes):
        y = found.y[rows]
        mine = rows[y[:, c] == 1 if found.kind == "multilabel" else y == c]
        per = {n.removeprefix("class_"): over.interval(n, c) for n in metrics.PER_CLASS}
        out.append(Class(name, len(mine), len(np.unique(patients[mine])), per))
    return out


def _confusion(found: Target, probability: NDArray) -> list[list[int]]:
    if found.kind not in ONE_CLASS:
        return []
    weight = metrics.once(len(found))
    counted = metrics.confusion(found.y, probability.argmax(1), weight, len(found.classes))
    return counted[..., 0].astype(int).tolist()


def _thresholded(
    resampled: Callable[[NDArray], Resampled], made: Sequence[Predicted]
) -> dict[str, Interval]:
    """What comes of two classes where the second begins at each fold's own threshold."""
    over = resampled(np.concatenate([_cut(fold) for fold in made]))
    out = {name: over.interval(name) for name in ("accuracy", "balanced_accuracy", "f1")}
    for name in ("sensitivity", "ppv"):
        out[name] = over.interval(f"class_{name}", 1)
    return {**out, "specificity": over.interval("class_sensitivity", 0)}


def measure(
    found: Target, probability: NDArray, weight: Counted, fold: NDArray[np.integer] | None = None
) -> Measures:
    """The measures of a kind of problem: those of `medcl.metrics.metrics` and a few more."""
    if found.kind in SURVIVAL:
        return concordance(found.y[:, 0], found.y[:, 1] > 0, probability[:, 0], weight, fold)
    if found.kind == "regression":
        return metrics.measure("regression", found.y, probability, weight)
    if found.kind == "multilabel":
        codes = np.nan_to_num(found.y, nan=-1).astype(np.int64)
        return metrics.measure("multilabel", codes, probability, weight)
    kind: metrics.Kind = "binary" if found.kind == "binary" else "multiclass"
    made = metrics.measure(kind, found.y, probability, weight)
    right = probability.argmax(1) == found.y
    total = weight.total(np.ones(len(found)))
    with np.errstate(invalid="ignore", divide="ignore"):
        made["accuracy"] = weight.total(right.astype(np.float64)) / total
        if found.kind == "ordinal":
            off = np.abs(probability.argmax(1) - found.y).astype(np.float64)
            made["mae"] = weight.total(off) / total
    return made


def _over_repeats(
    found: Target, probability: NDArray, repeat: NDArray, fold: NDArray, weight: Counted
) -> Measures:
    """The mean over repeats: scores of different trainings are never ranked together twice."""
    each = []
    for number in np.unique(repeat):
        mine = np.flatnonzero(repeat == number)
        each.append(measure(found.at(mine), probability[mine], weight.at(mine), fold[mine]))
    return {name: np.mean([one[name] for one in each], axis=0) for name in each[0]}


def _cut(fold: Predicted) -> NDArray[np.float64]:
    """Two columns of 0 and 1: what the threshold says."""
    over = probabilities("binary", fold.scores, fold.temperature)[:, 1] >= fold.threshold
    return np.stack([~over, over], 1).astype(np.float64)


def _by_fold(found: Target, made: Sequence[Predicted]) -> dict[str, Spread]:
    each: dict[str, list[float]] = {}
    for fold in made:
        probability = probabilities(found.kind, fold.scores)
        measured = measure(found.at(fold.rows), probability, metrics.once(len(fold.rows)))
        for name, value in measured.items():
            if not name.startswith("class_"):
                each.setdefault(name, []).append(float(value[0]))
    repeat = np.array([fold.repeat for fold in made])
    out = {}
    for name, listed in each.items():
        values = np.array(listed)
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
    found: Target, patients: NDArray, made: Sequence[Predicted], resamples: int, seed: int
) -> tuple[dict[str, Interval], list[tuple[float, float, int]]]:
    if found.kind not in CALIBRATED:
        return {}, []
    errors = {}
    for name, scaled in (("ece", False), ("ece_scaled", True)):
        sure, right, whose = _sureness(found, patients, made, scaled)

        def measured(weight: Counted, sure: NDArray = sure, right: NDArray = right) -> Measures:
            return {"ece": calibration.expected_error(sure, right, weight)}

        over = bootstrap(measured, whose, resamples=resamples, seed=seed)
        errors[name] = over.interval("ece")
    curve = calibration.reliability(sure, right)
    bins = [
        (float(c), float(r), int(n))
        for c, r, n in zip(curve.confidence, curve.right, curve.samples, strict=True)
        if n
    ]
    return errors, bins


def _sureness(
    found: Target, patients: NDArray, made: Sequence[Predicted], scaled: bool
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray]:
    """Of every prediction: its probability, whether it came true, and whose it is."""
    sure, right, whose = [], [], []
    for fold in made:
        probability = probabilities(found.kind, fold.scores, fold.temperature if scaled else 1.0)
        y = found.y[fold.rows]
        if found.kind == "multilabel":
            known = np.isfinite(y)
            sure.append(probability[known])
            right.append(y[known] == 1)
            whose.append(patients[fold.rows][known.nonzero()[0]])
        else:
            sure.append(probability.max(1))
            right.append(probability.argmax(1) == y)
            whose.append(patients[fold.rows])
    return np.concatenate(sure), np.concatenate(right), np.concatenate(whose)
