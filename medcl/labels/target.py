"""Label columns as one numeric `Target`, by one rule.

Every command reads labels here, so all use the same classes in the same order:

- White space and quotes at the ends of a name, characters that do not show, and how many blanks
  lie within it never make a class. Names that differ only in case, blanks, _, kinds of dashes, the
  width of letters, a final dot or leading zeros are separate classes, and `Target.notes` says so.
- The numbers ``1`` and ``1.0`` and the texts ``"1"`` and ``"1.0"`` are one class. Names that are
  all numbers are ordered as numbers (``1, 2, 10``), others alphabetically.
- An empty value (``None``, NaN, ``""``) is an unknown label; so is a plugin's integer code −1, and
  what tables write for it (``NA``, ``n/a``, ``nan``, ``null``, ``?``, ``-``), unless the recipe
  lists it among its classes; `Target.notes` counts these.
- A fraction is never a class, unless the recipe lists it among its classes.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from medcl.errors import MedclError, UsageError
from medcl.labels.outputs import Outputs
from medcl.metrics.metrics import Kind
from medcl.plugin import Samples, Task
from medcl.recipe import Finetune
from medcl.registry import did_you_mean

MISSING = frozenset(
    {"na", "n/a", "n.a.", "#n/a", "<na>", "nan", "null", "nat", "?", "-", "--", "."}
)
_WHOLE = re.compile(r"-?\d+\.0+")
_BETWEEN = re.compile(r"(?<=\w)[\s_-]+(?=[^\W\d])|(?<=[^\W\d])[\s_-]+(?=\d)|\s+(?=[(+])")
"""What stands between the words of a name; not between numbers: grades 1-2 are not 12."""
_DASHES = re.compile("[\u2010-\u2015\u2212]")  # hyphens, dashes and the minus of mathematics

SURVIVAL = ("cox", "hazard")
BY_COUNTS = ("class-balanced", "ldam", "ldam-drw", "logit-adjusted")
"""Losses that are given how many training samples a class has."""
ONE_CLASS = ("binary", "multiclass", "ordinal")
MOST_CLASSES = 20
"""Whole numbers with more distinct values than this are a regression, unless ``kind`` is given."""


@dataclass(frozen=True)
class Target:
    """The labels of samples.

    Attributes:
        kind: of problem.
        classes: names, in the order of the codes and of the score columns; of a regression or
            survival, one name: the label's.
        y: class codes (N,) int64, −1 where unknown (binary, multiclass, ordinal); (N, L) float of
            1, 0 and NaN (multilabel); (N,) float, NaN where unknown (regression); (N, 2) float of
            time and whether the event was seen (survival; see `cut` for ``hazard``).
        notes: on the labels, for the reader.
    """

    kind: Kind
    classes: tuple[str, ...]
    y: NDArray
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.y)

    @property
    def known(self) -> NDArray[np.bool_]:
        """(N,) True where a sample carries a label (multilabel: at least one)."""
        if self.kind in ONE_CLASS:
            return np.asarray(self.y >= 0)
        finite = np.isfinite(self.y)
        if self.kind == "multilabel":
            return np.asarray(finite.any(1))
        return np.asarray(finite if finite.ndim == 1 else finite.all(1))

    def at(self, positions: NDArray) -> Target:
        """The labels of some samples."""
        return replace(self, y=self.y[positions])

    def columns(self) -> NDArray[np.float32]:
        """One column per score: (N, C) one-hot, (N, L) 1, 0 and NaN, or (N, 1) values."""
        if self.kind == "regression":
            return self.y[:, None].astype(np.float32)
        if self.kind == "multilabel":
            return self.y.astype(np.float32)
        return np.eye(len(self.classes), dtype=np.float32)[self.y]

    def names(self) -> list[str]:
        """Text for tables: class names, values, or labels joined by +."""
        if self.kind == "regression":
            return [str(v) for v in self.y]
        if self.kind == "multilabel":
            return ["+".join(self.classes[c] for c in np.flatnonzero(row == 1)) for row in self.y]
        return [self.classes[code] if code >= 0 else "" for code in self.y]

    def strata(self) -> list[str]:
        """A stratum for each sample, for a stratified split.

        The class; the rarest of its labels; the quartile of the value; whether the event was seen.
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


