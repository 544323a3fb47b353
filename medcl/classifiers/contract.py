"""What a classifier is: an ``nn.Module`` with a supervised ``step`` and a ``predict``.

It is the counterpart of `medcl.methods.contract.Method` for labelled data, and knows neither folds
nor a modality. A batch is what `Samples.read` returned, as tensors, with two keys added by the
loop: ``y`` (see `medcl.labels.outputs.Outputs`) and ``patient`` (B,) int64 codes. Samples that
are bags come packed: ``x`` (I, F) holds the instances of all bags one after the other and ``bag``
(I,) int64 says which bag, 0 … B−1 in ascending order, each belongs to; every bag has at least one
instance.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from torch import Tensor, nn

from medcl.methods.contract import State, View

VIEW = "view."
"""Before the number of a view in the batch of a classifier that asks for views."""


@dataclass(frozen=True)
class Declares:
    """What a classifier says of itself before it is built: its class attribute ``declares``.

    Attributes:
        encoder: whether it is built on one, ``classifier(encoder, example, outputs, *, ...)``, or
            without, ``classifier(example, outputs, *, ...)``.
        takes: "samples", whose ``x`` is (B, ...); or "bags", packed as above. None: either.
        views: views of the sample itself that it is given in training batches, as ``view.0``,
            ``view.1``, …; with them it may learn from samples without a label too
            (``finetune.unlabelled``) and from `medcl.labels.auxiliary`.
        auxiliary: whether it learns from `Outputs.also`.
        needs: further keys that a batch must hold, such as "table".
        head: the module of it that takes the embedding (B, width) or (B, C, width), as a dotted
            name ("whole.head"); None where it has none.
    """

    encoder: bool = True
    takes: Literal["samples", "bags"] | None = "samples"
    views: tuple[View, ...] = ()
    auxiliary: bool = False
    needs: tuple[str, ...] = ()
    head: str | None = None


@runtime_checkable
class Classifier(Protocol):
    """The contract of ``Plugin.classifiers`` and of `medcl.finetune`.

    Built as `Declares.encoder` says: ``example`` is one batch as described above, from which a
    factory reads the shapes of its input; the keyword-only parameters are what a recipe's section
    ``classifier`` may set. One in which something follows the optimiser has ``after_step`` too
    (`medcl.methods.contract.Following`); one whose layers learn at rates of their own is
    `Layerwise`. One whose loss changes over the training says with ``scheduled`` up to
    which share of it (0 … 1): only later epochs are chosen by validation.
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

        Of bags also ``instances`` (I,) or (I, C): what each instance counted for, to be shown.
        """
        ...


@runtime_checkable
class Layerwise(Protocol):
    """A classifier whose parameters learn at different rates."""

    def rate(self, name: str) -> float:
        """The factor on the learning rate of a parameter, by its name in ``named_parameters``."""
        ...


def declared(factory: Callable[..., Any]) -> Declares:
    """What a classifier's factory declares.

    One of before `Declares` says it by the name of its first parameter and by the attributes
    ``views`` and ``learns_also``; it is read here and nowhere else.
    """
    found = getattr(factory, "declares", None)
    if isinstance(found, Declares):
        return found
    return Declares(
        encoder=next(iter(inspect.signature(factory).parameters), "") == "encoder",
        takes=None,
        views=tuple(getattr(factory, "views", ())),
        auxiliary=bool(getattr(factory, "learns_also", False)),
    )


def head_of(classifier: nn.Module) -> nn.Module | None:
    """The module that takes the embedding, if any; without `Declares`, the last one named head."""
    found = getattr(classifier, "declares", None)
    if isinstance(found, Declares):
        return classifier.get_submodule(found.head) if found.head else None
    heads = [m for name, m in classifier.named_modules() if name.split(".")[-1] == "head"]
    return heads[-1] if heads else None
