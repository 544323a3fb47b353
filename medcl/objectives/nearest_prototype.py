"""Every embedding moves to its nearest prototype, and away from the others."""

from __future__ import annotations

from torch import Tensor

from medcl.nn.distributed import ALONE, Ranks
from medcl.objectives.precision import widened


def nearest_prototype(scores: Tensor, *, contrast: float = 0.1, ranks: Ranks = ALONE) -> Tensor:
    """mean_i [ 2 − 2 s_ik + contrast · (log Σ_j e^{s_ij} − s_ik) ], k = argmax_j s_ij.

    Shen 2024 (SongCi, arXiv 2407.14904): the squared distance to the nearest prototype, and, as in
    the authors' code, cross-entropy with it as the class, without a temperature.

    Args:
        scores: (N, K) cosines of embeddings and unit prototypes.
        contrast: weight of the cross-entropy (authors' code: 0.1).
        ranks: not needed.

    Returns:
        Scalar.

    Example:
        >>> import torch
        >>> nearest_prototype(torch.eye(3), contrast=0.0)
        tensor(0.)
        >>> round(nearest_prototype(torch.zeros(1, 4), contrast=1.0).item(), 4)  # 2 + log 4
        3.3863
    """
    scores = widened(scores)
    nearest = scores.amax(1)
    return (2 - 2 * nearest + contrast * (scores.logsumexp(1) - nearest)).mean()