def target(task: Task, samples: Samples) -> Target:
    """The labels of a task.

    Integers are codes into ``task.classes``, −1 for unknown. Text and floats (which come from
    tables) are names; whole floats that match no name are codes. Multilabel columns are (N, L),
    one column for each of ``task.classes``.

    Raises:
        UsageError: if the samples do not carry the label.
        MedclError: if a label is not among the task's classes, is a fraction, or has the wrong
            shape.
    """
    if task.kind == "mask":
        raise UsageError(
            "This task has a class for each position, and no label of a sample: learn it with a "
            "classifier of masks (classifier.name unet), or measure it with medcl probe."
        )
    raw = column(samples, task.label)
    if task.kind == "regression":
        return Target("regression", (task.label,), numbers(samples, task.label))
    if task.kind == "multilabel":
        return Target("multilabel", task.classes, _several_columns(raw, task))
    if raw.ndim != 1:
        raise MedclError(
            f"Label '{task.label}' has shape {raw.shape}; one class per sample needs (N,)."
        )
    classified = _classified(task.label, task.kind, raw, task.classes)
    if task.kind == "binary" and len(classified.classes) != 2:
        raise MedclError(
            f"Label '{task.label}' is binary but has the classes {list(classified.classes)}."
        )
    return classified


def finetune_target(samples: Samples, settings: Finetune, task: Task | None = None) -> Target:
    """The labels that a recipe's section ``finetune`` asks for.

    Args:
        samples: with their label columns.
        settings: the label and its kind; ``kind: auto`` infers it from the values.
        task: the plugin's, if the recipe names one; then ``settings`` is ignored.

    Raises:
        UsageError: if the column is missing, or ``kind`` needs another setting.
        MedclError: if the values do not suit the kind.
    """
    if task is not None:
        return target(task, samples)
    classes = settings.classes or family(samples, settings.label)
    if settings.kind == "multilabel" or (
        settings.kind == "auto" and classes and not settings.classes
    ):
        return _several(samples, classes)
    label = settings.label or (next(iter(samples.labels)) if len(samples.labels) == 1 else None)
    if label is None:
        raise UsageError(
            "Which label is the target? Set finetune.label=… or finetune.task=…. "
            + did_you_mean("", samples.labels)
        )
    raw = column(samples, label)
    kind = guess(raw, settings.classes) if settings.kind == "auto" else settings.kind
    if kind == "multilabel":  # the samples' own, one column a label
        return target(Task(label, "multilabel", classes=settings.classes), samples)
    if kind in SURVIVAL:
        if settings.event is None:
            raise UsageError(f"finetune.kind {kind} needs finetune.event: the column of 1 and 0.")
        time, event = (numbers(samples, name) for name in (label, settings.event))
        return Target(kind, (label,), np.stack([time, event], 1))
    if kind == "regression":
        return Target(kind, (label,), numbers(samples, label))
    if raw.ndim != 1:
        raise MedclError(f"Label '{label}' has shape {raw.shape}; one class per sample needs (N,).")
    if kind == "ordinal" and not settings.classes and not _are_numbers(_classes(raw)):
        raise UsageError(
            f"The names of the grades of '{label}' do not give their order: set finetune.classes, "
            f"the lowest first. The grades are: {', '.join(_classes(raw))}."
        )
    # classes are names here, whatever the type: a recipe does not know a plugin's codes
    named = np.array(_text(raw, settings.classes).tolist(), object)
    classified = _classified(label, kind, named, settings.classes)
    notes = (*_counted_missing(label, raw, settings.classes), *classified.notes)
    classified = replace(classified, notes=notes)
    if len(classified.classes) < 2:
        raise MedclError(f"Label '{label}' has one class only: nothing to classify.")
    if kind == "binary" and len(classified.classes) != 2:
        raise MedclError(
            f"Label '{label}' is binary but has the classes {list(classified.classes)}."
        )
    return classified


def family(samples: Samples, name: str | None) -> tuple[str, ...]:
    """The columns ``superclass.MI``, ``superclass.NORM`` … of the one label ``superclass``; none if
    there is a column of that name itself."""
    if name is None or name in samples.labels:
        return ()
    return tuple(label for label in samples.labels if label.startswith(f"{name}."))


def column(samples: Samples, name: str) -> NDArray:
    """A label column.

    Raises:
        UsageError: if the samples do not carry it.
    """
    if name not in samples.labels:
        hint = did_you_mean(name, samples.labels)
        raise UsageError(f"No label '{name}': neither the labels nor the index have it. {hint}")
    return np.asarray(samples.labels[name])


def guess(raw: NDArray, known: Sequence[str] = ()) -> Kind:
    """The kind of problem, inferred from the values; ``known`` classes are never missing values."""
    if raw.ndim == 2:
        return "multilabel"
    names = _classes(raw, known)
    numeric = raw.dtype.kind in "biuf"
    whole = numeric and np.array_equal(raw[np.isfinite(raw)], np.round(raw[np.isfinite(raw)]))
    if numeric and not whole:
        return "regression"
    if len(names) == 2:
        return "binary"
    return "multiclass" if not numeric or len(names) <= MOST_CLASSES else "regression"


