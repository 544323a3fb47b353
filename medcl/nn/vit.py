"""A Vision Transformer for signals, images and volumes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medcl.nn.patches import grid_of, patchify, positions, take


class Block(nn.Module):
    """Pre-norm self-attention and MLP: (B, N, width) → (B, N, width)."""

    def __init__(self, width: int, heads: int, expand: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, expand * width), nn.GELU(), nn.Linear(expand * width, width)
        )

    def attend(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """Self-attention; ``keep`` (B, N) is True for tokens that may be attended to."""
        batch, count, width = x.shape
        qkv = self.qkv(x).reshape(batch, count, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, N, width / heads)
        mask = None if keep is None else keep[:, None, None, :]
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, count, width))
        return out

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """Attention, then MLP, each added to its input."""
        x = x + self.attend(self.norm1(x), keep)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class ViT(nn.Module):
    """Dosovitskiy 2021 (arXiv 2010.11929), with fixed sine-cosine positions for any number of axes.

    Inputs may differ in size from batch to batch, as long as the patches tile them.

    Args:
        channels: of the input (B, channels, *space).
        patch: patch size along each axis; its length is the number of axes.
        width: of a token and of the output (B, width), the mean over patch tokens.
        depth: number of blocks.
        heads: attention heads; must divide ``width``.
    """

    def __init__(
        self, *, channels: int, patch: Sequence[int], width: int = 192, depth: int = 12, heads: int
    ) -> None:
        super().__init__()
        self.channels, self.patch, self.width = channels, tuple(patch), width
        self.embed = nn.Linear(channels * math.prod(patch), width)
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        nn.init.normal_(self.cls, std=0.02)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def tokens(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """(B, channels, *space) → (B, 1 + K, width): a class token and the patches in ``keep``."""
        grid = grid_of(x.shape[2:], self.patch)
        h = self.embed(patchify(x, self.patch)) + positions(grid, self.width, x.device)
        if keep is not None:  # (B, K)
            h = take(h, keep)
        h = torch.cat([self.cls.expand(h.shape[0], -1, -1), h], dim=1)
        for block in self.blocks:
            h = block(h)
        out: Tensor = self.norm(h)
        return out

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, *space) → (B, width)."""
        return self.tokens(x)[:, 1:].mean(dim=1)
