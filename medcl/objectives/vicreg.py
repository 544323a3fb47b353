"""VICReg: invariance, variance and covariance regularisation."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from medcl.nn.distributed import ALONE, Ranks
from medcl.objectives.checks import same_shape
from medcl.objectives.precision import full, widened


def vicreg(
    z1: Tensor,
    z2: Tensor,
    *,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
    eps: float = 1e-4,
    form: Literal["code", "paper"] = "code",
    ranks: Ranks = ALONE,
) -> Tensor:
    """λ·s(z1, z2) + μ·(v(z1) + v(z2)) + ν·(c(z1) + c(z2)).

    Bardes 2022 (arXiv 2105.04906, eq. 1–6): s = mean_i ‖z1_i − z2_i‖², v = mean over dimensions
    of max(0, 1 − √(Var + ε)), c = Σ_{a≠b} Cov_ab² / d, variances with n − 1. The authors' code,
    which gave the published results and the defaults here, differs: s is also a mean over
    dimensions, and v is halved. Embeddings are not normalised. Moments are over all ranks.

    Args:
        z1: (B, d) first views.
        z2: (B, d) second views.
        invariance: λ.
        variance: μ.
        covariance: ν.
        eps: ε.
        form: "code" or "paper", see above.
        ranks: the other processes.

    Returns:
        Scalar.

    Raises:
        UsageError: if the shapes differ.

    Example:
        >>> z = torch.zeros(4, 3)  # collapsed: both variances miss 1 − √ε
        >>> round(vicreg(z, z).item(), 4)
        24.75
    """
    same_shape("vicreg", 2, z1=z1, z2=z2)
    with full(z1):
        z1, z2 = widened(z1), widened(z2)
        of_code = form == "code"
        loss = invariance * (z1 - z2).square().sum(1).mean() / (z1.shape[1] if of_code else 1)
        for z in (z1, z2):
            cov = _covariance(z, ranks)  # (d, d)
            var = cov.diagonal()
            short = torch.relu(1 - (var + eps).sqrt()).mean()
            loss = loss + variance * short / (2 if of_code else 1)
            off = cov.square().sum() - var.square().sum()
            loss = loss + covariance * off / z.shape[1]
    return loss


def _covariance(z: Tensor, ranks: Ranks) -> Tensor:
    """Unbiased covariance over the samples of all ranks: (B, d) → (d, d)."""
    centred = z - ranks.mean(z.mean(0))
    n = len(z) * ranks.world
    return ranks.mean(centred.T @ centred / len(z)) * (n / max(n - 1, 1))
