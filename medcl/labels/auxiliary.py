"""Auxiliary targets: label trees, soft labels, further labels.

A classifier reads them from its training batches under these names; no metric uses them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medcl.errors import MedclError, UsageError
from medcl.labels.outputs import ALSO, Auxiliary
from medcl.labels.target import ONE_CLASS, Target, codes, column, finetune_target, numbers, outputs
from medcl.plugin import Samples
from medcl.recipe import Finetune

TREE, SOFT = "tree", "soft"
FEW_VALUES = 5
"""A further numeric column with more distinct values is a regression, unless its kind is given.

The limit is lower than for the main label (`medcl.labels.target.MOST_CLASSES`): twenty ages in a
small archive would give one class per patient or two, and the encoder would learn patient identity.
"""


def tree_and_soft(samples: Samples, target: Target, settings: Finetune) -> dict[str, NDArray]:
    """Name → (N, ...) of all samples.

    ``tree`` (N, D): codes of `Finetune.tree` from the root down, −1 where missing, and last the
    target's class. ``soft`` (N, C): `Finetune.soft`, NaN where missing.

    Raises:
        UsageError: if a column is missing, or the target is not a class.
        MedclError: if values of ``soft`` are not probabilities.
    """
    if settings.tree and target.kind not in ONE_CLASS:
        raise UsageError(f"finetune.tree is for classes; this target is {target.kind}.")
    plain = target.kind in ("binary", "multiclass") and settings.loss in ("ce", "weighted")
    if settings.soft and not plain:
        raise UsageError("finetune.soft is for two or more classes, and a loss of ce or weighted.")
    columns: dict[str, NDArray] = {}
    if settings.tree:
        levels = [codes(column(samples, name))[0] for name in settings.tree]
        columns[TREE] = np.stack([*levels, target.y], 1)
    if settings.soft:
        columns[SOFT] = _probabilities(samples, target, settings.soft)
    return columns


def further(
    samples: Samples, settings: Finetune
) -> tuple[tuple[Auxiliary, ...], dict[str, NDArray]]:
    """The labels of `Finetune.auxiliary`, and ``also.NAME`` → (N,) of all samples, see `Outputs`.

    Raises:
        UsageError: if a column is missing.
        MedclError: if a column holds one class only, or values of another kind.
    """
    labels, values = [], {}
    for name, asked in settings.auxiliary.items():
        loss = "robust" if asked.noisy else "ce"
        kind = asked.kind
        if kind == "auto" and _are_values(column(samples, name)):
            kind = "regression"
        single = Finetune(label=name, kind=kind, loss=loss)
        target = finetune_target(samples, single)
        if target.kind == "multilabel":
            raise UsageError(
                f"finetune.auxiliary: '{name}' is several labels; name single columns."
            )
        one = outputs(target, np.empty(0, np.int64), single)
        labels.append(Auxiliary(name, one, asked.weight))
        values[f"{ALSO}{name}"] = target.y
    return tuple(labels), values


def _are_values(raw: NDArray) -> bool:
    """True if numbers of a table or the index are values; a plugin's classes are integers."""
    if raw.dtype.kind != "f" or raw.ndim != 1:
        return False
    return len(np.unique(raw[np.isfinite(raw)])) > FEW_VALUES


def on_one_scale(values: NDArray, train: NDArray[np.int64]) -> NDArray:
    """A further label's values, standardised by mean and deviation of the training samples.

    Classes (integers) are returned unchanged.
    """
    if values.dtype.kind != "f" or values.ndim != 1:
        return values
    known = values[train][np.isfinite(values[train])]
    if not len(known):
        return values
    return (values - known.mean()) / (known.std() or 1.0)


def _probabilities(samples: Samples, target: Target, names: tuple[str, ...]) -> NDArray[np.float32]:
    if len(names) != len(target.classes):
        raise UsageError(
            f"finetune.soft names {len(names)} columns for {len(target.classes)} classes: give one "
            f"for each of {', '.join(target.classes)}, in that order (set by finetune.classes)."
        )
    p = np.stack([numbers(samples, name) for name in names], 1)  # (N, C)
    known = np.isfinite(p).any(1)
    wrong = known & ~((p >= 0).all(1) & (np.abs(p.sum(1) - 1) < 1e-3))
    if wrong.any():
        raise MedclError(
            f"{wrong.sum():,} of {known.sum():,} rows of {', '.join(names)} are not probabilities: "
            "each row needs all columns, no value below 0, and the sum 1."
        )
    return p.astype(np.float32)
