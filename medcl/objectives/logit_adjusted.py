"""Logit adjustment: classes as rare as they are in training, scores as if they were not."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from medcl.nn.distributed import ALONE, Ranks
from medcl.objectives.checks import same_length
from medcl.objectives.means import mean_where
from medcl.objectives.precision import widened


def logit_adjusted(
    logits: Tensor, labels: Tensor, counts: Tensor, *, tau: float = 1.0, ranks: Ranks = ALONE
) -> Tensor:
    """mean_i CE(z_i + τ log π, y_i), π the classes' shares of the training samples.

    Menon 2021, arXiv 2007.07314: the minimiser z, without the adjustment, has the least balanced
    error for τ = 1.

    Args:
        logits: (B, C).
        labels: (B,) classes; below 0 where unknown: such samples take no part.
        counts: (C,) training samples of each class; below 1 counts as 1.
        tau: τ; 0 is the cross-entropy.
        ranks: the other processes, whose samples count in the mean.

    Returns:
        Scalar; zero where no label is known.

    Raises:
        UsageError: if shapes do not fit.

    Example:
        >>> import torch
        >>> loss = logit_adjusted(torch.zeros(1, 2), torch.tensor([1]), torch.tensor([3, 1]))
        >>> round(loss.item(), 4)  # −log ¼
        1.3863
    """
    same_length("logit_adjusted", logits=logits, labels=labels)
    z = widened(logits)
    n = counts.clamp_min(1).to(z.dtype)
    adjusted = z + tau * (n / n.sum()).log()
    losses = F.cross_entropy(adjusted, labels.clamp_min(0), reduction="none")  # (B,)
    return mean_where(losses, labels >= 0, ranks)
