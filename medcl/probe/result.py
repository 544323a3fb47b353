"""Results of a probe: figures with intervals, as text and as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from medcl.errors import UsageError
from medcl.metrics.bootstrap import Interval
from medcl.metrics.metrics import Kind
from medcl.metrics.table import Class, SplitCounts, called, direction, headline, show
from medcl.reading import read_json

PRETRAINED, RANDOM = "pretrained", "random"


@dataclass(frozen=True)
class Score:
    """One representation under one classifier.

    Attributes:
        representation: "pretrained", "random", a baseline's name, or "pretrained + baseline".
        classifier: "linear" or "knn".
        width: features per sample.
        c: inverse regularisation strength of each fold (multilabel: of each label).
        c_chosen: False if any was fixed because there were too few patients to choose it.
        metrics: macro figures.
        classes: per class; empty for a regression.
        confusion: rows are the target; empty unless each sample has one class.
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
    holds, for every measure, one figure per draw (None if undefined).
    """

    representation: str
    fraction: float
    patients: float
    samples: float
    metrics: dict[str, list[float | None]]


@dataclass(frozen=True)
class ProbeResult:
    """All figures of a probe, and what is needed to reproduce them.

    ``made_from`` is a hash of all their inputs. ``by`` says what was classified: samples; or items
    or patients, by the mean features of their samples. ``positive`` is the class of two that AUROC
    and AUPRC are of; None for other kinds.
    """

    task: str
    label: str
    kind: Kind
    classes: list[str]
    folds: int
    train: SplitCounts
    test: SplitCounts
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
    by: str = "sample"
    positive: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values, as in probe.json."""
        return asdict(self)

    @classmethod
    def load(cls, folder: Path) -> ProbeResult:
        """Read ``folder/probe.json``.

        Raises:
            UsageError: if it is missing, or another version wrote it.
            MedclError: if it is damaged.
        """
        path = folder / "probe.json"
        if not path.is_file():
            raise UsageError(f"{folder} holds no probe.json. Make one: medcl probe RUN")
        raw = read_json(path, "Run medcl probe RUN again.")
        try:
            return cls(
                **raw
                | {
                    "train": SplitCounts(**raw["train"]),
                    "test": SplitCounts(**raw["test"]),
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
        """The main measure, used in the verdict."""
        return headline(self.kind)

    @property
    def title(self) -> str:
        """Task and test patients in one line."""
        how = f"{self.folds}-fold cross-validation" if self.folds > 1 else "held-out patients"
        units = self.by if self.test.samples == 1 else f"{self.by}s"
        counted = "" if self.by == "patient" else f", {self.test.samples:,} {units}"
        positive = f"; the positive class is '{self.positive}'" if self.positive else ""
        return (
            f"{self.task}: frozen features on {self.test.patients} test patients{counted} ({how})"
            f"{positive}; 95% intervals over patients"
        )

    @property
    def metric_names(self) -> dict[str, str]:
        """Macro measure → its name in tables."""
        return called(self.kind, self.scores[0].metrics, positive=self.positive)

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Column heads and rows: one row per representation and classifier."""
        columns = ["features", "classifier", *self.metric_names.values()]
        rows = [
            [s.representation, s.classifier, *(show(s.metrics[m]) for m in self.metric_names)]
            for s in self.scores
        ]
        return columns, rows

    def verdict(self) -> str:
        """The gain from pretraining, in words."""
        return " ".join(self.sentence(d) for d in self.differences if d.classifier == "linear")

    def sentence(self, difference: Difference) -> str:
        """One paired difference in words; "no measurable gain" if the interval holds 0."""
        measure = self.metric_names[self.headline]
        interval = difference.metrics[self.headline]
        what = f"{_title(difference.better)} against {_reference(difference.than)}"
        if interval.value is None or interval.low is None:
            return f"{what}: {measure} is not defined on these test patients."
        words = {"gain": "a gain", "loss": "a loss", "none": "no measurable gain"}
        outcome = words[direction(interval, self.headline)]
        return f"{what}: {outcome}, {measure} {show(interval, signed=True)}."


def _title(representation: str) -> str:
    if representation == PRETRAINED:
        return "Pretrained features"
    return f"{representation[0].upper()}{representation[1:]} features"


def _reference(representation: str) -> str:
    if representation == RANDOM:
        return "the same network with random weights"
    return f"{representation} features"


def _intervals(raw: dict[str, dict[str, Any]]) -> dict[str, Interval]:
    return {name: Interval(**value) for name, value in raw.items()}


def _score(raw: dict[str, Any]) -> Score:
    classes = [Class(**c | {"metrics": _intervals(c["metrics"])}) for c in raw["classes"]]
    return Score(**raw | {"metrics": _intervals(raw["metrics"]), "classes": classes})


def figures(values: Sequence[float | None]) -> list[float]:
    """The defined values among a fraction's draws."""
    return [v for v in values if v is not None]
