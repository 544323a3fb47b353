"""Graph convolutions whose codes of all depths are pooled (Patch-GCN: Chen 2021, 2107.13048)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medcl.labels.outputs import Outputs
from medcl_pathology.mil.attention import Attention
from medcl_pathology.mil.bags import Bags, Pooled
from medcl_pathology.mil.dropout import Dropout
from medcl_pathology.mil.graph import neighbours
from medcl_pathology.mil.segments import segment_softmax, weighted_sum


class PatchGCN(nn.Module):
    """hˡ⁺¹ = ReLU(LN(W (hˡ + mean of hˡ over the k nearest tiles))); attention pools all depths.

    The codes of every depth and the features themselves are concatenated, go through a linear layer
    with ReLU, and are pooled by gated attention. As torchmil's ``PatchGCN`` it aggregates by means,
    where the authors learn a softmax over neighbours. Bags need coordinates.

    Args:
        features: F, width of the tiles.
        outputs: not used.
        width: of the codes.
        layers: of messages.
        neighbours: k.
        hidden: width of the attention's hidden layer.
        gated: gated attention.
        dropout: of the codes.
    """

    classwise = False

    def __init__(
        self,
        features: int,
        outputs: Outputs,
        *,
        width: int = 128,
        layers: int = 4,
        neighbours: int = 8,
        hidden: int = 128,
        gated: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.width, self.k = width, neighbours
        widths = [features, *[width] * layers]
        self.convs = nn.ModuleList(nn.Linear(before, width) for before in widths[:-1])
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))
        self.dropout = Dropout(dropout)
        self.join = nn.Sequential(nn.Linear(sum(widths), width), nn.ReLU(), Dropout(dropout))
        self.attention = Attention(width, hidden, gated=gated, dropout=dropout)

    def forward(self, bags: Bags) -> Pooled:
        """See the class."""
        graph = neighbours(bags, self.k)  # (I, k)
        h = bags.x
        depths = [h]
        for conv, norm in zip(self.convs, self.norms, strict=True):
            near: Tensor = F.embedding_bag(graph, h, mode="mean")
            h = self.dropout(norm(conv(h + near)).relu())
            depths.append(h)
        joined = self.join(torch.cat(depths, 1))
        weights = segment_softmax(self.attention(joined)[:, 0], bags.bag, bags.count)
        return Pooled(weighted_sum(weights, joined, bags.bag, bags.count), weights)
