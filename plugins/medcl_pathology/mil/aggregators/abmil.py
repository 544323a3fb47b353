"""Attention-based pooling (Ilse 2018, arXiv 1802.04712)."""

from __future__ import annotations

from torch import nn

from medcl.labels.outputs import Outputs
from medcl_pathology.mil.attention import Attention
from medcl_pathology.mil.bags import Bags, Pooled
from medcl_pathology.mil.segments import segment_softmax, weighted_sum


class ABMIL(nn.Module):
    """z = Σ_i a_i x_i, a = softmax over the bag of w·tanh(V x_i).

    Args:
        features: F, width of the instances.
        outputs: not used.
        hidden: width of the attention's hidden layer.
        dropout: of that layer.
    """

    gated = False
    classwise = False

    def __init__(
        self, features: int, outputs: Outputs, *, hidden: int = 128, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.width = features
        self.attention = Attention(features, hidden, gated=self.gated, dropout=dropout)

    def forward(self, bags: Bags) -> Pooled:
        """See the class."""
        scores = self.attention(bags.x).squeeze(1)  # (I,)
        weights = segment_softmax(scores, bags.bag, bags.count)
        return Pooled(weighted_sum(weights, bags.x, bags.bag, bags.count), weights)


class GatedABMIL(ABMIL):
    """`ABMIL` with a = softmax of w·(tanh(V x_i) ⊙ σ(U x_i))."""

    gated = True
