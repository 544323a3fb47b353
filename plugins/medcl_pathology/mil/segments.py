"""Sums, means, maxima and softmaxes over the bags of a packed batch: nothing is padded.

``x`` (I, ...) holds the instances of all bags one after the other, ``bag`` (I,) says which bag,
0 … B−1 in ascending order, each belongs to. Scores, which are narrow, are handled at once by index;
features, which are wide, bag by bag as views, so that no copy of them is made: a weighted sum is
one matrix product a bag. On the CPU all of it gives the same bits every time.
"""

from __future__ import annotations

import torch
from torch import Tensor

from medcl.errors import UsageError
from medcl.nn.recording import recording
from medcl.objectives.precision import exact


def sizes(bag: Tensor, bags: int) -> list[int]:
    """How many instances each bag holds.

    Raises:
        UsageError: if a bag has none, or they do not lie one after the other.

    Example:
        >>> sizes(torch.tensor([0, 0, 1]), 2)
        [2, 1]
    """
    if recording():
        return [bag.shape[0]]
    if bool((bag.diff() < 0).any()) or (len(bag) and not 0 <= int(bag[-1]) < bags):
        raise UsageError(f"The instances of {bags} bags must lie bag after bag, 0 to {bags - 1}.")
    counts: list[int] = torch.bincount(bag, minlength=bags).tolist()
    if 0 in counts:
        raise UsageError(f"Bag {counts.index(0)} of the batch has no instance: leave it out.")
    return counts


def parts(x: Tensor, bag: Tensor, bags: int) -> tuple[Tensor, ...]:
    """The bags of ``x`` as views of it: B tensors (I_b, ...)."""
    return (x,) if recording() else x.split(sizes(bag, bags))


def segment_softmax(scores: Tensor, bag: Tensor, bags: int) -> Tensor:
    """e^{s_i} / Σ_{j in i's bag} e^{s_j}: (I, ...) → (I, ...), for scores of any size.

    Example:
        >>> segment_softmax(torch.tensor([3.0, 3.0, 700.0]), torch.tensor([0, 0, 1]), 2)
        tensor([0.5000, 0.5000, 1.0000])
    """
    index = bag.view(-1, *[1] * (scores.ndim - 1)).expand_as(scores)
    peak = scores.new_full((bags, *scores.shape[1:]), -torch.inf)
    peak = peak.scatter_reduce(0, index, scores.detach(), "amax")
    grown = (scores - peak[bag]).exp()
    total = segment_sum(grown, bag, bags)
    return grown / total[bag]


def segment_sum(x: Tensor, bag: Tensor, bags: int) -> Tensor:
    """Σ over each bag, added up in float64: (I, ...) → (B, ...). Meant for what is narrow."""
    total = torch.zeros((bags, *x.shape[1:]), dtype=exact(x), device=x.device)
    return total.index_add(0, bag, x.to(total.dtype)).to(x.dtype)


def segment_mean(x: Tensor, bag: Tensor, bags: int) -> Tensor:
    """The mean of each bag: (I, ...) → (B, ...)."""
    return torch.stack([part.mean(0) for part in parts(x, bag, bags)])


def segment_max(x: Tensor, bag: Tensor, bags: int) -> tuple[Tensor, Tensor]:
    """The largest value of each bag and the instance that holds it: (I, ...) → twice (B, ...).

    Of equal values the first counts, and gets the gradient.
    """
    each = [part.max(0) for part in parts(x, bag, bags)]
    starts = torch.tensor(sizes(bag, bags), device=x.device).cumsum(0).roll(1)
    starts[0] = 0
    where = torch.stack([found.indices for found in each])
    return (
        torch.stack([found.values for found in each]),
        where + starts.view(-1, *[1] * (x.ndim - 1)),
    )


def ranked(scores: Tensor, bag: Tensor) -> Tensor:
    """Positions (I,) that put each bag's instances in order, the highest score (I,) first.

    Example:
        >>> ranked(torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([0, 0, 1, 1]))
        tensor([1, 0, 3, 2])
    """
    order = scores.argsort(descending=True, stable=True)
    return order[bag[order].argsort(stable=True)]


def weighted_sum(weights: Tensor, x: Tensor, bag: Tensor, bags: int) -> Tensor:
    """Σ_i w_i x_i over each bag: (I,) → (B, F), or (I, C) → (B, C, F).

    The product w·x (I, F) is never made, nor a gradient of ``x`` where ``x`` wants none.
    """
    pairs = zip(parts(weights, bag, bags), parts(x, bag, bags), strict=True)
    return torch.stack([w.T @ part if w.ndim == 2 else w @ part for w, part in pairs])
