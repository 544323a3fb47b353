"""Results of a study of masks: figures, as text and as tables."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medcl import manifest
from medcl.dense.kind import FILE
from medcl.dense.measure import MEASURES
from medcl.errors import UsageError
from medcl.finetune.result import REMEDY
from medcl.metrics.bootstrap import Interval
from medcl.metrics.table import direction, show
from medcl.reading import read_json

Figures = dict[str, dict[str, Interval]]
"""Measure → class → figure; the class ``""`` is the mean over classes."""
MEAN = ""


@dataclass(frozen=True)
class DenseResult:
    """All figures of a study of masks, and what is needed to reproduce them.

    Attributes:
        classifier: its name.
        classes: names, without the background.
        starts: what the networks began with: "pretrained" and "untrained", or "untrained" alone.
        figures: start → figures on test patients, with intervals over patients.
        difference: of pretrained minus untrained on the same patients; empty without a run.
        test_patients, test_images, train_patients: counts over all folds.
        drawn: class → test images that hold it.
        folds: trainings per repeat and start.
        repeats: of all folds.
        tolerance: of the surface Dice in mm.
        notes: for the reader.
    """

    classifier: str
    classes: list[str]
    starts: list[str]
    figures: dict[str, Figures]
    difference: Figures
    train_patients: int
    test_patients: int
    test_images: int
    drawn: dict[str, int]
    folds: int
    repeats: int
    tolerance: float
    notes: list[str]
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
        """Write ``folder/dense.json``."""
        text = json.dumps(asdict(self), indent=1, ensure_ascii=False)
        manifest.write_text(folder / FILE, text + "\n")

    @classmethod
    def load(cls, folder: Path) -> DenseResult:
        """Read ``folder/dense.json``.

        Raises:
            UsageError: if it is missing, or another version wrote it.
        """
        path = folder / FILE
        if not path.is_file():
            raise UsageError(f"{folder} holds no {FILE}. Make one: medcl finetune")
        raw = read_json(path, REMEDY)
        try:
            figures = {start: _figures(part) for start, part in raw["figures"].items()}
            parts = {"figures": figures, "difference": _figures(raw["difference"])}
            return cls(**raw | parts)
        except (KeyError, TypeError) as error:
            raise UsageError(
                f"{path} was written by another version of medcl ({error}): run medcl finetune "
                "again."
            ) from None

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values, as in dense.json."""
        return asdict(self)

    @property
    def title(self) -> str:
        """Classes, classifier and test patients in one line."""
        how = f"{self.folds}-fold cross-validation" if self.folds > 1 else "held-out patients"
        again = f", {self.repeats} times" if self.repeats > 1 else ""
        return (
            f"{', '.join(self.classes[:4])}{', …' if len(self.classes) > 4 else ''}: "
            f"{self.classifier} on {self.test_images:,} images of {self.test_patients:,} test "
            f"patients ({how}{again}); 95% intervals over patients"
        )

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Column heads and rows: a row for each class and measure."""
        heads = ["class", "images", "measure", *self.starts]
        heads += ["difference"] if self.difference else []
        rows = []
        for name in [*([MEAN] if len(self.classes) > 1 else []), *self.classes]:
            for measure, title in MEASURES.items():
                row = [name or "mean over classes", str(self.drawn.get(name, "–"))]
                row.append(self._called(measure, title))
                row += [show(self.figures[start][measure][name]) for start in self.starts]
                if self.difference:
                    row.append(show(self.difference[measure][name], signed=True))
                rows.append(row)
        return heads, rows

    def _called(self, measure: str, title: str) -> str:
        return f"{title} at {self.tolerance:g} mm" if measure == "surface_dice" else title

    def verdict(self) -> str:
        """The mean Dice as a sentence, what pretraining gained, and the notes."""
        name = MEAN if len(self.classes) > 1 else self.classes[0]
        sentences = [
            f"{self.classifier}, {self.starts[0]}: Dice "
            f"{show(self.figures[self.starts[0]]['dice'][name])}."
        ]
        if self.difference:
            gain = self.difference["dice"][name]
            word = {
                "gain": "Pretraining raises it",
                "loss": "Pretraining lowers it",
                "none": "No effect of pretraining is measurable on these patients",
            }[direction(gain, "dice")]
            sentences.append(f"{word}: {show(gain, signed=True)}.")
        return " ".join([*sentences, *self.notes])


def _figures(raw: dict[str, dict[str, dict[str, Any]]]) -> Figures:
    return {
        measure: {name: Interval(**value) for name, value in part.items()}
        for measure, part in raw.items()
    }
