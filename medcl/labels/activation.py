"""From scores to probabilities, risks and values."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from medcl.metrics.metrics import Floats, Kind

CALIBRATED = ("binary", "multiclass", "multilabel")
"""Kinds whose scores temperature scaling can calibrate."""


def probabilities(kind: Kind, scores: Floats, temperature: float = 1.0) -> NDArray[np.float64]:
    """Scores as probabilities, risks or values.

    Args:
        kind: of problem.
        scores: (N, size), as `Classifier.predict` returns them.
        temperature: divides the logits first.

    Returns:
        (N, C) class probabilities (also ordinal), (N, L) label probabilities, (N, 1) values
        (regression) or risks (survival: cox's log hazard ratio, hazard's −Σ of the probabilities
        of surviving each interval).
    """
    z = np.asarray(scores, np.float64) / temperature
    match kind:
        case "binary" | "multiclass":
            return np.asarray(softmax(z, axis=1))
        case "multilabel":
            return np.asarray(expit(z))
        case "ordinal":
            above = np.minimum.accumulate(expit(z), axis=1)  # P(y > k) cannot rise with k
            edges = np.pad(above, ((0, 0), (1, 1)), constant_values=((0, 0), (1, 0)))
            return np.asarray(edges[:, :-1] - edges[:, 1:])
        case "hazard":
            return np.asarray(-np.cumprod(1 - expit(z), axis=1).sum(1, keepdims=True))
        case _:
            return z
