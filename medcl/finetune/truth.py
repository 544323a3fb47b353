"""What is to be learnt, as numbers: from label columns to the ``y`` of a classifier."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from medcl.errors import MedclError, UsageError
from medcl.labels import target
from medcl.labels.outputs import Outputs
from medcl.metrics.metrics import Kind
from medcl.plugin import Samples, Task
from medcl.recipe import Finetune
from medcl.registry import did_you_mean

SURVIVAL = ("cox", "hazard")
ONE_CLASS = ("binary", "multiclass", "ordinal")
MOST_CLASSES = 20
"""Whole numbers with more different values than this are a regression, unless ``kind`` is given."""


@dataclass(frozen=True)
class Target:
    """Labels of samples.

    Attributes:
        kind: of problem.
        classes: as in `medcl.labels.outputs.Outputs`; of survival and regression, one name.
        y: as described there; of ``hazard`` still with the time, not its interval (see `cut`).
    """

    kind: Kind
    classes: tuple[str, ...]
    y: NDArray

    def __len__(self) -> int:
        return len(self.y)

    @property
    def known(self) -> NDArray[np.bool_]:
        """(N,) which samples carry a label."""
        if self.kind in ONE_CLASS:
            return np.asarray(self.y >= 0)
        if self.kind == "multilabel":
            return np.asarray(np.isfinite(self.y).any(1))
        finite = np.isfinite(self.y)
        return np.asarray(finite if finite.ndim == 1 else finite.all(1))

    def at(self, rows: NDArray) -> Target:
        """The labels of some samples."""
        return replace(self, y=self.y[rows])

    def strata(self) -> list[str]:
        """A group for each sample that every side of a split should have its share of.

        The class; the rarest of its labels; a quarter of the values; whether the event was seen.
        """
        if self.kind in ONE_CLASS:
            return [self.classes[c] for c in self.y]
        if self.kind == "multilabel":
            count = np.nansum(self.y == 1, axis=0)
            rarest = np.where(self.y == 1, count, np.inf)
            return [self.classes[row.argmin()] if np.isfinite(row).any() else "" for row in rarest]
        if self.kind == "regression":
            return [str(q) for q in np.searchsorted(np.quantile(self.y, (0.25, 0.5, 0.75)), self.y)]
        return ["event" if seen > 0 else "censored" for seen in self.y[:, 1]]


def truth(samples: Samples, settings: Finetune, task: Task | None = None) -> Target:
    """The labels of samples as numbers.

    Args:
        samples: with their label columns.
        settings: which label, of what kind; ``kind: auto`` goes by the values.
        task: the plugin's, if the recipe names one; then the rest is ignored.

    Raises:
        UsageError: if the column is missing, or ``kind`` needs one more setting.
        MedclError: if the values do not suit the kind.
    """
    if task is not None:
        return _from_target(target.target(task, samples))
    if settings.kind == "multilabel":
        return _several(samples, settings.classes)
    label = settings.label or (next(iter(samples.labels)) if len(samples.labels) == 1 else None)
    if label is None:
        raise UsageError(
            "Which label is to be learnt? Say finetune.label=… or finetune.task=…. "
            + did_you_mean("", samples.labels)
        )
    raw = column(samples, label)
    kind = guess(raw) if settings.kind == "auto" else settings.kind
    if kind == "multilabel":  # the samples' own, one column a label
        return _from_target(target.target(Task(label, kind, classes=settings.classes), samples))
    if kind in SURVIVAL:
        if settings.event is None:
            raise UsageError(f"finetune.kind {kind} needs finetune.event: the column of 1 and 0.")
        time, event = (numbers(samples, name) for name in (label, settings.event))
        return Target(kind, (label,), np.stack([time, event], 1))
    if kind == "regression":
        return Target(kind, (label,), numbers(samples, label))
    asked: str = "multiclass" if kind == "ordinal" else kind
    classes = settings.classes or _classes(raw)
    if kind == "ordinal" and not settings.classes and not _are_numbers(classes):
        raise UsageError(
            f"The order of the grades of '{label}' cannot be told from their names: give it with "
            f"finetune.classes, the lowest first. There are: {', '.join(classes)}."
        )
    named = replace(samples, labels={label: _text(raw)})
    found = target.target(Task(label, asked, classes=classes), named)  # type: ignore[arg-type]
    if len(found.classes) < 2:
        raise MedclError(f"Label '{label}' has one class only: there is nothing to tell apart.")
    return Target(kind, found.classes, found.y)


def column(samples: Samples, name: str) -> NDArray:
    """A label column.

    Raises:
        UsageError: if the samples do not carry it.
    """
    if name not in samples.labels:
        hint = did_you_mean(name, samples.labels)
        raise UsageError(f"No label '{name}': neither the labels nor the index have it. {hint}")
    return np.asarray(samples.labels[name])


def guess(raw: NDArray) -> Kind:
    """The kind of problem that values look like."""
    if raw.ndim == 2:
        return "multilabel"
    names = _classes(raw)
    if len(names) == 2:
        return "binary"
    numbers = raw.dtype.kind in "biuf"
    whole = numbers and np.array_equal(raw[np.isfinite(raw)], np.round(raw[np.isfinite(raw)]))
    return "multiclass" if not numbers or (whole and len(names) <= MOST_CLASSES) else "regression"


def cut(found: Target, train: NDArray, intervals: int) -> tuple[Target, tuple[float, ...]]:
    """Survival times as interval numbers, cut at quantiles of the training events' times.

    Returns:
        The truth with (interval, event) in ``y``, and the inner edges.
    """
    time, event = found.y[train].T
    seen = time[event > 0] if (event > 0).any() else time
    edges = np.unique(np.quantile(seen, np.linspace(0, 1, intervals + 1)[1:-1]))
    number = np.searchsorted(edges, found.y[:, 0], side="right").astype(float)
    number[~np.isfinite(found.y[:, 0])] = np.nan
    return replace(found, y=np.stack([number, found.y[:, 1]], 1)), tuple(map(float, edges))


def outputs(found: Target, train: NDArray, settings: Finetune) -> Outputs:
    """What a classifier is told; class weights by the training samples alone.

    Weights are N / (C · N_c), of several labels negatives / positives.

    Raises:
        UsageError: for a loss that the kind does not have.
    """
    fits = ("ce", "robust") if found.kind == "regression" else ("ce",)
    if settings.loss not in fits and found.kind in (*SURVIVAL, "regression"):
        raise UsageError(
            f"finetune.loss {settings.loss} is not for {found.kind}: set it to {' or '.join(fits)}."
        )
    classes = found.classes
    if found.kind == "hazard":
        classes = tuple(f"interval {n + 1}" for n in range(settings.intervals))
    weights = None
    if settings.loss == "weighted":
        y = found.y[train]
        if found.kind == "multilabel":
            positives, negatives = (y == 1).sum(0), (y == 0).sum(0)
            weights = negatives / np.maximum(positives, 1)
        else:
            count = np.bincount(y[y >= 0], minlength=len(classes))
            weights = np.where(count > 0, count.sum() / (len(classes) * np.maximum(count, 1)), 0)
        weights = tuple(float(w) for w in weights)
    return Outputs(found.kind, classes, settings.loss, weights)


def counts(found: Target, rows: NDArray) -> dict[str, int]:
    """Samples of each class, for the record; of survival, events and censored."""
    if found.kind == "regression":
        return {}
    if found.kind == "multilabel":
        return {c: int(n) for c, n in zip(found.classes, (found.y[rows] == 1).sum(0), strict=True)}
    held = Counter(found.at(rows).strata())
    names = ("event", "censored") if found.kind in SURVIVAL else found.classes
    return {name: held[name] for name in names}


def _from_target(target: target.Target) -> Target:
    y = target.y
    if target.kind == "multilabel":
        y = np.where(y >= 0, y, np.nan).astype(float)
    return Target(target.kind, target.classes, y)


def _several(samples: Samples, classes: tuple[str, ...]) -> Target:
    if not classes:
        raise UsageError("finetune.kind multilabel needs finetune.classes: the label columns.")
    y = np.stack([numbers(samples, name) for name in classes], 1)
    if not np.isin(y[np.isfinite(y)], (0, 1)).all():
        raise MedclError(f"Labels {list(classes)} hold other values than 1, 0 and nothing.")
    return Target("multilabel", classes, y)


def codes(raw: NDArray) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Names as codes (N,), −1 where there is nothing; and the names in their order."""
    names = _classes(raw)
    code = {name: number for number, name in enumerate(names)}
    return np.array([code.get(name, -1) for name in _text(raw).tolist()], np.int64), names


