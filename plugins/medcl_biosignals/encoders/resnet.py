"""A 1D residual network in the xresnet style."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from medcl_biosignals.encoders.parts import Stages, conv, norm_layer


class _Block(nn.Module):
    """Two convolutions and a shortcut, both normalised; strided shortcuts average first."""

    def __init__(self, inner: int, outer: int, kernel: int, stride: int, norm: str) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv(inner, outer, kernel, stride),
            norm_layer(norm, outer),
            nn.ReLU(),
            conv(outer, outer, kernel),
            norm_layer(norm, outer),
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


def resnet1d(
    *,
    channels: int = 2,
    widths: tuple[int, ...] = (32, 64, 128, 256),
    blocks: int = 2,
    kernel: int = 7,
    stride: int = 2,
    norm: Literal["batch", "group", "layer"] = "batch",
    pool: Literal["mean", "max", "meanmax", "centre"] = "mean",
    width: int | None = None,
) -> Stages:
    """A 1D ResNet (He 2016, arXiv 1512.03385) with the tweaks of xresnet (He 2019, 1812.01187).

    Parameters: 2.18 M by default; 0.18 M with ``widths=(16, 32, 64, 128)``, ``blocks=1``,
    ``kernel=5``, which a laptop trains in minutes; 8.73 M with ``widths=(64, 128, 256, 512)``.

    Args:
        channels: of the signal.
        widths: channels of the stages; each but the first halves the length.
        blocks: residual blocks a stage.
        kernel: samples a convolution sees.
        stride: of the stem.
        norm: normalisation. "group" does not mix the samples of a batch.
        pool: over time: mean, max, both, or "centre": the middle tenth beside the mean, for
            windows that are centred on a beat.
        width: of the embedding; None for whatever the pooling gives.

    Returns:
        a module (B, channels, T) → (B, width), for any T.
    """
    inner = widths[0]
    stem = nn.Sequential(conv(channels, inner, kernel, stride), norm_layer(norm, inner), nn.ReLU())
    stages = []
    for stage, outer in enumerate(widths):
        layers: list[nn.Module] = []
        for block in range(blocks):
            step = 2 if block == 0 and stage > 0 else 1
            layers.append(_Block(inner, outer, kernel, step, norm))
            inner = outer
        stages.append(nn.Sequential(*layers))
    return Stages(stem, stages, pool, width, channels=channels, stage_widths=widths, stride=stride)
