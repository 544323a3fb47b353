"""Mean prediction of several studies, such as one for each pretrained encoder.

Each study counts once, whatever the number of its folds. A study whose every model was trained on a
patient does not predict that patient, unless that is true of all: then all do, and ``seen`` is
True.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medcl.errors import UsageError
from medcl.finetune.opened import Study
from medcl.labels.target import SURVIVAL
from medcl.predict.predictor import Columns
from medcl.predict.study_predictor import Folds
from medcl.probe.own_labels import Level
from medcl.run import Trained


class Ensemble:
    """Studies of one target, whose samples are prepared alike."""

    def __init__(self, studies: Sequence[Trained], device: str, *, known: Sequence[bool]) -> None:
        """Open the studies.

        Args:
            studies: finished ones.
            device: of the models.
            known: for each, True if its patients are identifiable among new ones, by their keys.

        Raises:
            UsageError: if they have different classes, or their samples are prepared differently.
        """
        self.members = [
            Folds(_study(study), None, device, known=there)
            for study, there in zip(studies, known, strict=True)
        ]
        first = self.members[0]
        for study, member in zip(studies[1:], self.members[1:], strict=True):
            names = f"{studies[0].path.name} and {study.path.name}"
            if (member.kind, member.classes) != (first.kind, first.classes):
                raise UsageError(
                    f"{names} predict different targets: {_said(first)} and {_said(member)}."
                )
            if _samples(study) != _samples(studies[0]):
                raise UsageError(
                    f"{names} prepare or cut recordings differently, so their samples are not the "
                    "same. Predict with each, and average the tables of recordings."
                )
        if first.kind in SURVIVAL:
            raise UsageError("The risks of several studies have no common scale: give one of them.")

    def __call__(
        self, batch: Mapping[str, np.ndarray], patients: Sequence[str] | None
    ) -> tuple[Columns, None]:
        """As `Folds`; ``folds`` is the number of models that predicted, over all studies."""
        each = [member(batch, patients)[0] for member in self.members]
        numbers = [n for n in each[0] if n.startswith("p.") or n in ("value", "threshold")]
        size = len(each[0][numbers[0]])
        seen = np.stack([_flags(columns.get("seen"), size) for columns in each])
        every = np.asarray(seen.all(axis=0), bool)
        counts = np.where(every, True, ~seen).astype(np.float32)
        total = counts.sum(axis=0)
        out: Columns = {
            name: sum(w * c[name] for w, c in zip(counts, each, strict=True)) / total
            for name in numbers
        }
        out |= self.conclude(out)
        if patients is not None:
            models = sum(w * c["folds"] for w, c in zip(counts, each, strict=True))
            out["folds"] = np.asarray(models).astype(np.int32)
            some = any(member.known for member in self.members)
            flags = [bool(one) if some else None for one in every]
            out["seen"] = pl.Series(flags, dtype=pl.Boolean)
        return out, None

    def pooled(self, by: Level, z: NDArray[np.float32]) -> Columns:
        """None, as of a study."""
        return {}

    def conclude(self, columns: Mapping[str, Any]) -> Columns:
        """As of a study."""
        return self.members[0].conclude(columns)

    def notes(self, patients: set[str]) -> list[str]:
        """Notes of each study, under its name."""
        return [
            f"{member.study.path.name}: {note}"
            for member in self.members
            for note in member.notes(patients)
        ]


def _samples(study: Trained) -> tuple[dict[str, Any], dict[str, Any]]:
    return dict(study.recipe.prepare), dict(study.dataset_settings(None))


def _study(model: Trained) -> Study:
    if not isinstance(model, Study):
        raise UsageError(f"{model.path.name} is no study of medcl finetune: only studies average.")
    return model


def _said(folds: Folds) -> str:
    return f"{folds.kind} of {', '.join(folds.classes)}" if folds.classes else folds.kind


def _flags(seen: pl.Series | None, size: int) -> NDArray[np.bool_]:
    if seen is None:
        return np.zeros(size, bool)
    return seen.fill_null(value=False).to_numpy()
