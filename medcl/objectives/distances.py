"""Euclidean distances between all pairs, by one matrix product, precise for near neighbours too."""

from __future__ import annotations

import torch
from torch import Tensor

from medcl.objectives.precision import exact, full


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """‖a_i − b_j‖²: (A, d), (B, d) → (A, B), float64.

    As ‖a‖² + ‖b‖² − 2 a·b, which loses half of the digits: of float64 they leave those of float32.
    Pairs that rounding cannot distinguish from equal ones have distance 0, without gradient.

    Example:
        >>> squared_distances(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
        tensor([[25.,  0.]], dtype=torch.float64)
    """
    with full(a):
        a, b = a.to(exact(a)), b.to(exact(b))
        size = a.square().sum(1, keepdim=True) + b.square().sum(1)
        squared = size - 2 * (a @ b.T)
        alike = squared <= 4 * torch.finfo(a.dtype).eps * size
        return torch.where(alike, 0.0, squared)  # NaN stays NaN


def distances(a: Tensor, b: Tensor) -> Tensor:
    """‖a_i − b_j‖: (A, d), (B, d) → (A, B), float64; no gradient at 0.

    Example:
        >>> distances(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
        tensor([[5., 0.]], dtype=torch.float64)
    """
    squared = squared_distances(a, b)
    apart = squared != 0
    return torch.where(apart, torch.where(apart, squared, 1.0).sqrt(), 0.0)
