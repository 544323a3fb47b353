"""Mean-entropy maximisation: over a batch, every prototype is used."""

from __future__ import annotations

import math

from torch import Tensor

from medcl.nn.distributed import ALONE, Ranks
from medcl.objectives.checks import positive
from medcl.objectives.precision import full, widened


def me_max(scores: Tensor, *, temperature: float = 0.1, ranks: Ranks = ALONE) -> Tensor:
    """log K − H(p̄), p̄ = mean_i softmax(s_i/τ): 0 if the mean assignment is uniform.

    The regulariser of Assran 2022 (MSN, arXiv 2204.07141), shifted by log K so that it is not
    negative, as in SongCi's code (Shen 2024, arXiv 2407.14904).

    Args:
        scores: (N, K) cosines of embeddings and prototypes, views one after the other.
        temperature: τ > 0.
        ranks: the other processes; p̄ is the mean over all samples.

    Returns:
        Scalar in 0 … log K.

    Raises:
        UsageError: if τ is not positive.

    Example:
        >>> import torch
        >>> round(me_max(torch.eye(2)).item(), 4)
        0.0
        >>> round(me_max(torch.tensor([[9.0, 0.0]])).item(), 4)  # one of two is used: log 2
        0.6931
    """
    positive("me_max", temperature=temperature)
    with full(scores):
        used = ranks.mean((widened(scores) / temperature).softmax(1).mean(0))  # (K,)
    return math.log(len(used)) + used.xlogy(used).sum()
