"""Contrastive domain adaptation from a labelled source to an unlabelled target."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from medcl.nn.distributed import ALONE, Ranks
from medcl.objectives.means import mean_where
from medcl.objectives.mmd import mmd
from medcl.objectives.nt_xent import nt_xent
from medcl.objectives.precision import widened


def domain_contrast(
    source1: Tensor,
    source2: Tensor,
    target1: Tensor,
    target2: Tensor,
    logits1: Tensor,
    logits2: Tensor,
    labels: Tensor,
    *,
    contrast: float = 0.5,
    discrepancy: float = 1.0,
    temperature: float = 0.5,
    variances: Sequence[float] = (10.0, 15.0, 20.0, 50.0),
    ranks: Ranks = ALONE,
) -> Tensor:
    """(1 − λ)/2 (CE₁ + CE₂) + λ/2 (NT-Xent(source) + NT-Xent(target)) + μ MMD(source1, target1).

    Bhattacharjee 2023 (ConDA, arXiv 2309.03992): classification of the source's two views,
    contrast within each domain, and `mmd` between them; two sites or scanners here. The weights
    are recalled from the paper, the kernels read from its code.

    Args:
        source1: (B, d) projections of the labelled domain, first views.
        source2: (B, d) second views.
        target1: (M, d) projections of the unlabelled domain, first views.
        target2: (M, d) second views.
        logits1: (B, C) classifier's output for the source's first views.
        logits2: (B, C) for the second.
        labels: (B,) classes, −1 where unknown: these are left out of CE only.
        contrast: λ in 0…1.
        discrepancy: μ.
        temperature: τ of NT-Xent.
        variances: of the kernels.
        ranks: the other processes.

    Returns:
        Scalar.

    Raises:
        UsageError: if views differ in shape.

    Example:
        >>> z, logits, labels = torch.eye(3), torch.zeros(3, 2), torch.tensor([0, 1, 1])
        >>> loss = domain_contrast(z, z, z, z, logits, logits, labels, contrast=0.0)
        >>> round(loss.item(), 4)  # log 2
        0.6931
    """
    labels = labels.repeat(2)
    logits = widened(torch.cat([logits1, logits2]))
    losses = cross_entropy(logits, labels.clamp_min(0), reduction="none")  # (2B,)
    classify = mean_where(losses, labels >= 0, ranks)
    within = nt_xent(source1, source2, temperature=temperature, ranks=ranks) + nt_xent(
        target1, target2, temperature=temperature, ranks=ranks
    )
    between = mmd(source1, target1, variances=variances, ranks=ranks)
    return (1 - contrast) * classify + contrast / 2 * within + discrepancy * between
