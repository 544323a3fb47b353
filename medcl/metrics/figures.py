"""Figures of predictions, by one rule everywhere: macro, per class, confusion, few patients."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medcl.metrics import metrics
from medcl.metrics.bootstrap import Interval, Resampled
from medcl.metrics.metrics import Floats, Kind
from medcl.metrics.table import Class

FEW = 20
"""Fewer test patients than this give a note: see `medcl.metrics.bootstrap`."""
ONE_CLASS = ("binary", "multiclass", "ordinal")


def macro(resampled: Resampled) -> dict[str, Interval]:
    """The figures over all classes."""
    return {n: resampled.interval(n) for n in resampled.values if not n.startswith("class_")}


def per_class(
    kind: Kind, classes: Sequence[str], target: NDArray, patients: NDArray, resampled: Resampled
) -> list[Class]:
    """Each class with its test samples and patients; empty where there are no classes.

    Args:
        kind: of problem.
        classes: names.
        target: of the N test samples, see `medcl.labels.target.Target.y`.
        patients: (N,).
        resampled: measures of the predictions.
    """
    if kind not in (*ONE_CLASS, "multilabel"):
        return []
    out = []
    for c, name in enumerate(classes):
        members = target[:, c] == 1 if kind == "multilabel" else target == c
        per = {n.removeprefix("class_"): resampled.interval(n, c) for n in metrics.PER_CLASS}
        out.append(Class(name, int(members.sum()), len(np.unique(patients[members])), per))
    return out


def confusion(
    kind: Kind, classes: Sequence[str], target: NDArray, scores: Floats
) -> list[list[int]]:
    """Counts, rows the target and columns the prediction; empty unless samples have one class."""
    if kind not in ONE_CLASS:
        return []
    counted = metrics.confusion(target, scores.argmax(1), metrics.once(len(target)), len(classes))
    return counted[..., 0].astype(int).tolist()


def few_patients(patients: int) -> list[str]:
    """The sentence for few test patients, if there are few."""
    if patients >= FEW:
        return []
    subject = "Only 1 test patient" if patients == 1 else f"Only {patients} test patients"
    return [f"{subject}: the intervals are wide for that, and say nothing of people unlike these."]
