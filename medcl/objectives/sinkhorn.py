"""Sinkhorn–Knopp: the balanced soft assignment nearest to given scores."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from medcl.nn.distributed import ALONE, Ranks
from medcl.nn.host import value
from medcl.objectives.precision import full, widened

SAFE = 40.0
"""Range of scores/ε that float32 holds as exponentials, with their sums and shares."""


@torch.no_grad()
def sinkhorn(
    scores: Tensor,
    *,
    epsilon: float = 0.05,
    iterations: int = 3,
    kept: Tensor | None = None,
    ranks: Ranks = ALONE,
) -> Tensor:
    """Soft assignment of samples to prototypes in which each prototype gets an equal share.

    Cuturi 2013 (arXiv 1306.0895) as SwAV uses it (Caron 2020, arXiv 2006.09882): start from
    exp(scores/ε), then make by turns each prototype's total over all samples of all ranks alike and
    each sample's 1. In logarithms, so that a small ε does not overflow; where it cannot, and the
    host may look, by two products with vectors a round.

    Args:
        scores: (B, K) this rank's samples.
        epsilon: ε > 0; smaller is harder.
        iterations: how often.
        kept: (B,) False for rows that only fill up a batch: they weigh nothing and get zeros.
        ranks: the other processes, whose samples are part of the balance.

    Returns:
        (B, K), each row a distribution; no gradient.

    Example:
        >>> sinkhorn(torch.tensor([[1.0, 0.5], [1.0, 0.0]])).sum(0).round()  # shares
        tensor([1., 1.])
    """
    log_q = widened(scores) / epsilon
    if ranks.world == 1 and iterations and log_q.numel():
        low, high = (value(x) for x in log_q.aminmax())
        if low is not None and high is not None and high - low <= SAFE:
            with full(scores):
                return _of_sums(log_q.sub_(high).exp_(), iterations, kept)
    if kept is not None:
        log_q = log_q.masked_fill(~kept[:, None], -torch.inf)
    prototypes = scores.shape[1]
    for _ in range(iterations):
        share = ranks.gather(log_q.logsumexp(0, keepdim=True)).logsumexp(0)  # (K,)
        log_q = log_q - share - math.log(prototypes)
        log_q = log_q.log_softmax(1)
        if kept is not None:
            log_q = log_q.masked_fill(~kept[:, None], -torch.inf)
    return log_q.exp()


def _of_sums(q: Tensor, iterations: int, kept: Tensor | None) -> Tensor:
    """The same from exponentials: rows and columns are scaled by vectors, the matrix at the end."""
    if kept is not None:
        q = q.masked_fill_(~kept[:, None], 0.0)
    sample = q.new_ones(len(q))
    prototype = q.new_ones(q.shape[1])
    for _ in range(iterations):
        prototype = 1 / (sample @ q) / q.shape[1]
        sample = 1 / (q @ prototype)
        if kept is not None:
            sample = torch.where(kept, sample, 0.0)
    q = q.mul_(prototype).mul_(sample[:, None])
    return q if kept is None else q.masked_fill_(~kept[:, None], 0.0)
