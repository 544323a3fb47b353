"""The classifier of bags: a network on instances, an aggregator, a linear head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from medcl.classifiers.contract import Declares
from medcl.classifiers.losses import head, supervised
from medcl.errors import UsageError
from medcl.labels.outputs import Outputs
from medcl.methods.contract import State
from medcl.nn.cosine import Cosine
from medcl.registry import checked, lookup
from medcl_pathology.mil.bags import Aggregator, Bags, Pooled
from medcl_pathology.mil.dropout import Dropout
from medcl_pathology.mil.registry import AGGREGATORS


def perceptron(widths: Sequence[int], dropout: float) -> nn.Sequential:
    """(I, widths[0]) → (I, widths[-1]): linear layers, ReLU and dropout after each.

    Of one width it is the features as they are, with dropout where there is any.
    """
    blocks: list[nn.Module] = []
    for before, after in pairwise(widths):
        blocks += [nn.Linear(before, after), nn.ReLU(inplace=True), Dropout(dropout)]
    if not blocks and dropout:
        blocks = [Dropout(dropout)]
    return nn.Sequential(*blocks)


class BagEncoder(nn.Module):
    """Instances through a multi-layer perceptron, then an aggregator: `Bags` → `Pooled`.

    Args:
        features: F of the instances.
        outputs: what is to be predicted; some aggregators have a branch for each score.
        aggregator: a name in `AGGREGATORS`.
        settings: keyword parameters of that aggregator.
        layers: widths of the perceptron, ReLU after each; none of them leaves the features as
            they are.
        dropout: after each layer; without layers, of the features.
    """

    def __init__(
        self,
        features: int,
        outputs: Outputs,
        aggregator: str,
        settings: Mapping[str, Any] | None,
        layers: Sequence[int],
        dropout: float,
    ) -> None:
        super().__init__()
        self.instances = perceptron((features, *layers), dropout)
        build = lookup(AGGREGATORS, aggregator, "aggregator")
        try:
            given = checked(build, settings or {}, "classifier.settings")
        except UsageError as error:
            raise UsageError(
                f"{error} They are those of aggregator {aggregator}; where the recipe's are of "
                "another: -s classifier.settings={}"
            ) from None
        self.aggregator: Aggregator = build((features, *layers)[-1], outputs, **given)

    @property
    def width(self) -> int:
        """Of one bag's embedding."""
        return self.aggregator.width

    def forward(self, bags: Bags) -> Pooled:
        """See the class."""
        x = self.instances(bags.x)
        pooled: Pooled = self.aggregator(
            Bags(x, bags.bag, bags.count, coords=bags.coords, y=bags.y)
        )
        return pooled


class Head(nn.Module):
    """Embeddings to scores: (B, width) → (B, S), or (B, S, width) → (B, S), each its own row."""

    def __init__(self, width: int, outputs: Outputs, classwise: bool) -> None:
        super().__init__()
        self.classwise = classwise
        self.linear = head(width, outputs)

    def forward(self, embedding: Tensor) -> Tensor:
        """See the class."""
        if self.classwise and isinstance(self.linear, Cosine):
            scores: Tensor = self.linear(embedding).diagonal(dim1=1, dim2=2)  # of (B, S, S)
            return scores
        if self.classwise and isinstance(self.linear, nn.Linear):
            return (embedding * self.linear.weight).sum(2) + self.linear.bias
        scores = self.linear(embedding)
        return scores


class Mil(nn.Module):
    """Multiple-instance learning: the bag's label trains an aggregator and a linear head.

    L = supervised(head(z), y) + the aggregator's own terms, z the bag's embedding.

    Args:
        example: one batch, for the width of the instances.
        outputs: what is to be predicted, of any kind.
        aggregator: "mean", "max", "abmil", "gated-abmil", "clam-sb", "clam-mb", "dsmil",
            "transmil", "acmil", "dtfd", "dgr-mil", "sm-abmil", "camil", "patch-gcn" or "graph".
        settings: keyword parameters of that aggregator.
        layers: widths of a perceptron on the instances before it.
        dropout: in that perceptron; without layers, of the features.

    Raises:
        UsageError: for an unknown aggregator or setting, or samples that are no bags.
    """

    declares = Declares(encoder=False, takes="bags", head="head")

    def __init__(
        self,
        example: Mapping[str, Tensor],
        outputs: Outputs,
        *,
        aggregator: str = "abmil",
        settings: dict[str, Any] | None = None,
        layers: tuple[int, ...] = (),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        features = Bags.of(example, labelled=False).x.shape[1]
        self.outputs = outputs
        self.encoder = BagEncoder(features, outputs, aggregator, settings, layers, dropout)
        self.head = Head(self.encoder.width, outputs, self.encoder.aggregator.classwise)

    def step(self, batch: Mapping[str, Tensor], state: State) -> dict[str, Tensor]:
        """See `medcl.classifiers.contract.Classifier.step`."""
        pooled = self.encoder(Bags.of(batch, labelled=True))
        loss = supervised(self.outputs, self.head(pooled.embedding), batch["y"], state.progress)
        terms = {name: term.detach() for name, term in pooled.losses.items()}
        return {"loss": total(loss, pooled), "bag": loss.detach(), **terms}

    def predict(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `medcl.classifiers.contract.Classifier.predict`."""
        return predicted(self.encoder(Bags.of(batch, labelled=False)), self.head)


def total(loss: Tensor, pooled: Pooled) -> Tensor:
    """The loss with the aggregator's own terms."""
    return torch.stack([loss, *(term.to(loss.dtype) for term in pooled.losses.values())]).sum()


def predicted(pooled: Pooled, head: nn.Module) -> dict[str, Tensor]:
    """Scores of the bags, the mean of both streams where there are two, and instance weights."""
    scores = head(pooled.embedding)
    if pooled.scores is not None:
        scores = (scores + pooled.scores) / 2
    return {"scores": scores, "instances": pooled.weights}


def needs_classes(outputs: Outputs, what: str) -> None:
    """Refuse problems without exclusive classes.

    Raises:
        UsageError: for multi-label, regression and survival.
    """
    if outputs.kind not in ("binary", "multiclass", "ordinal"):
        raise UsageError(
            f"{what} needs one class a bag, but the task is {outputs.kind}: use 'mil' for it."
        )
