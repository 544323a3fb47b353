"""CLIP: contrast between two modalities of a sample, with a learned temperature."""

from __future__ import annotations

import torch
from torch import Tensor

from medcl.nn.distributed import ALONE, Ranks
from medcl.nn.host import value
from medcl.objectives.checks import same_shape
from medcl.objectives.info_nce import against_negatives, in_batch_negatives
from medcl.objectives.precision import exact, widened
from medcl.objectives.unit import unit


def clip(
    a: Tensor,
    b: Tensor,
    log_scale: Tensor,
    *,
    group: Tensor | None = None,
    ranks: Ranks = ALONE,
) -> Tensor:
    """−½ mean_i [ log softmax_j(s_ij)_i + log softmax_j(s_ji)_i ], s_ij = cos(a_i, b_j)/τ.

    Radford 2021 (arXiv 2103.00020): 1/τ = e^log_scale, which starts at 1/0.07. The paper caps it at
    100: clamp the parameter after each optimiser step, not the scale in the forward pass, whose
    gradient would be lost above the cap. Embeddings are L2-normalised inside.

    Args:
        a: (B, d) one modality.
        b: (B, d) the other; ``b[i]`` belongs to ``a[i]``.
        log_scale: () learned log(1/τ).
        group: (B,) integers, e.g. the patient: other samples of i's group are not negatives.
        ranks: the other processes; their samples are negatives.

    Returns:
        Scalar.

    Raises:
        UsageError: if the shapes differ.

    Example:
        >>> import torch
        >>> round(clip(torch.eye(4), torch.eye(4), torch.tensor(0.0)).item(), 4)  # log(1 + 3/e)
        0.7437
    """
    same_shape("clip", 2, a=a, b=b)
    scale = widened(log_scale).exp()
    known = value(scale)  # saves the running maximum where the host may look
    bound = torch.inf if known is None else known
    a, b = unit(a, scale.sqrt()), unit(b, scale.sqrt())
    own = (a * b).sum(1, dtype=exact(a))
    negatives = in_batch_negatives(a, b, group, bound, symmetric=True, ranks=ranks)
    losses = [against_negatives(own, negative) for negative in negatives]
    return ((losses[0] + losses[1]) / 2).to(a.dtype)
