"""Decoders of masked autoencoders, discarded after pretraining."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from medcl.errors import UsageError
from medcl.nn.patches import positions
from medcl.nn.sparse import pack, stretch, unpack, visible_at
from medcl.nn.vit import Block

CONV = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
CONV_UP = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class TokenDecoder(nn.Module):
    """MAE's decoder (He 2021, arXiv 2111.06377): a small Transformer over all patches.

    Args:
        width: of the encoder's tokens.
        inner: of the decoder's own tokens.
        depth: number of blocks.
        heads: attention heads; must divide ``inner``.
        out: values predicted per patch.
    """

    def __init__(self, width: int, inner: int, depth: int, heads: int, out: int) -> None:
        super().__init__()
        self.embed = nn.Linear(width, inner)
        self.blank = nn.Parameter(torch.zeros(inner))
        nn.init.normal_(self.blank, std=0.02)
        self.blocks = nn.ModuleList(Block(inner, heads) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(inner), nn.Linear(inner, out)

    def forward(
        self, tokens: Tensor, keep: Tensor, grid: Sequence[int], seen: Tensor | None = None
    ) -> Tensor:
        """Class and visible tokens (B, 1 + K, width) at positions ``keep`` (B, K) → (B, N, out).

        Those that are False in ``seen`` (B, K) only fill up a batch: they are blank.
        """
        h = self.embed(tokens)
        blank = self.blank.to(h.dtype)
        shown = h[:, 1:] if seen is None else torch.where(seen[..., None], h[:, 1:], blank)
        full = blank.expand(len(h), math.prod(grid), -1)
        full = full.scatter(1, keep[..., None].expand(-1, -1, h.shape[-1]), shown)
        h = torch.cat([h[:, :1], full + positions(grid, h.shape[-1], h.device)], dim=1)
        for block in self.blocks:
            h = block(h)
        out: Tensor = self.head(self.norm(h[:, 1:]))
        return out


class PyramidDecoder(nn.Module):
    """SparK's decoder (Tian 2023, arXiv 2301.03580): upsamples the coarsest stage, adds finer ones.

    Each stage is first densified: normalised over its visible positions, filled with a learned
    vector elsewhere, and projected. Every step doubles the resolution and halves the width.

    Args:
        stage_widths: channels of the encoder's stages, fine to coarse.
        strides: their strides; powers of two, the last one the largest.
        axes: number of spatial axes, 1 to 3.
        width: channels at the coarsest resolution.
        out: channels of the reconstruction.

    Raises:
        UsageError: if a stride is not a power of two.
    """

    def __init__(
        self, stage_widths: Sequence[int], strides: Sequence[int], axes: int, width: int, out: int
    ) -> None:
        super().__init__()
        if any(s < 1 or s & (s - 1) for s in strides):
            raise UsageError(f"SparK needs strides that are powers of two, not {tuple(strides)}.")
        conv, up, norm = CONV[axes - 1], CONV_UP[axes - 1], NORM[axes - 1]
        steps = strides[-1].bit_length() - 1
        widths = [max(width >> n, 8) for n in range(steps + 1)]  # coarse to fine
        self.levels = [
            steps - (s.bit_length() - 1) for s in strides
        ]  # at which each stage is added
        self.blanks = nn.ParameterList(torch.zeros(w) for w in stage_widths)
        self.norms = nn.ModuleList(norm(w) for w in stage_widths)
        self.projections = nn.ModuleList(
            conv(w, widths[level], kernel_size=3 if level else 1, padding=1 if level else 0)
            for w, level in zip(stage_widths, self.levels, strict=True)
        )
        self.ups = nn.ModuleList(
            nn.Sequential(
                up(before, before, kernel_size=4, stride=2, padding=1),
                conv(before, before, kernel_size=3, padding=1, bias=False),
                norm(before),
                nn.ReLU6(),
                conv(before, after, kernel_size=3, padding=1, bias=False),
                norm(after),
            )
            for before, after in pairwise(widths)
        )
        self.head = conv(widths[-1], out, kernel_size=1)
        for blank in self.blanks:
            nn.init.normal_(blank, std=0.02)

    def _densify(self, stage: int, x: Tensor, visible: Tensor, count: int) -> Tensor:
        mask = stretch(visible, x.shape[2:])  # (B, 1, *space)
        at = visible_at(visible, x.shape[2:], count)
        normed = unpack(self.norms[stage](pack(x, at)), at, x.shape[2:])
        blank = self.blanks[stage].to(normed.dtype).reshape(1, -1, *(1,) * (x.dim() - 2))
        out: Tensor = self.projections[stage](torch.where(mask, normed, blank))
        return out

    def forward(self, stages: Sequence[Tensor], visible: Tensor, count: int) -> Tensor:
        """Stages (B, width, *space/stride) and the mask (B, 1, *grid) → (B, out, *space).

        ``count`` is the number of visible cells, the same in each row.
        """
        added: dict[int, Tensor] = {}
        for n, level in enumerate(self.levels):
            dense = self._densify(n, stages[n], visible, count)
            added[level] = added[level] + dense if level in added else dense
        x = added[0]
        for level, up in enumerate(self.ups, start=1):
            x = up(x)
            if level in added:
                x = x + added[level]
        out: Tensor = self.head(x)
        return out
