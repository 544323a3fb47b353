"""DirectPred: BYOL's and SimSiam's linear predictor, set from statistics instead of trained."""

from __future__ import annotations

import torch
from torch import Tensor

from medcl.nn.distributed import ALONE, Ranks
from medcl.objectives.precision import full, widened


@torch.no_grad()
def move_correlation(
    correlation: Tensor, z: Tensor, *, momentum: float = 0.3, ranks: Ranks = ALONE
) -> Tensor:
    """F ← ρ·F + (1 − ρ)·mean_i z_i z_iᵀ over all ranks.

    Args:
        correlation: (d, d).
        z: (B, d) input of the predictor.
        momentum: ρ.
        ranks: the other processes.

    Example:
        >>> move_correlation(torch.zeros(2, 2), torch.eye(2), momentum=0.5)
        tensor([[0.2500, 0.0000],
                [0.0000, 0.2500]])
    """
    z = widened(z)
    with full(z):
        now = ranks.mean(z.T @ z / len(z))
    return (momentum * correlation + (1 - momentum) * now).to(correlation.dtype)


@torch.no_grad()
def direct_predictor(correlation: Tensor, *, epsilon: float = 0.1) -> Tensor:
    """W = U diag(√(s_j/max s) + ε) Uᵀ of F = U diag(s) Uᵀ.

    Tian 2021 (arXiv 2102.06810, section 4; ε 0.1 and ρ 0.3 are its defaults): the predictor shares
    its eigenvectors with the correlation of its input. The paper's eq. 18 has √s_j + ε·max s; the
    authors' code divides s by its maximum first. That is done here: so whatever the size of z, the
    smallest of W's eigenvalues is at least ε/(1 + ε) of the largest.

    Args:
        correlation: (d, d) F, symmetric.
        epsilon: ε.

    Returns:
        (d, d) the predictor's weight.

    Example:
        >>> direct_predictor(torch.diag(torch.tensor([4.0, 1.0])), epsilon=0.0)
        tensor([[1.0000, 0.0000],
                [0.0000, 0.5000]])
    """
    s, u = torch.linalg.eigh(widened(correlation))
    s = s.clamp_min(0)
    share = s / s.amax().clamp_min(torch.finfo(s.dtype).tiny)
    with full(s):
        return ((u * (share.sqrt() + epsilon)) @ u.T).to(correlation.dtype)
