"""The Transformer of Primus: rotary positions, SwiGLU, normalisation within the MLP."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medcl.nn.patches import grid_of, patchify, positions, take

_BASE = 10000.0


def angles(grid: Sequence[int], width: int, device: torch.device) -> Tensor:
    """Rotary angles (N, width // 2) of positions: an equal share for each axis, the rest zero.

    Su 2021, arXiv 2104.09864, with one band of frequencies an axis.
    """
    share = width // (2 * len(grid))
    rates = _BASE ** (-torch.arange(share, device=device) / max(share, 1))
    mesh = torch.meshgrid(*(torch.arange(n, device=device) for n in grid), indexing="ij")
    turned = torch.cat([axis.reshape(-1, 1) * rates for axis in mesh], dim=1)
    return F.pad(turned, (0, width // 2 - turned.shape[1]))


def rotate(x: Tensor, by: Tensor) -> Tensor:
    """Turn pairs of channels of (B, heads, N, width) by angles (B or 1, 1, N, width // 2)."""
    even, odd = x[..., 0::2], x[..., 1::2]
    cos, sin = by.cos().to(x.dtype), by.sin().to(x.dtype)
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)


class EvaBlock(nn.Module):
    """Pre-norm attention with rotary positions, and a SwiGLU MLP with normalisation inside.

    Fang 2024 (EVA-02), arXiv 2303.11331; ``scale`` is its layer scale, None for none.
    """

    def __init__(self, width: int, heads: int, inner: int, scale: float | None) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.gate, self.up = nn.Linear(width, inner), nn.Linear(width, inner)
        self.inner_norm, self.down = nn.LayerNorm(inner), nn.Linear(inner, width)
        self.scales = None if scale is None else nn.Parameter(torch.full((2, width), float(scale)))

    def forward(self, x: Tensor, turn: Tensor) -> Tensor:
        """(B, N, width) and angles (B or 1, 1, N, width // heads // 2) → (B, N, width)."""
        batch, count, width = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(batch, count, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(rotate(q, turn), rotate(k, turn), v)
        first, second = (1.0, 1.0) if self.scales is None else self.scales
        x = x + first * self.out(mixed.transpose(1, 2).reshape(batch, count, width))
        h = self.norm2(x)
        out: Tensor = x + second * self.down(self.inner_norm(F.silu(self.gate(h)) * self.up(h)))
        return out


class Primus(nn.Module):
    """The encoder of Primus (Wald 2025, arXiv 2503.01835), for any number of axes.

    It differs in its absolute positions, which are fixed sines and cosines here and learnt there,
    so that inputs may differ in size; and in a class token, which masked autoencoders ask for.

    Args:
        channels: of the input (B, channels, *space).
        patch: patch size along each axis.
        width: of a token and of the output (B, width), the mean over patch tokens.
        depth: number of blocks.
        heads: attention heads; must divide ``width``, into even parts.
        scale: initial layer scale; None for none.
    """

    def __init__(
        self,
        *,
        channels: int,
        patch: Sequence[int],
        width: int,
        depth: int,
        heads: int,
        scale: float | None = None,
    ) -> None:
        super().__init__()
        self.channels, self.patch, self.width, self.heads = channels, tuple(patch), width, heads
        self.embed = nn.Linear(channels * math.prod(patch), width)
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        inner = int(width * 8 / 3)
        self.blocks = nn.ModuleList(EvaBlock(width, heads, inner, scale) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.apply(_initialise)
        nn.init.trunc_normal_(self.cls, std=0.02)
        for number, part in enumerate(self.blocks, start=1):
            for layer in (part.out, part.down):
                layer.weight.data /= math.sqrt(2 * number)  # type: ignore[union-attr, operator]

    def tokens(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """(B, channels, *space) → (B, 1 + K, width). See `medcl.nn.encoders.Tokenised`."""
        grid = grid_of(x.shape[2:], self.patch)
        h = self.embed(patchify(x, self.patch)) + positions(grid, self.width, x.device)
        turn = angles(grid, self.width // self.heads, x.device)[None]
        if keep is not None:
            h, turn = take(h, keep), take(turn.expand(len(x), -1, -1), keep)
        turn = F.pad(turn, (0, 0, 1, 0))[:, None]  # the class token is nowhere
        h = torch.cat([self.cls.expand(len(h), -1, -1), h], dim=1)
        for part in self.blocks:
            h = part(h, turn)
        out: Tensor = self.norm(h)
        return out

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, *space) → (B, width)."""
        return self.tokens(x)[:, 1:].mean(dim=1)


def _initialise(part: nn.Module) -> None:
    if isinstance(part, nn.Linear):
        nn.init.trunc_normal_(part.weight, std=0.02)
        nn.init.zeros_(part.bias)
