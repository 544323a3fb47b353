"""A pretrained run's predictions: embeddings, the probe's classes, anomaly scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from medcl.nn.inference import for_inference, forward
from medcl.predict.predictor import Columns
from medcl.predict.reference_set import reference
from medcl.probe.own_classifier import OwnClassifier
from medcl.probe.own_labels import Level
from medcl.run import Run


class Embedded:
    """A run's encoder, and the reference of its training patients."""

    def __init__(self, run: Run, task: str | None, device: str, *, known: bool) -> None:
        """Open a finished run; ``known``: True if its patients are identifiable among new ones.

        Raises:
            UsageError: if the task is unknown, or the run not finished.
            MedclError: if no classifier is saved and the run's index is missing.
        """
        encoder = run.encoder().to(device)
        self.reference = reference(run, encoder, task, device=device)
        self.encoder, self.device = for_inference(encoder), device
        self.learnt_from = {p for p, s in run.split().items() if s == "train"} if known else set()
        self.pretrained_on = run.pretrained_on() if known else set()

    def __call__(
        self, batch: Mapping[str, np.ndarray], patients: Sequence[str] | None
    ) -> tuple[Columns, NDArray[np.float32]]:
        """The columns of a batch, and the embeddings (N, D)."""
        x = torch.as_tensor(np.ascontiguousarray(batch["x"])).to(self.device).float()
        z: NDArray[np.float32] = forward(self.encoder, x).float().cpu().numpy()
        scorer = self.reference.anomaly_scorer
        columns = self.pooled("sample", z)
        return columns | ({} if scorer is None else scorer.score(z)._asdict()), z

    def pooled(self, by: Level, z: NDArray[np.float32]) -> Columns:
        """Probabilities or values of samples, items or patients, if the classifier is of these."""
        head, own = self.reference.head, self.reference.own
        if head is None or by != ("sample" if own is None else own.by):
            return {}
        scores = head.predict(z)
        if head.link == "identity":
            return {"value": scores[:, 0]}
        return {f"p.{c}": scores[:, i] for i, c in enumerate(head.classes)}

    def conclude(self, columns: Mapping[str, Any]) -> Columns:
        """No further columns: the probe has no threshold."""
        return {}

    def notes(self, patients: set[str]) -> list[str]:
        """Notes for the reader on these patients."""
        notes = _of_own(self.reference.own)
        if self.reference.anomaly_scorer is None:
            notes.append(
                "No anomaly scores: they compare with the run's training patients, and its index "
                "is not here (--data IDX)."
            )
        trained_on = len(self.learnt_from & patients)
        if trained_on:
            notes.append(
                f"{trained_on} of {len(patients)} patients are training patients of this run: "
                "predictions for them are optimistic, and their anomaly scores too low."
            )
        others = len((self.pretrained_on - self.learnt_from) & patients)
        if others:
            notes.append(
                f"Pretraining used {others} of {len(patients)} patients too, without labels."
            )
        return notes


_TABLE = {"sample": "OUT.parquet", "item": "OUT.records.parquet", "patient": "OUT.patients.parquet"}


def _of_own(own: OwnClassifier | None) -> list[str]:
    """What the columns of a label of the user's are."""
    if own is None:
        return []
    what = "value" if own.head.link == "identity" else "p.…"
    notes = [
        f"'{own.label}' was probed by {own.by}: its predictions ({what}) are in {_TABLE[own.by]}."
    ]
    if own.positive is not None:
        notes.append(f"Its positive class is '{own.positive}': p.{own.positive}.")
    if own.elsewhere:
        notes.append(
            "It was fitted on another index than the run's: whether some of these patients were "
            "among its training patients cannot be checked."
        )
    return notes
