"""Select a classifier's predictions to show: the best and the worst, for every kind of problem."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medcl.audit.compare import Predictions
from medcl.labels.target import ONE_CLASS, SURVIVAL
from medcl.report.samples import by_turns

Floats = NDArray[np.float64]
SHOWN = 4
"""Number of predictions shown, correct and wrong each."""


@dataclass(frozen=True)
class Prediction:
    """One prediction, in words.

    Attributes:
        row: of the predictions.
        output: class or label that it is about, for its explanation.
        target, predicted: in words.
        probability: of the prediction; None if there is none.
    """

    row: int
    output: int
    target: str
    predicted: str
    probability: float | None = None


@dataclass(frozen=True)
class Selection:
    """Correct and wrong predictions, of different patients as far as possible.

    Attributes:
        about: their numbers, and which are shown.
        titles: of the correct and the wrong ones.
        correct, wrong: those that are shown.
        correct_count, wrong_count: numbers of all.
    """

    about: str
    titles: tuple[str, str]
    correct: list[Prediction]
    wrong: list[Prediction]
    correct_count: int
    wrong_count: int


def selected(
    predictions: Predictions, threshold: Floats | None = None, sample: str = "sample"
) -> Selection:
    """The predictions of a study or probe to show.

    Args:
        predictions: of test samples.
        threshold: as in `predicted_classes`.
        sample: what a sample is called, in the singular.
    """
    kind = predictions.target.kind
    if kind in ONE_CLASS:
        return _classes(predictions, threshold, sample)
    if kind == "multilabel":
        return _labels(predictions, sample)
    return _risks(predictions, sample) if kind in SURVIVAL else _values(predictions, sample)


CONFIDENT = ("Right, and sure", "Wrong, and sure")


def predicted_classes(
    predictions: Predictions, threshold: Floats | None = None
) -> NDArray[np.int64]:
    """(N,) the likeliest class; of two classes, the second at or above its threshold (N,)."""
    if threshold is None:
        return np.asarray(predictions.probability.argmax(axis=1), np.int64)
    return (predictions.probability[:, 1] >= threshold).astype(np.int64)


def _classes(predictions: Predictions, threshold: Floats | None, sample: str) -> Selection:
    predicted = predicted_classes(predictions, threshold)
    probability = predictions.probability[np.arange(len(predicted)), predicted]
    confidence = probability
    if threshold is not None:  # position between the threshold and certainty
        low = np.where(predicted == 1, threshold, 1 - threshold)
        confidence = (probability - low) / np.maximum(1 - low, 1e-12)
    correct = predicted == predictions.target.y
    names = predictions.target.classes

    def prediction(row: int) -> Prediction:
        target = names[int(predictions.target.y[row])]
        return Prediction(
            row, int(predicted[row]), target, names[int(predicted[row])], float(probability[row])
        )

    best, worst = (
        _first(predictions, np.flatnonzero(s), -confidence, prediction) for s in (correct, ~correct)
    )
    correct_count, wrong_count = int(correct.sum()), int((~correct).sum())
    about = _counted(f"test {sample}s", correct_count, wrong_count)
    if threshold is not None:
        about += (
            f" {names[1]} is predicted at or above the threshold of the validation patients, "
            f"{_range(threshold)} of these probabilities."
        )
    return Selection(about, CONFIDENT, best, worst, correct_count, wrong_count)


def _range(threshold: Floats) -> str:
    """Thresholds of trainings: one number, or the least and the most."""
    low, high = (f"{value:.2f}" for value in (threshold.min(), threshold.max()))
    return low if low == high else f"{low} to {high}"


def _labels(predictions: Predictions, sample: str) -> Selection:
    """Multilabel: each label of each sample is one prediction, yes or no."""
    y, p = predictions.target.y, predictions.probability
    yes, known = p >= 0.5, np.isfinite(y)
    confidence = np.where(yes, p, 1 - p)
    correct, wrong = known & (yes == (y == 1)), known & (yes != (y == 1))

    def select(mask: NDArray[np.bool_]) -> list[Prediction]:
        highest = np.where(mask, confidence, -1.0)
        label = highest.argmax(axis=1)  # one label per sample is shown

        def prediction(row: int) -> Prediction:
            c = int(label[row])
            name, words = predictions.target.classes[c], ("no", "yes")
            target, predicted = (f"{name}: {words[int(v)]}" for v in (y[row, c] == 1, yes[row, c]))
            return Prediction(row, c, target, predicted, float(confidence[row, c]))

        return _first(
            predictions, np.flatnonzero(mask.any(axis=1)), -highest.max(axis=1), prediction
        )

    correct_count, wrong_count = int(correct.sum()), int(wrong.sum())
    about = _counted(f"labels of test {sample}s", correct_count, wrong_count)
    return Selection(about, CONFIDENT, select(correct), select(wrong), correct_count, wrong_count)


def _values(predictions: Predictions, sample: str) -> Selection:
    predicted, y = predictions.probability[:, 0], np.asarray(predictions.target.y, np.float64)
    rows = np.flatnonzero(np.isfinite(y))
    error = np.abs(predicted - y)
    median = float(np.median(error[rows]))

    def prediction(row: int) -> Prediction:
        return Prediction(row, 0, f"{y[row]:.4g}", f"{predicted[row]:.4g}")

    near, far = rows[error[rows] <= median], rows[error[rows] > median]
    about = (
        f"Half of the {len(rows):,} values are off by no more than {median:.3g}. Shown are the "
        "smallest and the largest errors, of different patients where there are enough."
    )
    best, worst = (
        _first(predictions, near, error, prediction),
        _first(predictions, far, -error, prediction),
    )
    return Selection(
        about, ("Nearest to the truth", "Farthest off"), best, worst, len(near), len(far)
    )


def _risks(predictions: Predictions, sample: str) -> Selection:
    """Survival: the highest and the lowest risks among samples with an event, by model."""
    time, event = np.asarray(predictions.target.y, np.float64).T
    rank = _ranks(predictions.probability[:, 0], predictions.fold)
    with_event = np.flatnonzero(event > 0)

    def prediction(row: int) -> Prediction:
        return Prediction(
            row, 0, f"event at {time[row]:.4g}", f"risk above {rank[row]:.0%} of others"
        )

    high, low = with_event[rank[with_event] >= 0.5], with_event[rank[with_event] < 0.5]
    about = (
        f"Of {len(with_event):,} test {sample}s with an event, {len(high):,} had a risk in the "
        "upper half of the same model's risks. Shown are the highest and the lowest, of different "
        "patients where there are enough."
    )
    titles = ("High risk, and it came", "Low risk, and yet it came")
    best, worst = (
        _first(predictions, high, -rank, prediction),
        _first(predictions, low, rank, prediction),
    )
    return Selection(about, titles, best, worst, len(high), len(low))


def _ranks(risk: Floats, fold: NDArray[np.int64] | None) -> Floats:
    """Share of the other samples of the same model with a lower risk."""
    rank = np.empty(len(risk))
    for number in np.unique(fold) if fold is not None else [None]:
        rows = np.arange(len(risk)) if number is None else np.flatnonzero(fold == number)
        order = np.sort(risk[rows])
        rank[rows] = np.searchsorted(order, risk[rows]) / max(1, len(rows) - 1)
    return np.minimum(rank, 1.0)


def _first(
    predictions: Predictions,
    rows: NDArray[np.int64],
    cost: Floats,
    prediction: Callable[[int], Prediction],
) -> list[Prediction]:
    """The rows of least cost, round-robin over patients."""
    order = rows[np.argsort(cost[rows], kind="stable")]
    return [prediction(int(row)) for row in by_turns(order, predictions.patients, SHOWN)]


def _counted(what: str, correct: int, wrong: int) -> str:
    return (
        f"Of {correct + wrong:,} {what} {wrong:,} were predicted wrongly. Shown are the "
        "most confident predictions, of different patients where there are enough; "
        "probabilities are uncalibrated."
    )
