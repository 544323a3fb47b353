"""Figures of pooled predictions: with intervals, as paired differences, and by label fraction."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from medcl.io.progress import track
from medcl.labels.target import Target
from medcl.metrics import metrics
from medcl.metrics.bootstrap import Interval, Resampled, bootstrap
from medcl.metrics.table import Class, Side
from medcl.probe.folds import KNN, LINEAR, Fold, Predicted, pool
from medcl.probe.result import PRETRAINED, RANDOM, Difference, Point, Score


def compare(
    truth: Target,
    patients: NDArray,
    made: Sequence[dict[str, Predicted]],
    *,
    resamples: int,
    seed: int,
) -> tuple[list[Score], list[Difference]]:
    """All figures of the pooled predictions, and the paired differences between them."""
    found: dict[tuple[str, str], Resampled] = {}
    scores: list[Score] = []
    for rep in track(list(made[0]), "intervals"):
        for classifier in (LINEAR, KNN):
            pooled = pool(made, rep, classifier)
            measures = partial(metrics.measure, truth.kind, truth.y, pooled)
            resampled = bootstrap(measures, patients, resamples=resamples, seed=seed)
            found[rep, classifier] = resampled
            fitted = [fold[rep] for fold in made] if classifier == LINEAR else []
            scores.append(
                Score(
                    representation=rep,
                    classifier=classifier,
                    width=made[0][rep].width,
                    c=[c for fold in fitted for c in fold.c],
                    c_chosen=all(fold.c_chosen for fold in fitted),
                    metrics=_macro(resampled),
                    classes=_per_class(truth, patients, resampled),
                    confusion=_confusion(truth, pooled),
                )
            )
    differences = [
        Difference(better, than, classifier, _minus(found, better, than, classifier))
        for classifier in (LINEAR, KNN)
        for better, than in _pairs(list(made[0]))
    ]
    return scores, differences


def _pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """Pretrained against each other one, and what pretraining adds to each baseline."""
    others = [n for n in names if n != PRETRAINED and not n.startswith(f"{PRETRAINED} + ")]
    added = [(f"{PRETRAINED} + {n}", n) for n in others if n != RANDOM]
    return [(PRETRAINED, n) for n in others] + added


def _macro(resampled: Resampled) -> dict[str, Interval]:
    names = [n for n in resampled.values if not n.startswith("class_")]
    return {name: resampled.interval(name) for name in names}


def _minus(
    found: dict[tuple[str, str], Resampled], better: str, than: str, classifier: str
) -> dict[str, Interval]:
    one, other = found[better, classifier], found[than, classifier]
    return {name: one.minus(other, name) for name in _macro(one)}


def _per_class(truth: Target, patients: NDArray, resampled: Resampled) -> list[Class]:
    if truth.kind == "regression":
        return []
    out = []
    for c, name in enumerate(truth.classes):
        mine = truth.y[:, c] == 1 if truth.kind == "multilabel" else truth.y == c
        intervals = {n.removeprefix("class_"): resampled.interval(n, c) for n in metrics.PER_CLASS}
        out.append(Class(name, int(mine.sum()), len(np.unique(patients[mine])), intervals))
    return out


def _confusion(truth: Target, scores: NDArray) -> list[list[int]]:
    if truth.kind not in ("multiclass", "binary"):
        return []
    weight = metrics.once(len(truth))
    table = metrics.confusion(truth.y, scores.argmax(1), weight, len(truth.classes))
    return table[..., 0].astype(int).tolist()


def curve(
    judged: Target, parts: Sequence[Fold], made: Sequence[dict[str, Predicted]]
) -> list[Point]:
    """The label-fraction curve: of each draw, the folds are pooled and measured."""
    weight = metrics.once(len(judged))
    points = []
    for fraction in sorted({fraction for fraction, _ in made[0][PRETRAINED].labelled}):
        draws = [draw for f, draw in made[0][PRETRAINED].labelled if f == fraction]
        for rep in made[0]:
            sizes = [fold[rep].labelled[fraction, draw] for fold in made for draw in draws]
            measured = [
                metrics.measure(
                    judged.kind,
                    judged.y,
                    np.concatenate([fold[rep].labelled[fraction, draw].scores for fold in made]),
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


def side(truth: Target, patients: NDArray, positions: NDArray) -> Side:
    """Who is on a side: patients, samples, samples of each class."""
    classes: dict[str, int] = {}
    if truth.kind != "regression":
        columns = np.nan_to_num(truth.at(positions).columns()).sum(0)
        classes = {name: int(n) for name, n in zip(truth.classes, columns, strict=True)}
    return Side(len(np.unique(patients[positions])), len(positions), classes)


def notes(
    truth: Target, patients: NDArray, parts: Sequence[Fold], scores: Sequence[Score]
) -> list[str]:
    """What a reader must know before trusting the figures."""
    found = []
    pooled = np.concatenate([fold.test for fold in parts])
    people = len(np.unique(patients[pooled]))
    if people < 20:
        found.append(
            f"Only {people} test patients: intervals over so few are too narrow; "
            "take them as a lower bound of the uncertainty."
        )
    for c in scores[0].classes:
        if c.samples == 0:
            found.append(f"No test patient has class {c.name}: it is left out of macro figures.")
        elif c.patients == 1:
            found.append(f"All of class {c.name} comes from one test patient.")
    if truth.kind in ("multiclass", "binary"):
        for fold in parts:
            missing = set(truth.y[fold.test].tolist()) - set(truth.y[fold.train].tolist())
            found += [
                f"Class {truth.classes[c]} occurs in test but in no training patient "
                f"of {fold.run.path.name}: it cannot be predicted there."
                for c in sorted(missing)
            ]
    undefined = max((i.undefined for s in scores for i in s.metrics.values()), default=0)
    if undefined:
        found.append(
            f"Up to {undefined} resamples lacked a class; they are left out of the intervals, "
            "which thus suppose that all classes are present."
        )
    if not all(s.c_chosen for s in scores):
        found.append("Too few training patients to choose the regularisation: C is fixed.")
    return found
