"""Mean prediction of a study's classifiers (`medcl finetune`) on new samples.

Each fold has its own model, temperature and threshold; probabilities are the mean over folds. Only
models that were not trained on a patient predict that patient; if all were, all predict, and
``seen`` is True.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from medcl.errors import UsageError
from medcl.finetune import fold_training
from medcl.finetune.batches import size as size_of
from medcl.finetune.loop import Model, on
from medcl.finetune.opened import Study
from medcl.finetune.result import REMEDY
from medcl.labels.activation import probabilities
from medcl.labels.target import ONE_CLASS, SURVIVAL
from medcl.nn.inference import for_inference
from medcl.predict.predictor import Columns
from medcl.probe.own_labels import Level
from medcl.reading import read_json
from medcl.tensors import tensors

UNKNOWN_PRETRAINING = (
    "Whether pretraining used some of these patients cannot be checked: the study's run is "
    "missing, and this study, of an earlier version, did not record its patients."
)


class Folds:
    """The models of a study; loaded with the first batch, whose shapes they are built for.

    Attributes:
        kind: of problem, and
        classes: as in `medcl.labels.outputs.Outputs`.
    """

    def __init__(self, study: Study, task: str | None, device: str, *, known: bool) -> None:
        """Open a study.

        Args:
            study: a finished one.
            task: must be None: a study has one target.
            device: of the models.
            known: True if its patients are identifiable among new ones, by their keys.

        Raises:
            UsageError: if its folds cannot be averaged, or a task is given.
        """
        study.dataset_settings(task)
        self.study, self.device, self.known = study, torch.device(device), known
        facts = [read_json(fold / fold_training.FACTS, REMEDY) for fold in study.folds]
        self.kind = facts[0]["outputs"]["kind"]
        self.classes = tuple(facts[0]["outputs"]["classes"])
        if self.kind in SURVIVAL and len(facts) > 1:
            raise UsageError(
                f"The risks of {study.path.name}'s {len(facts)} models have no common scale, so "
                f"there is no mean: give one of them, such as {study.folds[0]}."
            )
        self.temperature = [float(f["temperature"]) for f in facts]
        self.threshold = np.array([f["threshold"] for f in facts])
        self.learnt_from = [
            study.as_indexed(fold_training.learnt_from(fold)) for fold in study.folds
        ]
        self._models: list[Model] = []

    def __call__(
        self, batch: Mapping[str, np.ndarray], patients: Sequence[str] | None
    ) -> tuple[Columns, None]:
        """The columns of a batch: ``p.<class>``, ``value`` or ``risk``, then the number of models.

        Args:
            batch: as `Samples.read` returned it.
            patients: (N,) keys; None for a stream, whose patient is unknown.
        """
        if not self._models:
            self._models = [
                for_inference(self.study.model(fold, batch).to(self.device))
                for fold in self.study.folds
            ]
        size = size_of(batch)
        judges, seen = self.judges(patients, size)
        inputs = on(tensors(batch), self.device)
        total: NDArray[np.float64] | None = None
        for n, model in enumerate(self._models):
            if not judges[n].any():
                continue
            scores = model.predict(inputs)["scores"].cpu().numpy()
            part = probabilities(self.kind, scores, self.temperature[n]) * judges[n][:, None]
            total = part if total is None else total + part
        assert total is not None  # each sample has a model
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
        """(folds, N) models that predict each sample; (N,) True if all trained on its patient."""
        if patients is None or not self.known:
            return np.ones((len(self.threshold), size), bool), np.zeros(size, bool)
        judges = np.array([[p not in learnt for p in patients] for learnt in self.learnt_from])
        seen = np.asarray(~judges.any(axis=0))
        judges[:, seen] = True
        return judges, seen

    def pooled(self, by: Level, z: NDArray[np.float32]) -> Columns:
        """None: a study has no embeddings, and each of its models its own classifier."""
        return {}

    def conclude(self, columns: Mapping[str, Any]) -> Columns:
        """``said``: the class above the threshold, or the likeliest; if samples have one class."""
        if self.kind not in ONE_CLASS:
            return {}
        p = np.stack([np.asarray(columns[f"p.{c}"]) for c in self.classes], axis=1)
        predicted = p.argmax(axis=1)
        if self.kind == "binary":
            predicted = (p[:, 1] >= np.asarray(columns["threshold"])).astype(int)
        defined = np.isfinite(p).all(axis=1)
        names = [self.classes[c] if ok else None for c, ok in zip(predicted, defined, strict=True)]
        return {"said": pl.Series(names, dtype=pl.String)}

    def _named(self, values: NDArray[np.float32]) -> Columns:
        if self.kind == "regression":
            return {"value": values[:, 0]}
        if self.kind in SURVIVAL:
            return {"risk": values[:, 0]}
        return {f"p.{c}": values[:, n] for n, c in enumerate(self.classes)}

    def notes(self, patients: set[str]) -> list[str]:
        """Notes for the reader on these patients."""
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
                f"{every} of {len(patients)} patients are training patients of every model here "
                "(column seen): predictions for them are optimistic."
            )
        if some:
            notes.append(
                f"{some} of {len(patients)} patients are in the study: only models that were not "
                "trained on them predict them (column folds)."
            )
        pretrained = self.study.pretrained_on()
        if pretrained is None:
            notes.append(UNKNOWN_PRETRAINING)
        elif pretrained & patients:
            notes.append(
                f"Pretraining used {len(pretrained & patients)} of {len(patients)} patients, "
                "without labels."
            )
        return notes
