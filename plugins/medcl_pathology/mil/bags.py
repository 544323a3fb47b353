"""What goes into an aggregator, and what comes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from torch import Tensor

from medcl.errors import UsageError
from medcl.nn.recording import recording


@dataclass(frozen=True)
class Bags:
    """A packed batch: the instances of all bags, one bag after the other.

    Attributes:
        x: (I, F) features.
        bag: (I,) int64, which bag, 0 … ``count`` − 1 in ascending order.
        count: B, how many bags.
        coords: (I, 2) where each tile lies, in any unit, NaN where unknown; None: nowhere known.
        y: labels as `medcl.labels.outputs.Outputs` has them, while training; else None.
    """

    x: Tensor
    bag: Tensor
    count: int
    coords: Tensor | None = None
    y: Tensor | None = None

    @classmethod
    def of(cls, batch: Mapping[str, Tensor], *, labelled: bool) -> Bags:
        """The bags of a batch of `medcl.finetune`; ``labelled`` keeps their labels.

        Raises:
            UsageError: if the batch does not hold bags.
        """
        for key in ("x", "bag"):
            if key not in batch:
                raise UsageError(
                    f"Bags are classified here, but the samples have no '{key}': "
                    "use a dataset that reads bags of features."
                )
        x, bag = batch["x"], batch["bag"]
        if x.ndim != 2 or len(x) != len(bag) or not len(x):
            raise UsageError(
                f"Bags must come packed, x (I, F) and bag (I,) with I > 0; "
                f"they are {tuple(x.shape)} and {tuple(bag.shape)}."
            )
        return cls(
            x=x,
            bag=bag,
            count=1 if recording() else int(bag[-1]) + 1,
            coords=batch.get("coords"),
            y=batch["y"] if labelled else None,
        )


@dataclass(frozen=True)
class Pooled:
    """What an aggregator made of the bags.

    Attributes:
        embedding: (B, width), or (B, C, width) with one for each of the C scores.
        weights: (I,) or (I, C), what each instance counted for.
        scores: (B, `Outputs.size`) of a second stream, whose mean with the head's scores is the
            prediction (DSMIL); None where there is none.
        losses: further terms of the loss by name, already weighted; none without labels.
    """

    embedding: Tensor
    weights: Tensor
    scores: Tensor | None = None
    losses: Mapping[str, Tensor] = field(default_factory=dict)


@runtime_checkable
class Aggregator(Protocol):
    """Bags to embeddings, built as ``aggregator(features, outputs, *, ...)``.

    ``features`` is F, ``outputs`` what is to be predicted. It is an ``nn.Module``; the keyword-only
    parameters are what a recipe's ``classifier.settings`` may hold.

    Attributes:
        width: of an embedding.
        classwise: whether there is one embedding for each score.
    """

    width: int
    classwise: bool

    def __call__(self, bags: Bags) -> Pooled: ...
