"""Class-balanced cross-entropy: classes weighted by their effective numbers of samples."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from medcl.errors import UsageError
from medcl.nn.distributed import ALONE, Ranks
from medcl.objectives.checks import same_length
from medcl.objectives.means import mean_where
from medcl.objectives.precision import widened

BETA = 0.999
"""Default β; the paper chooses among 0.9, 0.99, 0.999 and 0.9999 by the data set."""


def class_balanced(
    logits: Tensor, labels: Tensor, counts: Tensor, *, beta: float = BETA, ranks: Ranks = ALONE
) -> Tensor:
    """mean_i w_{y_i} CE(z_i, y_i), w_c ∝ (1 − β) / (1 − β^{n_c}), Σ_c w_c = C.

    Cui 2019, arXiv 1901.05555. β = 0 weighs classes alike, β → 1 by 1 / n_c.

    Args:
        logits: (B, C).
        labels: (B,) classes; below 0 where unknown: such samples take no part.
        counts: (C,) training samples of each class; below 1 counts as 1.
        beta: β, in [0, 1).
        ranks: the other processes, whose samples count in the mean.

    Returns:
        Scalar; zero where no label is known.

    Raises:
        UsageError: if shapes do not fit or beta is out of range.

    Example:
        >>> import torch
        >>> class_balanced(torch.zeros(1, 2), torch.tensor([1]), torch.tensor([9, 1]), beta=0.0)
        tensor(0.6931)
    """
    same_length("class_balanced", logits=logits, labels=labels)
    known, at = labels >= 0, labels.clamp_min(0)
    losses = F.cross_entropy(widened(logits), at, reduction="none")  # (B,)
    return mean_where(effective_weights(counts, beta).to(losses.dtype)[at] * losses, known, ranks)


def effective_weights(counts: Tensor, beta: float = BETA) -> Tensor:
    """(C,) float64 weights of classes by their effective numbers, of mean 1.

    Raises:
        UsageError: if beta is out of range.
    """
    if not 0 <= beta < 1:
        raise UsageError(f"class_balanced: beta must be in [0, 1), not {beta}.")
    n = counts.clamp_min(1).double()
    weights = (1 - beta) / (1 - beta**n)
    return weights / weights.mean()
