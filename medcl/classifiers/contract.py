"""What a classifier is: an ``nn.Module`` with a supervised ``step`` and a ``predict``.

It is the counterpart of `medcl.methods.contract.Method` for labelled data, and knows neither folds
nor a modality. A batch is what `Samples.read` returned, as tensors, with two keys added by the
loop: ``y`` (see `Outputs`) and ``patient`` (B,) int64 codes. Samples that are bags come packed:
``x`` (I, F) holds the instances of all bags one after the other and ``bag`` (I,) int64 says which
bag, 0 … B−1 in ascending order, each belongs to; every bag has at least one instance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from torch import Tensor

from medcl.methods.contract import State

Kind = Literal["binary", "multiclass", "multilabel", "ordinal", "regression", "cox", "hazard"]
Loss = Literal["ce", "weighted", "focal", "robust"]
VIEW = "view."
"""Before the number of a view in the batch of a classifier that asks for views."""
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
        also: further labels to learn from, for classifiers with ``learns_also``.
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


@runtime_checkable
class Classifier(Protocol):
    """The contract of ``Plugin.classifiers`` and of `medcl.finetune`.

    Built as ``classifier(example, outputs, *, ...)``: ``example`` is one batch as described above,
    from which a factory reads the shapes of its input; the keyword-only parameters are what a
    recipe's section ``classifier`` may set.

    One that has ``views`` as a pretraining method has (`medcl.methods.contract.View`; of the sample
    itself) finds them in its training batches as ``view.0``, ``view.1``, … and may learn from
    samples without a label: it is given those of ``finetune.unlabelled``. What samples say beside
    their label is there too, see `medcl.labels.auxiliary`. One whose ``learns_also`` is true learns
    from `Outputs.also`.
    """

    def step(self, batch: Mapping[str, Tensor], state: State) -> dict[str, Tensor]:
        """One training step: ``loss`` (scalar, with gradient), and any further scalars to log."""
        ...

    def predict(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """``scores`` (B, `Outputs.size`), before softmax or sigmoid.

        Of bags also ``instances`` (I,) or (I, C): what each instance counted for, to be shown.
        """
        ...

    def after_step(self, state: State) -> None:
        """Called after the optimiser moved: momentum copies, queues, prototypes."""
        ...
