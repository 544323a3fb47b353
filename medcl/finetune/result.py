"""What training with labels came to: figures, and how they read in words and as a table."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medcl.errors import UsageError
from medcl.finetune.scoring import Figures, Spread
from medcl.io.atomic import write_text
from medcl.metrics.bootstrap import Interval
from medcl.metrics.metrics import Kind
from medcl.metrics.table import NAMES, Class, Side, show
from medcl.reading import read_json

FILE = "finetune.json"
MEASURES = {**NAMES, "accuracy": "accuracy", "c_index": "C-index"}
HEADLINE = {"regression": "r2", "cox": "c_index", "hazard": "c_index"}


@dataclass(frozen=True)
class FinetuneResult:
    """All figures of a study, and what is needed to get them again.

    Attributes:
        classifier: its name.
        label: what was learnt.
        kind: of problem.
        classes: names.
        folds: trainings a repeat.
        repeats: of all folds.
        train: of all training sides together.
        test: of all test sides together.
        figures: see `medcl.finetune.scoring.Figures`.
        notes: what a reader must know: labels without item, items without label, few patients.
        imbalance: negatives for each positive patient that was trained on; None for all.
        trainings: how many were made.
        epochs: a mean over them.
        best: the epoch that was kept, a mean over them.
        seconds: of all trainings together.
    """

    classifier: str
    label: str
    kind: Kind
    classes: list[str]
    folds: int
    repeats: int
    train: Side
    test: Side
    figures: Figures
    notes: list[str]
    imbalance: float | None
    trainings: int
    epochs: float
    best: float
    resamples: int
    seed: int
    recipe: str
    command: str
    commit: str | None
    versions: dict[str, str]
    created: str
    seconds: float
    made_from: str

    def save(self, folder: Path) -> None:
        """Write ``folder/finetune.json``."""
        text = json.dumps(asdict(self), indent=1, ensure_ascii=False, default=float)
        write_text(folder / FILE, text + "\n")

    @classmethod
    def load(cls, folder: Path) -> FinetuneResult:
        """Read ``folder/finetune.json``.

        Raises:
            UsageError: if it is not there, or was written by another version.
        """
        path = folder / FILE
        if not path.is_file():
            raise UsageError(f"{folder} holds no {FILE}. Make one: medcl finetune")
        raw = read_json(path, "Run the same medcl finetune again.")
        try:
            sides = {name: Side(**raw[name]) for name in ("train", "test")}
            return cls(**raw | sides | {"figures": _figures(raw["figures"])})
        except (KeyError, TypeError) as error:
            raise UsageError(
                f"{path} was written by another version of medcl ({error}): run medcl finetune "
                "again."
            ) from None

    def as_dict(self) -> dict[str, Any]:
        """As JSON-ready values: what finetune.json holds."""
        return asdict(self)

    @property
    def headline(self) -> str:
        """The measure that the verdict speaks of."""
        return HEADLINE.get(self.kind, "auroc")

    @property
    def metric_names(self) -> dict[str, str]:
        """The measures, as they are called in tables."""
        names = dict(MEASURES)
        if self.kind == "binary":
            names |= {"auroc": "AUROC", "auprc": "AUPRC"}
        if self.kind == "ordinal":
            names["mae"] = "mean distance of classes"
        return {name: names[name] for name in self.figures.metrics}

    @property
    def title(self) -> str:
        """What was measured, on whom."""
        how = f"{self.folds}-fold cross-validation" if self.folds > 1 else "held-out patients"
        again = f", {self.repeats} times" if self.repeats > 1 else ""
        rare = f", 1 positive to {self.imbalance:g} in training" if self.imbalance else ""
        return (
            f"{self.label}: {self.classifier} on {self.test.patients} test patients, "
            f"{self.test.samples:,} samples ({how}{again}{rare}); 95% intervals over patients"
        )

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Column heads and rows: one row a measure."""
        spread = self.figures.folds
        rows = []
        for name, called in self.metric_names.items():
            row = [called, show(self.figures.metrics[name])]
            row.append(deviation(spread[name]) if name in spread else "–")
            rows.append(row)
        for name, interval in self.figures.thresholded.items():
            called = {"ppv": "PPV", **MEASURES}.get(name, name)
            rows.append([f"{called}, threshold of validation", show(interval), "–"])
        for name, called in (("ece", "calibration error"), ("ece_scaled", "… after scaling")):
            if name in self.figures.calibration:
                rows.append([called, show(self.figures.calibration[name]), "–"])
        return ["measure", "pooled [95%]", "by fold: mean ± SD"], rows

    def by_class(self) -> tuple[list[str], list[list[str]]]:
        """Column heads and rows: one row a class."""
        names = {"sensitivity": "sensitivity", "ppv": "PPV", "auroc": "AUROC", "auprc": "AUPRC"}
        rows = [
            [c.name, str(c.samples), str(c.patients), *(show(c.metrics[n]) for n in names)]
            for c in self.figures.classes
        ]
        return ["class", "samples", "patients", *names.values()], rows

    def verdict(self) -> str:
        """The headline in words, and what to know about it."""
        measure = self.metric_names[self.headline]
        interval = self.figures.metrics[self.headline]
        text = f"{self.classifier}: {measure} {show(interval)}"
        chance = {"auroc": 0.5, "c_index": 0.5, "r2": 0.0}[self.headline]
        if interval.low is None or interval.high is None:
            text += ", which is not defined on these patients."
        elif interval.low > chance:
            text += ", above chance level."
        elif interval.high < chance and self.headline == "r2":
            text += ", worse than saying the mean of all."
        elif interval.high < chance:
            text += ", below chance level: are two labels swapped?"
        else:
            text += ": not above chance level as far as these patients can tell."
        return " ".join([text, *self.notes])


def deviation(spread: Spread) -> str:
    """``0.892 ± 0.040``."""
    return f"{spread.mean:.3f} ± {spread.folds:.3f}"


def _interval(raw: dict[str, dict[str, Any]]) -> dict[str, Interval]:
    return {name: Interval(**value) for name, value in raw.items()}


def _figures(raw: dict[str, Any]) -> Figures:
    return Figures(
        **raw
        | {
            "metrics": _interval(raw["metrics"]),
            "thresholded": _interval(raw["thresholded"]),
            "calibration": {
                name: Interval(**value) if isinstance(value, dict) else Interval(value, None, None)
                for name, value in raw["calibration"].items()  # a study's before it had intervals
            },
            "classes": [Class(**c | {"metrics": _interval(c["metrics"])}) for c in raw["classes"]],
            "folds": {name: Spread(**value) for name, value in raw["folds"].items()},
            "reliability": [tuple(row) for row in raw["reliability"]],
        }
    )
