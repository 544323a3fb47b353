"""Residual networks for tiles, built by MONAI."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from medcl.nn import resnet as network
from medcl.nn.weights import load
from medcl_pathology.encoders.parts import scaled


class ResNet(nn.Module):
    """He 2016, arXiv 1512.03385: RGB in, the pooled last stage out.

    Attributes:
        width: of the output.
        channels, stage_widths, strides: what SparK asks for (`medcl.nn.encoders.Staged`).
    """

    def __init__(self, depth: int, base: int, channels: int = 3) -> None:
        super().__init__()
        built = network.build(2, depth, base, channels)
        self.colours = scaled(channels)
        self.net = built.net
        self.channels = channels
        self.stage_widths, self.strides = built.stage_widths, built.strides
        self.width = self.stage_widths[-1]

    def stages(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) → for each stage (B, stage_width, H / stride, W / stride)."""
        return network.stages(self.net, self.colours(x))

    def pool(self, stage: Tensor) -> Tensor:
        """The last stage (B, width, H, W) → (B, width): the mean over positions."""
        return stage.flatten(2).mean(dim=2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, width)."""
        return self.pool(self.stages(x)[-1])


def resnet(
    *,
    depth: Literal[10, 18, 34, 50] = 50,
    base: int = 64,
    weights: Path | None = None,
    channels: int = 3,
) -> nn.Module:
    """A ResNet for tiles.

    Args:
        depth: number of layers.
        base: channels of the first stage; 64 is the published size.
        weights: a file with torchvision's names, below any prefix (torchvision, SwAV, MoCo,
            Barlow Twins of Kang 2023): ``.safetensors``, or a torch file of tensors alone.
        channels: of a tile; other than 3 for images of channels (``dataset.kind=multiplex``).

    Returns:
        a module (B, channels, H, W) in 0 … 1 → (B, 8·base), or four times that for depth 50.
    """
    encoder = ResNet(depth, base, channels)
    if weights is not None:
        load(encoder.net, weights)
    return encoder
