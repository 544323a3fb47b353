"""Standardisation by training samples, kept with the model."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from medcl.errors import UsageError


class Standard(nn.Module):
    """(x − mean) / deviation, feature by feature; of shape (), the default, it is the identity."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("deviation", torch.ones(shape))

    @classmethod
    def of(cls, batches: Iterable[Tensor]) -> Standard:
        """Mean and deviation of batches of (N, F) features; a constant feature is only centred.

        Raises:
            UsageError: if these are not features.
        """
        count, total, square = 0, torch.zeros(()), torch.zeros(())
        for x in batches:
            if x.ndim != 2:
                raise UsageError(
                    f"finetune.standardise is for features (N, F), not for inputs of shape "
                    f"(N, {', '.join(map(str, x.shape[1:]))}): set it to false."
                )
            x = x.double()
            count, total, square = count + len(x), total + x.sum(0), square + (x**2).sum(0)
        mean = total / count
        deviation = (square / count - mean**2).clamp_min(0).sqrt()
        standard = cls(tuple(mean.shape))
        standard.mean.copy_(mean)
        standard.deviation.copy_(
            torch.where(deviation > 1e-6 * mean.abs().clamp_min(1e-6), deviation, 1)
        )
        return standard

    def forward(self, x: Tensor) -> Tensor:
        """(N, F) → (N, F)."""
        return (x - self.mean) / self.deviation if self.mean.ndim else x

    def back(self, x: Tensor) -> Tensor:
        """The inverse of `forward`."""
        return x * self.deviation + self.mean if self.mean.ndim else x
