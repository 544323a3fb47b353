"""Masked reconstruction of patches: MAE and SparK."""

from __future__ import annotations

from torch import Tensor

from medcl.nn.distributed import ALONE, Ranks
from medcl.objectives.checks import same_length, same_shape
from medcl.objectives.means import mean_where
from medcl.objectives.precision import widened


def masked_reconstruction(
    prediction: Tensor,
    target: Tensor,
    mask: Tensor,
    *,
    normalise: bool = True,
    eps: float = 1e-6,
    ranks: Ranks = ALONE,
) -> Tensor:
    """Mean over masked patches of the mean squared error to the (normalised) patch.

    He 2022 (MAE, arXiv 2111.06377) and Tian 2023 (SparK, arXiv 2301.03580): the target patch is
    standardised by its own mean and √(variance + ε), the variance with P − 1 as in both codes.

    Args:
        prediction: (B, N, P).
        target: (B, N, P) the input's patches; a constant.
        mask: (B, N) True where the patch was hidden from the encoder.
        normalise: per patch; False compares raw values.
        eps: ε.
        ranks: the other processes (they may have hidden other numbers of patches).

    Returns:
        Scalar; zero where nothing is masked.

    Raises:
        UsageError: if the shapes differ.

    Example:
        >>> import torch
        >>> target, mask = torch.tensor([[[1.0, 3.0], [5.0, 5.0]]]), torch.tensor([[True, False]])
        >>> round(masked_reconstruction(torch.zeros(1, 2, 2), target, mask).item(), 4)
        0.5
    """
    same_shape("masked_reconstruction", 3, prediction=prediction, target=target)
    same_length("masked_reconstruction", prediction=prediction, mask=mask)
    target = widened(target.detach())
    if normalise:
        mean = target.mean(2, keepdim=True)
        var = (target - mean).square().sum(2, keepdim=True) / max(target.shape[2] - 1, 1)
        target = (target - mean) * (var + eps).rsqrt()
    return mean_where((widened(prediction) - target).square().mean(2), mask, ranks)
