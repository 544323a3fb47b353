"""Global and local context of a tile (CAMIL: Fourkioti 2024, arXiv 2305.05314)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medcl.labels.outputs import Outputs
from medcl_pathology.mil.attention import Attention
from medcl_pathology.mil.bags import Bags, Pooled
from medcl_pathology.mil.graph import neighbours
from medcl_pathology.mil.nystrom import NystromAttention
from medcl_pathology.mil.segments import parts, segment_softmax, weighted_sum


class CAMIL(nn.Module):
    """Attention among all tiles, then among neighbours, and a gate between the two.

    t = W x + Nyström(LN(W x)). A tile's local code is
    l_i = softmax_i(Σ_j a_ij ⟨q_i, k_j⟩ / √d) v_i, j over its k nearest tiles and q, k, v linear in
    t; a_ij = exp(−mean (x_i − x_j)²) says how alike they are. m = σ(l)·l + (1 − σ(l))·t is pooled
    by attention of t. (The paper sums the squares in a_ij, which would be 0 for features of today's
    width.) Bags need coordinates; the Nyström part reads a bag as a sequence, in the order in which
    it is stored.

    Args:
        features: F, width of the tiles.
        outputs: not used.
        width: of the codes.
        neighbours: k.
        heads: of the Nyström attention.
        landmarks: of it; None for half of the width.
        rounds: of its pseudo-inverse.
        kernel: of its depth-wise convolution on the values; 0 for none.
        hidden: width of the pooling attention's hidden layer.
        dropout: of the Nyström attention's result.
    """

    classwise = False

    def __init__(
        self,
        features: int,
        outputs: Outputs,
        *,
        width: int = 512,
        neighbours: int = 8,
        heads: int = 8,
        landmarks: int | None = None,
        rounds: int = 6,
        kernel: int = 33,
        hidden: int = 128,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.width, self.k = width, neighbours
        self.enter = nn.Linear(features, width)
        self.norm = nn.LayerNorm(width)
        many = landmarks or width // 2
        self.everywhere = NystromAttention(width, heads, many, rounds, kernel, dropout)
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.attention = Attention(width, hidden, gated=True)

    def forward(self, bags: Bags) -> Pooled:
        """See the class."""
        graph = neighbours(bags, self.k)  # (I, k)
        h = self.enter(bags.x)
        before = parts(self.norm(h), bags.bag, bags.count)
        t = h + torch.cat([self.everywhere(part[None])[0] for part in before])  # (I, width)
        near = F.embedding_bag(
            graph, self.key(t), mode="sum", per_sample_weights=alike(bags.x, graph).to(t.dtype)
        )  # Σ_j a_ij k_j
        score = (self.query(t) * near).sum(1) / self.width**0.5
        local = segment_softmax(score, bags.bag, bags.count)[:, None] * self.value(t)
        gate = local.sigmoid()
        m = gate * local + (1 - gate) * t
        weights = segment_softmax(self.attention(t)[:, 0], bags.bag, bags.count)
        return Pooled(weighted_sum(weights, m, bags.bag, bags.count), weights)


def alike(x: Tensor, graph: Tensor) -> Tensor:
    """exp(−mean (x_i − x_j)²) of each tile and its neighbours: (I, F), (I, k) → (I, k).

    A tile that stands in for a neighbour it lacks counts nothing.
    """
    own = torch.arange(len(x), device=x.device)
    columns = [(-(x - x[near]).square().mean(1)).exp() for near in graph.T]
    return torch.stack(columns, 1) * (graph != own[:, None])
