"""A Transformer over the instances (TransMIL: Shao 2021, arXiv 2106.00908)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from medcl.finetune.contract import Outputs
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
        """One bag after the other: their sequences have nothing to do with each other."""
        counts = sizes(bags.bag, bags.count)
        each = [self._bag(part) for part in self.enter(bags.x).split(counts)]
        return Pooled(torch.stack([z for z, _ in each]), torch.cat([w for _, w in each]))

    def _bag(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """One bag (n, width) to its embedding (width,) and the class token's attention (n,)."""
        n, side = len(x), math.isqrt(len(x) - 1) + 1  # side = ⌈√n⌉
        full = x.repeat(-(-(side * side) // n), 1)[: side * side]
        x = torch.cat((self.token, full))  # (1 + side², width)
        x = x + self.first(self.norms[0](x))
        x = torch.cat((x[:1], self.pyramid(x[1:], side)))
        before = self.norms[1](x)
        x = x + self.second(before)
        z: Tensor = self.norms[2](x[0])
        return z, self.second.row(before, 0)[1 : n + 1]


class Pyramid(nn.Module):
    """Positions by convolution (PPEG): x + Σ of depth-wise 7×7, 5×5 and 3×3 over the square."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            nn.Conv2d(width, width, side, padding=side // 2, groups=width) for side in (7, 5, 3)
        )

    def forward(self, x: Tensor, side: int) -> Tensor:
        """(side², width) → (side², width)."""
        grid = x.T.unflatten(1, (side, side))[None]  # (1, width, side, side)
        total = grid + sum(level(grid) for level in self.levels)
        return total[0].flatten(1).T
