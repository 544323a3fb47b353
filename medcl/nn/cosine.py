"""A linear layer of cosines, for losses with margins between directions."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Cosine(nn.Module):
    """(..., width) → (..., size): scale · cos(x, each row of the weights).

    The classifier of LDAM (Cao 2019, arXiv 1906.07413): a margin needs logits that are bounded.
    """

    def __init__(self, width: int, size: int, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size, width).uniform_(-1, 1))
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return self.scale * F.linear(F.normalize(x, dim=-1), F.normalize(self.weight, dim=-1))
