"""Which answers of a classifier to show: the most and the least successful ones, of every kind."""

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
"""Answers of either sort."""


@dataclass(frozen=True)
class Answer:
    """One answer, and how to put it in words.

    Attributes:
        row: of the predictions.
        target: the class or label that it is about, for what it rests on.
        truth, said: what is so, and what was said.
        probability: of what was said; None where there is none.
    """

    row: int
    target: int
    truth: str
    said: str
    probability: float | None = None


@dataclass(frozen=True)
class Answers:
    """Answers of both sorts, of different patients as far as there are.

    Attributes:
        about: how many there are, and which are shown.
        titles: of both sorts.
        right, wrong: those that are shown.
        rights, wrongs: how many there are.
    """

    about: str
    titles: tuple[str, str]
    right: list[Answer]
    wrong: list[Answer]
    rights: int
    wrongs: int


def chosen(found: Predictions, threshold: Floats | None = None) -> Answers:
    """The answers to show of a study or probe; ``threshold`` as of `answered`."""
    kind = found.truth.kind
    if kind in ONE_CLASS:
        return _classes(found, threshold)
    if kind == "multilabel":
        return _labels(found)
    return _risks(found) if kind in SURVIVAL else _values(found)


SURE = ("Right, and sure", "Wrong, and sure")


def answered(found: Predictions, threshold: Floats | None = None) -> NDArray[np.int64]:
    """(N,) the class that is said: the likeliest; of two, the second from a threshold (N,) on."""
    if threshold is None:
        return np.asarray(found.probability.argmax(axis=1), np.int64)
    return (found.probability[:, 1] >= threshold).astype(np.int64)


def _classes(found: Predictions, threshold: Floats | None) -> Answers:
    said = answered(found, threshold)
    probability = found.probability[np.arange(len(said)), said]
    sure = probability
    if threshold is not None:  # how much of the way from the threshold to certainty
        low = np.where(said == 1, threshold, 1 - threshold)
        sure = (probability - low) / np.maximum(1 - low, 1e-12)
    right = said == found.truth.y
    names = found.truth.classes

    def told(row: int) -> Answer:
        truth = names[int(found.truth.y[row])]
        return Answer(row, int(said[row]), truth, names[int(said[row])], float(probability[row]))

    good, bad = (_first(found, np.flatnonzero(s), -sure, told) for s in (right, ~right))
    rights, wrongs = int(right.sum()), int((~right).sum())
    about = _counted("test samples", rights, wrongs)
    if threshold is not None:
        about += f" {names[1]} is said from the threshold of the validation patients on."
    return Answers(about, SURE, good, bad, rights, wrongs)


def _labels(found: Predictions) -> Answers:
    """Several labels a sample: every label of every sample is one answer, yes or no."""
    y, p = found.truth.y, found.probability
    yes, known = p >= 0.5, np.isfinite(y)
    sure = np.where(yes, p, 1 - p)
    right, wrong = known & (yes == (y == 1)), known & (yes != (y == 1))

    def shown(which: NDArray[np.bool_]) -> list[Answer]:
        best = np.where(which, sure, -1.0)
        label = best.argmax(axis=1)  # a sample is shown for one of its labels

        def told(row: int) -> Answer:
            c = int(label[row])
            name, words = found.truth.classes[c], ("no", "yes")
            truth, said = (f"{name}: {words[int(v)]}" for v in (y[row, c] == 1, yes[row, c]))
            return Answer(row, c, truth, said, float(sure[row, c]))

        return _first(found, np.flatnonzero(which.any(axis=1)), -best.max(axis=1), told)

    rights, wrongs = int(right.sum()), int(wrong.sum())
    about = _counted("labels of test samples", rights, wrongs)
    return Answers(about, SURE, shown(right), shown(wrong), rights, wrongs)


def _values(found: Predictions) -> Answers:
    said, y = found.probability[:, 0], np.asarray(found.truth.y, np.float64)
    rows = np.flatnonzero(np.isfinite(y))
    off = np.abs(said - y)
    middle = float(np.median(off[rows]))

    def told(row: int) -> Answer:
        return Answer(row, 0, f"{y[row]:.4g}", f"{said[row]:.4g}")

    near, far = rows[off[rows] <= middle], rows[off[rows] > middle]
    about = (
        f"Half of the {len(rows):,} values are off by no more than {middle:.3g}. Shown are the "
        "smallest and the largest errors, of different patients where there are enough."
    )
    good, bad = _first(found, near, off, told), _first(found, far, -off, told)
    return Answers(about, ("Nearest to the truth", "Farthest off"), good, bad, len(near), len(far))


def _risks(found: Predictions) -> Answers:
    """Survival: of those whose event was seen, the highest and the lowest risks, by model."""
    time, event = np.asarray(found.truth.y, np.float64).T
    rank = _ranks(found.probability[:, 0], found.fold)
    came = np.flatnonzero(event > 0)

    def told(row: int) -> Answer:
        return Answer(row, 0, f"event at {time[row]:.4g}", f"risk above {rank[row]:.0%} of others")

    high, low = came[rank[came] >= 0.5], came[rank[came] < 0.5]
    about = (
        f"Of {len(came):,} test samples with an event, {len(high):,} had a risk in the upper half "
        "of what the same model gave. Shown are the highest and the lowest, of different patients "
        "where there are enough."
    )
    titles = ("High risk, and it came", "Low risk, and yet it came")
    good, bad = _first(found, high, -rank, told), _first(found, low, rank, told)
    return Answers(about, titles, good, bad, len(high), len(low))


def _ranks(risk: Floats, fold: NDArray[np.int64] | None) -> Floats:
    """The share of others that have a lower risk, among those of the same model."""
    rank = np.empty(len(risk))
    for number in np.unique(fold) if fold is not None else [None]:
        mine = np.arange(len(risk)) if number is None else np.flatnonzero(fold == number)
        order = np.sort(risk[mine])
        rank[mine] = np.searchsorted(order, risk[mine]) / max(1, len(mine) - 1)
    return np.minimum(rank, 1.0)


def _first(
    found: Predictions, rows: NDArray[np.int64], cost: Floats, told: Callable[[int], Answer]
) -> list[Answer]:
    """The rows of least cost, patients taking turns."""
    order = rows[np.argsort(cost[rows], kind="stable")]
    return [told(int(row)) for row in by_turns(order, found.patients, SHOWN)]


def _counted(what: str, rights: int, wrongs: int) -> str:
    return (
        f"Of {rights + wrongs:,} {what} {wrongs:,} were answered wrongly. Shown are the answers "
        "that the classifiers were surest of, of different patients where there are enough; "
        "probabilities as they left the classifier."
    )
