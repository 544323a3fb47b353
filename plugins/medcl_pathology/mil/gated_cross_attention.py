"""Attention to another set of tokens, let in through a gate (Flamingo)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_UNITS = 64  # of a head


class GatedCrossAttention(nn.Module):
    """x ← x + tanh(a)·attention(LN(x), other); x ← x + tanh(b)·MLP(x), a = b = 0 at the start.

    Alayrac 2022 (Flamingo, arXiv 2204.14198), without biases, as SongCi takes it.
    """

    def __init__(self, width: int, heads: int = 8) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, heads * _UNITS, bias=False)
        self.key_value = nn.Linear(width, 2 * heads * _UNITS, bias=False)
        self.out = nn.Linear(heads * _UNITS, width, bias=False)
        self.gate = nn.Parameter(torch.zeros(1))
        self.mlp = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width, bias=False),
            nn.GELU(),
            nn.Linear(4 * width, width, bias=False),
        )
        self.mlp_gate = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, other: Tensor, there: Tensor) -> Tensor:
        """(B, N, width), (B, M, width) → (B, N, width); ``there`` (B, M) is False for padding.

        Where a row has nothing to attend to, nothing is added.
        """
        q = self.query(self.norm(x)).unflatten(2, (self.heads, _UNITS)).transpose(1, 2)
        both = self.key_value(other).unflatten(2, (2, self.heads, _UNITS))
        k, v = both.permute(2, 0, 3, 1, 4)
        some = there.any(1)[:, None, None]
        mask = (there | ~there.any(1, keepdim=True))[:, None, None]  # an empty row would be NaN
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        added = self.out(seen.transpose(1, 2).flatten(2)) * some
        x = x + added * self.gate.tanh()
        out: Tensor = x + self.mlp(x) * self.mlp_gate.tanh()
        return out


def counted(number: Tensor, width: int, longest: float = 10_000) -> Tensor:
    """Cosines and sines of a number at ``width`` / 2 frequencies: (...) → (..., width), even."""
    half = width // 2
    steps = torch.arange(half, device=number.device, dtype=torch.float32)
    angle = number[..., None].float() * torch.exp(-math.log(longest) * steps / half)
    return torch.cat([angle.cos(), angle.sin()], dim=-1)
