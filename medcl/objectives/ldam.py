"""Label-distribution-aware margins: a rare class has to be told apart by more."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from medcl.errors import UsageError
from medcl.nn.distributed import ALONE, Ranks
from medcl.objectives.checks import same_length
from medcl.objectives.precision import widened

MARGIN, SCALE = 0.5, 30.0
"""The largest margin and the scale s of the paper's code."""


def ldam(
    cosines: Tensor,
    labels: Tensor,
    counts: Tensor,
    *,
    margin: float = MARGIN,
    scale: float = SCALE,
    weights: Tensor | None = None,
    ranks: Ranks = ALONE,
) -> Tensor:
    """Σ_i w_{y_i} CE(s · (cos_i − Δ_{y_i} · onehot(y_i)), y_i) / Σ_i w_{y_i}, Δ_c ∝ n_c^(−1/4).

    Cao 2019, arXiv 1906.07413. The rarest class has the margin ``margin``. With ``weights`` after
    most of the training it is the authors' LDAM-DRW (deferred re-weighting).

    Args:
        cosines: (B, C) of embeddings with the classes' directions, see `medcl.nn.cosine`.
        labels: (B,) classes; below 0 where unknown: such samples take no part.
        counts: (C,) training samples of each class; below 1 counts as 1.
        margin: of the rarest class, above 0.
        scale: s, above 0.
        weights: (C,); None: 1 for each.
        ranks: the other processes, whose samples count in the mean.

    Returns:
        Scalar; zero where no label is known.

    Raises:
        UsageError: if shapes do not fit, or margin or scale is not above 0.

    Example:
        >>> loss = ldam(torch.zeros(1, 2), torch.tensor([1]), torch.tensor([16, 1]), scale=1.0)
        >>> round(loss.item(), 4)  # log(1 + exp(0.5))
        0.9741
    """
    same_length("ldam", cosines=cosines, labels=labels)
    if margin <= 0 or scale <= 0:
        raise UsageError(f"ldam: margin and scale must be above 0, not {margin} and {scale}.")
    known, at = labels >= 0, labels.clamp_min(0)
    z = widened(cosines)
    delta = margins(counts, margin).to(z.dtype)
    held = F.one_hot(at, z.shape[1]) * delta[at].unsqueeze(1)  # (B, C)
    losses = F.cross_entropy(scale * (z - held), at, reduction="none")
    w = torch.ones_like(losses) if weights is None else weights.to(z.dtype)[at]
    total = torch.where(known, w * losses, 0.0).sum()
    number = ranks.mean(torch.where(known, w, 0.0).sum())
    return total / torch.where(number > 0, number, 1.0)


def margins(counts: Tensor, margin: float = MARGIN) -> Tensor:
    """(C,) float64 Δ_c = margin · (n_min / n_c)^(1/4).

    Example:
        >>> margins(torch.tensor([16, 1])).tolist()
        [0.25, 0.5]
    """
    n = counts.clamp_min(1).double()
    return margin * (n.min() / n) ** 0.25
