"""Pseudo-bags, then a bag of what is distilled of each (DTFD-MIL: Zhang 2022, arXiv 2203.12081)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from medcl.classifiers.losses import head, supervised
from medcl.labels.outputs import Outputs
from medcl_pathology.mil.attention import Attention
from medcl_pathology.mil.bags import Bags, Pooled
from medcl_pathology.mil.segments import segment_max, segment_softmax, sizes, weighted_sum


class DTFD(nn.Module):
    """Two tiers of attention: over each of M random parts of a bag, and over the parts.

    Every part has its bag's label and trains the first tier: L += mean_b mean_m supervised(first(
    z_m), y_b). Of each part one or two features go on to the second tier: the pooled one ("afs"),
    the instance of the highest class activation w·x ("max"), or those of the highest and the lowest
    ("maxmin"), w the first tier's weights of the last score. Parts are drawn anew at each training
    step; in evaluation instance i is in part i mod M.

    Args:
        features: F, width of the instances.
        outputs: what is to be predicted.
        groups: M; at most as many as a bag has instances.
        distill: see above.
        hidden: width of the attentions' hidden layers.
        dropout: of these layers.
        parts: weight of the first tier's loss.
    """

    classwise = False

    def __init__(
        self,
        features: int,
        outputs: Outputs,
        *,
        groups: int = 4,
        distill: Literal["afs", "max", "maxmin"] = "afs",
        hidden: int = 128,
        dropout: float = 0.0,
        parts: float = 1.0,
    ) -> None:
        super().__init__()
        self.width, self.outputs, self.groups, self.distill = features, outputs, groups, distill
        self.parts = parts
        self.attention = Attention(features, hidden, gated=True, dropout=dropout)
        self.first = head(features, outputs)
        self.second = Attention(features, hidden, gated=True, dropout=dropout)

    def forward(self, bags: Bags) -> Pooled:
        """See the class."""
        order, part, owner = self._parted(bags)  # instances part after part
        x, count = bags.x[order], len(owner)
        weights = segment_softmax(self.attention(x)[:, 0], part, count)
        z = weighted_sum(weights, x, part, count)  # (P, F)
        tokens, of_token = z, torch.arange(count, device=x.device)
        if self.distill != "afs":
            direction = self.first.weight
            assert isinstance(direction, Tensor)
            activation = x @ direction[-1]
            chosen = [segment_max(activation, part, count)[1]]
            if self.distill == "maxmin":
                chosen.append(segment_max(-activation, part, count)[1])
            at = torch.stack(chosen, 1).flatten()  # part after part
            tokens, of_token = x[at], of_token.repeat_interleave(len(chosen))
        over = segment_softmax(self.second(tokens)[:, 0], owner[of_token], bags.count)
        embedding = weighted_sum(over, tokens, owner[of_token], bags.count)
        of_part = over.new_zeros(count).index_add(0, of_token, over)
        shown = torch.empty_like(weights)
        shown[order] = of_part[part] * weights
        losses: dict[str, Tensor] = {}
        if bags.y is not None:
            losses["parts"] = self.parts * self._first_tier(z, owner, bags)
        return Pooled(embedding, shown, losses=losses)

    def _parted(self, bags: Bags) -> tuple[Tensor, Tensor, Tensor]:
        """Instances part after part (I,), the part of each of them (I,), and a part's bag (P,)."""
        orders, parts, owners, start, made = [], [], [], 0, 0
        for bag, size in enumerate(sizes(bags.bag, bags.count)):
            many = min(self.groups, size)
            at = torch.arange(size, device=bags.x.device)
            drawn = torch.randperm(size, device=at.device) if self.training else at
            group = drawn % many
            order = group.argsort(stable=True)
            orders.append(start + order)
            parts.append(made + group[order])
            owners += [bag] * many
            start, made = start + size, made + many
        owner = torch.tensor(owners, device=bags.x.device)
        return torch.cat(orders), torch.cat(parts), owner

    def _first_tier(self, z: Tensor, owner: Tensor, bags: Bags) -> Tensor:
        """A bag counts once, in however many parts it is."""
        assert bags.y is not None
        scores, terms = self.first(z), []
        for bag in range(bags.count):
            mine = scores[owner == bag]
            y = bags.y[bag : bag + 1].expand(len(mine), *bags.y.shape[1:])
            terms.append(supervised(self.outputs, mine, y, progress=0.0))
        known = bags.y >= 0 if bags.y.ndim == 1 and not bags.y.is_floating_point() else None
        total = torch.stack(terms)
        return total.mean() if known is None else total.sum() / known.sum().clamp_min(1)
