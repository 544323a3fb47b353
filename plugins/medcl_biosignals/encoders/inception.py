"""InceptionTime: short and long kernels side by side, at full resolution."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from medcl_biosignals.encoders.parts import Pool, conv, known, norm_layer


class _Inception(nn.Module):
    """Three kernel lengths on a bottleneck, and a pooled copy: (B, C, T) → (B, 4·filters, T)."""

    def __init__(self, inner: int, filters: int, kernels: tuple[int, ...], norm: str) -> None:
        super().__init__()
        self.narrow = conv(inner, filters, 1) if inner > 1 else nn.Identity()
        narrow = filters if inner > 1 else inner
        self.long = nn.ModuleList(conv(narrow, filters, kernel) for kernel in kernels)
        self.pooled = nn.Sequential(nn.MaxPool1d(3, 1, padding=1), conv(inner, filters, 1))
        self.norm = norm_layer(norm, filters * (len(kernels) + 1))

    def forward(self, x: Tensor) -> Tensor:
        narrow = self.narrow(x)
        made = torch.cat([*(layer(narrow) for layer in self.long), self.pooled(x)], dim=1)
        return torch.relu(self.norm(made))


class InceptionTime(nn.Module):
    """See `inceptiontime`."""

    def __init__(
        self,
        channels: int,
        filters: int,
        depth: int,
        kernels: tuple[int, ...],
        norm: str,
        pool: str,
        width: int | None,
    ) -> None:
        super().__init__()
        wide = filters * (len(kernels) + 1)
        self.modules_ = nn.ModuleList(
            _Inception(channels if n == 0 else wide, filters, kernels, norm) for n in range(depth)
        )
        self.shortcuts = nn.ModuleList(
            nn.Sequential(conv(channels if n == 0 else wide, wide, 1), norm_layer(norm, wide))
            for n in range(depth // 3)
        )
        self.pooling = Pool(pool)
        pooled = wide * self.pooling.times
        self.head = nn.Linear(pooled, width) if width else nn.Identity()
        self.width = width or pooled

    def forward(self, x: Tensor) -> Tensor:  # (B, C, T) → (B, width)
        x = before = known(x)
        for number, module in enumerate(self.modules_):
            x = module(x)
            if number % 3 == 2:  # every third module is added to the input of its three
                x = before = torch.relu(x + self.shortcuts[number // 3](before))
        return self.head(self.pooling(x))


def inceptiontime(
    *,
    channels: int = 2,
    filters: int = 32,
    depth: int = 6,
    kernels: tuple[int, ...] = (39, 19, 9),
    norm: Literal["batch", "group", "layer"] = "batch",
    pool: Literal["mean", "max", "meanmax", "centre"] = "mean",
    width: int | None = None,
) -> nn.Module:
    """One network of InceptionTime (Fawaz 2020, arXiv 1909.04939), which averages five of them.

    It keeps the full resolution, so its cost grows with the length more than that of the others:
    for windows of seconds. Parameters: 0.47 M by default. Kernels are odd here (40, 20, 10 there).

    Args:
        channels: of the signal.
        filters: of each branch; a module gives (kernels + 1) times as many.
        depth: modules; every third closes a shortcut.
        kernels: samples that the branches see.
        norm: normalisation.
        pool: over time, as in `resnet1d`.
        width: of the embedding; None for whatever the pooling gives.

    Returns:
        a module (B, channels, T) → (B, width), for any T.
    """
    return InceptionTime(channels, filters, depth, kernels, norm, pool, width)
