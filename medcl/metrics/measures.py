"""The measures of a kind of problem, in one place for every verb."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medcl.metrics.metrics import (
    Counted,
    Floats,
    Kind,
    Measures,
    classification,
    multilabel,
    ordinal,
    regression,
)
from medcl.metrics.survival import concordance


def measure(
    kind: Kind,
    target: NDArray,
    scores: Floats,
    weight: Counted,
    fold: NDArray[np.integer] | None = None,
) -> Measures:
    """The measures that belong to a kind of problem: see the function of that kind.

    Args:
        kind: of problem.
        target: as `medcl.labels.target.Target.y` has it.
        scores: (N, C) probabilities; (N,) or (N, 1) values, or risks.
        weight: of the N samples.
        fold: (N,) of survival, the model that a risk is of: risks of two models have no common
            scale and are not ranked together.
    """
    match kind:
        case "regression":
            return regression(target, scores, weight)
        case "multilabel":
            return multilabel(target, scores, weight)
        case "ordinal":
            return ordinal(target, scores, weight)
        case "cox" | "hazard":
            return concordance(target[:, 0], target[:, 1] > 0, scores[:, 0], weight, fold)
        case _:
            return classification(target, scores, weight, binary=kind == "binary")
