"""What a classifier predicts: the kind of problem, its classes, and the loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from medcl.metrics.metrics import Kind

Loss = Literal["ce", "weighted", "focal", "robust"]
ALSO = "also."
"""Before the name of a further label in the batch."""


@dataclass(frozen=True)
class Outputs:
    """What is to be predicted, and how a mistake is weighed.

    Attributes:
        kind: of problem. It decides the shape of ``y``: class codes (B,) int64, −1 where unknown
            (binary, multiclass, ordinal); (B, L) float of 1, 0 and NaN (multilabel); (B,) float,
            NaN where unknown (regression); (B, 2) float of time and whether the event was seen
            (cox; hazard with the time as the number of its interval).
        classes: names in the order of the codes; of a regression or survival, one name; of
            ``hazard``, one for each interval.
        loss: cross-entropy as it is, weighted by class, focal (Lin 2017, arXiv 1708.02002), or
            robust to wrong labels; see `medcl.classifiers.losses.supervised`.
        weights: one for each class, from training patients alone; None for equal ones.
        also: further labels to learn from, for classifiers that declare ``auxiliary``.
    """

    kind: Kind
    classes: tuple[str, ...]
    loss: Loss = "ce"
    weights: tuple[float, ...] | None = None
    also: tuple[Also, ...] = ()

    @property
    def size(self) -> int:
        """Scores a sample: the logits of C classes (binary: 2) or L labels, or 1 value."""
        return {"ordinal": len(self.classes) - 1, "regression": 1, "cox": 1}.get(
            self.kind, len(self.classes)
        )


@dataclass(frozen=True)
class Also:
    """A further label: in the batch as ``also.`` and its name, in the form of its kind."""

    name: str
    outputs: Outputs
    weight: float
