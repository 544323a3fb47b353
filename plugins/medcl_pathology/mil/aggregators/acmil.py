"""Several attention branches that must look at different instances (ACMIL: Zhang 2023)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medcl.classifiers.losses import head, supervised
from medcl.labels.outputs import Outputs
from medcl_pathology.mil.attention import Attention
from medcl_pathology.mil.bags import Bags, Pooled
from medcl_pathology.mil.segments import segment_softmax, sizes, weighted_sum


class ACMIL(nn.Module):
    """Attention-challenging MIL (Zhang 2023, arXiv 2311.07125).

    K branches of gated attention, each with an embedding and a classifier of its own; a bag's
    embedding is that of the mean of their weights. L += mean_k supervised(branch k) + the mean
    cosine likeness of two branches' attention. In training, of each branch's ``masked`` most
    attended instances every one is hidden from it with probability ``drop``, so that attention
    spreads (stochastic top-k masking).

    Args:
        features: F, width of the instances.
        outputs: what is to be predicted, by each branch too.
        branches: K.
        hidden: width of the attention's hidden layer.
        masked: how many of the most attended instances may be hidden; less in small bags, of which
            one instance at least always stays.
        drop: the probability that each of them is.
        dropout: of the attention's hidden layer.
    """

    classwise = False

    def __init__(
        self,
        features: int,
        outputs: Outputs,
        *,
        branches: int = 5,
        hidden: int = 128,
        masked: int = 10,
        drop: float = 0.6,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.width, self.outputs, self.masked, self.drop = features, outputs, masked, drop
        self.attention = Attention(features, hidden, branches, gated=True, dropout=dropout)
        self.heads = nn.ModuleList(head(features, outputs) for _ in range(branches))

    def forward(self, bags: Bags) -> Pooled:
        """See the class."""
        scores = self.attention(bags.x)  # (I, K)
        if self.training and self.drop:
            scores = self._challenge(scores, bags)
        weights = segment_softmax(scores, bags.bag, bags.count)
        z = weighted_sum(weights, bags.x, bags.bag, bags.count)  # (B, K, F)
        losses: dict[str, Tensor] = {}
        if bags.y is not None:
            each = [
                supervised(self.outputs, branch(z[:, k]), bags.y, progress=0.0)
                for k, branch in enumerate(self.heads)
            ]
            losses = {"branches": torch.stack(each).mean(), "alike": self._alike(weights, bags)}
        return Pooled(z.mean(1), weights.mean(1), losses=losses)

    def _challenge(self, scores: Tensor, bags: Bags) -> Tensor:
        hide = torch.zeros_like(scores, dtype=torch.bool)
        counts = sizes(bags.bag, bags.count)
        for s, h in zip(scores.detach().split(counts), hide.split(counts), strict=True):
            most = s.topk(min(self.masked, len(s) - 1), dim=0).indices  # (k, K)
            h.scatter_(0, most, torch.rand(most.shape, device=s.device) < self.drop)
        return scores.masked_fill(hide, -torch.inf)

    def _alike(self, weights: Tensor, bags: Bags) -> Tensor:
        """Mean cosine of the weights of two branches, over pairs and bags."""
        k = weights.shape[1]
        unit = [F.normalize(w, dim=0) for w in weights.split(sizes(bags.bag, bags.count))]
        grams = torch.stack([u.T @ u for u in unit])  # (B, K, K)
        return grams.triu(1).sum() / max(len(grams) * k * (k - 1) / 2, 1)
