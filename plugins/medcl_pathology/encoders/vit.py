"""Vision Transformers for tiles, that masked autoencoders can train."""

from __future__ import annotations

from torch import Tensor, nn

from medcl.nn.vit import Pooling, ViT
from medcl_pathology.encoders.parts import scaled


class TileViT(ViT):
    """`medcl.nn.vit.ViT` of tiles."""

    def __init__(
        self,
        patch: int,
        width: int,
        depth: int,
        heads: int,
        channels: int = 3,
        *,
        registers: int = 0,
        drop_path: float = 0.0,
        pool: Pooling = "mean",
    ) -> None:
        super().__init__(
            channels=channels,
            patch=(patch, patch),
            width=width,
            depth=depth,
            heads=heads,
            registers=registers,
            drop_path=drop_path,
            pool=pool,
        )
        self.colours = scaled(channels)

    def prepared(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) in 0 … 1, scaled as the network takes them."""
        out: Tensor = self.colours(x)
        return out


def vit(
    *,
    patch: int = 16,
    width: int = 384,
    depth: int = 12,
    heads: int = 6,
    channels: int = 3,
    registers: int = 0,
    drop_path: float = 0.0,
    pool: Pooling = "mean",
) -> nn.Module:
    """A Vision Transformer for tiles (Dosovitskiy 2021, arXiv 2010.11929); ViT-S by default.

    Args:
        patch: side of a patch; must divide the tile's.
        width: of a token and of the embedding.
        depth: blocks.
        heads: attention heads; must divide ``width``.
        channels: of a tile, as in `medcl_pathology.encoders.resnet.resnet`.
        registers: learned tokens that attend and are thrown away (DINOv2 with registers: 4).
        drop_path: share of the samples that leave out a block's parts in training.
        pool: "mean" over patch tokens, or "cls": the class token, as DINOv2.

    Returns:
        a module (B, channels, H, W) in 0 … 1 → (B, width).
    """
    return TileViT(
        patch, width, depth, heads, channels, registers=registers, drop_path=drop_path, pool=pool
    )
