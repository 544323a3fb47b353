"""The network of the wearable foundation models."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from medcl_biosignals.encoders.mbconv import Squeeze
from medcl_biosignals.encoders.parts import Stages, alive, conv, norm_layer

_SHARES = ((4,), (5, 5), (7, 7), (9, 9, 9), (11, 11, 11), (14, 14, 14, 14, 18))
_WHOLE = 36  # of which these shares are, as is the stem's of six
_STEM = 6
_WIDE = (2, 4, 5)  # stages whose depthwise kernels are 2k − 1 samples
_EPS = 1e-3  # of the norms


class _Block(nn.Module):
    """Expand, depthwise convolution, squeeze by a quarter, project; a shortcut where it fits."""

    def __init__(
        self, inner: int, outer: int, kernel: int, stride: int, expand: int, norm: str
    ) -> None:
        super().__init__()
        wide = inner * expand
        layers: list[nn.Module] = []
        if expand > 1:
            layers += [conv(inner, wide, 1), norm_layer(norm, wide, _EPS), nn.SiLU()]
        layers += [conv(wide, wide, kernel, stride, groups=wide), norm_layer(norm, wide, _EPS)]
        layers += [nn.SiLU(), Squeeze(wide, max(wide // 4, 1))]
        layers += [conv(wide, outer, 1), norm_layer(norm, outer, _EPS)]
        self.body = nn.Sequential(*layers)
        self.residual = inner == outer and stride == 1

    def forward(self, x: Tensor) -> Tensor:  # (B, inner, T) → (B, outer, ⌈T/stride⌉)
        return x + self.body(x) if self.residual else self.body(x)


def efficientnet1d(
    *,
    channels: int = 2,
    kernel: int = 3,
    expand: int = 7,
    norm: Literal["batch", "group", "layer"] = "batch",
    pool: Literal["mean", "max", "meanmax", "centre"] = "mean",
    width: int = 256,
) -> nn.Module:
    """The 1D EfficientNet of the wearable foundation models (Abbaspourazad 2024, arXiv 2312.05409).

    As in its authors' code (github.com/apple/ml-ppg-age-analysis): sixteen inverted residual
    blocks, whose widths are shares of the embedding's, a stride of 64 in all, and a last pointwise
    convolution to the embedding. Only the initial weights differ: theirs, PyTorch's own, give
    nearly one embedding for every window before training. Parameters: 3.15 M by default.

    Args:
        channels: of the signal.
        kernel: samples of a depthwise convolution, odd; 2k − 1 in half of the stages.
        expand: how many times wider a block is inside.
        norm: normalisation.
        pool: over time, as in `medcl_biosignals.encoders.resnet.resnet1d`.
        width: of the embedding, before "meanmax" and "centre" double it.

    Returns:
        a module (B, channels, T) → (B, width), for any T.
    """
    inner = width * _STEM // _WHOLE
    stem = nn.Sequential(conv(channels, inner, kernel, 2), norm_layer(norm, inner, _EPS), nn.SiLU())
    stages, widths = [], []
    for stage, shares in enumerate(_SHARES):
        layers: list[nn.Module] = []
        for block, share in enumerate(shares):
            outer = width * share // _WHOLE
            layers.append(
                _Block(
                    inner,
                    outer,
                    2 * kernel - 1 if stage in _WIDE else kernel,
                    2 if stage > 0 and block == 0 else 1,
                    expand if stage > 0 else 1,
                    norm,
                )
            )
            inner = outer
        if stage == len(_SHARES) - 1:
            layers += [conv(inner, width, 1), norm_layer(norm, width, _EPS), nn.SiLU()]
            inner = width
        stages.append(nn.Sequential(*layers))
        widths.append(inner)
    made = Stages(stem, stages, pool, None, channels=channels, stage_widths=widths, stride=2)
    return alive(made)
