"""The residual encoder of nnU-Net and nnssl for volumes."""

from __future__ import annotations

from torch import Tensor, nn

from medcl.nn.resenc import ResEnc
from medcl_ct.encoders.parts import Scale, Window


class CTResEnc(ResEnc):
    """`medcl.nn.resenc.ResEnc` behind a display window: HU in."""

    def __init__(
        self,
        widths: tuple[int, ...],
        blocks: tuple[int, ...],
        window: tuple[float, float],
        scale: Scale,
    ) -> None:
        super().__init__(axes=3, channels=1, widths=widths, blocks=blocks)
        self.window = Window(window, scale)

    def stages(self, x: Tensor) -> list[Tensor]:
        """See `medcl.nn.resenc.ResEnc.stages`."""
        return super().stages(self.window(x))


def resenc3d(
    *,
    widths: tuple[int, ...] = (32, 64, 128, 256, 320, 320),
    blocks: tuple[int, ...] = (1, 3, 4, 6, 6, 6),
    window: tuple[float, float] = (0.0, 2000.0),
    scale: Scale = "water",
) -> nn.Module:
    """The encoder of nnU-Net's ResEnc-L (Isensee 2024, arXiv 2404.09556), as nnssl pretrains it.

    Args:
        widths: channels of each stage, each at half the resolution of the one before; the defaults
            are those of ResEnc-L.
        blocks: residual blocks of each stage.
        window: level and width in HU of what the network sees.
        scale: "water" (0 HU is 0) or "unit" (0 to 1).

    Returns:
        a module (B, 1, D, H, W) in HU → (B, last width); each side a multiple of 2^(stages − 1).
    """
    return CTResEnc(widths, blocks, window, scale)
