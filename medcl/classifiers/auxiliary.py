"""Heads for further labels, which teach the encoder beside the one that is wanted."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from medcl.classifiers.losses import supervised
from medcl.labels.outputs import ALSO, Also


class Heads(nn.Module):
    """Σ_k w_k · L_k, a linear head for each further label: multi-task learning (Caruana 1997, doi
    10.1023/A:1007379606734) with weights that are given.

    A sample without such a label takes no part in its term.

    Args:
        width: of the features.
        also: the labels.
    """

    def __init__(self, width: int, also: tuple[Also, ...]) -> None:
        super().__init__()
        self.also = also
        self.heads = nn.ModuleList(nn.Linear(width, one.outputs.size) for one in also)

    def forward(self, h: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Features (B, width) and the batch they are of → scalar."""
        losses = [
            one.weight * supervised(one.outputs, head(h), batch[f"{ALSO}{one.name}"])
            for one, head in zip(self.also, self.heads, strict=True)
        ]
        return torch.stack(losses).sum() if losses else h.new_zeros(())