def numbers(samples: Samples, name: str) -> NDArray[np.float64]:
    """A label column as numbers, NaN where there is nothing.

    Raises:
        MedclError: if it holds text.
    """
    raw = column(samples, name)
    try:
        return np.array([np.nan if v is None or v == "" else v for v in raw.tolist()], np.float64)
    except (TypeError, ValueError):
        raise MedclError(f"Label '{name}' holds text where numbers are needed.") from None


def _text(raw: NDArray) -> NDArray:
    """Classes by name: 1, 1.0 and "1" are one class; nothing, and the code −1, is ""."""
    codes = raw.dtype.kind == "i"  # a plugin's own; in a table −1 is a class like any other
    names = ["" if codes and value == -1 else _name(value) for value in raw.tolist()]
    return np.array(names, dtype=str)


def _name(value: object) -> str:
    if value is None or (isinstance(value, float) and not np.isfinite(value)):
        return ""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def _classes(raw: NDArray) -> tuple[str, ...]:
    """The names that occur: in the order of the numbers, or of the alphabet."""
    names = {name for name in _text(raw).tolist() if name}
    return tuple(sorted(names, key=float if _are_numbers(names) else None))


def _are_numbers(names: Iterable[str]) -> bool:
    try:
        return all(np.isfinite(float(name)) for name in names)
    except ValueError:
        return False
