"""What a classifier is: an ``nn.Module`` with a supervised ``step`` and a ``predict``.

It is the counterpart of `medcl.methods.contract.Method` for labelled data, and knows neither folds
nor a modality. A batch is what `Samples.read` returned, as tensors, with two keys added by the
loop: ``y`` (see `medcl.labels.outputs.Outputs`) and ``patient`` (B,) int64 codes. Samples that
are bags come packed: ``x`` (I, F) holds the instances of all bags one after the other and ``bag``
(I,) int64 says which bag, 0 … B−1 in ascending order, each belongs to; every bag has at least one
instance.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from torch import Tensor

from medcl.methods.contract import State

VIEW = "view."
"""Before the number of a view in the batch of a classifier that asks for views."""


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
