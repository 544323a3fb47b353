"""The contract of `medcl.predict.run_predictor` and `medcl.predict.study_predictor`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from medcl.probe.own_labels import Level

Columns = dict[str, Any]


class Predictor(Protocol):
    """Predicts batch by batch, and derives columns from means over a recording's rows."""

    def __call__(
        self, batch: Mapping[str, np.ndarray], patients: Sequence[str] | None
    ) -> tuple[Columns, NDArray[np.float32] | None]:
        """A batch as `Samples.read` returned it → columns (N,), and embeddings (N, D) if any."""
        ...

    def pooled(self, by: Level, z: NDArray[np.float32]) -> Columns:
        """Columns of items or patients that follow from the means of their embeddings (N, D)."""
        ...

    def conclude(self, columns: Mapping[str, Any]) -> Columns:
        """Columns derived from other ones."""
        ...

    def notes(self, patients: set[str]) -> list[str]:
        """Notes for the reader on these patients."""
        ...
