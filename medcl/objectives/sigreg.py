"""SIGReg: projections of the embeddings on random directions should be standard normal."""

from __future__ import annotations

import torch
from torch import Tensor

from medcl.nn.distributed import ALONE, Ranks
from medcl.objectives.precision import full, widened


def sigreg(
    z: Tensor, directions: Tensor, *, knots: int = 17, limit: float = 3.0, ranks: Ranks = ALONE
) -> Tensor:
    """The Epps–Pulley statistic of each view on each direction, a mean over both.

    Balestriero & LeCun 2025 (arXiv 2511.08544, algorithm 1): with the empirical characteristic
    function φ(t) = mean_n exp(i t z_n·a), T = N ∫ |φ(t) − exp(−t²/2)|² exp(−t²/2) dt by the
    trapezoid rule. As in the authors' minimal code, the integrand is even, so it is taken over
    0 … ``limit`` and doubled; the paper integrates over −5 … 5. N counts the samples of all ranks.

    Args:
        z: (V, B, D) embeddings of V views.
        directions: (D, K) unit columns, the same on all ranks; drawn for every step.
        knots: points of the integral.
        limit: where it ends.
        ranks: the other processes.

    Returns:
        Scalar.

    Example:
        >>> z = torch.zeros(1, 4, 3)  # collapsed: |1 − exp(−t²/2)|² is left
        >>> round(sigreg(z, torch.eye(3)).item(), 4)
        1.6082
    """
    with full(z):
        z, directions = widened(z), widened(directions).detach()
        t = torch.linspace(0, limit, knots, device=z.device, dtype=z.dtype)
        normal = (-t.square() / 2).exp()
        weight = torch.full_like(t, 2 * limit / (knots - 1))
        weight[[0, -1]] /= 2
        angle = (z @ directions).unsqueeze(-1) * t  # (V, B, K, T)
        real, imaginary = ranks.mean(torch.stack([angle.cos().mean(1), angle.sin().mean(1)]))
        apart = (real - normal).square() + imaginary.square()  # (V, K, T)
        statistic = (apart * (weight * normal)).sum(-1) * z.shape[1] * ranks.world
        return statistic.mean()