def cut(target: Target, train: NDArray, intervals: int) -> tuple[Target, tuple[float, ...]]:
    """Survival times as interval numbers, cut at quantiles of the training events' times.

    Returns:
        The target with (interval, event) in ``y``, and the inner edges.
    """
    time, event = target.y[train].T
    seen = time[event > 0] if (event > 0).any() else time
    edges = np.unique(np.quantile(seen, np.linspace(0, 1, intervals + 1)[1:-1]))
    number = np.searchsorted(edges, target.y[:, 0], side="right").astype(float)
    number[~np.isfinite(target.y[:, 0])] = np.nan
    return replace(target, y=np.stack([number, target.y[:, 1]], 1)), tuple(map(float, edges))


def outputs(target: Target, train: NDArray, settings: Finetune) -> Outputs:
    """Outputs of a classifier; class weights come from the training samples alone.

    Weights are N / (C · N_c), for multilabel negatives / positives.

    Raises:
        UsageError: if the kind does not support the loss.
    """
    fits = ("ce", "robust") if target.kind == "regression" else ("ce",)
    if settings.loss not in fits and target.kind in (*SURVIVAL, "regression"):
        raise UsageError(
            f"finetune.loss {settings.loss} does not suit {target.kind}: "
            f"set it to {' or '.join(fits)}."
        )
    if settings.loss in BY_COUNTS and target.kind not in ("binary", "multiclass"):
        raise UsageError(
            f"finetune.loss {settings.loss} is for one of two or more classes, not {target.kind}: "
            "set it to weighted or focal."
        )
    classes = target.classes
    if target.kind == "hazard":
        classes = tuple(f"interval {n + 1}" for n in range(settings.intervals))
    weights, seen = None, None
    if settings.loss in BY_COUNTS:
        seen = tuple(int((target.y[train] == code).sum()) for code in range(len(classes)))
    if settings.loss == "weighted":
        y = target.y[train]
        if target.kind == "multilabel":
            positives, negatives = (y == 1).sum(0), (y == 0).sum(0)
            weights = negatives / np.maximum(positives, 1)
        else:
            count = np.bincount(y[y >= 0], minlength=len(classes))
            weights = np.where(count > 0, count.sum() / (len(classes) * np.maximum(count, 1)), 0)
        weights = tuple(float(w) for w in weights)
    return Outputs(target.kind, classes, settings.loss, weights, counts=seen)


def counts(target: Target, rows: NDArray) -> dict[str, int]:
    """Number of samples per class; for survival, of events and censored samples."""
    if target.kind == "regression":
        return {}
    if target.kind == "multilabel":
        return {
            c: int(n) for c, n in zip(target.classes, (target.y[rows] == 1).sum(0), strict=True)
        }
    count = Counter(target.at(rows).strata())
    names = ("event", "censored") if target.kind in SURVIVAL else target.classes
    return {name: count[name] for name in names}


