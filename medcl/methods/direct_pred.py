"""DirectPred: a linear predictor that is computed, not trained."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medcl.nn.distributed import ALONE, Ranks
from medcl.objectives.direct_pred import direct_predictor, move_correlation


class DirectPredictor(nn.Module):
    """Tian 2021, arXiv 2102.06810: W = U diag(√(s_j/max s) + ε) Uᵀ, with U and s the eigenvectors
    and eigenvalues of F, the moving average of E[z zᵀ]. See `direct_predictor`.

    Args:
        width: of z.
        rho: momentum of F.
        eps: ε.
    """

    correlation: Tensor  # (width, width)
    weight: Tensor  # (width, width)

    def __init__(self, width: int, *, rho: float = 0.3, eps: float = 0.1) -> None:
        super().__init__()
        self.rho, self.eps = rho, eps
        self.register_buffer("correlation", torch.zeros(width, width))
        self.register_buffer("weight", torch.eye(width))

    @torch.no_grad()
    def observe(self, z: Tensor, ranks: Ranks = ALONE) -> None:
        """Update F with the batch z (B, width) of all ranks, and W. Call it before `forward`."""
        correlation = move_correlation(self.correlation, z.detach(), momentum=self.rho, ranks=ranks)
        self.correlation.copy_(correlation)
        self.weight.copy_(direct_predictor(correlation, epsilon=self.eps))

    def forward(self, z: Tensor) -> Tensor:
        """(B, width) → (B, width)."""
        return z @ self.weight.to(z.dtype).T
