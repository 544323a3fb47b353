"""What a probe found: figures with intervals, and how they read in words and as a table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from medcl.errors import UsageError
from medcl.metrics.bootstrap import Interval
from medcl.metrics.metrics import Kind

PRETRAINED, RANDOM = "pretrained", "random"

NAMES = {
    "auroc": "macro AUROC",
    "auprc": "macro AUPRC",
    "balanced_accuracy": "balanced accuracy",
    "f1": "macro F1",
    "r2": "R²",
    "mae": "mean absolute error",
    "rmse": "root mean squared error",
}
LOWER_IS_BETTER = ("mae", "rmse")


@dataclass(frozen=True)
class Class:
    """One class (or label) of the test patients."""

    name: str
    samples: int
    patients: int
    metrics: dict[str, Interval]


@dataclass(frozen=True)
class Score:
    """One representation under one classifier.

    Attributes:
        representation: "pretrained", "random", a baseline's name, or "pretrained + baseline".
        classifier: "linear" or "knn".
        width: features a sample.
        c: inverse regularisation strength taken in each fold (of several labels: each one's).
        c_chosen: False where any was fixed, for want of patients to choose it on.
        metrics: macro figures.
        classes: per class; empty for a regression.
        confusion: rows are the truth; empty unless each sample has one class.
    """

    representation: str
    classifier: str
    width: int
    c: list[float]
    c_chosen: bool
    metrics: dict[str, Interval]
    classes: list[Class] = field(default_factory=list)
    confusion: list[list[int]] = field(default_factory=list)


@dataclass(frozen=True)
class Difference:
    """``better − than``, on the same resamples of patients."""

    better: str
    than: str
    classifier: str
    metrics: dict[str, Interval]


@dataclass(frozen=True)
class Point:
    """One label fraction of one representation (linear classifier).

    ``patients`` and ``samples`` are the labelled ones, as means over draws and folds; ``metrics``
    holds, for every measure, one figure for each draw (None where it is not defined).
    """

    representation: str
    fraction: float
    patients: float
    samples: float
    metrics: dict[str, list[float | None]]


@dataclass(frozen=True)
class Side:
    """The training or test side: of several folds, patients are counted once a side."""

    patients: int
    samples: int
    classes: dict[str, int]  # samples of each class


@dataclass(frozen=True)
class ProbeResult:
    """All figures of a probe, and what is needed to get them again.

    ``made_from`` is a hash of everything that decides them.
    """

    task: str
    label: str
    kind: Kind
    classes: list[str]
    folds: int
    train: Side
    test: Side
    seed: int
    resamples: int
    scores: list[Score]
    differences: list[Difference]
    curve: list[Point]
    notes: list[str]
    recipe: str
    command: str
    commit: str | None
    versions: dict[str, str]
    created: str
    seconds: float
    made_from: str

    def as_dict(self) -> dict[str, Any]:
        """As JSON-ready values: what probe.json holds."""
        return asdict(self)

    @classmethod
    def load(cls, folder: Path) -> ProbeResult:
        """Read ``folder/probe.json``.

        Raises:
            UsageError: if it is not there, or was written by another version.
        """
        path = folder / "probe.json"
        if not path.is_file():
            raise UsageError(f"{folder} holds no probe.json. Make one: medcl probe RUN")
        raw = json.loads(path.read_text(encoding="utf-8"))
        try:
            return cls(
                **raw
                | {
                    "train": Side(**raw["train"]),
                    "test": Side(**raw["test"]),
                    "scores": [_score(s) for s in raw["scores"]],
                    "differences": [
                        Difference(**d | {"metrics": _intervals(d["metrics"])})
                        for d in raw["differences"]
                    ],
                    "curve": [Point(**p) for p in raw["curve"]],
                }
            )
        except (KeyError, TypeError) as error:
            raise UsageError(
                f"{path} was written by another version of medcl ({error}): run medcl probe again."
            ) from None

    @property
    def headline(self) -> str:
        """The measure that the verdict speaks of."""
        return "r2" if self.kind == "regression" else "auroc"

    @property
    def title(self) -> str:
        """What was measured, on whom."""
        how = f"{self.folds}-fold cross-validation" if self.folds > 1 else "held-out patients"
        return (
            f"{self.task}: frozen features on {self.test.patients} test patients, "
            f"{self.test.samples:,} samples ({how}); 95% intervals over patients"
        )

    @property
    def metric_names(self) -> dict[str, str]:
        """The macro measures, as they are called in tables."""
        names = dict(NAMES)
        if self.kind == "binary":
            names |= {"auroc": "AUROC", "auprc": "AUPRC"}
        return {key: names[key] for key in self.scores[0].metrics}

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Column heads and rows: one row a representation and classifier."""
        columns = ["features", "classifier", *self.metric_names.values()]
        rows = [
            [s.representation, s.classifier, *(show(s.metrics[m]) for m in self.metric_names)]
            for s in self.scores
        ]
        return columns, rows

    def verdict(self) -> str:
        """What pretraining bought, in words."""
        return " ".join(self.sentence(d) for d in self.differences if d.classifier == "linear")

    def sentence(self, difference: Difference) -> str:
        """One paired difference in words; "no measurable gain" where the interval holds 0."""
        measure = self.metric_names[self.headline]
        interval = difference.metrics[self.headline]
        what = f"{_title(difference.better)} against {_called(difference.than)}"
        if interval.value is None or interval.low is None:
            return f"{what}: {measure} is not defined on these test patients."
        words = {"gain": "a gain", "loss": "a loss", "none": "no measurable gain"}
        outcome = words[direction(interval, self.headline)]
        return f"{what}: {outcome}, {measure} {show(interval, signed=True)}."


def direction(interval: Interval, measure: str) -> Literal["gain", "loss", "none"]:
    """What a difference amounts to: "none" where its interval, as it is shown, holds 0."""
    if interval.low is None or interval.high is None:
        return "none"
    if round(interval.low, 3) <= 0 <= round(interval.high, 3):
        return "none"
    return "gain" if (interval.low > 0) != (measure in LOWER_IS_BETTER) else "loss"


def _title(representation: str) -> str:
    if representation == PRETRAINED:
        return "Pretrained features"
    return f"{representation[0].upper()}{representation[1:]} features"


def _called(representation: str) -> str:
    if representation == RANDOM:
        return "the same network with random weights"
    return f"{representation} features"


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


def _intervals(raw: dict[str, dict[str, Any]]) -> dict[str, Interval]:
    return {name: Interval(**value) for name, value in raw.items()}


def _score(raw: dict[str, Any]) -> Score:
    classes = [Class(**c | {"metrics": _intervals(c["metrics"])}) for c in raw["classes"]]
    return Score(**raw | {"metrics": _intervals(raw["metrics"]), "classes": classes})


def figures(values: Sequence[float | None]) -> list[float]:
    """Those of a curve's draws that are defined."""
    return [v for v in values if v is not None]
