"""A momentum copy (EMA): the teacher, target or key encoder."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from medcl.nn.vit import Block


class Momentum(nn.Module):
    """A frozen copy of ``online`` that follows it: θ′ ← m·θ′ + (1 − m)·θ (He 2020, 1911.05722).

    Buffers (the running statistics of batch normalisation) are copied as they are. Gradients never
    flow into or through the copy. ``online`` itself is not stored: pass it to `follow`, so that
    a state_dict holds every weight once.
    """

    def __init__(self, online: nn.Module) -> None:
        super().__init__()
        self.module = copy.deepcopy(online).requires_grad_(False)
        for part in self.module.modules():
            if isinstance(part, Block):
                part.drop_path = 0.0  # a teacher uses all of itself

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """The copy's output for ``x``, without gradient."""
        out: Tensor = self.module(x)
        return out

    @torch.no_grad()
    def follow(self, online: nn.Module, momentum: float) -> None:
        """Move towards ``online``; call it once after every optimiser step."""
        for copied, new in zip(self.module.parameters(), online.parameters(), strict=True):
            copied.lerp_(new, 1.0 - momentum)
        for copied_buffer, buffer in zip(self.module.buffers(), online.buffers(), strict=True):
            copied_buffer.copy_(buffer)


def cosine_momentum(base: float, step: int, steps: int) -> float:
    """m rising from ``base`` to 1: 1 − (1 − base)·(cos(π·step/steps) + 1)/2 (BYOL, 2006.07733)."""
    progress = min(step / max(steps, 1), 1.0)
    return 1.0 - (1.0 - base) * (math.cos(math.pi * progress) + 1.0) / 2.0
