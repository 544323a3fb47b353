"""Unilaterally aggregated contrast: normal samples gather, virtual outliers scatter."""

from __future__ import annotations

import torch
from torch import Tensor

from medcl.nn.distributed import ALONE, Ranks
from medcl.objectives.checks import positive, same_shape
from medcl.objectives.means import mean_where
from medcl.objectives.pairs import Hidden, own_columns
from medcl.objectives.precision import exact, full
from medcl.objectives.tiled import row_sums
from medcl.objectives.unit import unit


def unilateral_contrast(
    inliers1: Tensor,
    inliers2: Tensor,
    outliers1: Tensor,
    outliers2: Tensor,
    *,
    temperature: float = 0.5,
    soft_temperature: float | None = 0.5,
    ranks: Ranks = ALONE,
) -> Tensor:
    """Mean over all views i of −1/|P_i| Σ_{p∈P_i} w_i w_p log( e^{s_ip} / Σ_{k≠i} e^{s_ik} ).

    Wang 2023 (UniCon-HA, arXiv 2308.10155): all other inlier views are an inlier's positives, an
    outlier's only positive is its own other view, everything is in the denominators. A
    strong augmentation may have turned an inlier view into an outlier, which should not be gathered
    in: so w_i ∝ Σ_{j≠i} e^{cos(z_i, z_j)/τ_w} over inlier views j, without gradient and with mean
    one over all inlier views, and w = 1 for outliers. The paper's hierarchy (one such loss a stage,
    stronger views for deeper ones, weights in the last stage only) is the method's.

    Embeddings are L2-normalised inside.

    Args:
        inliers1: (B, d) first views.
        inliers2: (B, d) second views.
        outliers1: (M, d) first views of virtual outliers (rotated, permuted, ...).
        outliers2: (M, d) second views.
        temperature: τ > 0.
        soft_temperature: τ_w > 0; None gives every inlier view the same weight.
        ranks: the other processes.

    Returns:
        Scalar.

    Raises:
        UsageError: if shapes differ or a temperature is not positive.

    Example:
        >>> z = torch.eye(4)
        >>> near = torch.ones(2, 4)
        >>> gathered = unilateral_contrast(near, near, z[:2], z[:2])
        >>> bool(gathered < unilateral_contrast(z[:2], z[:2], near, near))
        True
    """
    same_shape("unilateral_contrast", 2, inliers1=inliers1, inliers2=inliers2)
    same_shape("unilateral_contrast", 2, outliers1=outliers1, outliers2=outliers2)
    positive("unilateral_contrast", temperature=temperature)
    z_in = unit(torch.cat([inliers1, inliers2]), temperature**-0.5)  # (2B, d)
    z_out = unit(torch.cat([outliers1, outliers2]), temperature**-0.5)  # (2M, d)
    w = torch.ones(len(z_in), dtype=exact(z_in), device=z_in.device)
    if soft_temperature is not None:
        positive("unilateral_contrast", soft_temperature=soft_temperature)
        w = _nearness(z_in.detach(), soft_temperature, ranks)

    # Σ_p w_p s_ip over inliers is one product with their weighted sum, less the anchor itself.
    every, every_w = ranks.gather(z_in), ranks.gather(w)
    with full(z_in):
        centre = every_w.to(z_in.dtype) @ every  # (d,)
    gathered = centre - w.to(z_in.dtype).unsqueeze(1) * z_in  # (2B, d)
    pull = (z_in * gathered).sum(1, dtype=exact(z_in))
    mates = max(len(every) - 1, 1)
    twin = (z_out * z_out.roll(len(outliers1), 0)).sum(1, dtype=exact(z_out))

    z = torch.cat([z_in, z_out])
    hidden = Hidden(columns=own_columns(len(z), ranks, z.device).unsqueeze(1))
    others = None if ranks.world == 1 else ranks.gather(z)
    lse = row_sums(z, others, hide=hidden, bound=1 / temperature).lse
    lse_in, lse_out = lse[: len(z_in)], lse[len(z_in) :]
    losses = torch.cat([w / mates * ((every_w.sum() - w) * lse_in - pull), lse_out - twin])
    return mean_where(losses, torch.ones_like(losses, dtype=torch.bool), ranks).to(z.dtype)


def _nearness(z: Tensor, temperature: float, ranks: Ranks) -> Tensor:
    """Σ_{j≠i} e^{cos(z_i, z_j)/τ} over all ranks' inlier views, scaled to mean one: (n,)."""
    z = unit(z, temperature**-0.5)
    hidden = Hidden(columns=own_columns(len(z), ranks, z.device).unsqueeze(1))
    near = row_sums(z, ranks.gather(z), hide=hidden, bound=1 / temperature).lse
    every = ranks.gather(near)
    return (near - every.logsumexp(0)).exp() * len(every)
