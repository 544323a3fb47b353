"""Messages between neighbouring tiles, then attention: a slide as a graph."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from medcl.labels.outputs import Outputs
from medcl_pathology.mil.attention import Attention
from medcl_pathology.mil.bags import Bags, Pooled
from medcl_pathology.mil.dropout import Dropout
from medcl_pathology.mil.graph import GraphConv, neighbours
from medcl_pathology.mil.graph_losses import Communities, Reconstruction
from medcl_pathology.mil.influence import Influence
from medcl_pathology.mil.segments import segment_softmax, weighted_sum


class Graph(nn.Module):
    """Each tile and its k nearest exchange messages; gated attention pools what they became.

    As in Patch-GCN (Chen 2021, arXiv 2107.13048): h⁰ = ReLU(W x), hˡ⁺¹ = hˡ + conv(LN(hˡ)) with
    `GraphConv`, and the attention of Ilse 2018 on the last. Bags need coordinates.

    Args:
        features: F, width of the tiles.
        outputs: not used.
        width: of the codes h.
        layers: of messages: a tile hears of those so many steps away.
        neighbours: k.
        hidden: width of the attention's hidden layer.
        dropout: of the messages and of that layer.
        masked: weight of masked graph reconstruction (`Reconstruction`); 0 for none.
        masked_share: share of tiles that it masks.
        community: weight of community-aware contrast (`Communities`); 0 for none.
        communities: how many it looks for.
        influence: weight of influence contrast (`Influence`); 0 for none.
        hops: how many steps it walks.
    """

    classwise = False

    def __init__(
        self,
        features: int,
        outputs: Outputs,
        *,
        width: int = 256,
        layers: int = 2,
        neighbours: int = 8,
        hidden: int = 128,
        dropout: float = 0.0,
        masked: float = 0.0,
        masked_share: float = 0.5,
        community: float = 0.0,
        communities: int = 16,
        influence: float = 0.0,
        hops: int = 2,
    ) -> None:
        super().__init__()
        self.width, self.k = width, neighbours
        self.encode = Messages(features, width, layers, dropout)
        self.attention = Attention(width, hidden, gated=True, dropout=dropout)
        self.weights = {"masked": masked, "community": community, "influence": influence}
        self.tasks = nn.ModuleDict()
        if masked:
            self.tasks["masked"] = Reconstruction(features, width, masked_share)
        if community:
            self.tasks["community"] = Communities(width, communities)
        if influence:
            self.tasks["influence"] = Influence(width, hops)

    def forward(self, bags: Bags) -> Pooled:
        """See the class."""
        graph = neighbours(bags, self.k)  # (I, k)
        h = self.encode(bags.x, graph)  # (I, width)
        weights = segment_softmax(self.attention(h).squeeze(1), bags.bag, bags.count)
        z = weighted_sum(weights, h, bags.bag, bags.count)
        losses: dict[str, Tensor] = {}
        if bags.y is not None:
            for name, task in self.tasks.items():
                term = cast(Tensor, task(self.encode, bags.x, graph))
                losses[name] = self.weights[name] * term
        return Pooled(z, weights, losses=losses)


class Messages(nn.Module):
    """(I, F), (I, k) → (I, width): residual graph convolutions."""

    def __init__(self, features: int, width: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.Linear(features, width), nn.ReLU())
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))
        self.convs = nn.ModuleList(GraphConv(width, width) for _ in range(layers))
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, graph: Tensor) -> Tensor:
        """See the class."""
        h: Tensor = self.enter(x)
        for norm, conv in zip(self.norms, self.convs, strict=True):
            h = h + self.dropout(conv(norm(h), graph).relu())
        return h
