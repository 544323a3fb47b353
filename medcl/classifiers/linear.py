"""A linear classifier on frozen features."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from medcl.classifiers.contract import Declares
from medcl.classifiers.encoding import width
from medcl.classifiers.losses import head, of_batch
from medcl.labels.outputs import Outputs
from medcl.methods.contract import State


class Linear(nn.Module):
    """The encoder is frozen; running statistics standardise its features.

    Batch norm without weights before the head, as in the probes of MAE (He 2022, arXiv 2111.06377).

    Args:
        encoder: (B, ...) → (B, width).
        example: a batch.
        outputs: what the classifier predicts.
        dropout: of features.
    """

    declares = Declares(mixup=True, head="head")

    def __init__(
        self,
        encoder: nn.Module,
        example: Mapping[str, Tensor],
        outputs: Outputs,
        *,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.encoder, self.outputs = encoder.requires_grad_(False).eval(), outputs
        size = width(encoder, example["x"])
        self.norm = nn.BatchNorm1d(size, affine=False)
        self.head = nn.Sequential(nn.Dropout(dropout), head(size, outputs))

    def train(self, mode: bool = True) -> Linear:
        """The encoder stays in evaluation mode."""
        super().train(mode)
        self.encoder.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...) → (B, size)."""
        with torch.set_grad_enabled(
            x.requires_grad
        ):  # for an adversarial attack; never in training
            features = self.encoder(x.float())
        scores: Tensor = self.head(self.norm(features))
        return scores

    def step(self, batch: Mapping[str, Tensor], state: State) -> dict[str, Tensor]:
        """See `Classifier.step`."""
        return {"loss": of_batch(self.outputs, self(batch["x"]), batch, state.progress)}

    def predict(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Classifier.predict`."""
        return {"scores": self(batch["x"])}
