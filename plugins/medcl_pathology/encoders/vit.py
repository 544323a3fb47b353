"""Vision Transformers for tiles, that masked autoencoders can train."""

from __future__ import annotations

from torch import Tensor, nn

from medcl.nn.vit import ViT
from medcl_pathology.encoders.parts import scaled


class TileViT(ViT):
    """`medcl.nn.vit.ViT` of tiles."""

    def __init__(self, patch: int, width: int, depth: int, heads: int, channels: int = 3) -> None:
        super().__init__(
            channels=channels, patch=(patch, patch), width=width, depth=depth, heads=heads
        )
        self.colours = scaled(channels)

    def tokens(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """(B, 3, H, W) in 0 … 1 → (B, 1 + K, width). See `medcl.nn.vit.ViT.tokens`."""
        return super().tokens(self.colours(x), keep)


def vit(
    *, patch: int = 16, width: int = 384, depth: int = 12, heads: int = 6, channels: int = 3
) -> nn.Module:
    """A Vision Transformer for tiles (Dosovitskiy 2021, arXiv 2010.11929); ViT-S by default.

    Args:
        patch: side of a patch; must divide the tile's.
        width: of a token and of the embedding.
        depth: blocks.
        heads: attention heads; must divide ``width``.
        channels: of a tile, as in `medcl_pathology.encoders.resnet.resnet`.

    Returns:
        a module (B, channels, H, W) in 0 … 1 → (B, width).
    """
    return TileViT(patch, width, depth, heads, channels)
