"""A momentum copy: the slowly following teacher, target or key encoder."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn


class Momentum(nn.Module):
    """A frozen copy of ``online`` that follows it: θ′ ← m·θ′ + (1 − m)·θ (He 2020, 1911.05722).

    Buffers (the running statistics of batch normalisation) are copied as they are. Gradients never
    flow into or through the copy. ``online`` itself is not kept: hand it to `follow` each time, so
    that a state_dict holds every weight once.
    """

    def __init__(self, online: nn.Module) -> None:
        super().__init__()
        self.module = copy.deepcopy(online).requires_grad_(False)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """What the copied module makes of ``x``, without gradient."""
        out: Tensor = self.module(x)
        return out

    @torch.no_grad()
    def follow(self, online: nn.Module, momentum: float) -> None:
        """Move towards ``online``; call it once after every optimiser step."""
        for kept, new in zip(self.module.parameters(), online.parameters(), strict=True):
            kept.lerp_(new, 1.0 - momentum)
        for buffer, theirs in zip(self.module.buffers(), online.buffers(), strict=True):
            buffer.copy_(theirs)


def cosine_momentum(base: float, step: int, steps: int) -> float:
    """m rising from ``base`` to 1: 1 − (1 − base)·(cos(π·step/steps) + 1)/2 (BYOL, 2006.07733)."""
    progress = min(step / max(steps, 1), 1.0)
    return 1.0 - (1.0 - base) * (math.cos(math.pi * progress) + 1.0) / 2.0
