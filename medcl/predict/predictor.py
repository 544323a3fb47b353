"""What is said of samples: by a run (`medcl.predict.run_predictor`), a study (`medcl.predict.study_predictor`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Columns = dict[str, Any]


class Answers(Protocol):
    """Asked batch by batch, and then what the mean over a recording's rows comes to."""

    def __call__(
        self, batch: Mapping[str, np.ndarray], patients: Sequence[str] | None
    ) -> tuple[Columns, NDArray[np.float32] | None]:
        """A batch as `Samples.read` returned it → columns (N,), and embeddings (N, D) if any."""
        ...

    def conclude(self, columns: Mapping[str, Any]) -> Columns:
        """The columns that follow from other ones."""
        ...

    def notes(self, patients: set[str]) -> list[str]:
        """What a reader must know of these people."""
        ...
