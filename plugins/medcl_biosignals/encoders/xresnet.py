"""The deep bottleneck network that leads the PTB-XL benchmark."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from medcl_biosignals.encoders.parts import Stages, conv, norm_layer

_EXPAND = 4


class _Bottleneck(nn.Module):
    """Narrow, convolve, widen; the last norm begins at zero, so that a block begins as identity."""

    def __init__(self, inner: int, middle: int, kernel: int, stride: int, norm: str) -> None:
        super().__init__()
        outer = middle * _EXPAND
        last = norm_layer(norm, outer)
        nn.init.zeros_(last.weight)
        self.body = nn.Sequential(
            conv(inner, middle, 1),
            norm_layer(norm, middle),
            nn.ReLU(),
            conv(middle, middle, kernel, stride),
            norm_layer(norm, middle),
            nn.ReLU(),
            conv(middle, outer, 1),
            last,
        )
        shortcut: list[nn.Module] = []
        if stride > 1:
            shortcut.append(nn.AvgPool1d(stride, ceil_mode=True))
        if inner != outer:
            shortcut += [conv(inner, outer, 1), norm_layer(norm, outer)]
        self.shortcut = nn.Sequential(*shortcut)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:  # (B, inner, T) → (B, outer, ⌈T/stride⌉)
        return self.act(self.body(x) + self.shortcut(x))


def xresnet1d(
    *,
    channels: int = 2,
    widths: tuple[int, ...] = (64, 64, 64, 64),
    depths: tuple[int, ...] = (3, 4, 6, 3),
    kernel: int = 5,
    norm: Literal["batch", "group", "layer"] = "batch",
    pool: Literal["mean", "max", "meanmax", "centre"] = "meanmax",
    width: int = 256,
) -> nn.Module:
    """XResNet-50 in one dimension (He 2019, arXiv 1812.01187), as the benchmark of PTB-XL has it.

    Strodthoff 2021 (arXiv 2004.13701): kernels of 5, a stem of three convolutions, constant widths,
    mean and maximum side by side. Its 101-layer form is ``depths=(3, 4, 23, 3)``. Parameters:
    1.02 M by default.

    Args:
        channels: of the signal.
        widths: of the bottlenecks of each stage; a stage gives four times as many channels. Each
            but the first halves the length, as do the stem and its pooling.
        depths: bottlenecks in each stage.
        kernel: samples a convolution sees.
        norm: normalisation. "group" does not mix the samples of a batch.
        pool: over time, as in `resnet1d`.
        width: of the embedding.

    Returns:
        a module (B, channels, T) → (B, width), for any T.
    """
    stem: list[nn.Module] = []
    for number, (before, after) in enumerate(((channels, 32), (32, 32), (32, widths[0]))):
        stem += [conv(before, after, kernel, 2 if number == 0 else 1)]
        stem += [norm_layer(norm, after), nn.ReLU()]
    stages = []
    inner = widths[0]
    for stage, (middle, depth) in enumerate(zip(widths, depths, strict=True)):
        layers: list[nn.Module] = []
        for block in range(depth):
            step = 2 if block == 0 and stage > 0 else 1
            layers.append(_Bottleneck(inner, middle, kernel, step, norm))
            inner = middle * _EXPAND
        stages.append(nn.Sequential(*layers))
    return Stages(
        nn.Sequential(*stem, nn.MaxPool1d(3, 2, padding=1)),
        stages,
        pool,
        width,
        channels=channels,
        stage_widths=[middle * _EXPAND for middle in widths],
        stride=4,
    )
