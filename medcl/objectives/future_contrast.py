"""CPC: what is said about a later step of a sequence, against the sequence's other steps."""

from __future__ import annotations

import torch
from torch import Tensor

from medcl.errors import UsageError
from medcl.nn.distributed import ALONE, Ranks
from medcl.objectives.checks import positive, same_shape
from medcl.objectives.precision import full, widened
from medcl.objectives.rows import by_rows
from medcl.objectives.unit import unit


def future_contrast(
    prediction: Tensor,
    target: Tensor,
    *,
    ahead: int = 1,
    temperature: float = 1.0,
    normalise: bool = False,
    ranks: Ranks = ALONE,
) -> Tensor:
    """−mean over sequences and steps t of log( e^{p_t·z_{t+k}/τ} / Σ_u e^{p_t·z_u/τ} ).

    Oord 2018 (CPC, arXiv 1807.03748, eq. 4) with k = ``ahead``. The negatives of a prediction are
    all other steps of its own sequence, so that whose sequence it is does not help; Mehari 2022
    (arXiv 2103.12676) draws 128 of them, and adds the steps' losses where here is their mean.

    Args:
        prediction: (B, T, d) made at each step from what came before.
        target: (B, T, d) what is at each step.
        ahead: k, from 1 to T − 1.
        temperature: τ > 0.
        normalise: cosines in place of dot products.
        ranks: not needed: sequences are compared with themselves alone.

    Returns:
        Scalar.

    Raises:
        UsageError: if the shapes differ, τ is not positive, or no step is ``ahead`` of another.

    Example:
        >>> z = torch.eye(3).unsqueeze(0)
        >>> round(future_contrast(z.roll(-1, 1), z).item(), 4)  # log(1 + 2/e)
        0.5514
    """
    same_shape("future_contrast", 3, prediction=prediction, target=target)
    positive("future_contrast", temperature=temperature)
    steps = target.shape[1]
    if not 1 <= ahead < steps:
        raise UsageError(
            f"future_contrast: of {steps} steps none is {ahead} ahead of another. Choose 1 to "
            f"{steps - 1} steps ahead, or longer windows."
        )
    p, z = prediction[:, : steps - ahead], target
    p, z = (unit(p), unit(z)) if normalise else (widened(p), widened(z))
    later = torch.arange(ahead, steps, device=z.device)

    def losses(b: slice) -> Tensor:
        with full(z):
            s = p[b] @ z[b].transpose(1, 2) / temperature  # (b, T − k, T)
        own = s.gather(2, later.expand(len(s), -1)[..., None]).squeeze(2)
        return s.logsumexp(2) - own

    return by_rows(losses, len(z), steps**2).mean()
