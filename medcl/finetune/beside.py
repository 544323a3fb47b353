"""What samples say beside the label that is learnt: label trees, soft labels.

A classifier finds it in its training batches, under these names; nobody is measured by it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medcl.errors import MedclError, UsageError
from medcl.finetune.truth import ONE_CLASS, Truth, codes, column, numbers
from medcl.plugin import Samples
from medcl.recipe import Finetune

TREE, SOFT = "tree", "soft"


def beside(samples: Samples, found: Truth, settings: Finetune) -> dict[str, NDArray]:
    """Name → (N, ...) of all samples.

    ``tree`` (N, D): codes of `Finetune.tree` from the root down, −1 where missing, and last the
    class that is learnt. ``soft`` (N, C): `Finetune.soft`, NaN where missing.

    Raises:
        UsageError: if a column is missing, or the label is no class.
        MedclError: if probabilities are none.
    """
    if settings.tree and found.kind not in ONE_CLASS:
        raise UsageError(f"finetune.tree is for classes, and this is {found.kind}.")
    if settings.soft and (found.kind not in ("binary", "multiclass") or settings.loss == "focal"):
        raise UsageError("finetune.soft is for two or more classes, and a loss of ce or weighted.")
    made: dict[str, NDArray] = {}
    if settings.tree:
        levels = [codes(column(samples, name))[0] for name in settings.tree]
        made[TREE] = np.stack([*levels, found.y], 1)
    if settings.soft:
        made[SOFT] = _probabilities(samples, found, settings.soft)
    return made


def _probabilities(samples: Samples, found: Truth, names: tuple[str, ...]) -> NDArray[np.float32]:
    if len(names) != len(found.classes):
        raise UsageError(
            f"finetune.soft names {len(names)} columns for {len(found.classes)} classes: give one "
            f"for each of {', '.join(found.classes)}, in that order (finetune.classes says it)."
        )
    p = np.stack([numbers(samples, name) for name in names], 1)  # (N, C)
    known = np.isfinite(p).any(1)
    wrong = known & ~((p >= 0).all(1) & (np.abs(p.sum(1) - 1) < 1e-3))
    if wrong.any():
        raise MedclError(
            f"{wrong.sum():,} of {known.sum():,} rows of {', '.join(names)} are no probabilities: "
            "they should all be there, not below 0, and sum to 1."
        )
    return p.astype(np.float32)
