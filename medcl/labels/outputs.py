"""The outputs of a classifier: the kind of problem, its classes, and the loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from medcl.metrics.metrics import Kind

Loss = Literal[
    "ce", "weighted", "focal", "robust", "class-balanced", "ldam", "ldam-drw", "logit-adjusted"
]
ALSO = "also."
"""Prefix of an auxiliary label's name in the batch."""


@dataclass(frozen=True)
class Outputs:
    """What a classifier predicts, and its loss.

    Attributes:
        kind: of problem. It decides the shape of ``y``: class codes (B,) int64, −1 where unknown
            (binary, multiclass, ordinal); (B, L) float of 1, 0 and NaN (multilabel); (B,) float,
            NaN where unknown (regression); (B, 2) float of time and whether the event was seen
            (cox; hazard with the time as the number of its interval).
        classes: names in the order of the codes; of a regression or survival, one name; of
            ``hazard``, one for each interval.
        loss: cross-entropy ("ce"), class-weighted, focal (Lin 2017, arXiv 1708.02002), or
            robust to wrong labels; see `medcl.classifiers.losses.supervised`.
        weights: one for each class, from training patients alone; None for equal weights.
        counts: training samples of each class, for the losses that need them; else None.
        auxiliary: further labels to learn from, for classifiers that declare ``auxiliary``.
    """

    kind: Kind
    classes: tuple[str, ...]
    loss: Loss = "ce"
    weights: tuple[float, ...] | None = None
    auxiliary: tuple[Auxiliary, ...] = ()
    counts: tuple[int, ...] | None = None

    @property
    def size(self) -> int:
        """Scores per sample: the logits of C classes (binary: 2) or L labels, or 1 value."""
        return {"ordinal": len(self.classes) - 1, "regression": 1, "cox": 1}.get(
            self.kind, len(self.classes)
        )

    @property
    def also(self) -> tuple[Auxiliary, ...]:
        """`auxiliary`, by its older name."""
        return self.auxiliary


@dataclass(frozen=True)
class Auxiliary:
    """An auxiliary label: in the batch as ``also.`` and its name, in the form of its kind."""

    name: str
    outputs: Outputs
    weight: float
