"""Bags in memory, for tests that need no plugin's files."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from medcl.plugin import Samples

MUSK = Path(__file__).parent / "data" / "musk1.data"


def packed(bags: Sequence[np.ndarray], rows: np.ndarray) -> dict[str, np.ndarray]:
    """A packed batch of bags."""
    count = [len(bags[r]) for r in rows]
    return {
        "x": np.concatenate([bags[r] for r in rows]),
        "bag": np.repeat(np.arange(len(rows)), count),
    }


def of_bags(bags: Sequence[np.ndarray], patients: Sequence[str] | None = None) -> Samples:
    """Bags as samples; each its own patient, unless given."""
    ids = [f"b{n:03}" for n in range(len(bags))]
    return Samples(ids, ids, list(patients or ids), partial(packed, list(bags)))
