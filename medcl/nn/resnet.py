"""Residual networks as MONAI builds them (He 2016, arXiv 1512.03385), with their stages."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

BLOCKS = {
    10: ("basic", [1, 1, 1, 1]),
    18: ("basic", [2, 2, 2, 2]),
    34: ("basic", [3, 4, 6, 3]),
    50: ("bottleneck", [3, 4, 6, 3]),
}
"""Depth → block type, and number of blocks of each stage."""


@dataclass(frozen=True)
class Built:
    """A network without its classifier.

    Attributes:
        net: MONAI's, whose names are torchvision's; see `stages`.
        stage_widths: output channels of each stage.
        strides: of each stage with respect to the input.
    """

    net: nn.Module
    stage_widths: tuple[int, ...]
    strides: tuple[int, ...]


def build(
    axes: int, depth: int, base: int, channels: int, *, small: bool = False, shortcut: str = "B"
) -> Built:
    """Make a network.

    Args:
        axes: 2 for images, 3 for volumes.
        depth: one of `BLOCKS`.
        base: channels of the first stage; 64 is the published size.
        channels: of the input.
        small: no stride and no pooling in the stem, for inputs of 28 pixels or so.
        shortcut: where shapes change, "B" convolves and "A" pads with zeros.
    """
    from monai.networks.nets.resnet import ResNet

    kind, layers = BLOCKS[depth]
    net: nn.Module = ResNet(
        block=kind,
        layers=layers,
        block_inplanes=[base, 2 * base, 4 * base, 8 * base],
        spatial_dims=axes,
        n_input_channels=channels,
        conv1_t_size=3 if small else 7,
        conv1_t_stride=1 if small else 2,
        no_max_pool=small,
        shortcut_type=shortcut,
        feed_forward=False,
        bias_downsample=False,  # neither torchvision's nor MedicalNet's have it
    )
    expand = 1 if kind == "basic" else 4
    widths = tuple(base * expand * 2**n for n in range(4))
    return Built(net, widths, (1, 2, 4, 8) if small else (4, 8, 16, 32))


def stages(net: nn.Module, x: Tensor) -> list[Tensor]:
    """(B, channels, *space) → for each stage (B, stage_width, *space / stride)."""
    x = net.act(net.bn1(net.conv1(x)))  # type: ignore[operator]
    if not net.no_max_pool:
        x = net.maxpool(x)  # type: ignore[operator]
    out = []
    for layer in (net.layer1, net.layer2, net.layer3, net.layer4):
        x = layer(x)  # type: ignore[operator]
        out.append(x)
    return out