def codes(raw: NDArray) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Names as codes (N,), −1 where empty; and the names in their order."""
    names = _classes(raw)
    return _coded(_text(raw), names), names


def numbers(samples: Samples, name: str) -> NDArray[np.float64]:
    """A label column as numbers, NaN where empty.

    Raises:
        MedclError: if it holds text.
    """
    raw = column(samples, name)
    try:
        return np.array([np.nan if v is None or v == "" else v for v in raw.tolist()], np.float64)
    except (TypeError, ValueError):
        raise MedclError(f"Label '{name}' holds text where numbers are needed.") from None


def _classified(label: str, kind: Kind, raw: NDArray, known: Sequence[str]) -> Target:
    """Codes of one class per sample, and the classes in their order.

    Raises:
        MedclError: for a label that is not among the known classes, or a fraction.
    """
    text = _text(raw, known)
    classes = tuple(_name(name) for name in known)
    if classes and raw.dtype.kind in "biuf" and not _are_of(text, classes, raw.dtype.kind):
        y = _codes_of_numbers(label, raw)
        if y.max(initial=-1) >= len(classes):
            raise MedclError(f"Label '{label}' holds code {y.max()}; classes are {list(classes)}.")
        return Target(kind, classes, y)
    present = _classes(raw, known)
    fractions = [name for name in present if _is_fraction(name) and name not in classes]
    if fractions:
        raise MedclError(
            f"Label '{label}' holds {', '.join(fractions[:5])}: a fraction is not a class. Treat "
            "it as a value (finetune.kind=regression), or list the classes (finetune.classes)."
        )
    unknown = [name for name in present if name not in classes]
    if classes and unknown:
        raise MedclError(
            f"Label '{label}' holds {unknown}, which are not among its classes {classes}."
        )
    classes = classes or present
    return Target(kind, classes, _coded(text, classes), _differing_in_case(label, classes))


def _are_of(text: NDArray, classes: tuple[str, ...], dtype: str) -> bool:
    """True if numbers are class names, not codes: floats of a table may be names."""
    return dtype == "f" and set(text.tolist()) - {""} <= set(classes)


def _codes_of_numbers(label: str, raw: NDArray) -> NDArray[np.int64]:
    values = raw.astype(np.float64)
    finite = np.isfinite(values)
    if not np.array_equal(values[finite], np.round(values[finite])):
        first = values[finite][values[finite] != np.round(values[finite])][0]
        raise MedclError(f"Label '{label}' holds {first:g}: a fraction is not a class.")
    return np.maximum(np.where(finite, values, -1), -1).astype(np.int64)


def _several_columns(raw: NDArray, task: Task) -> NDArray[np.float64]:
    if raw.ndim != 2 or raw.shape[1] != len(task.classes):
        raise MedclError(
            f"Label '{task.label}' has shape {raw.shape}; {len(task.classes)} labels need "
            f"(N, {len(task.classes)}) of 1, 0, and −1 for unknown."
        )
    values = raw.astype(np.float64)
    if not np.isin(values[np.isfinite(values)], (1, 0, -1)).all():
        raise MedclError(f"Label '{task.label}' holds values other than 1, 0, and −1 for unknown.")
    return np.where(values >= 0, values, np.nan)


def _several(samples: Samples, classes: tuple[str, ...]) -> Target:
    if not classes:
        raise UsageError("finetune.kind multilabel needs finetune.classes: the label columns.")
    y = np.stack([numbers(samples, name) for name in classes], 1)
    if not np.isin(y[np.isfinite(y)], (0, 1)).all():
        raise MedclError(f"Labels {list(classes)} hold values other than 1, 0 and empty.")
    return Target("multilabel", classes, y)


def _differing_in_case(label: str, classes: Iterable[str]) -> tuple[str, ...]:
    alike: defaultdict[str, list[str]] = defaultdict(list)
    for name in classes:
        alike[_bare(name)].append(name)
    return tuple(
        f"Classes {' and '.join(repr(n) for n in names)} of '{label}' differ only in {what} and "
        "stay separate: correct the table if they are one."
        for names in alike.values()
        if len(names) > 1
        for what in ("case" if len({n.casefold() for n in names}) == 1 else "case or punctuation",)
    )


def _bare(name: str) -> str:
    """A class's name without what typing alone changes: case, blanks, dashes, widths, zeros."""
    plain = unicodedata.normalize("NFKC", name).casefold()
    plain = _DASHES.sub("-", plain)
    with suppress(ValueError):
        return f"{float(plain.replace(',', '.')):g}"  # 01, 1,0
    return _BETWEEN.sub("", plain).rstrip(".,;: ")


def _counted_missing(label: str, raw: NDArray, known: Sequence[str]) -> tuple[str, ...]:
    """How many labels are a word for "unknown"."""
    count = sum(bool(_name(value)) for value in raw.tolist()) - sum(map(bool, _text(raw, known)))
    some = f"{count:,} labels of '{label}' are" if count > 1 else f"1 label of '{label}' is"
    note = f"{some} a word for a missing value (NA, nan, ?, …), and unknown."
    return (note,) if count > 0 and raw.dtype.kind not in "biuf" else ()


def _coded(text: NDArray, classes: Sequence[str]) -> NDArray[np.int64]:
    code = {name: number for number, name in enumerate(classes)}
    return np.array([code.get(name, -1) for name in text.tolist()], np.int64)


def _text(raw: NDArray, known: Sequence[str] = ()) -> NDArray:
    """Label names; empty values, words for them, and the integer code −1, are ""."""
    coded = raw.dtype.kind == "i"  # a plugin's own; in a table −1 is a class like any other
    names = ["" if coded and value == -1 else _name(value) for value in raw.tolist()]
    classes = {_name(name) for name in known}
    missing = {name for name in names if name.casefold() in MISSING and name not in classes}
    return np.array(["" if name in missing else name for name in names], dtype=str)


def _name(value: object) -> str:
    if value is None or (isinstance(value, float) and not np.isfinite(value)):
        return ""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    shown = "".join(c for c in str(value) if unicodedata.category(c) != "Cf")
    name = " ".join(unicodedata.normalize("NFC", shown).split())
    quoted = len(name) > 2 and name[0] == name[-1] and name[0] in "\"'"
    name = name[1:-1].strip() if quoted else name
    return name.partition(".")[0] if _WHOLE.fullmatch(name) else name


def _classes(raw: NDArray, known: Sequence[str] = ()) -> tuple[str, ...]:
    """The names that occur, in numeric or alphabetical order."""
    names = {name for name in _text(raw, known).tolist() if name}
    return tuple(sorted(names, key=float if _are_numbers(names) else None))


def _are_numbers(names: Iterable[str]) -> bool:
    try:
        return all(np.isfinite(float(name)) for name in names)
    except ValueError:
        return False


def _is_fraction(name: str) -> bool:
    return _are_numbers([name]) and not float(name).is_integer()
