"""Measures of predictions under weights: the same code for a figure and for all of its resamples.

Weights are given by cluster, as `Counted`: column r of its table holds the count of each patient.
One cluster counted once gives the plain figure; a bootstrap gives R columns of counts (see
`medcl.metrics.bootstrap`). A measure that is undefined under a column (a class absent) is NaN
there, never a substitute value.

Classes count if the target contains them. Macro figures are plain means over those classes, so
under a column where one of them is absent the macro figure is NaN too: a mean over fewer classes
would be another quantity.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

Kind = Literal["binary", "multiclass", "multilabel", "ordinal", "regression", "cox", "hazard"]
Floats = NDArray[np.floating]
Measures = dict[str, NDArray[np.float64]]
"""Name → (R,), or (C, R) for the per-class measures, whose names begin with ``class_``."""

MACRO = ("auroc", "auprc", "balanced_accuracy", "f1")
PER_CLASS = ("class_auroc", "class_auprc", "class_sensitivity", "class_ppv", "class_f1")
REGRESSION = ("r2", "mae", "rmse")


@dataclass(frozen=True)
class Counted:
    """Sample weights, all samples of a cluster alike.

    Attributes:
        cluster: (N,) the cluster each sample belongs to.
        counts: (P, R) how often each cluster is counted, in each of R columns.
    """

    cluster: NDArray[np.integer]
    counts: Floats

    def total(self, amount: Floats) -> Floats:
        """The weighted sum of an amount per sample: (N,) → (R,)."""
        sums = np.bincount(self.cluster, weights=amount, minlength=len(self.counts))  # (P,)
        return np.asarray(sums @ self.counts.astype(np.float64), np.float64)

    def by_row(self, row: NDArray[np.integer], rows: int, amount: Floats | None = None) -> Floats:
        """Weighted sums of an amount (default 1) within each row: (N,) row numbers → (rows, R)."""
        values = np.ones(len(row), np.float32) if amount is None else amount.astype(np.float32)
        table = csr_array((values, (row, self.cluster)), shape=(rows, len(self.counts)))
        table.sum_duplicates()
        return table @ self.counts

    def at(self, keep: NDArray) -> Counted:
        """The weights of some of the samples."""
        return Counted(self.cluster[keep], self.counts)


def once(n: int) -> Counted:
    """The weights that count each of n samples once: R = 1."""
    return Counted(np.zeros(n, np.int64), np.ones((1, 1), np.float32))


def ranking(target: NDArray[np.bool_], score: Floats, weight: Counted) -> tuple[Floats, Floats]:
    """Area under the ROC curve and average precision of one class against the rest.

    Tied scores are one threshold, as in scikit-learn: the ROC curve is straight across them, and
    average precision takes a step. Only the G thresholds at which a positive is met matter, so
    for rare classes and few clusters the R columns cost little.

    Args:
        target: (N,) whether a sample belongs to the class.
        score: (N,) finite, higher means more likely.
        weight: of the N samples.

    Returns:
        auroc (R,), auprc (R,); NaN where positives (or, for auroc, negatives) have no weight.
    """
    thresholds, met = np.unique(-score[target], return_inverse=True)  # (G,), best first
    negative = weight.at(~target)
    falling = -score[~target]
    threshold_of = np.searchsorted(
        thresholds, falling, side="left"
    )  # first threshold that admits it
    tied = np.searchsorted(thresholds, falling, side="right") > threshold_of
    size = len(thresholds)
    gained = weight.at(target).by_row(met, size)  # (G, R)
    tp = np.cumsum(gained, axis=0)
    lost = negative.by_row(
        threshold_of, size + 1
    )  # (G + 1, R); the last row ranks below all positives
    fp = np.cumsum(lost[:-1], axis=0)
    halved = fp
    if tied.any():  # half of the tied negatives count as ranked above, half as below
        halved = fp - negative.at(tied).by_row(threshold_of[tied], size) / 2
    positives, negatives = gained.sum(0, dtype=np.float64), lost.sum(0, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        auroc = 1 - np.einsum("gr,gr->r", gained, halved, dtype=np.float64) / positives / negatives
        precision = np.divide(tp, tp + fp, out=np.zeros_like(tp), where=gained > 0)
        auprc = np.einsum("gr,gr->r", gained, precision, dtype=np.float64) / positives
    return auroc, auprc


def confusion(
    target: NDArray[np.integer], predicted: NDArray[np.integer], weight: Counted, classes: int
) -> NDArray[np.float64]:
    """Weighted counts (C, C, R): rows are the target, columns the prediction."""
    cells = weight.by_row(target * classes + predicted, classes * classes)
    return cells.astype(np.float64).reshape(classes, classes, -1)


def classification(
    target: NDArray[np.integer],
    scores: Floats,
    weight: Counted,
    *,
    binary: bool = False,
) -> Measures:
    """Measures of a single-label problem.

    Args:
        target: (N,) class codes.
        scores: (N, C); the predicted class is the highest.
        weight: of the N samples.
        binary: auroc and auprc of class 1 alone (the macro mean would count class 0's too).

    Returns:
        Macro auroc (one against the rest), auprc, balanced accuracy, F1, accuracy; and per class
        auroc, auprc, sensitivity, PPV, F1 as (C, R). The PPV of a class never predicted is NaN.
    """
    classes = scores.shape[1]
    present = np.bincount(target, minlength=classes) > 0
    areas = np.full((2, classes, weight.counts.shape[1]), np.nan)
    for c in np.flatnonzero(present):
        areas[0, c], areas[1, c] = ranking(target == c, scores[:, c], weight)
    table = confusion(target, scores.argmax(1), weight, classes)
    hits = np.einsum("ccr->cr", table)
    sensitivity, ppv, f1 = _rates(hits, table.sum(1), table.sum(0))
    ranked = np.array([False, True]) if binary else present
    return {
        "auroc": _macro(areas[0], ranked),
        "auprc": _macro(areas[1], ranked),
        "balanced_accuracy": _macro(sensitivity, present),
        "f1": _macro(f1, present),
        "accuracy": _accuracy(hits, table),
        "class_auroc": areas[0],
        "class_auprc": areas[1],
        "class_sensitivity": sensitivity,
        "class_ppv": ppv,
        "class_f1": f1,
    }


def multilabel(target: NDArray[np.integer], scores: Floats, weight: Counted) -> Measures:
    """Measures of a problem with several yes/no labels per sample.

    Args:
        target: (N, C) 1, 0, and −1 or NaN where unknown: such entries are left out, label by label.
        scores: (N, C) probabilities; at 0.5 and above the label is predicted.
        weight: of the N samples.

    Returns:
        The same names as `classification`. Balanced accuracy is the mean over labels of
        (sensitivity + specificity) / 2, accuracy that of the share of right answers.
    """
    labels = scores.shape[1]
    shape = (labels, weight.counts.shape[1])
    out = {name: np.full(shape, np.nan) for name in (*PER_CLASS, "specificity", "right")}
    present = (target == 1).any(0)
    for c in np.flatnonzero(present):
        known = target[:, c] >= 0
        y, score, w = target[known, c].astype(np.int64), scores[known, c], weight.at(known)
        out["class_auroc"][c], out["class_auprc"][c] = ranking(y == 1, score, w)
        table = confusion(y, (score >= 0.5).astype(np.int64), w, 2)
        sensitivity, ppv, f1 = _rates(table[1, 1], table[1].sum(0), table[:, 1].sum(0))
        out["class_sensitivity"][c], out["class_ppv"][c], out["class_f1"][c] = sensitivity, ppv, f1
        with np.errstate(invalid="ignore"):
            out["specificity"][c] = table[0, 0] / table[0].sum(0)
            out["right"][c] = (table[0, 0] + table[1, 1]) / table.sum((0, 1))
    balanced = (out["class_sensitivity"] + out.pop("specificity")) / 2
    right = out.pop("right")
    return {
        "auroc": _macro(out["class_auroc"], present),
        "auprc": _macro(out["class_auprc"], present),
        "balanced_accuracy": _macro(balanced, present),
        "f1": _macro(out["class_f1"], present),
        "accuracy": _macro(right, present),
        **out,
    }


def regression(target: Floats, predicted: Floats, weight: Counted) -> Measures:
    """Coefficient of determination, mean absolute and root mean squared error.

    Args:
        target: (N,).
        predicted: (N,) or (N, 1), in the same unit.
        weight: of the N samples.
    """
    total = weight.total(np.ones(len(target)))
    y = target.astype(np.float64) - np.mean(target)  # centred: the variance below cancels less
    error = target.astype(np.float64) - np.reshape(predicted, -1)
    with np.errstate(invalid="ignore", divide="ignore"):
        squared = weight.total(error**2)
        spread = weight.total(y**2) - weight.total(y) ** 2 / total
        return {
            "r2": np.where(spread > 1e-12 * total, 1 - squared / spread, np.nan),
            "mae": weight.total(np.abs(error)) / total,
            "rmse": np.sqrt(squared / total),
        }


def ordinal(target: NDArray[np.integer], scores: Floats, weight: Counted) -> Measures:
    """Measures of grades: those of `classification`, and the mean distance of classes (``mae``)."""
    distance = np.abs(scores.argmax(1) - target).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        mae = weight.total(distance) / weight.total(np.ones(len(target)))
    return {**classification(target, scores, weight), "mae": mae}


def _rates(hits: Floats, actual: Floats, predicted: Floats) -> tuple[Floats, Floats, Floats]:
    """Sensitivity, PPV and F1 from weighted counts; NaN where there is nothing to divide by."""
    with np.errstate(invalid="ignore"):
        f1 = np.where(actual > 0, 2 * hits / (actual + predicted), np.nan)
        return hits / actual, hits / predicted, f1


def _accuracy(hits: Floats, table: Floats) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):
        return np.asarray(hits.sum(0) / table.sum((0, 1)))


def _macro(values: Floats, classes: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The mean over the given classes: (C, R) → (R,)."""
    if not classes.any():
        return np.full(values.shape[1], np.nan)
    return values[classes].mean(0)
