"""What samples say beside the label that is learnt: label trees, soft labels, further labels.

A classifier finds it in its training batches, under these names; nobody is measured by it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medcl.errors import MedclError, UsageError
from medcl.labels.outputs import ALSO, Also
from medcl.labels.target import ONE_CLASS, Target, codes, column, numbers, outputs, truth
from medcl.plugin import Samples
from medcl.recipe import Finetune

TREE, SOFT = "tree", "soft"
FEW_VALUES = 5
"""A further column of numbers with more different values is a regression, unless its kind is given.

Fewer than of the label that is wanted (`medcl.labels.target.MOST_CLASSES`): twenty ages in a small
archive would be a class for each patient or two, and teach to know them.
"""


def beside(samples: Samples, found: Target, settings: Finetune) -> dict[str, NDArray]:
    """Name → (N, ...) of all samples.

    ``tree`` (N, D): codes of `Finetune.tree` from the root down, −1 where missing, and last the
    class that is learnt. ``soft`` (N, C): `Finetune.soft`, NaN where missing.

    Raises:
        UsageError: if a column is missing, or the label is no class.
        MedclError: if probabilities are none.
    """
    if settings.tree and found.kind not in ONE_CLASS:
        raise UsageError(f"finetune.tree is for classes, and this is {found.kind}.")
    plain = found.kind in ("binary", "multiclass") and settings.loss in ("ce", "weighted")
    if settings.soft and not plain:
        raise UsageError("finetune.soft is for two or more classes, and a loss of ce or weighted.")
    made: dict[str, NDArray] = {}
    if settings.tree:
        levels = [codes(column(samples, name))[0] for name in settings.tree]
        made[TREE] = np.stack([*levels, found.y], 1)
    if settings.soft:
        made[SOFT] = _probabilities(samples, found, settings.soft)
    return made


def further(samples: Samples, settings: Finetune) -> tuple[tuple[Also, ...], dict[str, NDArray]]:
    """The labels of `Finetune.also`, and of all samples: ``also.NAME`` → (N,), see `Outputs`.

    Raises:
        UsageError: if a column is missing.
        MedclError: if it holds one class only, or values of another kind.
    """
    made, values = [], {}
    for name, asked in settings.also.items():
        loss = "robust" if asked.noisy else "ce"
        kind = asked.kind
        if kind == "auto" and _are_values(column(samples, name)):
            kind = "regression"
        alone = Finetune(label=name, kind=kind, loss=loss)
        found = truth(samples, alone)
        if found.kind == "multilabel":
            raise UsageError(f"finetune.also: '{name}' is several labels; name single columns.")
        made.append(Also(name, outputs(found, np.empty(0, np.int64), alone), asked.weight))
        values[f"{ALSO}{name}"] = found.y
    return tuple(made), values


def _are_values(raw: NDArray) -> bool:
    """Whether numbers of a table or the index stand for values; integers are a plugin's classes."""
    if raw.dtype.kind != "f" or raw.ndim != 1:
        return False
    return len(np.unique(raw[np.isfinite(raw)])) > FEW_VALUES


def on_one_scale(values: NDArray, train: NDArray[np.int64]) -> NDArray:
    """A further label's values less their mean, by their deviation, both of the training samples.

    Classes (integers) stay as they are.
    """
    if values.dtype.kind != "f" or values.ndim != 1:
        return values
    known = values[train][np.isfinite(values[train])]
    if not len(known):
        return values
    return (values - known.mean()) / (known.std() or 1.0)


def _probabilities(samples: Samples, found: Target, names: tuple[str, ...]) -> NDArray[np.float32]:
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
