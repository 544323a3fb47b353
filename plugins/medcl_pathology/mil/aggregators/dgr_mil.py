"""Diverse global vectors that a slide's tiles are compared with (DGR-MIL: Zhu 2024, 2407.03575)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medcl.labels.outputs import Outputs
from medcl_pathology.mil.bags import Bags, Pooled
from medcl_pathology.mil.nystrom import NystromAttention
from medcl_pathology.mil.segments import parts, segment_mean


class DGRMIL(nn.Module):
    """K learnt vectors and a class token look at the tiles by cross-attention; the token counts.

    Tiles and vectors go through the same two linear layers φ with ReLU, then each through Nyström
    attention of their own, t = LN(x + Nyström(LN x)). The token's result, through a linear layer
    and LN, is the embedding, and its attention, a mean over heads, the tiles' weights.

    With labels there are two terms: − log det of the cosines between the K vectors φ(g)
    (``diversity``), and, where a bag has one class, a triplet loss, mean max(0, 1 + d(φ(g), p) −
    d(φ(g), n)) with d = 1 − cosine (``align``). n and p are running centres of φ of the tiles of
    bags of the first class and of all others: c ← m c + (1 − m) mean φ(x), bag after bag.

    As the authors' code has it (github.com/ChongQingNoSubway/DGR-MIL), which averages all tiles of
    a positive bag where the paper picks positive ones. Its first ten epochs have neither term; here
    they count from the first step.

    Args:
        features: F, width of the tiles.
        outputs: a problem without one class a bag has no triplet loss.
        width: of the codes.
        vectors: K.
        heads: of all attentions.
        landmarks: of the Nyström attention; None for half of the width.
        rounds: of its pseudo-inverse.
        kernel: of its depth-wise convolution on the values; 0 for none.
        dropout: of the attentions.
        drop: share of tiles whose φ is left out, after each of its layers.
        diversity: weight of the first term.
        align: weight of the second term.
        momentum: m.
    """

    classwise = False
    negative: Tensor  # (width,)
    positive: Tensor

    def __init__(
        self,
        features: int,
        outputs: Outputs,
        *,
        width: int = 512,
        vectors: int = 5,
        heads: int = 8,
        landmarks: int | None = None,
        rounds: int = 6,
        kernel: int = 33,
        dropout: float = 0.4,
        drop: float = 0.1,
        diversity: float = 0.1,
        align: float = 0.1,
        momentum: float = 0.4,
    ) -> None:
        super().__init__()
        self.width, self.drop, self.momentum = width, drop, momentum
        self.diversity, self.align = diversity, align
        self.classes = outputs.kind in ("binary", "multiclass", "ordinal")
        self.layers = nn.ModuleList((nn.Linear(features, width), nn.Linear(width, width)))
        self.vectors = nn.Parameter(torch.randn(vectors, features))
        self.token = nn.Parameter(torch.randn(1, width))
        many = landmarks or width // 2
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(5))
        self.tiles = NystromAttention(width, heads, many, rounds, kernel, dropout)
        self.globals = NystromAttention(width, heads, many, rounds, kernel, dropout)
        self.cross = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.out = nn.Linear(width, width)
        self.register_buffer("negative", torch.randn(width))
        self.register_buffer("positive", torch.randn(width))

    def forward(self, bags: Bags) -> Pooled:
        """See the class."""
        x = self._phi(bags.x, self.drop if self.training else 0.0)
        vectors = self._phi(self.vectors, 0.0)
        before, after, before_global, after_global, last = self.norms
        tokens = torch.cat((self.token, vectors))
        tokens = after_global(tokens + self.globals(before_global(tokens)[None])[0])
        codes, weights = [], []
        for part in parts(x, bags.bag, bags.count):
            h = after(part + self.tiles(before(part)[None])[0])[None]
            code, weight = self.cross(tokens[None, :1], h, h)
            codes.append(code[0, 0])
            weights.append(weight[0, 0])
        embedding = last(self.out(torch.stack(codes)))
        losses: dict[str, Tensor] = {}
        if bags.y is not None:
            losses["diversity"] = self.diversity * diversity(vectors)
            if self.classes:
                self._move(segment_mean(x.detach(), bags.bag, bags.count), bags.y)
                losses["align"] = self.align * triplet(vectors, self.positive, self.negative)
        return Pooled(embedding, torch.cat(weights), losses=losses)

    def _phi(self, x: Tensor, drop: float) -> Tensor:
        """(n, F) → (n, width); whole rows are left out, the others grow."""
        for layer in self.layers:
            x = layer(x).relu()
            if drop:
                x = F.dropout1d(x[None], drop)[0]
        return x

    @torch.no_grad()
    def _move(self, means: Tensor, y: Tensor) -> None:
        """The centres, bag after bag; a bag of unknown class moves none."""
        if not self.training:
            return
        for mean, first in zip(means[y >= 0], (y[y >= 0] == 0).tolist(), strict=True):
            (self.negative if first else self.positive).lerp_(mean, 1 - self.momentum)


def diversity(vectors: Tensor) -> Tensor:
    """− log det of the cosines of vectors (K, W): 0 if all are at right angles, ∞ if two agree."""
    unit = F.normalize(vectors.float(), dim=1)
    return -torch.logdet(unit @ unit.T + 1e-6 * torch.eye(len(unit), device=unit.device))


def triplet(vectors: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """Mean of max(0, 1 + d(v, p) − d(v, n)) over vectors (K, W), with d = 1 − cosine."""
    near, far = (1 - F.cosine_similarity(vectors, c[None]) for c in (positive, negative))
    return (1 + near - far).relu().mean()
