"""The residual encoder of nnU-Net, which nnssl pretrains."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from medcl.errors import UsageError
from medcl.nn.unet import block, initialise

POOL = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)


class Residual(nn.Module):
    """Two convolutions, added to what came in (pooled and projected where shapes change).

    As block D of He 2019 (arXiv 1812.01187): pooling, not a strided 1×1 convolution, so that no
    voxel is skipped.
    """

    def __init__(self, axes: int, before: int, after: int, stride: int) -> None:
        super().__init__()
        from monai.networks.blocks import Convolution

        norm = ("INSTANCE", {"affine": True})
        self.first = block(axes, before, after, stride=stride)
        self.second = Convolution(axes, after, after, adn_ordering="N", norm=norm)
        pool = [POOL[axes - 1](stride, stride)] if stride > 1 else []
        project = (
            [Convolution(axes, before, after, 1, 1, adn_ordering="N", norm=norm, bias=False)]
            if before != after
            else []
        )
        self.skip = nn.Sequential(*pool, *project)
        self.act = nn.LeakyReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, before, *space) → (B, after, *space / stride)."""
        out: Tensor = self.act(self.second(self.first(x)) + self.skip(x))
        return out


class ResEnc(nn.Module):
    """Isensee 2024, arXiv 2404.09556: a stem and stages of residual blocks, the first at stride 1.

    Args:
        axes: 1 to 3.
        channels: of the input.
        widths: channels of each stage.
        blocks: number of blocks of each stage.

    Attributes:
        width, stage_widths, strides: see `medcl.nn.encoders.Staged`.

    Raises:
        UsageError: if there are not as many numbers of blocks as stages.
    """

    def __init__(
        self, *, axes: int, channels: int, widths: Sequence[int], blocks: Sequence[int]
    ) -> None:
        super().__init__()
        if len(widths) != len(blocks) or not widths:
            raise UsageError(
                f"encoder.widths has {len(widths)} stages, encoder.blocks {len(blocks)}: give one "
                "number of each for every stage."
            )
        self.channels = channels
        self.stage_widths = tuple(widths)
        self.strides = tuple(2**n for n in range(len(widths)))
        self.width = widths[-1]
        self.stem = block(axes, channels, widths[0])
        stages = []
        for n, ((before, after), count) in enumerate(
            zip(pairwise((widths[0], *widths)), blocks, strict=True)
        ):
            first = Residual(axes, before, after, 1 if n == 0 else 2)
            stages.append(
                nn.Sequential(first, *(Residual(axes, after, after, 1) for _ in range(count - 1)))
            )
        self.levels = nn.ModuleList(stages)
        self.apply(initialise)

    def stages(self, x: Tensor) -> list[Tensor]:
        """(B, channels, *space) → for each stage (B, width, *space / stride)."""
        h, out = self.stem(x), []
        for level in self.levels:
            h = level(h)
            out.append(h)
        return out

    def pool(self, stage: Tensor) -> Tensor:
        """The last stage (B, width, *space) → (B, width): the mean over positions."""
        return stage.flatten(2).mean(dim=2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, *space) → (B, width)."""
        return self.pool(self.stages(x)[-1])
