"""Means over valid anchors, whose number may differ between ranks."""

from __future__ import annotations

import torch
from torch import Tensor

from medcl.nn.distributed import ALONE, Ranks


def mean_where(losses: Tensor, counts: Tensor, ranks: Ranks = ALONE) -> Tensor:
    """Σ losses[counts] / (mean over ranks of the number that count): any shape → scalar.

    The mean of it over ranks is the mean over all anchors that count. Where none does anywhere it
    is zero, with zero gradient.

    Example:
        >>> mean_where(torch.tensor([1.0, torch.inf, 3.0]), torch.tensor([True, False, True]))
        tensor(2.)
    """
    number = ranks.mean(counts.sum().to(losses.dtype))
    total = torch.where(counts, losses, 0.0).sum()
    return total / torch.where(number > 0, number, 1.0)
