"""Labels as numbers: what a task asks for, sample by sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medcl.errors import MedclError, UsageError
from medcl.metrics.metrics import Kind
from medcl.plugin import Samples, Task
from medcl.registry import did_you_mean


@dataclass(frozen=True)
class Target:
    """The truth of a task.

    Attributes:
        kind: of problem.
        classes: names, in the order of the codes and of the score columns; of a regression, one
            name: the label's.
        y: (N,) class codes with −1 where unknown; (N, L) 1, 0, −1 of several labels; (N,) values
            with NaN where unknown.
    """

    kind: Kind
    classes: tuple[str, ...]
    y: NDArray

    def __len__(self) -> int:
        return len(self.y)

    @property
    def known(self) -> NDArray[np.bool_]:
        """(N,) which samples carry the label (of several: at least one)."""
        if self.kind == "regression":
            return np.asarray(np.isfinite(self.y))
        labels = self.y[:, None] if self.y.ndim == 1 else self.y
        return np.asarray((labels >= 0).any(1))

    def at(self, positions: NDArray) -> Target:
        """The truth of some samples."""
        return Target(self.kind, self.classes, self.y[positions])

    def columns(self) -> NDArray[np.float32]:
        """One column a score: (N, C) one-hot, (N, L) 0/1/NaN, or (N, 1) values."""
        if self.kind == "regression":
            return self.y[:, None].astype(np.float32)
        if self.kind == "multilabel":
            return np.where(self.y >= 0, self.y, np.nan).astype(np.float32)
        return np.eye(len(self.classes), dtype=np.float32)[self.y]

    def names(self) -> list[str]:
        """The truth in words, for tables: class names, values, or labels joined by +."""
        if self.kind == "regression":
            return [str(v) for v in self.y]
        if self.kind == "multilabel":
            return ["+".join(self.classes[c] for c in np.flatnonzero(row == 1)) for row in self.y]
        return [self.classes[code] if code >= 0 else "" for code in self.y]


def target(task: Task, samples: Samples) -> Target:
    """The truth of a task's samples.

    Class labels may be names, or numbers into ``task.classes``; "" or None, −1 and NaN are unknown.
    Several labels come as (N, L) with one column for each of ``task.classes``.

    Raises:
        UsageError: if the samples do not carry the label.
        MedclError: if a label is not among the task's classes, or has the wrong shape.
    """
    if task.label not in samples.labels:
        hint = did_you_mean(task.label, samples.labels)
        raise UsageError(f"The samples carry no label '{task.label}'. {hint}")
    raw = np.asarray(samples.labels[task.label])
    if task.kind == "regression":
        return Target(task.kind, (task.label,), _values(raw, task.label))
    if task.kind == "multilabel":
        if raw.ndim != 2 or raw.shape[1] != len(task.classes):
            raise MedclError(
                f"Label '{task.label}' has shape {raw.shape}; {len(task.classes)} labels need "
                f"(N, {len(task.classes)}) of 1, 0, and −1 for unknown."
            )
        return Target(task.kind, task.classes, _codes(raw.astype(np.float64)))
    classes, y = _classes(raw, task.classes, task.label)
    if task.kind == "binary" and len(classes) != 2:
        raise MedclError(f"Label '{task.label}' is binary but has the classes {list(classes)}.")
    return Target(task.kind, classes, y)


def _values(raw: NDArray, label: str) -> NDArray[np.float64]:
    try:
        return raw.astype(np.float64)
    except (TypeError, ValueError):
        raise MedclError(f"Label '{label}' holds text; a regression needs numbers.") from None


def _codes(raw: NDArray) -> NDArray[np.int64]:
    return np.where(np.isfinite(raw), raw, -1).astype(np.int64)


def _classes(
    raw: NDArray, classes: Sequence[str], label: str
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    if raw.ndim != 1:
        raise MedclError(f"Label '{label}' has shape {raw.shape}; one class a sample needs (N,).")
    if raw.dtype.kind in "biuf":
        y = _codes(raw.astype(np.float64))
        names = tuple(classes) or tuple(str(c) for c in range(int(y.max(initial=-1)) + 1))
        if y.max(initial=-1) >= len(names):
            raise MedclError(f"Label '{label}' holds code {y.max()}; classes are {list(names)}.")
        return names, np.maximum(y, -1)
    text = np.array(["" if v is None else str(v) for v in raw])
    found, inverse = np.unique(text, return_inverse=True)
    names = tuple(classes) or tuple(str(name) for name in found if name)
    unknown = set(found.tolist()) - set(names) - {""}
    if unknown:
        raise MedclError(
            f"Label '{label}' holds {sorted(unknown)}, which are not among its classes {names}."
        )
    place = {name: code for code, name in enumerate(names)}
    return names, np.array([place.get(name, -1) for name in found.tolist()], np.int64)[inverse]
