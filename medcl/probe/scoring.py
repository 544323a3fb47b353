"""Figures of pooled predictions: with intervals, as paired differences, and label efficiency."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from medcl.embeddings.knn import LARGEST_BANK
from medcl.io.progress import track
from medcl.labels.target import Target
from medcl.metrics import figures
from medcl.metrics.bootstrap import Interval, Resampled, bootstrap
from medcl.metrics.measures import measure
from medcl.metrics.metrics import once
from medcl.metrics.table import SplitCounts
from medcl.probe.folds import KNN, LINEAR, Fold, Predicted, pool
from medcl.probe.result import PRETRAINED, RANDOM, Difference, Point, Score


def compare(
    target: Target,
    patients: NDArray,
    predictions: Sequence[dict[str, Predicted]],
    *,
    resamples: int,
    seed: int,
) -> tuple[list[Score], list[Difference]]:
    """All figures of the pooled predictions, and the paired differences between them."""
    resampled_of: dict[tuple[str, str], Resampled] = {}
    scores: list[Score] = []
    kind, classes = target.kind, target.classes
    for rep in track(list(predictions[0]), "intervals"):
        for classifier in (LINEAR, KNN):
            pooled = pool(predictions, rep, classifier)
            measures = partial(measure, kind, target.y, pooled)
            resampled = bootstrap(measures, patients, resamples=resamples, seed=seed)
            resampled_of[rep, classifier] = resampled
            fitted = [fold[rep] for fold in predictions] if classifier == LINEAR else []
            scores.append(
                Score(
                    representation=rep,
                    classifier=classifier,
                    width=predictions[0][rep].width,
                    c=[c for fold in fitted for c in fold.c],
                    c_chosen=all(fold.c_chosen for fold in fitted),
                    metrics=figures.macro(resampled),
                    classes=figures.per_class(kind, classes, target.y, patients, resampled),
                    confusion=figures.confusion(kind, classes, target.y, pooled),
                )
            )
    differences = [
        Difference(better, than, classifier, _minus(resampled_of, better, than, classifier))
        for classifier in (LINEAR, KNN)
        for better, than in _pairs(list(predictions[0]))
    ]
    return scores, differences


def _pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """Pretrained against each other representation, and its gain on top of each baseline."""
    others = [n for n in names if n != PRETRAINED and not n.startswith(f"{PRETRAINED} + ")]
    added = [(f"{PRETRAINED} + {n}", n) for n in others if n != RANDOM]
    return [(PRETRAINED, n) for n in others] + added


def _minus(
    resampled_of: dict[tuple[str, str], Resampled], better: str, than: str, classifier: str
) -> dict[str, Interval]:
    one, other = resampled_of[better, classifier], resampled_of[than, classifier]
    return {name: one.minus(other, name) for name in figures.macro(one)}


def label_efficiency(
    target: Target, parts: Sequence[Fold], predictions: Sequence[dict[str, Predicted]]
) -> list[Point]:
    """Label efficiency: for each draw, the folds are pooled and measured."""
    weight = once(len(target))
    points = []
    for fraction in sorted({fraction for fraction, _ in predictions[0][PRETRAINED].labelled}):
        draws = [draw for f, draw in predictions[0][PRETRAINED].labelled if f == fraction]
        for rep in predictions[0]:
            sizes = [fold[rep].labelled[fraction, draw] for fold in predictions for draw in draws]
            measured = [
                measure(
                    target.kind,
                    target.y,
                    np.concatenate(
                        [fold[rep].labelled[fraction, draw].scores for fold in predictions]
                    ),
                    weight,
                )
                for draw in draws
            ]
            points.append(
                Point(
                    representation=rep,
                    fraction=fraction,
                    patients=float(np.mean([s.patients for s in sizes])),
                    samples=float(np.mean([s.samples for s in sizes])),
                    metrics={
                        name: [_number(m[name][0]) for m in measured]
                        for name in measured[0]
                        if not name.startswith("class_")
                    },
                )
            )
    return points


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def counts(target: Target, patients: NDArray, positions: NDArray) -> SplitCounts:
    """Counts of a part: patients, samples, samples of each class."""
    classes: dict[str, int] = {}
    if target.kind != "regression":
        columns = np.nan_to_num(target.at(positions).columns()).sum(0)
        classes = {name: int(n) for name, n in zip(target.classes, columns, strict=True)}
    return SplitCounts(len(np.unique(patients[positions])), len(positions), classes)


def notes(
    target: Target, patients: NDArray, parts: Sequence[Fold], scores: Sequence[Score]
) -> list[str]:
    """Caveats on the figures."""
    pooled = np.concatenate([fold.test for fold in parts])
    caveats = [*target.notes, *figures.few_patients(len(np.unique(patients[pooled])))]
    for c in scores[0].classes:
        if c.samples == 0:
            caveats.append(f"No test patient has class {c.name}: it is left out of macro figures.")
        elif c.patients == 1:
            caveats.append(f"All of class {c.name} comes from one test patient.")
    if target.kind in ("multiclass", "binary"):
        for fold in parts:
            missing = set(target.y[fold.test].tolist()) - set(target.y[fold.train].tolist())
            caveats += [
                f"Class {target.classes[c]} occurs in test but in no training patient "
                f"of {fold.run.path.name}: it cannot be predicted there."
                for c in sorted(missing)
            ]
    most = max(len(fold.train) for fold in parts)
    if most > LARGEST_BANK:
        caveats.append(
            f"kNN: neighbours are sought among {LARGEST_BANK:,} of {most:,} training samples, an "
            "even share of each patient's."
        )
    undefined = max((i.undefined for s in scores for i in s.metrics.values()), default=0)
    if undefined:
        caveats.append(
            f"Up to {undefined} resamples lacked a class; they are left out of the intervals, "
            "which thus assume that all classes are present."
        )
    if not all(s.c_chosen for s in scores):
        caveats.append("Too few training patients to choose the regularisation: C is fixed.")
    return caveats
