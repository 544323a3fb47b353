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
        columns: Columns = {}
        head = self.reference.head
        if head is not None:
            scores = head.predict(z)
            if head.link == "identity":
                columns["value"] = scores[:, 0]
            else:
                columns |= {f"p.{c}": scores[:, i] for i, c in enumerate(head.classes)}
        scorer = self.reference.anomaly_scorer
        return columns | ({} if scorer is None else scorer.score(z)._asdict()), z

    def conclude(self, columns: Mapping[str, Any]) -> Columns:
        """No further columns: the probe has no threshold."""
        return {}

    def notes(self, patients: set[str]) -> list[str]:
        """Notes for the reader on these patients."""
        notes = []
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
