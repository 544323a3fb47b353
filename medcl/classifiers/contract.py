"""What a classifier is: an ``nn.Module`` with a supervised ``step`` and a ``predict``.

It is the counterpart of `medcl.methods.contract.Method` for labelled data, and independent of
folds and modality. A batch is what `Samples.read` returned, as tensors, with two keys added by the
loop: ``y`` (see `medcl.labels.outputs.Outputs`) and ``patient`` (B,) int64 codes. Bags
are packed: ``x`` (I, F) holds the instances of all bags in order, and ``bag`` (I,) int64
holds the bag of each, 0 … B−1 ascending; every bag has at least one instance.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from torch import Tensor, nn

from medcl.methods.contract import State, View

VIEW = "view."
"""Prefix of a view's number in the batch of a classifier that declares views."""


@dataclass(frozen=True)
class Declares:
    """Properties of a classifier, known before it is built: its class attribute ``declares``.

    Attributes:
        encoder: True if built as ``classifier(encoder, example, outputs, *, ...)``, False if as
            ``classifier(example, outputs, *, ...)``.
        takes: "samples", whose ``x`` is (B, ...); "bags", packed as above; or "masks": patches with
            the class of each position, trained by `medcl.dense`: ``batch["mask"]`` is the target,
            and ``scores`` are (B, size, *space). None: samples or bags.
        views: views of the sample in training batches, as ``view.0``, ``view.1``, …; with them it
            may also learn from samples without a label (``finetune.unlabelled``) and from
            `medcl.labels.auxiliary`. Of masks: one view, of patch and mask alike, in place of
            them; none to train on patches as they are.
        auxiliary: True if it learns from `Outputs.auxiliary`.
        mixup: True if its loss is `losses.of_batch`, so that samples may be mixed.
        needs: further required keys of a batch, such as "table".
        method: True if it is built on the pretraining method in place of its encoder, as
            ``classifier(method, example, outputs, *, ...)``: its other parts are used too.
        head: its module that takes the embedding (B, width) or (B, C, width), as a dotted
            name ("whole.head"); None where it has none.
    """

    encoder: bool = True
    takes: Literal["samples", "bags", "masks"] | None = "samples"
    views: tuple[View, ...] = ()
    auxiliary: bool = False
    mixup: bool = False
    needs: tuple[str, ...] = ()
    head: str | None = None
    method: bool = False


@runtime_checkable
class Classifier(Protocol):
    """The contract of ``Plugin.classifiers`` and of `medcl.finetune`.

    Built as `Declares.encoder` defines: ``example`` is one batch as described above, which gives
    the input shapes; a recipe's section ``classifier`` sets the keyword-only parameters. A
    classifier that updates state after the optimiser step also has ``after_step``
    (`medcl.methods.contract.Following`); one with learning rates by layer is `Layerwise`. One whose
    loss changes over the training declares with ``scheduled`` up to which share of it (0 … 1): only
    later epochs are chosen by validation.
    """

    @property
    def declares(self) -> Declares:
        """See `Declares`; an attribute of the class."""
        ...

    def step(self, batch: Mapping[str, Tensor], state: State) -> dict[str, Tensor]:
        """One training step: ``loss`` (scalar, with gradient), and any further scalars to log."""
        ...

    def predict(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """``scores`` (B, `Outputs.size`), before softmax or sigmoid.

        For bags also ``instances`` (I,) or (I, C): each instance's contribution, for display.
        """
        ...


@runtime_checkable
class Layerwise(Protocol):
    """A classifier whose parameters learn at different rates."""

    def rate(self, name: str) -> float:
        """The factor on the learning rate of a parameter, by its name in ``named_parameters``."""
        ...


def declared(factory: Callable[..., Any]) -> Declares:
    """Declared properties of a classifier's factory.

    A classifier older than `Declares` gives them by the name of its first parameter and by the
    attributes ``views`` and ``learns_also``; only this function reads those.
    """
    own = getattr(factory, "declares", None)
    if isinstance(own, Declares):
        return own
    return Declares(
        encoder=next(iter(inspect.signature(factory).parameters), "") == "encoder",
        takes=None,
        views=tuple(getattr(factory, "views", ())),
        auxiliary=bool(getattr(factory, "learns_also", False)),
    )


def head_of(classifier: nn.Module) -> nn.Module | None:
    """The module that takes the embedding, if any; without `Declares`, the last one named head."""
    own = getattr(classifier, "declares", None)
    if isinstance(own, Declares):
        return classifier.get_submodule(own.head) if own.head else None
    heads = [m for name, m in classifier.named_modules() if name.split(".")[-1] == "head"]
    return heads[-1] if heads else None
