"""Generalised cross-entropy, between cross-entropy and absolute error: for labels with noise."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from medcl.errors import UsageError
from medcl.nn.distributed import ALONE, Ranks
from medcl.objectives.checks import same_length
from medcl.objectives.means import mean_where
from medcl.objectives.precision import widened

Q = 0.7
"""Default q, as in the paper."""


def generalised_cross_entropy(
    logits: Tensor, labels: Tensor, *, q: float = Q, ranks: Ranks = ALONE
) -> Tensor:
    """mean_i (1 − p_{i, y_i}^q) / q, p the softmax of the logits.

    Zhang & Sabuncu 2018, arXiv 1805.07836, without truncation. Towards q = 0 it is the
    cross-entropy, at q = 1 half the absolute error, which symmetric label noise does not mislead: a
    sample whose label is improbable has p^q times the gradient of cross-entropy.

    Args:
        logits: (B, C).
        labels: (B,) classes; below 0 where unknown: such samples take no part.
        q: in (0, 1].
        ranks: the other processes, whose samples count in the mean.

    Returns:
        Scalar; zero where no label is known.

    Raises:
        UsageError: if shapes do not fit or q is out of range.

    Example:
        >>> generalised_cross_entropy(torch.zeros(1, 2), torch.tensor([1]), q=1.0)
        tensor(0.5000)
    """
    same_length("generalised_cross_entropy", logits=logits, labels=labels)
    if not 0 < q <= 1:
        raise UsageError(f"generalised_cross_entropy: q must be in (0, 1], not {q}.")
    known = labels >= 0
    losses = F.cross_entropy(widened(logits), labels.clamp_min(0), reduction="none")  # (B,)
    return mean_where(eased(losses, q), known, ranks)


def eased(losses: Tensor, q: float = Q) -> Tensor:
    """−log p of each term → (1 − p^q) / q."""
    return -torch.expm1(-q * losses) / q
