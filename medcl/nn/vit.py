"""A Vision Transformer for signals, images and volumes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medcl.errors import UsageError
from medcl.nn.patches import grid_of, patchify, positions, take

Pooling = Literal["mean", "cls"]


class Block(nn.Module):
    """Pre-norm self-attention and MLP: (B, N, width) → (B, N, width).

    In training each of the two is left out for a share ``drop_path`` of the samples, and weighs
    more in the others (stochastic depth: Huang 2016, arXiv 1603.09382).
    """

    def __init__(self, width: int, heads: int, expand: int = 4, *, drop_path: float = 0.0) -> None:
        super().__init__()
        self.heads, self.drop_path = heads, drop_path
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, expand * width), nn.GELU(), nn.Linear(expand * width, width)
        )

    def attend(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """Self-attention; ``keep`` (B, N) is True for tokens that may be attended to."""
        batch, count, width = x.shape
        qkv = self.qkv(x).reshape(batch, count, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, N, width / heads)
        mask = None if keep is None else keep[:, None, None, :]
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, count, width))
        return out

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """Attention, then MLP, each added to its input."""
        x = x + self._dropped(self.attend(self.norm1(x), keep))
        return x + self._dropped(self.mlp(self.norm2(x)))

    def _dropped(self, added: Tensor) -> Tensor:
        if not self.training or self.drop_path == 0:
            return added
        stays = torch.rand(len(added), 1, 1, device=added.device) >= self.drop_path
        return added * (stays.to(added.dtype) / (1 - self.drop_path))


class ViT(nn.Module):
    """Dosovitskiy 2021 (arXiv 2010.11929), with fixed sine-cosine positions for any number of axes.

    Inputs may differ in size from batch to batch, as long as the patches tile them.

    Args:
        channels: of the input (B, channels, *space).
        patch: patch size along each axis; its length is the number of axes.
        width: of a token and of the output (B, width), the mean over patch tokens.
        depth: number of blocks.
        heads: attention heads; must divide ``width``.
        registers: learned tokens that attend and are thrown away (Darcet 2023, arXiv 2309.16588).
        drop_path: of the blocks.
        pool: the output: "mean" over patch tokens, or "cls", the class token.
    """

    def __init__(
        self,
        *,
        channels: int,
        patch: Sequence[int],
        width: int = 192,
        depth: int = 12,
        heads: int,
        registers: int = 0,
        drop_path: float = 0.0,
        pool: Pooling = "mean",
    ) -> None:
        super().__init__()
        self.pool = pool
        self.channels, self.patch, self.width = channels, tuple(patch), width
        self.embed = nn.Linear(channels * math.prod(patch), width)
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        nn.init.normal_(self.cls, std=0.02)
        self.registers = nn.Parameter(torch.zeros(1, registers, width)) if registers else None
        if self.registers is not None:
            nn.init.normal_(self.registers, std=0.02)
        self.blocks = nn.ModuleList(Block(width, heads, drop_path=drop_path) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def prepared(self, x: Tensor) -> Tensor:
        """The input as its patches are embedded; what a modality does to its values goes here."""
        return x

    def tokens(
        self,
        x: Tensor,
        keep: Tensor | None = None,
        *,
        hidden: Tensor | None = None,
        blank: Tensor | None = None,
    ) -> Tensor:
        """(B, channels, *space) → (B, 1 + K, width): a class token and the patches in ``keep``.

        With ``hidden`` (B, N) the patches that are True in it are ``blank`` (width,), at their
        places.
        """
        h = self._embedded(x, keep, hidden, blank)
        for block in self.blocks:
            h = block(h)
        out: Tensor = self.norm(self._without_registers(h))
        return out

    def depths(self, x: Tensor, count: int) -> list[Tensor]:
        """The outputs of the last ``count`` blocks, not normalised: (B, 1 + N, width) each."""
        h = self._embedded(x)
        found = []
        for block in self.blocks:
            h = block(h)
            found.append(h)
        return [self._without_registers(h) for h in found[len(found) - count :]]

    def _embedded(
        self,
        x: Tensor,
        keep: Tensor | None = None,
        hidden: Tensor | None = None,
        blank: Tensor | None = None,
    ) -> Tensor:
        """What the first block takes: class token, registers, patches."""
        x = self.prepared(x)
        grid = grid_of(x.shape[2:], self.patch)
        h = self.embed(patchify(x, self.patch))
        if hidden is not None and blank is not None:
            h = torch.where(hidden[..., None], blank.to(h.dtype), h)
        h = h + positions(grid, self.width, x.device)
        if keep is not None:  # (B, K)
            h = take(h, keep)
        first = [self.cls] if self.registers is None else [self.cls, self.registers]
        return torch.cat([*(each.expand(h.shape[0], -1, -1) for each in first), h], dim=1)

    def _without_registers(self, h: Tensor) -> Tensor:
        if self.registers is None:
            return h
        return torch.cat([h[:, :1], h[:, 1 + self.registers.shape[1] :]], dim=1)

    def pooled(self, tokens: Tensor) -> Tensor:
        """The output of `tokens`: (B, 1 + K, width) → (B, width)."""
        return tokens[:, 0] if self.pool == "cls" else tokens[:, 1:].mean(dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, *space) → (B, width)."""
        return self.pooled(self.tokens(x))


def vit_of(encoder: nn.Module, *, method: str, other: str) -> ViT:
    """The encoder, for a method that hides patches inside it.

    Args:
        encoder: to check.
        method: its name in a recipe.
        other: the method to advise in its place.

    Raises:
        UsageError: if the encoder is no `ViT`.
    """
    if isinstance(encoder, ViT):
        return encoder
    raise UsageError(
        f"Method '{method}' hides patches inside a Transformer, and {type(encoder).__name__} is "
        f"none of medcl's ViTs (vit1d, vit, vit2d, vit3d). Choose one, or method {other}."
    )
