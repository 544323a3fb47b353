"""Barlow Twins: the cross-correlation of two views should be the identity."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import batch_norm

from medcl.nn.distributed import ALONE, Ranks
from medcl.objectives.checks import same_shape
from medcl.objectives.precision import full, widened


def barlow_twins(
    z1: Tensor, z2: Tensor, *, redundancy: float = 5e-3, eps: float = 1e-5, ranks: Ranks = ALONE
) -> Tensor:
    """Σ_a (1 − C_aa)² + λ Σ_{a≠b} C_ab², C = the cross-correlation of z1 and z2 over the batch.

    Zbontar 2021 (arXiv 2103.03230, eq. 1 and 2). Standardised with the biased variance + ε, as
    the authors' code does by batch normalisation; over all ranks (their code: each rank its own).

    Args:
        z1: (B, d) first views.
        z2: (B, d) second views.
        redundancy: λ.
        eps: ε.
        ranks: the other processes.

    Returns:
        Scalar. A dimension that does not vary has correlation 0.

    Raises:
        UsageError: if the shapes differ.

    Example:
        >>> z = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
        >>> round(barlow_twins(z, z).item(), 4)
        0.0
    """
    same_shape("barlow_twins", 2, z1=z1, z2=z2)
    with full(z1):
        a, b = (_standardised(widened(z), eps, ranks) for z in (z1, z2))
        c = ranks.mean(a.T @ b / len(a))  # (d, d)
        own = c.diagonal()
        off = c.square().sum() - own.square().sum()
        return (1 - own).square().sum() + redundancy * off


def _standardised(z: Tensor, eps: float, ranks: Ranks) -> Tensor:
    """Zero mean and unit variance per dimension over the samples of all ranks: (B, d)."""
    if ranks.world == 1 and len(z) > 1:
        return batch_norm(z, None, None, training=True, eps=eps)  # the same in one operation
    centred = z - ranks.mean(z.mean(0))
    return centred * (ranks.mean(centred.square().mean(0)) + eps).rsqrt()
