"""A Transformer over the instances (TransMIL: Shao 2021, arXiv 2106.00908)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from medcl.labels.outputs import Outputs
from medcl_pathology.mil.bags import Bags, Pooled
from medcl_pathology.mil.nystrom import NystromAttention
from medcl_pathology.mil.segments import sizes


class TransMIL(nn.Module):
    """Two layers of Nyström attention with a pyramid of convolutions between them.

    A bag is a sequence in the order in which it is stored, folded into a square whose missing
    corner repeats its beginning, as often as it takes; a class token in front gathers the
    embedding. So the order matters here, unlike in every other aggregator: store tiles row by row.

    Args:
        features: F, width of the instances.
        outputs: not used.
        width: of the tokens.
        heads: of the attention.
        landmarks: m of the attention; None for half of the width, as published.
        rounds: of its pseudo-inverse.
        kernel: of its depth-wise convolution; 0 for none.
        dropout: of its result (published: 0.1).
    """

    classwise = False

    def __init__(
        self,
        features: int,
        outputs: Outputs,
        *,
        width: int = 512,
        heads: int = 8,
        landmarks: int | None = None,
        rounds: int = 6,
        kernel: int = 33,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.width = width
        self.enter = nn.Sequential(nn.Linear(features, width), nn.ReLU())
        self.token = nn.Parameter(torch.randn(1, width) * 0.02)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        many = landmarks or width // 2
        self.first = NystromAttention(width, heads, many, rounds, kernel, dropout)
        self.second = NystromAttention(width, heads, many, rounds, kernel, dropout)
        self.pyramid = Pyramid(width)

    def forward(self, bags: Bags) -> Pooled:
        """Bags whose squares are of one size go through together; none sees another."""
        counts = sizes(bags.bag, bags.count)
        parts = self.enter(bags.x).split(counts)
        alike: dict[int, list[int]] = {}
        for b, n in enumerate(counts):
            alike.setdefault(math.isqrt(n - 1) + 1, []).append(b)  # ⌈√n⌉
        made: dict[int, tuple[Tensor, Tensor]] = {}
        for side, which in alike.items():
            squares = [p.repeat(-(-(side * side) // len(p)), 1) for p in (parts[b] for b in which)]
            z, row = self._squares(torch.stack([s[: side * side] for s in squares]), side)
            made |= {b: (z[i], row[i, : counts[b]]) for i, b in enumerate(which)}
        each = [made[b] for b in range(bags.count)]
        return Pooled(torch.stack([z for z, _ in each]), torch.cat([w for _, w in each]))

    def _squares(self, x: Tensor, side: int) -> tuple[Tensor, Tensor]:
        """(B, side², width) to embeddings (B, width) and the class token's attention (B, side²)."""
        x = torch.cat((self.token.expand(len(x), 1, -1), x), dim=1)
        x = x + self.first(self.norms[0](x))
        x = torch.cat((x[:, :1], self.pyramid(x[:, 1:], side)), dim=1)
        before = self.norms[1](x)
        x = x + self.second(before)
        z: Tensor = self.norms[2](x[:, 0])
        return z, self.second.row(before, 0)[:, 1:]


class Pyramid(nn.Module):
    """Positions by convolution (PPEG): x + Σ of depth-wise 7×7, 5×5 and 3×3 over the square."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            nn.Conv2d(width, width, side, padding=side // 2, groups=width) for side in (7, 5, 3)
        )

    def forward(self, x: Tensor, side: int) -> Tensor:
        """(B, side², width) → (B, side², width)."""
        grid = x.transpose(1, 2).unflatten(2, (side, side))  # (B, width, side, side)
        total = grid + sum(level(grid) for level in self.levels)
        return total.flatten(2).transpose(1, 2)
