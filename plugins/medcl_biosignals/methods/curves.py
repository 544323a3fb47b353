"""A decoder for windows of any length: a few cosines a channel, as coefficients of an embedding."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def cosines(count: int, length: int, device: torch.device | None = None) -> Tensor:
    """The first ``count`` functions of the discrete cosine transform II, orthonormal: (K, T)."""
    t = (torch.arange(length, device=device) + 0.5) / length
    basis = torch.cos(math.pi * torch.arange(count, device=device)[:, None] * t)
    basis[0] /= math.sqrt(2)
    return basis * math.sqrt(2 / length)


class Curves(nn.Module):
    """(B, width) → (B, channels, T), affine in the embedding.

    With ``count`` of T possible cosines the curve is smooth: up to count·fs/(2·T) Hz.
    """

    def __init__(self, width: int, channels: int, count: int) -> None:
        super().__init__()
        self.channels, self.count = channels, count
        self.coefficients = nn.Linear(width, channels * count)

    def forward(self, h: Tensor, length: int) -> Tensor:
        coefficients = self.coefficients(h).unflatten(1, (self.channels, self.count))
        scale = math.sqrt(length / self.count)  # unit coefficients are a curve of unit size
        out: Tensor = scale * coefficients @ cosines(self.count, length, h.device).to(h.dtype)
        return out
