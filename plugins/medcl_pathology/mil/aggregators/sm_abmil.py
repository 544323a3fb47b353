"""Attention over tiles smoothed along the slide (Sm: Castro-Macías 2024, arXiv 2410.03276)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medcl.labels.outputs import Outputs
from medcl_pathology.mil.attention import Attention
from medcl_pathology.mil.bags import Bags, Pooled
from medcl_pathology.mil.graph import neighbours
from medcl_pathology.mil.segments import segment_softmax, weighted_sum


class SmABMIL(nn.Module):
    """`ABMIL` whose tiles, or attention scores, are first made alike to those of their neighbours.

    Sm(u) = g_T with g_0 = u, g_t = (1 − α) u + α A g_{t−1}: T steps towards the u' that keeps
    ‖u' − u‖² and the differences between neighbours small together. A is the mean of a tile's k
    nearest; the authors weigh the eight cells around a tile by how alike they are and normalise
    symmetrically. α = 1 / (1 + c), c trained from 1, as in the authors' code (where c below zero
    is not excluded; here c is an exponential, so that α stays between 0 and 1).

    Args:
        features: F, width of the tiles.
        outputs: not used.
        where: smooth the tiles ("early": both the attention and what is pooled), or the scores
            ("late").
        steps: T.
        neighbours: k.
        hidden: width of the attention's hidden layer.
        gated: gated attention.
        dropout: of the hidden layer.
    """

    classwise = False

    def __init__(
        self,
        features: int,
        outputs: Outputs,
        *,
        where: Literal["early", "late"] = "early",
        steps: int = 10,
        neighbours: int = 8,
        hidden: int = 128,
        gated: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.width, self.where, self.steps, self.k = features, where, steps, neighbours
        self.attention = Attention(features, hidden, gated=gated, dropout=dropout)
        self.log_c = nn.Parameter(torch.zeros(()))

    def forward(self, bags: Bags) -> Pooled:
        """See the class."""
        graph = neighbours(bags, self.k)  # (I, k)
        x = self.smoothed(bags.x, graph) if self.where == "early" else bags.x
        scores = self.attention(x)  # (I, 1)
        if self.where == "late":
            scores = self.smoothed(scores, graph)
        weights = segment_softmax(scores[:, 0], bags.bag, bags.count)
        return Pooled(weighted_sum(weights, x, bags.bag, bags.count), weights)

    def smoothed(self, u: Tensor, graph: Tensor) -> Tensor:
        """Sm of (I, ·) along the graph (I, k)."""
        alpha = 1 / (1 + self.log_c.exp())
        g = u
        for _ in range(self.steps):
            g = (1 - alpha) * u + alpha * F.embedding_bag(graph, g, mode="mean")
        return g
