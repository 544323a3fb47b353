"""Negative cosine to a target without gradient: BYOL and SimSiam."""

from __future__ import annotations

from torch import Tensor

from medcl.nn.distributed import ALONE, Ranks
from medcl.objectives.checks import same_shape
from medcl.objectives.unit import unit


def negative_cosine(prediction: Tensor, target: Tensor, *, ranks: Ranks = ALONE) -> Tensor:
    """−mean_i cos(p_i, sg(z_i)).

    Chen 2021 (SimSiam, arXiv 2011.10566, eq. 1). Grill 2020 (BYOL, arXiv 2006.07733, eq. 2) is
    2 + 2·this. Both take the mean of the two directions, which is the method's to do.

    Args:
        prediction: (B, d) the predictor's output for one view.
        target: (B, d) the other view's projection; a constant.
        ranks: not needed.

    Returns:
        Scalar in −1…1. A zero vector has cosine 0 and gets no gradient.

    Raises:
        UsageError: if the shapes differ.

    Example:
        >>> import torch
        >>> negative_cosine(torch.eye(2), 3 * torch.eye(2))
        tensor(-1.)
    """
    same_shape("negative_cosine", 2, prediction=prediction, target=target)
    return -(unit(prediction) * unit(target.detach())).sum(1).mean()
