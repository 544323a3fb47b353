"""Names, formats and verbal verdicts of figures, in every table and report."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from medcl.metrics.bootstrap import Interval
from medcl.metrics.metrics import Kind

NAMES = {
    "auroc": "macro AUROC",
    "auprc": "macro AUPRC",
    "balanced_accuracy": "balanced accuracy",
    "f1": "macro F1",
    "accuracy": "accuracy",
    "r2": "R²",
    "mae": "mean absolute error",
    "rmse": "root mean squared error",
    "c_index": "C-index",
}
HEADLINE = {"regression": "r2", "cox": "c_index", "hazard": "c_index"}
LOWER_IS_BETTER = ("mae", "rmse")


@dataclass(frozen=True)
class Class:
    """One class (or label) of the test patients."""

    name: str
    samples: int
    patients: int
    metrics: dict[str, Interval]


@dataclass(frozen=True)
class SplitCounts:
    """The training or test part of a split: over several folds, patients are counted once."""

    patients: int
    samples: int
    classes: dict[str, int]  # samples of each class


def headline(kind: Kind) -> str:
    """The main measure of a kind of problem."""
    return HEADLINE.get(kind, "auroc")


def called(kind: Kind, measures: Iterable[str], *, positive: str | None = None) -> dict[str, str]:
    """Measure → its name in tables; of two classes with that of the positive one."""
    names = dict(NAMES)
    if kind == "binary":  # of class 1 alone: see `medcl.metrics.metrics.classification`
        of = "" if positive is None else f" of '{positive}'"
        names |= {"auroc": f"AUROC{of}", "auprc": f"AUPRC{of}"}
    if kind == "ordinal":
        names["mae"] = "mean distance of classes"
    return {name: names[name] for name in measures}


def direction(interval: Interval, measure: str) -> Literal["gain", "loss", "none"]:
    """Direction of a difference, in every command: "none" if its interval, as shown, holds 0."""
    if interval.low is None or interval.high is None:
        return "none"
    if round(interval.low, 3) <= 0 <= round(interval.high, 3):
        return "none"
    return "gain" if (interval.low > 0) != (measure in LOWER_IS_BETTER) else "loss"


def show(interval: Interval, *, signed: bool = False) -> str:
    """``0.912 [0.871, 0.940]``, with signs for a difference; an en dash where undefined."""
    if interval.value is None:
        return "–"
    value, low, high = (_figure(v, signed) for v in (interval.value, interval.low, interval.high))
    return f"{value} [{low}, {high}]" if interval.low is not None else f"{value} [–]"


def _figure(value: float | None, signed: bool) -> str:
    """Three digits, with a true minus sign; what rounds to zero has none."""
    if value is None:
        return "–"
    text = f"{value:+.3f}" if signed else f"{value:.3f}"
    return "0.000" if float(text) == 0 else text.replace("-", "−")
