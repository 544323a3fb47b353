"""Similarity-weighted reconstruction: reconstruct a snippet from similar snippets."""

from __future__ import annotations

import torch
from torch import Tensor

from medcl.nn.distributed import ALONE, Ranks
from medcl.objectives.checks import positive, same_length, same_shape
from medcl.objectives.pairs import own_columns
from medcl.objectives.precision import full, widened
from medcl.objectives.rows import by_rows
from medcl.objectives.unit import unit


def similarity_reconstruction(
    z: Tensor,
    decoded: Tensor,
    target: Tensor,
    *,
    temperature: float = 0.1,
    ranks: Ranks = ALONE,
) -> Tensor:
    """mean_i of the mean squared error between Σ_{j≠i} w_ij·decoded_j and target_i.

    Dong 2023 (SimMTM, arXiv 2302.00861) and Arunan 2025 (charging snippets of electric cars, arXiv
    2510.05172): w_ij = softmax over j≠i of cos(z_i, z_j)/τ. They mix the point-wise features and
    then decode; with an affine decoder, as SimMTM's, mixing what was decoded is the same, since
    the weights sum to one. For a deeper decoder mix first: `similarity_mix`.

    Args:
        z: (B, d) snippet embeddings, masked views of one snippet included; normalised inside.
        decoded: (B, ...) each (masked) snippet decoded by itself.
        target: (B, ...) the whole snippets; a constant.
        temperature: τ > 0.
        ranks: the other processes; their snippets are included.

    Returns:
        Scalar; snippets without any other to be rebuilt from add zero.

    Raises:
        UsageError: if the shapes differ or τ is not positive.

    Example:
        >>> z, x = torch.ones(3, 2), torch.tensor([[0.0], [3.0], [3.0]])
        >>> round(similarity_reconstruction(z, x, x).item(), 4)  # (3² + 1.5² + 1.5²) / 3
        4.5
    """
    same_shape("similarity_reconstruction", decoded.ndim, decoded=decoded, target=target)
    mixed = similarity_mix(z, decoded, temperature=temperature, ranks=ranks)
    if len(z) * ranks.world < 2:
        return mixed.sum() * 0
    return (mixed - widened(target.detach())).square().mean()


def similarity_mix(
    z: Tensor, features: Tensor, *, temperature: float = 0.1, ranks: Ranks = ALONE
) -> Tensor:
    """Σ_{j≠i} softmax_j(cos(z_i, z_j)/τ)·features_j: (B, d), (B, ...) → (B, ...).

    Raises:
        UsageError: if the lengths differ or τ is not positive.

    Example:
        >>> similarity_mix(torch.ones(3, 2), torch.tensor([0.0, 3.0, 3.0]))
        tensor([3.0000, 1.5000, 1.5000])
    """
    same_length("similarity_mix", z=z, features=features)
    positive("similarity_mix", temperature=temperature)
    rows = unit(z, temperature**-0.5)
    cols = ranks.gather(rows)
    values = ranks.gather(widened(features).reshape(len(features), -1))  # (N, F)
    own = own_columns(len(z), ranks, z.device)

    def mixed(i: slice) -> Tensor:
        with full(rows):
            s = (rows[i] @ cols.T).scatter(1, own[i].unsqueeze(1), -torch.finfo(rows.dtype).max)
            return s.softmax(1) @ values

    return by_rows(mixed, len(rows), len(cols)).reshape(features.shape)
