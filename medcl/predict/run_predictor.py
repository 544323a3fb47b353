"""What a pretrained run says of new samples: embeddings, the probe's classes, strangeness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from medcl.predict.predictor import Columns
from medcl.predict.reference_set import reference
from medcl.run import Run


class Embedded:
    """A run's encoder, and what was learnt from its training patients."""

    def __init__(self, run: Run, task: str | None, device: str, *, known: bool) -> None:
        """Open a finished run; ``known``: whether its patients can be told among the new ones.

        Raises:
            UsageError: if the task is unknown, or the run not finished.
            MedclError: if nothing was kept and the index that the run was trained on is gone.
        """
        self.encoder, self.device = run.encoder().to(device), device
        self.reference = reference(run, self.encoder, task, device=device)
        self.learnt_from = {p for p, s in run.split().items() if s == "train"} if known else set()
        self.pretrained_on = run.pretrained_on() if known else set()

    def __call__(
        self, batch: Mapping[str, np.ndarray], patients: Sequence[str] | None
    ) -> tuple[Columns, NDArray[np.float32]]:
        """The columns of a batch, and the embeddings (N, D)."""
        with torch.inference_mode():
            x = torch.as_tensor(np.ascontiguousarray(batch["x"])).to(self.device).float()
            z: NDArray[np.float32] = self.encoder(x).float().cpu().numpy()
        columns: Columns = {}
        head = self.reference.head
        if head is not None:
            scores = head.predict(z)
            if head.link == "identity":
                columns["value"] = scores[:, 0]
            else:
                columns |= {f"p.{c}": scores[:, i] for i, c in enumerate(head.classes)}
        return columns | self.reference.anomaly_scorer.score(z)._asdict(), z

    def conclude(self, columns: Mapping[str, Any]) -> Columns:
        """Nothing more: the probe has no threshold."""
        return {}

    def notes(self, patients: set[str]) -> list[str]:
        """What a reader must know of these people."""
        notes = []
        met = len(self.learnt_from & patients)
        if met:
            notes.append(
                f"{met} of {len(patients)} patients are training patients of this run: what is "
                "said of them is too good, and they look less strange than others would."
            )
        others = len((self.pretrained_on - self.learnt_from) & patients)
        if others:
            notes.append(
                f"Pretraining saw {others} of {len(patients)} patients too, though without labels."
            )
        return notes
