"""VISReg: the scale of the embeddings by their deviations, their shape by sorted projections."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from medcl.nn.distributed import ALONE, Ranks
from medcl.objectives.precision import full, widened


def visreg(
    z: Tensor,
    directions: Tensor,
    *,
    scale: float = 1.0,
    shape: float = 1.0,
    center: float = 1.0,
    ranks: Ranks = ALONE,
) -> Tensor:
    """α · mean (σ − 1)² + β · mean (sorted projections − normal quantiles)² + γ · mean μ².

    Wu 2026 (arXiv 2606.02572), as in the authors' code: σ and μ of each dimension and view over the
    batch (σ with n), the projections of (z − μ) / σ with no gradient through σ, and quantiles at
    n / (N + 1) of the standard normal (a sliced Wasserstein distance). The gradient of the scale
    term does not vanish when the embeddings collapse. Samples of all ranks are sorted together.

    Args:
        z: (V, B, D) embeddings of V views.
        directions: (D, K) unit columns, the same on all ranks; drawn for every step.
        scale: α.
        shape: β.
        center: γ.
        ranks: the other processes.

    Returns:
        Scalar.

    Example:
        >>> z = torch.zeros(1, 3, 2)  # collapsed: σ = 0 misses 1, and so do the quantiles ±0.6745
        >>> round(visreg(z, torch.eye(2)).item(), 4)
        1.3033
    """
    with full(z):
        z, directions = widened(z), widened(directions).detach()
        z = ranks.gather(z.transpose(0, 1).contiguous()).transpose(0, 1)  # (V, N, D)
        mean = z.mean(1, keepdim=True)
        centred = z - mean
        deviation = (centred.norm(dim=1) / math.sqrt(z.shape[1])).clamp_min(1e-6)  # (V, D)
        loss = scale * (deviation - 1).square().mean() + center * mean.square().mean()
        projected = (centred / deviation.detach().unsqueeze(1)) @ directions  # (V, N, K)
        count = z.shape[1]
        level = torch.arange(1, count + 1, device=z.device, dtype=z.dtype) / (count + 1)
        quantile = math.sqrt(2) * torch.erfinv(2 * level - 1)
        difference = projected.sort(dim=1).values - quantile[:, None]
        return loss + shape * difference.square().mean()
