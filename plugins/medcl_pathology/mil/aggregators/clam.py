"""Attention with clustering of the instances it picks (CLAM: Lu 2021, arXiv 2004.09666)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medcl.errors import UsageError
from medcl.finetune.contract import Outputs
from medcl_pathology.mil.attention import Attention
from medcl_pathology.mil.bags import Bags, Pooled
from medcl_pathology.mil.segments import segment_softmax, sizes, weighted_sum


class ClamSB(nn.Module):
    """`GatedABMIL` with one attention branch, and a two-class classifier a class on instances.

    The k instances that a bag attends to most are in its class and the k it attends to least are
    not: these train the classifier of that class. Where classes exclude each other, the k most
    attended ones are also outside every other class. The terms of a bag are averaged over its
    classifiers, as in the authors' code, and bags over the batch.

    Args:
        features: F, width of the instances.
        outputs: classes of any kind; regression and survival have none.
        hidden: width of the attention's hidden layer.
        gated: gated attention.
        dropout: of the attention's hidden layer.
        k: instances taken from either end; at most half of a bag's (a bag of one gives none).
        instance: weight of the instances' term beside the bags' (the authors' 0.3 : 0.7).

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
    ) -> None:
        super().__init__()
        if outputs.kind in ("regression", "cox", "hazard"):
            raise UsageError(
                f"CLAM sorts instances by the bag's class, and a {outputs.kind} task has none: "
                "use classifier.aggregator=gated-abmil."
            )
        self.width, self.outputs, self.k, self.instance = features, outputs, k, instance
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
        assert bags.y is not None
        member, exclusive = membership(bags.y, self.outputs)
        counts = sizes(bags.bag, bags.count)
        terms: list[Tensor] = []
        for x, s, belongs in zip(bags.x.split(counts), scores.split(counts), member, strict=True):
            if (k := min(self.k, len(x) // 2)) == 0:
                continue
            each = []
            for c, (classifier, here) in enumerate(zip(self.inside, belongs.tolist(), strict=True)):
                branch = s[:, min(c, s.shape[1] - 1)].detach()
                most = branch.topk(k).indices
                if here == 1:
                    least = branch.topk(k, largest=False).indices
                    target = torch.arange(2, device=x.device).flip(0).repeat_interleave(k)
                    each.append(smooth_svm(classifier(x[torch.cat((most, least))]), target))
                elif here == 0 and exclusive:
                    each.append(smooth_svm(classifier(x[most]), torch.zeros_like(most)))
            if each:
                terms.append(torch.stack(each).sum() / (len(belongs) if exclusive else len(each)))
        # What no bag trains gets a gradient of zero rather than none, which DDP would wait for.
        zero = 0 * torch.stack([p.sum() for p in self.inside.parameters()]).sum()
        return torch.stack(terms).mean() + zero if terms else zero


class ClamMB(ClamSB):
    """`ClamSB` with an attention branch, and a row of the head, for each score.

    Of an ordinal task the branches belong to its thresholds; its last class sorts by the last one.
    """

    classwise = True


def membership(y: Tensor, outputs: Outputs) -> tuple[Tensor, bool]:
    """Which classes each bag is in: (B, C) of 1, 0 and NaN where unknown; do they exclude?"""
    if outputs.kind == "multilabel":
        return y, False
    member = F.one_hot(y.clamp_min(0), len(outputs.classes)).to(torch.float32)
    return torch.where(y[:, None] >= 0, member, torch.nan), True


def smooth_svm(scores: Tensor, target: Tensor) -> Tensor:
    """Smooth top-1 SVM of two classes, τ = α = 1: mean of log(1 + e^{1 + s_other − s_true}).

    Berrada 2018, arXiv 1802.07595, eq. 8. (Its code turns to the hinge, which it approaches, where
    the scores lie ln 1000 apart.)

    Args:
        scores: (N, 2).
        target: (N,) 0 or 1.
    """
    true = scores.gather(1, target[:, None]).squeeze(1)
    return F.softplus(1 + scores.sum(1) - 2 * true).mean()
