"""What the classifiers of a study (`medcl finetune`) say of new samples, together.

Each fold has a model of its own, with its own temperature and threshold; probabilities are the mean
over folds. A person of the study is judged only by the models that did not learn from them; where
all did, by all, and ``seen`` says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from medcl.errors import UsageError
from medcl.finetune import batches, fold_training
from medcl.finetune.loop import Model, on
from medcl.finetune.opened import Study
from medcl.labels.activation import probabilities
from medcl.labels.target import ONE_CLASS, SURVIVAL
from medcl.predict.predictor import Columns
from medcl.reading import read_json, read_table
from medcl.run import Run

NOBODY_KNOWS = (
    "Whether pretraining saw some of these patients cannot be checked: the run that the study "
    "began with is gone, and this study, of an earlier version, did not note whom it saw."
)
_REMEDY = "Run the same medcl finetune again."


def opened(path: Path) -> Run | Study:
    """A run, a study, or one fold of a study (``STUDY/folds/r0f1``).

    Raises:
        UsageError: if the folder is none of them, or not finished.
    """
    if path.parent.name == fold_training.FOLDER and (path / fold_training.FACTS).is_file():
        return Study.open(path.parent.parent, only=path.name)
    if (path / fold_training.FOLDER).is_dir():
        return Study.open(path)
    several = sorted(p.parent.name for p in path.glob(f"*/{fold_training.FOLDER}"))
    if several and not (path / "recipe.yaml").is_file():  # a run may hold its studies
        raise UsageError(f"{path} holds several studies: give one of {', '.join(several)} in it.")
    return Run.open(path)


class Folds:
    """The models of a study; loaded with the first batch, whose shapes they are built for.

    Attributes:
        kind: of problem, and
        classes: as in `medcl.labels.outputs.Outputs`.
    """

    def __init__(self, study: Study, device: str, *, known: bool) -> None:
        """Open a study.

        Args:
            study: a finished one.
            device: where to compute.
            known: whether its patients can be told among the new ones, by their keys.

        Raises:
            UsageError: if its folds cannot be averaged.
        """
        self.study, self.device, self.known = study, torch.device(device), known
        facts = [read_json(fold / fold_training.FACTS, _REMEDY) for fold in study.folds]
        self.kind = facts[0]["outputs"]["kind"]
        self.classes = tuple(facts[0]["outputs"]["classes"])
        if self.kind in SURVIVAL and len(facts) > 1:
            raise UsageError(
                f"The risks of {study.path.name}'s {len(facts)} models have no common scale, so "
                f"there is no mean: give one of them, such as {study.folds[0]}."
            )
        self.temperature = [float(f["temperature"]) for f in facts]
        self.threshold = np.array([f["threshold"] for f in facts])
        self.learnt_from = [_learnt_from(fold) for fold in study.folds]
        self._models: list[Model] = []

    def __call__(
        self, batch: Mapping[str, np.ndarray], patients: Sequence[str] | None
    ) -> tuple[Columns, None]:
        """The columns of a batch: ``p.<class>``, ``value`` or ``risk``, then who judged.

        Args:
            batch: as `Samples.read` returned it.
            patients: (N,) keys; None for a stream, of whose person nothing is known.
        """
        if not self._models:
            self._models = [
                self.study.model(fold, batch).to(self.device) for fold in self.study.folds
            ]
        size = int(batch["bag"][-1]) + 1 if "bag" in batch else len(batch["x"])
        judges, seen = self.judges(patients, size)
        given = on(batches.tensors(batch), self.device)
        total: NDArray[np.float64] | None = None
        for n, model in enumerate(self._models):
            if not judges[n].any():
                continue
            scores = model.predict(given)["scores"].cpu().numpy()
            part = probabilities(self.kind, scores, self.temperature[n]) * judges[n][:, None]
            total = part if total is None else total + part
        assert total is not None  # somebody judges each sample
        count = judges.sum(axis=0)
        columns = self._named((total / count[:, None]).astype(np.float32))
        if self.kind == "binary":
            columns["threshold"] = (self.threshold @ judges / count).astype(np.float32)
        columns |= self.conclude(columns)
        if patients is not None:
            columns["folds"] = count.astype(np.int32)
            columns["seen"] = pl.Series(
                seen.tolist() if self.known else [None] * size, dtype=pl.Boolean
            )
        return columns, None

    def judges(
        self, patients: Sequence[str] | None, size: int
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """(folds, N) whose model judges each sample; (N,) whether all learnt from its patient."""
        if patients is None or not self.known:
            return np.ones((len(self.threshold), size), bool), np.zeros(size, bool)
        judges = np.array([[p not in learnt for p in patients] for learnt in self.learnt_from])
        seen = np.asarray(~judges.any(axis=0))
        judges[:, seen] = True
        return judges, seen

    def conclude(self, columns: Mapping[str, Any]) -> Columns:
        """``said``: the class above the threshold, or else the likeliest; of one class a sample."""
        if self.kind not in ONE_CLASS:
            return {}
        p = np.stack([np.asarray(columns[f"p.{c}"]) for c in self.classes], axis=1)
        said = p.argmax(axis=1)
        if self.kind == "binary":
            said = (p[:, 1] >= np.asarray(columns["threshold"])).astype(int)
        defined = np.isfinite(p).all(axis=1)
        names = [self.classes[c] if ok else None for c, ok in zip(said, defined, strict=True)]
        return {"said": pl.Series(names, dtype=pl.String)}

    def _named(self, values: NDArray[np.float32]) -> Columns:
        if self.kind == "regression":
            return {"value": values[:, 0]}
        if self.kind in SURVIVAL:
            return {"risk": values[:, 0]}
        return {f"p.{c}": values[:, n] for n, c in enumerate(self.classes)}

    def notes(self, patients: set[str]) -> list[str]:
        """What a reader must know of these people."""
        if not self.known:
            return []
        notes = []
        times = [sum(p in learnt for learnt in self.learnt_from) for p in patients]
        every, some = (
            sum(t == len(self.learnt_from) for t in times),
            sum(0 < t < len(self.learnt_from) for t in times),
        )
        if every:
            notes.append(
                f"{every} of {len(patients)} patients were learnt from by every model here (column "
                "seen): what is said of them is too good."
            )
        if some:
            notes.append(
                f"{some} of {len(patients)} patients took part in the study: they are judged only "
                "by the models that did not learn from them (column folds)."
            )
        pretrained = self.study.pretrained_on()
        if pretrained is None:
            notes.append(NOBODY_KNOWS)
        elif pretrained & patients:
            notes.append(
                f"Pretraining saw {len(pretrained & patients)} of {len(patients)} patients, though "
                "without labels."
            )
        return notes


def _learnt_from(fold: Path) -> frozenset[str]:
    """Patients of a fold's training and of its validation, which chose epoch and threshold."""
    frame = read_table(fold / fold_training.SPLIT, _REMEDY)
    return frozenset(frame.filter(pl.col("side") != "test")["patient"])
