"""What the 1D encoders are made of."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def conv(inner: int, outer: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv1d:
    """A convolution that keeps the length (but for its stride), without bias."""
    return nn.Conv1d(inner, outer, kernel, stride, padding=kernel // 2, groups=groups, bias=False)


def norm_layer(kind: str, channels: int, eps: float = 1e-5) -> nn.BatchNorm1d | nn.GroupNorm:
    """Batch norm, group norm with groups of about eight channels, or one group for all."""
    if kind == "batch":
        return nn.BatchNorm1d(channels, eps=eps)
    groups = (
        1 if kind == "layer" else max(g for g in range(1, channels // 8 + 2) if channels % g == 0)
    )
    return nn.GroupNorm(groups, channels, eps=eps)


def alive(module: nn.Module, gain: float = 2.0**0.5) -> nn.Module:
    """Draw a network's convolutions so that a signal comes through it at its own size.

    Those of PyTorch let it shrink to a third of its power at each. In training a batch norm hides
    that, but not in evaluation mode before training: dozens of blocks then leave rounding noise of
    it, and "random weights" are no baseline. After He 2015 (arXiv 1502.01852), by fan-in.

    Args:
        module: its convolutions and linear layers are drawn anew, in place.
        gain: of the nonlinearity before each.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv1d | nn.Linear):
            fan_in = part.weight[0].numel()
            nn.init.normal_(part.weight, std=gain / fan_in**0.5)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    return module


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


class Stages(nn.Module):
    """A stem, stages that grow coarser, pooling over time and a linear head, if any.

    It shows its stages as `medcl.nn.encoders.Staged` asks: what SparK pretrains.

    Args:
        stem: (B, channels, T) → (B, ·, ⌈T/s⌉).
        blocks: the stages, fine to coarse.
        pool: see `Pool`.
        width: of the embedding; None for whatever the pooling gives.
        channels: of the signal.
        stage_widths: channels that each stage gives.
        stride: of the first stage with respect to the signal; each further one doubles it.
    """

    def __init__(
        self,
        stem: nn.Module,
        blocks: Sequence[nn.Module],
        pool: str,
        width: int | None,
        *,
        channels: int,
        stage_widths: Sequence[int],
        stride: int,
    ) -> None:
        super().__init__()
        self.stem, self.blocks = stem, nn.ModuleList(blocks)
        self.pooling = Pool(pool)
        pooled = stage_widths[-1] * self.pooling.times
        self.head = nn.Linear(pooled, width) if width else nn.Identity()
        self.width = width or pooled
        self.channels, self.stage_widths = channels, tuple(stage_widths)
        self.strides = tuple(stride << stage for stage in range(len(stage_widths)))

    def stages(self, x: Tensor) -> list[Tensor]:
        """(B, C, T) → for each stage (B, its width, ⌈T/stride⌉)."""
        x = self.stem(known(x))
        made = []
        for stage in self.blocks:
            x = stage(x)
            made.append(x)
        return made

    def pool(self, stage: Tensor) -> Tensor:
        """The last stage → (B, width)."""
        out: Tensor = self.head(self.pooling(stage))
        return out

    def forward(self, x: Tensor) -> Tensor:  # (B, C, T) → (B, width)
        return self.pool(self.stages(x)[-1])
