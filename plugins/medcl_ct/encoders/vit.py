"""Vision Transformers for slices and volumes, that masked autoencoders can train."""

from __future__ import annotations

from torch import Tensor, nn

from medcl.nn.vit import Pooling, ViT
from medcl_ct.encoders.parts import Scale, Window, planes


class CTViT(ViT):
    """`medcl.nn.vit.ViT` behind a display window: HU in."""

    def __init__(
        self,
        patch: tuple[int, ...],
        width: int,
        depth: int,
        heads: int,
        window: tuple[float, float],
        scale: Scale,
        registers: int,
        drop_path: float,
        pool: Pooling,
    ) -> None:
        super().__init__(
            channels=1,
            patch=patch,
            width=width,
            depth=depth,
            heads=heads,
            registers=registers,
            drop_path=drop_path,
            pool=pool,
        )
        self.window = Window(window, scale)

    def prepared(self, x: Tensor) -> Tensor:
        """(B, 1, *space) in HU, in the display window."""
        out: Tensor = self.window(planes(x, 1) if len(self.patch) == 2 else x)
        return out


def vit2d(
    *,
    patch: int = 16,
    width: int = 384,
    depth: int = 12,
    heads: int = 6,
    window: tuple[float, float] = (0.0, 2000.0),
    scale: Scale = "water",
    registers: int = 0,
    drop_path: float = 0.0,
    pool: Pooling = "mean",
) -> nn.Module:
    """A Vision Transformer for slices (Dosovitskiy 2021, arXiv 2010.11929); ViT-S by default.

    Args:
        patch: sides of a patch; must divide H and W.
        width: of a token and of the embedding.
        depth: blocks.
        heads: attention heads; must divide ``width``.
        window: level and width in HU of what the network sees.
        scale: "water" (0 HU is 0) or "unit" (0 to 1).
        registers: learned tokens that attend and are thrown away (DINOv2 with registers: 4).
        drop_path: share of the samples that leave out a block's parts in training.
        pool: "mean" over patch tokens, or "cls": the class token, as DINOv2.

    Returns:
        a module (B, 1, H, W) in HU → (B, width).
    """
    return CTViT((patch, patch), width, depth, heads, window, scale, registers, drop_path, pool)


def vit3d(
    *,
    patch: tuple[int, int, int] = (16, 16, 16),
    width: int = 384,
    depth: int = 12,
    heads: int = 6,
    window: tuple[float, float] = (0.0, 2000.0),
    scale: Scale = "water",
    registers: int = 0,
    drop_path: float = 0.0,
    pool: Pooling = "mean",
) -> nn.Module:
    """A Vision Transformer for volumes; settings as in `vit2d`.

    Args:
        patch: size of a patch along D, H and W; fewer along D suits thick slices.
        width: of a token and of the embedding.
        depth: blocks.
        heads: attention heads; must divide ``width``.
        window: level and width in HU of what the network sees.
        scale: "water" (0 HU is 0) or "unit" (0 to 1).
        registers: learned tokens that attend and are thrown away (DINOv2 with registers: 4).
        drop_path: share of the samples that leave out a block's parts in training.
        pool: "mean" over patch tokens, or "cls": the class token, as DINOv2.

    Returns:
        a module (B, 1, D, H, W) in HU → (B, width).
    """
    return CTViT(patch, width, depth, heads, window, scale, registers, drop_path, pool)
