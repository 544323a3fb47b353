"""Cross-attention: tokens of one kind attend to tokens of another."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from medcl.nn.vit import Block


class CrossBlock(nn.Module):
    """Self-attention, attention to other tokens, MLP: (B, N, width), (B, M, width) → (B, N, width).

    Args:
        width: of both kinds of tokens.
        heads: attention heads; must divide ``width``.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.own = Block(width, heads)
        self.norm = nn.LayerNorm(width)
        self.ask, self.tell = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, others: Tensor) -> Tensor:
        """``x`` (B, N, width) after attention to itself and to ``others`` (B, M, width)."""
        batch, count, width = x.shape
        x = x + self.own.attend(self.own.norm1(x))
        q = self.ask(self.norm(x)).reshape(batch, count, self.heads, -1).transpose(1, 2)
        k, v = self.tell(others).reshape(batch, -1, 2, self.heads, width // self.heads).unbind(2)
        mixed = F.scaled_dot_product_attention(q, k.transpose(1, 2), v.transpose(1, 2))
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, count, width))
        out: Tensor = x + self.own.mlp(self.own.norm2(x))
        return out


class Fusion(nn.Module):
    """Tokens of a table attend to those of an image, signal or volume (TIP, arXiv 2407.07582).

    Args:
        width: of the table's tokens and of the output.
        other_width: of the other tokens.
        depth: number of blocks.
        heads: attention heads; must divide ``width``.
    """

    def __init__(self, width: int, other_width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.project = nn.Sequential(nn.Linear(other_width, width), nn.LayerNorm(width))
        self.blocks = nn.ModuleList(CrossBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, table: Tensor, others: Tensor) -> Tensor:
        """(B, N, width), (B, M, other_width) → (B, N, width)."""
        others = self.project(others)
        for block in self.blocks:
            table = block(table, others)
        out: Tensor = self.norm(table)
        return out
