"""A Transformer over patches of single channels, which leaves out what is missing."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from medcl.nn.patches import grid_of, patchify, positions, take
from medcl.nn.vit import ViT
from medcl_biosignals.encoders.parts import known


class SensorViT(ViT):
    """See `sensor_vit`. A token is one channel's patch; all channels share the weights."""

    def __init__(self, patch: int, width: int, depth: int, heads: int) -> None:
        super().__init__(channels=1, patch=(1, patch), width=width, depth=depth, heads=heads)

    def patches(self, x: Tensor) -> Tensor:
        """(B, C, T) → (B, N, patch), channel by channel; what does not fill one is filled up."""
        return patchify(self._filled(x)[:, None], self.patch)

    def grid(self, x: Tensor) -> tuple[int, ...]:
        """Channels, and patches of each."""
        return grid_of(self._filled(x).shape[1:], self.patch)

    def missing(self, x: Tensor) -> Tensor:
        """(B, C, T) → (B, N): patches that hold a NaN, or do not move at all."""
        patches = self.patches(x)
        return patches.isnan().any(dim=2) | (patches.amax(dim=2) == patches.amin(dim=2))

    def seen_tokens(self, x: Tensor, keep: Tensor, seen: Tensor) -> Tensor:
        """(B, C, T) → (B, 1 + K, width): a class token, and the patches in ``keep`` (B, K).

        No token attends to those that are False in ``seen`` (B, K).
        """
        h = self.embed(self.patches(known(x))) + positions(self.grid(x), self.width, x.device)
        h = torch.cat([self.cls.expand(h.shape[0], -1, -1), take(h, keep)], dim=1)
        may = F.pad(seen, (1, 0), value=True)
        for block in self.blocks:
            h = block(h, may)
        out: Tensor = self.norm(h)
        return out

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) → (B, width): the mean of the tokens that are there."""
        seen = ~self.missing(x)
        every = torch.arange(seen.shape[1], device=x.device).expand(x.shape[0], -1)
        return mean_of(self.seen_tokens(x, every, seen)[:, 1:], seen)

    def _filled(self, x: Tensor) -> Tensor:
        return F.pad(x, (0, -x.shape[-1] % self.patch[1]))


def mean_of(tokens: Tensor, seen: Tensor) -> Tensor:
    """The mean of the tokens (B, K, width) that are True in ``seen`` (B, K); zero of none."""
    there = seen.unsqueeze(-1).to(tokens.dtype)
    return (tokens * there).sum(dim=1) / there.sum(dim=1).clamp_min(1)


def sensor_vit(
    *, channels: int = 2, patch: int = 20, width: int = 192, depth: int = 6, heads: int = 4
) -> SensorViT:
    """A Vision Transformer on patches of single sensors (LSM-2: Xu 2025, arXiv 2506.05321).

    Any channels, of which any part may be missing: NaN, or without any movement (an absent channel,
    a gap). Attention and the mean leave that out. Parameters: 2.67 M by default.

    Args:
        channels: not used; the weights are the same for any number.
        patch: samples a patch.
        width: of tokens and of the embedding.
        depth: blocks.
        heads: attention heads; must divide ``width``.

    Returns:
        a module (B, channels, T) → (B, width), for any T and any number of channels.
    """
    return SensorViT(patch, width, depth, heads)
