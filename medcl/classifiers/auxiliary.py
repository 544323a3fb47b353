"""Heads for auxiliary labels, which train the encoder together with the main label."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from medcl.classifiers.losses import supervised
from medcl.labels.outputs import ALSO, Auxiliary


class Heads(nn.Module):
    """Σ_k w_k · L_k, one linear head per auxiliary label: multi-task learning (Caruana 1997, doi
    10.1023/A:1007379606734) with fixed weights.

    A sample without a label does not enter that label's term.

    Args:
        width: of the features.
        labels: auxiliary labels, with their weights.
    """

    def __init__(self, width: int, labels: tuple[Auxiliary, ...]) -> None:
        super().__init__()
        self.labels = labels
        self.heads = nn.ModuleList(nn.Linear(width, one.outputs.size) for one in labels)

    def forward(self, h: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Features (B, width) and their batch → scalar."""
        losses = [
            one.weight * supervised(one.outputs, head(h), batch[f"{ALSO}{one.name}"])
            for one, head in zip(self.labels, self.heads, strict=True)
        ]
        return torch.stack(losses).sum() if losses else h.new_zeros(())
