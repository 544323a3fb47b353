"""An EfficientNet-style 1D network of inverted residual blocks."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from medcl_biosignals.encoders.parts import Stages, alive, conv, norm_layer


class Squeeze(nn.Module):
    """Squeeze and excitation: channels are weighed by their means (Hu 2018, arXiv 1709.01507)."""

    def __init__(self, channels: int, reduced: int) -> None:
        super().__init__()
        self.mean = nn.AdaptiveAvgPool1d(1)  # a module, which SparK lets see visible parts alone
        self.gate = nn.Sequential(
            nn.Linear(channels, reduced), nn.SiLU(), nn.Linear(reduced, channels), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:  # (B, C, T)
        return x * self.gate(self.mean(x).flatten(1)).unsqueeze(-1)


class _MBConv(nn.Module):
    """Expand, depthwise convolution, squeeze and excite, project; a shortcut where shapes allow."""

    def __init__(
        self, inner: int, outer: int, kernel: int, stride: int, expand: int, norm: str
    ) -> None:
        super().__init__()
        wide = inner * expand
        self.body = nn.Sequential(
            conv(inner, wide, 1),
            norm_layer(norm, wide),
            nn.SiLU(),
            conv(wide, wide, kernel, stride, groups=wide),
            norm_layer(norm, wide),
            nn.SiLU(),
            Squeeze(wide, max(inner // 4, 4)),
            conv(wide, outer, 1),
            norm_layer(norm, outer),
        )
        self.residual = inner == outer and stride == 1

    def forward(self, x: Tensor) -> Tensor:  # (B, inner, T) → (B, outer, ⌈T/stride⌉)
        return x + self.body(x) if self.residual else self.body(x)


def mbconv1d(
    *,
    channels: int = 2,
    widths: tuple[int, ...] = (32, 64, 96, 128, 192),
    blocks: int = 3,
    kernel: int = 5,
    expand: int = 4,
    norm: Literal["batch", "group", "layer"] = "batch",
    pool: Literal["mean", "max", "meanmax", "centre"] = "mean",
    width: int = 256,
) -> nn.Module:
    """An EfficientNet-style 1D encoder (Tan & Le 2019, arXiv 1905.11946).

    Widths and depths are ours; `medcl_biosignals.encoders.efficientnet` is the network of the
    wearable foundation models. Parameters: 1.83 M by default.

    Args:
        channels: of the signal.
        widths: channels of the stages; each halves the length, as does the stem.
        blocks: inverted residual blocks a stage.
        kernel: samples a depthwise convolution sees.
        expand: how many times wider a block is inside.
        norm: normalisation.
        pool: over time, as in `resnet1d`.
        width: of the embedding.

    Returns:
        a module (B, channels, T) → (B, width), for any T.
    """
    inner = widths[0]
    stem = nn.Sequential(conv(channels, inner, kernel, 2), norm_layer(norm, inner), nn.SiLU())
    stages = []
    for outer in widths:
        layers: list[nn.Module] = []
        for block in range(blocks):
            layers.append(_MBConv(inner, outer, kernel, 2 if block == 0 else 1, expand, norm))
            inner = outer
        stages.append(nn.Sequential(*layers))
    made = Stages(stem, stages, pool, width, channels=channels, stage_widths=widths, stride=4)
    return alive(made)
