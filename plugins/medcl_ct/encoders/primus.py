"""The Transformer of Primus for volumes."""

from __future__ import annotations

from torch import Tensor, nn

from medcl.errors import UsageError
from medcl.nn.eva import Primus
from medcl_ct.encoders.parts import Scale, Window


class CTPrimus(Primus):
    """`medcl.nn.eva.Primus` behind a display window: HU in."""

    def __init__(
        self,
        patch: tuple[int, int, int],
        width: int,
        depth: int,
        heads: int,
        layer_scale: float | None,
        window: tuple[float, float],
        scale: Scale,
    ) -> None:
        super().__init__(
            channels=1, patch=patch, width=width, depth=depth, heads=heads, scale=layer_scale
        )
        self.window = Window(window, scale)

    def tokens(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """(B, 1, D, H, W) in HU → (B, 1 + K, width). See `medcl.nn.eva.Primus.tokens`."""
        return super().tokens(self.window(x), keep)


def primus3d(
    *,
    patch: tuple[int, int, int] = (8, 8, 8),
    width: int = 864,
    depth: int = 16,
    heads: int = 12,
    layer_scale: float | None = 0.1,
    window: tuple[float, float] = (0.0, 2000.0),
    scale: Scale = "water",
) -> nn.Module:
    """The encoder of Primus (Wald 2025, arXiv 2503.01835); Primus-M by default.

    S has width 396, depth 12 and 6 heads; B 792, 12, 12; M 864, 16, 12; L 1056, 24, 16.

    Args:
        patch: size of a patch along D, H and W; powers of two, to be segmented.
        width: of a token and of the embedding.
        depth: blocks.
        heads: attention heads; must divide ``width``, into even parts.
        layer_scale: initial layer scale; null for none.
        window: level and width in HU of what the network sees.
        scale: "water" (0 HU is 0) or "unit" (0 to 1).

    Returns:
        a module (B, 1, D, H, W) in HU → (B, width); each side a multiple of the patch's.

    Raises:
        UsageError: if the heads do not divide the width into even parts.
    """
    if width % (2 * heads):
        raise UsageError(f"encoder.width {width} is not a multiple of twice encoder.heads {heads}.")
    return CTPrimus(patch, width, depth, heads, layer_scale, window, scale)
