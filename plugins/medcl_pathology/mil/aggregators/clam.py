"""Attention with clustering of the instances it picks (CLAM: Lu 2021, arXiv 2004.09666)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medcl.errors import UsageError
from medcl.labels.outputs import Outputs
from medcl_pathology.mil.attention import Attention
from medcl_pathology.mil.bags import Bags, Pooled
from medcl_pathology.mil.segments import ranked, segment_softmax, segment_sum, sizes, weighted_sum


class ClamSB(nn.Module):
    """`GatedABMIL` with one attention branch, and a two-class classifier a class on instances.

    The k instances that a bag attends to most are in its class and the k it attends to least are
    not: these train the classifier of that class. With ``subtyping``, where classes exclude each
    other, the k most attended ones are also outside every other class, and the terms of a bag are
    averaged over its classifiers; it is off by default, as in the authors' code. Bags are averaged
    over the batch.

    Args:
        features: F, width of the instances.
        outputs: classes of any kind; regression and survival have none.
        hidden: width of the attention's hidden layer.
        gated: gated attention.
        dropout: of the attention's hidden layer.
        k: instances taken from either end; at most half of a bag's (a bag of one gives none).
        instance: weight of the instances' term beside the bags' (the authors' 0.3 : 0.7).
        subtyping: for subtypes that never share a slide: instances of one are no other. Of
            several labels at once nothing is ever known to be outside the others.

    Raises:
        UsageError: for regression and survival.
    """

    classwise = False

    def __init__(
        self,
        features: int,
        outputs: Outputs,
        *,
        hidden: int = 256,
        gated: bool = True,
        dropout: float = 0.0,
        k: int = 8,
        instance: float = 0.43,
        subtyping: bool = False,
    ) -> None:
        super().__init__()
        if outputs.kind in ("regression", "cox", "hazard"):
            raise UsageError(
                f"CLAM sorts instances by the bag's class, and a {outputs.kind} task has none: "
                "use classifier.aggregator=gated-abmil."
            )
        self.width, self.outputs, self.k, self.instance = features, outputs, k, instance
        self.subtyping = subtyping and outputs.kind != "multilabel"
        branches = outputs.size if self.classwise else 1
        self.attention = Attention(features, hidden, branches, gated=gated, dropout=dropout)
        self.inside = nn.ModuleList(nn.Linear(features, 2) for _ in outputs.classes)

    def forward(self, bags: Bags) -> Pooled:
        """See the class."""
        scores = self.attention(bags.x)  # (I, branches)
        weights = segment_softmax(scores, bags.bag, bags.count)
        embedding = weighted_sum(weights, bags.x, bags.bag, bags.count)  # (B, branches, F)
        losses: dict[str, Tensor] = {}
        if bags.y is not None:
            losses["instances"] = self.instance * self._sorting(bags, scores)
        if self.classwise:
            return Pooled(embedding, weights, losses=losses)
        return Pooled(embedding[:, 0], weights[:, 0], losses=losses)

    def _sorting(self, bags: Bags, scores: Tensor) -> Tensor:
        """The instances' term, of all bags at once."""
        assert bags.y is not None
        member = membership(bags.y, self.outputs)
        size = torch.tensor(sizes(bags.bag, bags.count), device=scores.device)
        k = (size // 2).clamp_max(self.k)
        rank = torch.arange(len(bags.bag), device=scores.device) - (size.cumsum(0) - size)[bags.bag]
        highest, lowest = rank < k[bags.bag], rank >= (size - k)[bags.bag]
        owner = bags.bag[highest]  # (P,) the bag of each instance picked, at either end
        terms = []
        for c, classifier in enumerate(self.inside):
            order = ranked(scores[:, min(c, scores.shape[1] - 1)].detach(), bags.bag)
            most, least = (classifier(bags.x[order[end]]) for end in (highest, lowest))
            inside = (smooth_svm(most, 1) + smooth_svm(least, 0)) / 2
            outside = smooth_svm(most, 0) if self.subtyping else torch.zeros_like(inside)
            here = member[owner, c]  # NaN where unknown: neither in nor out
            term = torch.where(here == 1, inside, torch.where(here == 0, outside, 0.0))
            terms.append(segment_sum(term / k[owner], owner, bags.count))
        told = member == 1  # (B, C)
        classifiers = len(self.inside) if self.subtyping else told.sum(1).clamp_min(1)
        taught = told.any(1) & (k > 0)
        return (torch.stack(terms).sum(0) / classifiers)[taught].sum() / taught.sum().clamp_min(1)


class ClamMB(ClamSB):
    """`ClamSB` with an attention branch, and a row of the head, for each score.

    Of an ordinal task the branches belong to its thresholds; its last class sorts by the last one.
    """

    classwise = True


def membership(y: Tensor, outputs: Outputs) -> Tensor:
    """Which classes each bag is in: (B, C) of 1, 0 and NaN where unknown."""
    if outputs.kind == "multilabel":
        return y
    member = F.one_hot(y.clamp_min(0), len(outputs.classes)).to(torch.float32)
    return torch.where(y[:, None] >= 0, member, torch.nan)


def smooth_svm(scores: Tensor, target: int) -> Tensor:
    """Smooth top-1 SVM of two classes, τ = α = 1: log(1 + e^{1 + s_other − s_true}) of each row.

    Berrada 2018, arXiv 1802.07595, eq. 8. (Its code turns to the hinge, which it approaches, where
    the scores lie ln 1000 apart.)

    Args:
        scores: (N, 2).
        target: 0 or 1, of all rows.
    """
    return F.softplus(1 + scores[:, 1 - target] - scores[:, target])
