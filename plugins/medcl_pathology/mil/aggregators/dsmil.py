"""Attention to the critical instance (DSMIL: Li 2021, arXiv 2011.08939)."""

from __future__ import annotations

import torch
from torch import nn

from medcl.classifiers.losses import head, supervised
from medcl.labels.outputs import Outputs
from medcl_pathology.mil.bags import Bags, Pooled
from medcl_pathology.mil.dropout import Dropout
from medcl_pathology.mil.segments import segment_max, segment_softmax, weighted_sum


class DSMIL(nn.Module):
    """Two streams: the best instance of each score, and all instances by likeness to it.

    Stream 1: instance scores c(x_i); m = the instance with the largest. Stream 2: with queries
    q_i, weights a = softmax over the bag of ⟨q_i, q_m⟩/√d, embedding Σ_i a_i v_i of each score side
    by side. Both streams are trained, and their mean is the prediction.

    Args:
        features: F, width of the instances.
        outputs: what is to be predicted, one critical instance for each score.
        hidden: d, width of the queries.
        nonlinear: queries through two layers, ReLU between and tanh after (the authors' default);
            else through one linear layer.
        values: v through a linear layer with ReLU; else v_i = x_i, and no copy of x is made.
        dropout: before that layer.
        instance: weight of the first stream's loss beside the second's.
    """

    classwise = False

    def __init__(
        self,
        features: int,
        outputs: Outputs,
        *,
        hidden: int = 128,
        nonlinear: bool = True,
        values: bool = False,
        dropout: float = 0.0,
        instance: float = 1.0,
    ) -> None:
        super().__init__()
        self.outputs, self.instance, self.width = outputs, instance, features * outputs.size
        self.score = head(features, outputs)
        deeper = (nn.ReLU(), nn.Linear(hidden, hidden), nn.Tanh()) if nonlinear else ()
        self.query = nn.Sequential(nn.Linear(features, hidden), *deeper)
        wide = (Dropout(dropout), nn.Linear(features, features), nn.ReLU()) if values else ()
        self.value = nn.Sequential(*wide)

    def forward(self, bags: Bags) -> Pooled:
        """See the class."""
        best, critical = segment_max(self.score(bags.x), bags.bag, bags.count)  # (B, C) twice
        q = self.query(bags.x)  # (I, d)
        # One column of likeness a score: ⟨q_i, q_m⟩ with m the critical instance of i's own bag.
        likeness = [(q * q[m][bags.bag]).sum(1) / q.shape[1] ** 0.5 for m in critical.T]
        weights = segment_softmax(torch.stack(likeness, 1), bags.bag, bags.count)  # (I, C)
        z = weighted_sum(weights, self.value(bags.x), bags.bag, bags.count)  # (B, C, F)
        losses = {}
        if bags.y is not None:
            term = supervised(self.outputs, best, bags.y, progress=0.0)
            losses["instances"] = self.instance * term
        return Pooled(z.flatten(1), weights, scores=best, losses=losses)
