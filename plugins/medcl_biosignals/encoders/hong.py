"""Two 1D residual networks of Hong (github.com/hsd1503/resnet1d), which others built upon.

Their parts have the names of that code, so that released weights load as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medcl_biosignals.encoders.parts import known

_GROW = 4  # blocks after which PaPaGei's network doubles its channels
_HALVE = 2  # every second block halves the length


class _Same(nn.Module):
    """A convolution padded as TensorFlow's SAME: (B, inner, T) → (B, outer, ⌈T/stride⌉)."""

    def __init__(self, inner: int, outer: int, kernel: int, stride: int = 1, groups: int = 1):
        super().__init__()
        self.conv = nn.Conv1d(inner, outer, kernel, stride, groups=groups)
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[-1]
        made = -(-length // self.stride)
        lacking = max((made - 1) * self.stride + self.kernel - length, 0)
        out: Tensor = self.conv(F.pad(x, (lacking // 2, lacking - lacking // 2)))
        return out


def _shortcut(x: Tensor, stride: int, outer: int) -> Tensor:
    """``x`` at another length, by maxima, and with channels of zeros on both sides."""
    if stride > 1:
        x = F.max_pool1d(F.pad(x, ((stride - 1) // 2, stride // 2)), stride)
    more = outer - x.shape[1]
    return F.pad(x, (0, 0, more // 2, more - more // 2))


class _Preact(nn.Module):
    """Norm, ReLU, dropout, convolution, twice; the first block begins with its convolution."""

    def __init__(
        self, inner: int, outer: int, kernel: int, stride: int, dropout: float, first: bool
    ) -> None:
        super().__init__()
        self.stride, self.outer = stride, outer
        if not first:
            self.bn1 = nn.BatchNorm1d(inner)
        self.conv1 = _Same(inner, outer, kernel, stride)
        self.bn2 = nn.BatchNorm1d(outer)
        self.conv2 = _Same(outer, outer, kernel)
        self.dropout = nn.Dropout(dropout)
        self.first = first

    def forward(self, x: Tensor) -> Tensor:
        made = x if self.first else self.dropout(torch.relu(self.bn1(x)))
        made = self.dropout(torch.relu(self.bn2(self.conv1(made))))
        return self.conv2(made) + _shortcut(x, self.stride, self.outer)


class PreactResNet(nn.Module):
    """See `preact_resnet1d`."""

    def __init__(
        self, channels: int, base: int, blocks: int, kernel: int, dropout: float, width: int
    ) -> None:
        super().__init__()
        self.first_block_conv = _Same(channels, base, kernel)
        self.first_block_bn = nn.BatchNorm1d(base)
        made, inner = [], base
        for block in range(blocks):
            outer = inner * 2 if block > 0 and block % _GROW == 0 else inner
            stride = 2 if block % _HALVE == 1 else 1
            made.append(_Preact(inner, outer, kernel, stride, dropout, first=block == 0))
            inner = outer
        self.basicblock_list = nn.ModuleList(made)
        self.final_bn = nn.BatchNorm1d(inner)
        self.dense = nn.Linear(inner, width)
        self.width = width

    def forward(self, x: Tensor) -> Tensor:  # (B, channels, T) → (B, width)
        x = torch.relu(self.first_block_bn(self.first_block_conv(known(x))))
        for block in self.basicblock_list:
            x = block(x)
        out: Tensor = self.dense(torch.relu(self.final_bn(x)).mean(dim=-1))
        return out


def preact_resnet1d(
    *,
    channels: int = 2,
    base: int = 32,
    blocks: int = 18,
    kernel: int = 3,
    dropout: float = 0.5,
    width: int = 512,
) -> nn.Module:
    """The network of PaPaGei (Pillai 2024, arXiv 2410.20542): Hong's pre-activation ResNet.

    Every second block halves the length, every fourth doubles the channels. Parameters:
    4.99 M by default. Drawn as PyTorch does: what a block adds grows over 18 of them otherwise.

    Args:
        channels: of the signal.
        base: channels of the first block.
        blocks: of two convolutions.
        kernel: samples a convolution sees.
        dropout: before each convolution of a block.
        width: of the embedding.

    Returns:
        a module (B, channels, T) → (B, width), for any T.
    """
    return PreactResNet(channels, base, blocks, kernel, dropout, width)


def papagei(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> nn.Module:
    """PaPaGei's network, in the sizes of its weights. ``config`` is not used."""
    first, dense = tensors["first_block_conv.conv.weight"], tensors["dense.weight"]
    return PreactResNet(
        channels=first.shape[1],
        base=first.shape[0],
        blocks=count(tensors, "basicblock_list."),
        kernel=first.shape[2],
        dropout=0.5,
        width=dense.shape[0],
    )


def count(tensors: Mapping[str, Tensor], prefix: str) -> int:
    """How many numbered parts there are: 3 of ``prefix``0.…, ``prefix``1.…, ``prefix``2.….

    Raises:
        KeyError: if one between them, or all, are missing.
    """
    numbers = {name[len(prefix) :].partition(".")[0] for name in tensors if name.startswith(prefix)}
    lacking = [n for n in range(max(len(numbers), 1)) if str(n) not in numbers]
    if lacking:
        raise KeyError(f"{prefix}{lacking[0]}")
    return len(numbers)


class _Bottleneck(nn.Module):
    """Swish and convolution, three times, weighed by channel; `Net1D` has no norms."""

    def __init__(
        self,
        inner: int,
        middle: int,
        outer: int,
        kernel: int,
        stride: int,
        groups: int,
        first: bool,
    ) -> None:
        super().__init__()
        self.stride, self.outer, self.first = stride, outer, first
        self.conv1 = _Same(inner, middle, 1)
        self.conv2 = _Same(middle, middle, kernel, stride, groups)
        self.conv3 = _Same(middle, outer, 1)
        self.se_fc1 = nn.Linear(outer, outer // 2)
        self.se_fc2 = nn.Linear(outer // 2, outer)

    def forward(self, x: Tensor) -> Tensor:
        made = self.conv1(x if self.first else F.silu(x))
        made = self.conv3(F.silu(self.conv2(F.silu(made))))
        weight = torch.sigmoid(self.se_fc2(F.silu(self.se_fc1(made.mean(dim=-1)))))
        return made * weight.unsqueeze(-1) + _shortcut(x, self.stride, self.outer)


class _Stage(nn.Module):
    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.block_list = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.block_list:
            x = block(x)
        return x


class Net1D(nn.Module):
    """The network of ECGFounder (Li 2024, arXiv 2410.04133): a RegNet-like one without norms.

    Args:
        first: (base, channels, kernel) of the first convolution.
        stages: of each, for each of its blocks, (middle, outer, kernel, groups).
    """

    def __init__(
        self,
        first: tuple[int, int, int],
        stages: Sequence[Sequence[tuple[int, int, int, int]]],
    ) -> None:
        super().__init__()
        base, channels, kernel = first
        self.first_conv = _Same(channels, base, kernel, 2)
        made, inner = [], base
        for number, stage in enumerate(stages):
            blocks = []
            for block, (middle, outer, size, groups) in enumerate(stage):
                step, begins = 2 if block == 0 else 1, number == block == 0
                blocks.append(_Bottleneck(inner, middle, outer, size, step, groups, begins))
                inner = outer
            made.append(_Stage(blocks))
        self.stage_list = nn.ModuleList(made)
        self.width = inner

    def forward(self, x: Tensor) -> Tensor:  # (B, channels, T) → (B, width)
        x = F.silu(self.first_conv(x))
        for stage in self.stage_list:
            x = stage(x)
        return x.mean(dim=-1)


def founder(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> nn.Module:
    """ECGFounder's network, in the sizes of its weights. ``config`` is not used."""
    first = tensors["first_conv.conv.weight"]
    stages = []
    for stage in range(count(tensors, "stage_list.")):
        blocks = []
        for block in range(count(tensors, f"stage_list.{stage}.block_list.")):
            prefix = f"stage_list.{stage}.block_list.{block}"
            middle, each, kernel = tensors[f"{prefix}.conv2.conv.weight"].shape
            outer = tensors[f"{prefix}.conv3.conv.weight"].shape[0]
            blocks.append((middle, outer, kernel, middle // each))
        stages.append(blocks)
    base, channels, kernel = first.shape
    return Net1D((base, channels, kernel), stages)
