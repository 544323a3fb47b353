"""Where in its recording a sample lies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def where(
    ids: Sequence[str], *, prepare: Mapping[str, Any], dataset: Mapping[str, Any]
) -> dict[str, NDArray[np.float64]]:
    """Start and length of windows in seconds from the recording's first sample.

    Args:
        ids: of samples, as `medcl_biosignals.dataset` gives them: the item, a colon, the first
            sample at the prepared rate (of a beat near the recording's start it is negative).
        prepare: the recipe's section.
        dataset: the recipe's section, with a task's settings over it.
    """
    first = np.array([int(name.rpartition(":")[2]) for name in ids], dtype=np.float64)
    seconds = np.full(len(first), float(dataset["seconds"]))
    return {"start": first / float(prepare["fs"]), "seconds": seconds}
