"""What the 1D encoders are made of."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def conv(inner: int, outer: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv1d:
    """A convolution that keeps the length (but for its stride), without bias."""
    return nn.Conv1d(inner, outer, kernel, stride, padding=kernel // 2, groups=groups, bias=False)


def norm_layer(kind: str, channels: int) -> nn.BatchNorm1d | nn.GroupNorm:
    """Batch norm, group norm with groups of about eight channels, or one group for all."""
    if kind == "batch":
        return nn.BatchNorm1d(channels)
    groups = (
        1 if kind == "layer" else max(g for g in range(1, channels // 8 + 2) if channels % g == 0)
    )
    return nn.GroupNorm(groups, channels)


def known(x: Tensor) -> Tensor:
    """Missing samples as zero, which is what a channel that is absent altogether is given as."""
    return torch.nan_to_num(x)


class Pool(nn.Module):
    """Over time: (B, C, T) → (B, times · C). "last" is the newest position, for causal networks."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.times = 2 if kind in ("meanmax", "centre") else 1

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "last":
            return x[..., -1]
        if self.kind == "max":
            return x.amax(dim=-1)
        mean = x.mean(dim=-1)
        if self.kind == "mean":
            return mean
        if self.kind == "meanmax":
            return torch.cat([mean, x.amax(dim=-1)], dim=1)
        length = x.shape[-1]
        reach = max(length // 20, 1)
        middle = x[..., max(length // 2 - reach, 0) : length // 2 + reach]
        return torch.cat([mean, middle.mean(dim=-1)], dim=1)
