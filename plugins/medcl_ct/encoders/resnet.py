"""Residual networks for slices and volumes, built by MONAI."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from medcl.nn import resnet as network
from medcl.nn import weights as released
from medcl_ct.encoders.parts import Scale, Window, planes


class ResNet(nn.Module):
    """He 2016, arXiv 1512.03385, in two or three axes: HU in, the pooled last stage out.

    Attributes:
        width: of the output.
        channels, stage_widths, strides: what SparK asks for (`medcl.nn.encoders.Staged`).
    """

    def __init__(
        self,
        axes: int,
        depth: int,
        base: int,
        channels: int,
        stem: str,
        shortcut: str,
        window: tuple[float, float],
        scale: Scale,
    ) -> None:
        super().__init__()
        built = network.build(axes, depth, base, channels, small=stem == "small", shortcut=shortcut)
        self.window = Window(window, scale)
        self.net = built.net
        self.axes, self.channels = axes, channels
        self.stage_widths, self.strides = built.stage_widths, built.strides
        self.width = self.stage_widths[-1]

    def stages(self, x: Tensor) -> list[Tensor]:
        """(B, channels, *space) → for each stage (B, stage_width, *space / stride)."""
        return network.stages(self.net, self.window(self._planes(x)))

    def pool(self, stage: Tensor) -> Tensor:
        """The last stage (B, width, *space) → (B, width): the mean over positions."""
        return stage.flatten(2).mean(dim=2)

    def _planes(self, x: Tensor) -> Tensor:
        return planes(x, self.channels) if self.axes == 2 else x

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, *space) → (B, width)."""
        return self.pool(self.stages(x)[-1])


def resnet2d(
    *,
    depth: Literal[10, 18, 34, 50] = 50,
    base: int = 64,
    channels: int = 1,
    stem: Literal["imagenet", "small"] = "imagenet",
    window: tuple[float, float] = (0.0, 2000.0),
    scale: Scale = "water",
    weights: Path | None = None,
) -> nn.Module:
    """A ResNet for slices, or with ``channels`` > 1 for slabs of neighbouring slices (2.5D).

    Args:
        depth: number of layers.
        base: channels of the first stage; 64 is the published size.
        channels: neighbouring slices seen at once; samples are (1, H, W), or (1, channels, H, W).
        stem: "small" neither strides nor pools at first, for images of 28² and the like.
        window: level and width in HU of what the network sees.
        scale: "water" (0 HU is 0) or "unit" (0 to 1).
        weights: a file with torchvision's names, below any prefix (torchvision, SwAV, MoCo, DINO,
            RadImageNet): ``.safetensors``, or a torch file that holds nothing but tensors. RGB
            stems are adapted.

    Returns:
        a module (B, 1, H, W) in HU → (B, 8·base), or four times that for depth 50.
    """
    encoder = ResNet(2, depth, base, channels, stem, "B", window, scale)
    if weights is not None:
        released.load(encoder.net, weights)
    return encoder


def resnet3d(
    *,
    depth: Literal[10, 18, 34, 50] = 18,
    base: int = 64,
    stem: Literal["imagenet", "small"] = "imagenet",
    shortcut: Literal["A", "B"] = "B",
    window: tuple[float, float] = (0.0, 2000.0),
    scale: Scale = "water",
    weights: Path | None = None,
) -> nn.Module:
    """A ResNet for volumes.

    Args:
        depth: number of layers.
        base: channels of the first stage; 64 is the published size.
        stem: "small" neither strides nor pools at first.
        shortcut: "B" convolves where shapes change. "A" pads with zeros, as MedicalNet's weights
            of depth 18 and 34 need; MONAI's "A" passes no gradient, so choose it for them only.
        window: level and width in HU of what the network sees.
        scale: "water" (0 HU is 0) or "unit" (0 to 1).
        weights: a file of MedicalNet's (Chen 2019, arXiv 1904.00625): ``resnet_10_23dataset.pth``
            and the like, whose names begin with ``module.``.

    Returns:
        a module (B, 1, D, H, W) in HU → (B, 8·base), or four times that for depth 50.
    """
    encoder = ResNet(3, depth, base, 1, stem, shortcut, window, scale)
    if weights is not None:
        released.load(encoder.net, weights)
    return encoder
