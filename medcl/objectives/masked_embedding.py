"""Masked-embedding prediction: predict the embedding of a hidden slice or patch from the others."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from medcl.nn.distributed import ALONE, Ranks
from medcl.objectives.checks import same_length, same_shape
from medcl.objectives.means import mean_where
from medcl.objectives.precision import widened
from medcl.objectives.unit import unit


def masked_embedding(
    prediction: Tensor,
    target: Tensor,
    mask: Tensor,
    *,
    distance: Literal["mse", "cosine", "smooth_l1"] = "mse",
    ranks: Ranks = ALONE,
) -> Tensor:
    """Mean over masked positions of the distance between predicted and true embedding.

    Nguyen 2023 (joint 2D/3D self-supervision, arXiv 2212.01893) masks slice embeddings of a
    volume and predicts them from the rest; Baevski 2022 (data2vec, arXiv 2202.03555) does so with
    a momentum teacher's; so does Assran 2023 (I-JEPA, arXiv 2301.08243), with "smooth_l1", the
    mean over dimensions of Huber's distance with β = 1. Nguyen's exact distance was not at hand:
    "mse" is the mean over dimensions of squared differences, "cosine" is 1 − cos.

    Args:
        prediction: (B, N, d).
        target: (B, N, d); a constant.
        mask: (B, N) True where the position was hidden.
        distance: "mse", "cosine" or "smooth_l1".
        ranks: the other processes (they may have hidden other numbers of positions).

    Returns:
        Scalar; zero where nothing is masked.

    Raises:
        UsageError: if the shapes differ.

    Example:
        >>> import torch
        >>> z, mask = torch.eye(2).unsqueeze(0), torch.tensor([[True, False]])
        >>> round(masked_embedding(-z, z, mask, distance="cosine").item(), 4)
        2.0
    """
    same_shape("masked_embedding", 3, prediction=prediction, target=target)
    same_length("masked_embedding", prediction=prediction, mask=mask)
    target = target.detach()
    if distance == "mse":
        losses = (widened(prediction) - widened(target)).square().mean(2)
    elif distance == "smooth_l1":
        losses = smooth_l1_loss(widened(prediction), widened(target), reduction="none").mean(2)
    else:
        losses = 1 - (unit(prediction) * unit(target)).sum(2)
    return mean_where(losses, mask, ranks)
