"""Decoders to the resolution of the input, that an encoder keeps for dense tasks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from medcl.errors import UsageError
from medcl.nn.decoders import CONV, CONV_UP

_NARROWEST = 16
"""Fewest channels of a stage that is added where the encoder has none."""


def block(axes: int, before: int, after: int, *, kernel: int = 3, stride: int = 1) -> nn.Module:
    """MONAI's convolution, instance normalisation and leaky ReLU, with nnU-Net's settings."""
    from monai.networks.blocks import Convolution

    built: nn.Module = Convolution(
        axes,
        before,
        after,
        strides=stride,
        kernel_size=kernel,
        adn_ordering="NA",
        act=("LEAKYRELU", {"inplace": True}),
        norm=("INSTANCE", {"affine": True}),
        bias=True,
    )
    return built


def initialise(part: nn.Module) -> None:
    """nnU-Net's initial weights of convolutions: He's for a leaky ReLU of 0.01, no bias."""
    if isinstance(part, (*CONV, *CONV_UP)):
        nn.init.kaiming_normal_(part.weight, a=0.01)
        if part.bias is not None:
            nn.init.zeros_(part.bias)


class UNetDecoder(nn.Module):
    """The decoder of nnU-Net's residual U-Net (Isensee 2024, arXiv 2404.09556).

    From coarse to fine: a transposed convolution, the encoder's stage beside it, one convolution;
    then the scores. Stages that a network with a strided stem lacks (a ResNet's first has stride 4)
    are convolutions of the input. ``deep`` adds scores of coarser resolutions for deep supervision,
    as nnU-Net has them: of all that the decoder makes but the coarsest, whose weight is 0 there.

    Args:
        stage_widths: channels of the encoder's stages, fine to coarse.
        strides: their strides; each a multiple of the one before.
        axes: number of spatial axes, 1 to 3.
        channels: of the input.
        out: channels of the scores.
        deep: whether `resolutions` gives more than the finest.

    Raises:
        UsageError: if a stride is not a multiple of the one before.
    """

    def __init__(
        self,
        stage_widths: Sequence[int],
        strides: Sequence[int],
        axes: int,
        channels: int,
        out: int,
        *,
        deep: bool = False,
    ) -> None:
        super().__init__()
        if any(coarse % fine for fine, coarse in pairwise((1, *strides))):
            raise UsageError(f"A U-Net needs strides that divide each other, not {tuple(strides)}.")
        added = [2**n for n in range(int(math.log2(strides[0])))]  # 1, 2, … below the first stage's
        widths = [max(_NARROWEST, stage_widths[0] * s // strides[0]) for s in added]
        self.stem = nn.ModuleList(
            block(axes, before, after, stride=1 if n == 0 else 2)
            for n, (before, after) in enumerate(pairwise((channels, *widths)))
        )
        levels = [*zip(added, widths, strict=True), *zip(strides, stage_widths, strict=True)]
        steps = list(pairwise(reversed(levels)))  # coarse to fine
        self.ups = nn.ModuleList(
            CONV_UP[axes - 1](below, width, coarse // fine, coarse // fine)
            for (coarse, below), (fine, width) in steps
        )
        self.blocks = nn.ModuleList(block(axes, 2 * width, width) for _, (_, width) in steps)
        self.head = CONV[axes - 1](levels[0][1], out, kernel_size=1)
        self.coarse = nn.ModuleList(
            CONV[axes - 1](width, out, kernel_size=1)
            for _, width in (levels[1 : len(steps) - 1] if deep else ())
        )
        """Of resolutions below the finest, fine to coarse."""
        self.apply(initialise)

    def forward(self, x: Tensor, stages: Sequence[Tensor]) -> Tensor:
        """The input (B, channels, *space) and the encoder's stages → (B, out, *space)."""
        scores: Tensor = self.head(self._features(x, stages)[0])
        return scores

    def resolutions(self, x: Tensor, stages: Sequence[Tensor]) -> list[Tensor]:
        """As `forward`, the scores of each resolution that is supervised, fine to coarse."""
        features = self._features(x, stages)
        return [head(h) for head, h in zip((self.head, *self.coarse), features, strict=False)]

    def _features(self, x: Tensor, stages: Sequence[Tensor]) -> list[Tensor]:
        """What the decoder makes at each resolution, fine to coarse."""
        skips = []
        for part in self.stem:
            x = part(x)
            skips.append(x)
        skips += stages
        made = [skips.pop()]
        for up, join in zip(self.ups, self.blocks, strict=True):
            made.append(join(torch.cat([up(made[-1]), skips.pop()], dim=1)))
        return made[::-1]


class TokenUpsampler(nn.Module):
    """The decoder of Primus (Wald 2025, arXiv 2503.01835): transposed convolutions of the tokens.

    Each step doubles the resolution, with layer normalisation over channels and GELU between.

    Args:
        width: of a token.
        patch: the size of a patch along each axis; powers of two.
        out: channels of the scores.

    Raises:
        UsageError: if a side of the patch is not a power of two.
    """

    def __init__(self, width: int, patch: Sequence[int], out: int) -> None:
        super().__init__()
        if any(side < 1 or side & (side - 1) for side in patch):
            raise UsageError(f"The patch is {tuple(patch)}: its sides must be powers of two.")
        steps = max(side.bit_length() - 1 for side in patch)
        strides = [[2 if side > 2**n else 1 for side in patch] for n in reversed(range(steps))]
        ratio = (width / (2 * out)) ** (1 / max(steps, 1))
        widths = [width, *(max(8, 8 * round(width / ratio**n / 8)) for n in range(1, steps)), out]
        up: Any = CONV_UP[len(patch) - 1]
        parts = list[nn.Module]()
        for stride, (before, after) in zip(strides, pairwise(widths), strict=True):
            parts += [
                up(before, after, tuple(stride), tuple(stride)),
                ChannelNorm(after),
                nn.GELU(),
            ]
        self.parts = nn.Sequential(*parts[:-2])  # the last gives scores

    def forward(self, tokens: Tensor, grid: Sequence[int]) -> Tensor:
        """Patch tokens (B, N, width), N the product of ``grid`` → (B, out, *space)."""
        scores: Tensor = self.parts(tokens.transpose(1, 2).unflatten(2, tuple(grid)))
        return scores


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of (B, C, *space)."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *space) → the same shape."""
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)
