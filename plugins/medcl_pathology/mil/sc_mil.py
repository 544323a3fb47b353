"""Supervised contrast of bags beside their classification, for rare classes (SC-MIL)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from medcl.classifiers.contract import Declares
from medcl.classifiers.losses import supervised
from medcl.labels.outputs import Outputs
from medcl.methods.contract import State
from medcl.nn.ema import Momentum
from medcl.nn.heads import mlp
from medcl.nn.queue import Queue
from medcl_pathology.mil.bags import Bags
from medcl_pathology.mil.classifier import BagEncoder, Head, needs_classes, predicted, total
from medcl_pathology.mil.queued import queued_supcon

Curriculum = Literal["linear", "parabolic", "cosine", "step"]


class ScMil(nn.Module):
    """SC-MIL (Juyal 2023, arXiv 2303.13405): first tell classes of bags apart, then name them.

    L = w_t · SupCon(projection of z) + (1 − w_t) · (supervised(head(z), y) + the aggregator's own
    terms), z the bag's embedding; w_t falls from 1 to 0 over the training. A batch holds few bags,
    so the contrast is also against earlier ones, embedded by a momentum copy: each class has a
    queue of its own, and a rare class keeps its positives. (The paper contrasts within large
    batches. ``finetune.sampler: balanced`` gives its class-balanced batches.)

    Args:
        example: one batch, for the width of the instances.
        outputs: binary, multi-class or ordinal.
        aggregator: how instances become a bag's embedding, by name, as in `Mil`.
        settings: keyword parameters of that aggregator.
        layers: widths of the perceptron before it; none leaves the features as they are.
        dropout: after each layer, 0 to 1.
        curriculum: w_t over progress p: "linear" 1 − p, "parabolic" 1 − p², "cosine"
            (1 + cos πp)/2, "step" 1 in the first half and 0 in the second.
        temperature: τ.
        hidden: width of the projector's hidden layer.
        out: width of the projections.
        queue: bags remembered, shared out evenly among the classes; 0 for none.
        momentum: m of the copy that embeds them.

    Raises:
        UsageError: for other kinds of problem, and as in `Mil`.
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
        curriculum: Curriculum = "linear",
        temperature: float = 0.1,
        hidden: int = 256,
        out: int = 128,
        queue: int = 256,
        momentum: float = 0.99,
    ) -> None:
        super().__init__()
        needs_classes(outputs, "SC-MIL")
        features = Bags.of(example, labelled=False).x.shape[1]
        self.outputs, self.curriculum = outputs, curriculum
        self.scheduled = 0.5 if curriculum == "step" else 1.0  # until w_t is 0
        self.temperature, self.momentum = temperature, momentum
        encoder = BagEncoder(features, outputs, aggregator, settings, layers, dropout)
        classwise = encoder.aggregator.classwise
        self.head = Head(encoder.width, outputs, classwise)
        width = encoder.width * (outputs.size if classwise else 1)
        self.online = Projected(encoder, mlp((width, hidden, out), norm=False))
        share = queue // len(outputs.classes)
        self.target = Momentum(self.online) if share else None
        self.queues = nn.ModuleList(Queue(share, out) for _ in outputs.classes if share)

    def _queues(self) -> list[Queue]:
        return [cast(Queue, queue) for queue in self.queues]

    def step(self, batch: Mapping[str, Tensor], state: State) -> dict[str, Tensor]:
        """See `medcl.classifiers.contract.Classifier.step`."""
        bags, y = Bags.of(batch, labelled=True), batch["y"]
        pooled = self.online.encoder(bags)
        z = self.online.projector(pooled.embedding.flatten(1))  # (B, out)
        keys, key_labels = self._remembered(z)
        contrast = queued_supcon(
            z, y, keys, key_labels, temperature=self.temperature, ranks=state.ranks
        )
        loss = supervised(self.outputs, self.head(pooled.embedding), y, state.progress)
        w = contrast_weight(self.curriculum, state.progress)
        self._remember(bags, y, state)
        return {
            "loss": w * contrast + (1 - w) * total(loss, pooled),
            "bag": loss.detach(),
            "contrast": contrast.detach(),
            "contrast_weight": z.new_tensor(w),
        }

    def predict(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `medcl.classifiers.contract.Classifier.predict`."""
        return predicted(self.online.encoder(Bags.of(batch, labelled=False)), self.head)

    def after_step(self, state: State) -> None:
        """The copy follows."""
        if self.target is not None:
            self.target.follow(self.online, self.momentum)

    def _remembered(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """The queues' keys (K, out) and their classes (K,)."""
        keys = [queue.keys for queue in self._queues()]
        codes = torch.arange(len(keys), device=like.device)
        counts = torch.tensor([len(each) for each in keys], dtype=torch.long, device=like.device)
        return torch.cat((like.new_zeros(0, like.shape[1]), *keys)), codes.repeat_interleave(counts)

    @torch.no_grad()
    def _remember(self, bags: Bags, y: Tensor, state: State) -> None:
        if self.target is None:
            return
        keys = self.target.module(Bags(bags.x, bags.bag, bags.count, coords=bags.coords))
        keys, y = state.ranks.gather(keys), state.ranks.gather(y)
        for code, queue in enumerate(self._queues()):
            if len(mine := keys[y == code]):
                queue.push(mine)


class Projected(nn.Module):
    """Bags to their projections (B, out)."""

    def __init__(self, encoder: BagEncoder, projector: nn.Module) -> None:
        super().__init__()
        self.encoder, self.projector = encoder, projector

    def forward(self, bags: Bags) -> Tensor:
        """See the class."""
        z: Tensor = self.projector(self.encoder(bags).embedding.flatten(1))
        return z


def contrast_weight(curriculum: Curriculum, progress: float) -> float:
    """w_t at ``progress`` 0 … 1, from 1 to 0.

    Example:
        >>> [contrast_weight("parabolic", p) for p in (0.0, 0.5, 1.0)]
        [1.0, 0.75, 0.0]
    """
    match curriculum:
        case "linear":
            return 1 - progress
        case "parabolic":
            return 1 - progress**2
        case "cosine":
            return (1 + math.cos(math.pi * progress)) / 2
        case "step":
            return 1.0 if progress < 0.5 else 0.0
