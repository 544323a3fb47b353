"""Results of training with labels: figures, as text and as a table."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medcl import manifest
from medcl.errors import UsageError
from medcl.finetune.scoring import Figures, Spread
from medcl.metrics.bootstrap import Interval
from medcl.metrics.metrics import Kind
from medcl.metrics.table import NAMES, Class, SplitCounts, called, headline, show
from medcl.reading import read_json

FILE = "finetune.json"
REMEDY = "Run the same medcl finetune again."
"""Where a file of a study is missing or damaged."""


@dataclass(frozen=True)
class FinetuneResult:
    """All figures of a study, and what is needed to reproduce them.

    Attributes:
        classifier: its name.
        label: name of the target.
        kind: of problem.
        classes: names.
        folds: trainings per repeat.
        repeats: of all folds.
        train: counts over all training parts.
        test: counts over all test parts.
        figures: see `medcl.finetune.scoring.Figures`.
        notes: for the reader: labels without item, items without label, few patients.
        imbalance: negatives for each positive training patient; None for all.
        trainings: their number.
        epochs: mean over trainings.
        best: the best epoch, mean over trainings.
        seconds: of all trainings together.
        sample: what a sample is called, in the singular: "slide" where each item is one.
        outcomes: what became of the archive, see `medcl.archive.outcomes.Outcome`; None of a study
            that was written without.
    """

    classifier: str
    label: str
    kind: Kind
    classes: list[str]
    folds: int
    repeats: int
    train: SplitCounts
    test: SplitCounts
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
    unknown_patients: int | None = None
    sample: str = "sample"
    outcomes: list[dict[str, Any]] | None = None

    def save(self, folder: Path) -> None:
        """Write ``folder/finetune.json``."""
        text = json.dumps(asdict(self), indent=1, ensure_ascii=False, default=float)
        manifest.write_text(folder / FILE, text + "\n")

    @classmethod
    def load(cls, folder: Path) -> FinetuneResult:
        """Read ``folder/finetune.json``.

        Raises:
            UsageError: if it is missing, or another version wrote it.
        """
        path = folder / FILE
        if not path.is_file():
            raise UsageError(f"{folder} holds no {FILE}. Make one: medcl finetune")
        raw = read_json(path, REMEDY)
        try:
            parts = {name: SplitCounts(**raw[name]) for name in ("train", "test")}
            return cls(**raw | parts | {"figures": _figures(raw["figures"])})
        except (KeyError, TypeError) as error:
            raise UsageError(
                f"{path} was written by another version of medcl ({error}): run medcl finetune "
                "again."
            ) from None

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values, as in finetune.json."""
        return asdict(self)

    @property
    def headline(self) -> str:
        """The main measure, used in the verdict."""
        return headline(self.kind)

    @property
    def metric_names(self) -> dict[str, str]:
        """Measure → its name in tables."""
        return called(self.kind, self.figures.metrics)

    @property
    def title(self) -> str:
        """Task, classifier and test patients in one line."""
        how = f"{self.folds}-fold cross-validation" if self.folds > 1 else "held-out patients"
        again = f", {self.repeats} times" if self.repeats > 1 else ""
        rare = f", 1 positive to {self.imbalance:g} in training" if self.imbalance else ""
        return (
            f"Label '{self.label}', classifier '{self.classifier}': {self.test.patients} test "
            f"patients, {self.test.samples:,} {self.sample}s ({how}{again}{rare}); "
            "95% intervals over patients"
        )

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Column heads and rows: one row per measure."""
        spread, at = self.figures.folds, self.figures.thresholded
        rows = []
        for name, title in self.metric_names.items():
            if name in at:  # of two classes: one threshold in all tables
                continue
            row = [title, show(self.figures.metrics[name])]
            row.append(deviation(spread[name]) if name in spread else "–")
            rows.append(row)
        for name, interval in at.items():
            title = {"ppv": "PPV", **NAMES}.get(name, name)
            rows.append([f"{title}, threshold of validation", show(interval), "–"])
        for name, title in (("ece", "calibration error"), ("ece_scaled", "… after scaling")):
            if name in self.figures.calibration:
                rows.append([title, show(self.figures.calibration[name]), "–"])
        return ["measure", "pooled [95%]", "by fold: mean ± SD"], rows

    def by_class(self) -> tuple[list[str], list[list[str]]]:
        """Column heads and rows: one row per class."""
        names = {"sensitivity": "sensitivity", "ppv": "PPV", "auroc": "AUROC", "auprc": "AUPRC"}
        rows = [
            [c.name, str(c.samples), str(c.patients), *(show(c.metrics[n]) for n in names)]
            for c in self.figures.classes
        ]
        return ["class", f"{self.sample}s", "patients", *names.values()], rows

    def verdict(self) -> str:
        """The headline as a sentence, with the notes."""
        measure = self.metric_names[self.headline]
        interval = self.figures.metrics[self.headline]
        text = f"{self.classifier}: {measure} {show(interval)}"
        chance_level = {"auroc": 0.5, "c_index": 0.5, "r2": 0.0}[self.headline]
        if interval.low is None or interval.high is None:
            text += ", which is not defined on these patients."
        elif interval.low > chance_level:
            text += ", above chance level."
        elif interval.high < chance_level and self.headline == "r2":
            text += ", worse than saying the mean of all."
        elif interval.high < chance_level:
            text += ", below chance level: are two labels swapped?"
        else:
            text += ": not above chance level as far as these patients can tell."
        return " ".join([text, *self._positive(), *self.notes])

    def _positive(self) -> list[str]:
        """Of two classes whose names do not tell, which one counts as positive."""
        if self.kind != "binary" or self.classes[1].lower() in _TELLING:
            return []
        negative, positive = self.classes
        turned = f"-s finetune.classes=[{positive},{negative}]"
        return [f"The positive class is '{positive}'; for the other one: {turned}."]


_TELLING = {"1", "yes", "true", "positive", "present"}
"""Names of a class that is plainly the positive one."""


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
                for name, value in raw["calibration"].items()  # studies from before intervals
            },
            "classes": [Class(**c | {"metrics": _interval(c["metrics"])}) for c in raw["classes"]],
            "folds": {name: Spread(**value) for name, value in raw["folds"].items()},
            "reliability": [tuple(row) for row in raw["reliability"]],
        }
    )
