"""Transformers over patches of a signal: all channels in a patch, or each channel by itself."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from medcl.nn import vit
from medcl_biosignals.encoders.parts import known


class ViT1d(vit.ViT):
    """See `vit1d`. Shows its tokens, as MAE, CAN and the like need (`Tokenised`)."""

    def prepared(self, x: Tensor) -> Tensor:
        """(B, channels, T), missing samples as zeros."""
        return known(x)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, T) → (B, width); what does not fill a patch is filled up with zeros."""
        short = -x.shape[-1] % self.patch[0]
        return super().forward(F.pad(x, (0, short)))


class PatchTST(nn.Module):
    """See `patchtst`."""

    def __init__(self, patch: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.each = ViT1d(channels=1, patch=(patch,), width=width, depth=depth, heads=heads)
        self.width = width

    def forward(self, x: Tensor) -> Tensor:  # (B, C, T) → (B, width)
        x = known(x)
        there = (x != 0).any(dim=-1).to(x.dtype)  # (B, C)
        alone = x.reshape(-1, 1, x.shape[2])  # (B·C, 1, T)
        h = self.each(alone).reshape(x.shape[0], x.shape[1], -1)  # (B, C, width)
        return (h * there.unsqueeze(-1)).sum(dim=1) / there.sum(dim=1, keepdim=True).clamp_min(1)


def vit1d(
    *,
    channels: int = 2,
    patch: int = 20,
    width: int = 192,
    depth: int = 6,
    heads: int = 4,
    registers: int = 0,
    drop_path: float = 0.0,
    pool: vit.Pooling = "mean",
) -> nn.Module:
    """A Vision Transformer on signals (Dosovitskiy 2021, arXiv 2010.11929), fixed sine positions.

    As ST-MEM and other masked autoencoders of ECG use it. Parameters: 2.68 M by default.

    Args:
        channels: of the signal; a patch holds them all.
        patch: samples a patch. Windows need not be a multiple of it, but for MAE and CAN.
        width: of tokens and of the embedding, the mean over patch tokens.
        depth: blocks.
        heads: attention heads; must divide ``width``.
        registers: learned tokens that attend and are thrown away (DINOv2 with registers: 4).
        drop_path: share of the samples that leave out a block's parts in training.
        pool: "mean" over patch tokens, or "cls": the class token, as DINOv2.

    Returns:
        a module (B, channels, T) → (B, width), for any T.
    """
    return ViT1d(
        channels=channels,
        patch=(patch,),
        width=width,
        depth=depth,
        heads=heads,
        registers=registers,
        drop_path=drop_path,
        pool=pool,
    )


def patchtst(
    *, channels: int = 2, patch: int = 20, width: int = 128, depth: int = 3, heads: int = 4
) -> nn.Module:
    """Each channel through the same Transformer by itself (PatchTST: Nie 2023, arXiv 2211.14730).

    The embedding is the mean over the channels that are there, so one network takes recordings of
    any number of channels, in any order, and a missing one costs nothing. Its patches do not
    overlap (there by half). Parameters: 0.60 M by default.

    Args:
        channels: not used; the weights are the same for any number.
        patch: samples a patch.
        width: of tokens and of the embedding.
        depth: blocks.
        heads: attention heads; must divide ``width``.

    Returns:
        a module (B, channels, T) → (B, width), for any T and any number of channels.
    """
    return PatchTST(patch, width, depth, heads)
