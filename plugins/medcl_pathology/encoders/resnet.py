"""Residual networks for tiles, built by MONAI."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from medcl.nn.weights import load
from medcl_pathology.encoders.parts import IMAGENET, Colours

_BLOCKS = {
    10: ("basic", [1, 1, 1, 1]),
    18: ("basic", [2, 2, 2, 2]),
    34: ("basic", [3, 4, 6, 3]),
    50: ("bottleneck", [3, 4, 6, 3]),
}


class ResNet(nn.Module):
    """He 2016, arXiv 1512.03385: RGB in, the pooled last stage out.

    Attributes:
        width: of the output.
        channels, stage_widths, strides: what SparK asks for (`medcl.nn.encoders.Staged`).
    """

    def __init__(self, depth: int, base: int) -> None:
        super().__init__()
        from monai.networks.nets.resnet import ResNet as Monai

        kind, layers = _BLOCKS[depth]
        self.colours = Colours(*IMAGENET)
        self.net = Monai(
            block=kind,
            layers=layers,
            block_inplanes=[base, 2 * base, 4 * base, 8 * base],
            spatial_dims=2,
            n_input_channels=3,
            conv1_t_size=7,
            conv1_t_stride=2,
            feed_forward=False,
            bias_downsample=False,  # as torchvision
        )
        expand = 1 if kind == "basic" else 4
        self.channels = 3
        self.stage_widths = tuple(base * expand * 2**n for n in range(4))
        self.strides = (4, 8, 16, 32)
        self.width = self.stage_widths[-1]

    def stages(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) → for each stage (B, stage_width, H / stride, W / stride)."""
        net = self.net
        x = net.maxpool(net.act(net.bn1(net.conv1(self.colours(x)))))
        out = []
        for layer in (net.layer1, net.layer2, net.layer3, net.layer4):
            x = layer(x)
            out.append(x)
        return out

    def pool(self, stage: Tensor) -> Tensor:
        """The last stage (B, width, H, W) → (B, width): the mean over positions."""
        return stage.flatten(2).mean(dim=2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, width)."""
        return self.pool(self.stages(x)[-1])


def resnet(
    *, depth: Literal[10, 18, 34, 50] = 50, base: int = 64, weights: str | None = None
) -> nn.Module:
    """A ResNet for tiles.

    Args:
        depth: number of layers.
        base: channels of the first stage; 64 is the published size.
        weights: a file with torchvision's names, below any prefix (torchvision, SwAV, MoCo,
            Barlow Twins of Kang 2023): ``.safetensors``, or a torch file of tensors alone.

    Returns:
        a module (B, 3, H, W) in 0 … 1 → (B, 8·base), or four times that for depth 50.
    """
    encoder = ResNet(depth, base)
    if weights is not None:
        load(encoder.net, weights)
    return encoder
