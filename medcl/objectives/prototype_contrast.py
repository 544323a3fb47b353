"""Contrast to class or cluster prototypes that follow the embeddings by momentum."""

from __future__ import annotations

import torch
from torch import Tensor

from medcl.nn.distributed import ALONE, Ranks
from medcl.objectives.checks import positive, same_length
from medcl.objectives.means import mean_where
from medcl.objectives.precision import full
from medcl.objectives.unit import unit


def prototype_contrast(
    z: Tensor,
    targets: Tensor,
    prototypes: Tensor,
    *,
    temperature: float = 0.07,
    ranks: Ranks = ALONE,
) -> Tensor:
    """−mean_i Σ_c t_ic log softmax_c(z_i·p_c/τ).

    Li 2020 (prototypical contrast, arXiv 2005.04966, one clustering, τ for φ); with soft targets
    Qu 2023 (INS, arXiv 2307.02249) and Wang 2022 (PiCO, arXiv 2201.08984). Embeddings and
    prototypes are L2-normalised inside.

    Args:
        z: (B, d).
        targets: (B,) classes, −1 where unknown (does not count); or (B, K) distributions, a zero
            row where unknown.
        prototypes: (K, d), the same on all ranks; a constant: see `move_prototypes`.
        temperature: τ > 0.
        ranks: the other processes.

    Returns:
        Scalar; zero where no target is known.

    Raises:
        UsageError: if the lengths differ or τ is not positive.

    Example:
        >>> z = torch.eye(2)
        >>> loss = prototype_contrast(z, torch.tensor([0, 1]), torch.eye(2), temperature=1.0)
        >>> round(loss.item(), 4)  # log(1 + 1/e)
        0.3133
    """
    same_length("prototype_contrast", z=z, targets=targets)
    positive("prototype_contrast", temperature=temperature)
    length = temperature**-0.5
    with full(z):
        s = unit(z, length) @ unit(prototypes.detach(), length).T  # (B, K)
    log_p = s.log_softmax(1)
    if targets.ndim == 2:
        targets = targets.detach()
        return mean_where(-(targets * log_p).sum(1), targets.any(1), ranks)
    losses = -log_p.gather(1, targets.clamp_min(0).unsqueeze(1)).squeeze(1)
    return mean_where(losses, targets >= 0, ranks)


@torch.no_grad()
def move_prototypes(
    prototypes: Tensor,
    z: Tensor,
    targets: Tensor,
    *,
    momentum: float = 0.9,
    ranks: Ranks = ALONE,
) -> Tensor:
    """p_c ← norm(m·p_c + (1 − m)·mean of the normalised z of class c), classes absent stay.

    INS and PiCO take one sample after the other; the class's mean over all ranks does not depend
    on their order.

    Args:
        prototypes: (K, d) unit vectors.
        z: (B, d).
        targets: (B,) classes, −1 where unknown.
        momentum: m.
        ranks: the other processes.

    Returns:
        The new prototypes (K, d).

    Example:
        >>> move_prototypes(torch.eye(2), torch.eye(2)[[1]], torch.tensor([0]), momentum=0.5)
        tensor([[0.7071, 0.7071],
                [0.0000, 1.0000]])
    """
    z, targets = ranks.gather(unit(z)), ranks.gather(targets)
    member = torch.nn.functional.one_hot(targets.clamp_min(0), len(prototypes)).to(z.dtype)
    member *= (targets >= 0).unsqueeze(1)  # (N, K)
    size = member.sum(0).unsqueeze(1)
    with full(z):
        mean = (member.T @ z) / size.clamp_min(1.0)
    moved = unit(momentum * prototypes + (1 - momentum) * mean)
    return torch.where(size > 0, moved, prototypes).to(prototypes.dtype)
