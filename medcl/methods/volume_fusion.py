"""Volume Fusion: two images are fused in boxes, and the share of each is told voxel by voxel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from medcl.methods.contract import State, View
from medcl.nn.dense_loss import dice_and_cross_entropy
from medcl.nn.encoders import axes_of, staged, touch
from medcl.nn.unet import UNetDecoder


class VolumeFusion(nn.Module):
    """Wang 2023, arXiv 2306.16925: pretraining by a segmentation that needs no masks.

    Each sample F is fused with another one B, the one before it in the batch of all processes:
    α F + (1 − α) B, where α is 0 outside of M boxes and a random multiple of 1 / K within each,
    later boxes over earlier ones. A U-Net predicts the class of α, one of K + 1, at every position;
    L = Dice + cross-entropy.

    The paper halves the batch for F and B; here each sample is F once and B once, so that a batch
    of as many samples gives twice as many fused ones.

    Args:
        encoder: a `Staged` encoder; the input must be a multiple of its largest stride.
        levels: K (paper: 4).
        boxes: fewest and most boxes (paper: 10 to 40).
        sides: shortest and longest side of a box, as shares of the input's (paper: 1/16 or 1/8
            to 5/8; nnssl: 8 voxels of 160 to 5/8).

    Raises:
        UsageError: if the encoder is not `Staged`.
    """

    needs: tuple[str, ...] = ()

    def __init__(
        self,
        encoder: nn.Module,
        *,
        levels: int = 4,
        boxes: tuple[int, int] = (10, 40),
        sides: tuple[float, float] = (0.05, 0.625),
    ) -> None:
        super().__init__()
        pyramid = staged(encoder, "volume-fusion")
        self.encoder = encoder
        self.views = (View(),)
        self.levels, self.boxes, self.sides = levels, boxes, sides
        self.decoder = UNetDecoder(
            pyramid.stage_widths,
            pyramid.strides,
            axes_of(encoder),
            pyramid.channels,
            levels + 1,
        )

    def step(
        self, views: Sequence[Tensor], batch: Mapping[str, Tensor], state: State
    ) -> dict[str, Tensor]:
        """See `medcl.methods.contract.Method.step`; ``embedding`` is of the fused samples."""
        (x,) = views
        level = fusion(x, self.levels, self.boxes, self.sides)
        last = state.ranks.gather(x[-1:])  # of each process: the first sample's partner is there
        partners = torch.cat([last[state.ranks.rank - 1][None], x[:-1]])
        fused = fuse(x, partners, level, self.levels)
        encoder = staged(self.encoder, "volume-fusion")
        stages = encoder.stages(fused)
        result = dice_and_cross_entropy(self.decoder(fused, stages), level, background=True)
        result["loss"] = result["loss"] + touch(self.encoder)
        return {**result, "embedding": encoder.pool(stages[-1]).detach()}


def fusion(x: Tensor, levels: int, boxes: tuple[int, int], sides: tuple[float, float]) -> Tensor:
    """The level 0 … K of each position (B, *space) int64, drawn by torch's global generator."""
    batch, space = len(x), x.shape[2:]
    level = torch.zeros(batch, *space, dtype=torch.int64, device=x.device)
    counts = torch.randint(boxes[0], boxes[1] + 1, (batch,), device=x.device)
    for number in range(boxes[1]):
        inside = (counts > number).view(-1, *(1,) * len(space))
        for axis, size in enumerate(space):
            shortest = max(1, round(sides[0] * size))
            longest = max(shortest, int(sides[1] * size))
            side = torch.randint(shortest, longest + 1, (batch,), device=x.device)
            start = (torch.rand(batch, device=x.device) * (size - side + 1)).long()
            at = torch.arange(size, device=x.device)
            within = (at >= start[:, None]) & (at < (start + side)[:, None])  # (B, size)
            shape = [size if a == axis else 1 for a in range(len(space))]
            inside = inside & within.view(batch, *shape)
        value = torch.randint(0, levels + 1, (batch,), device=x.device)
        level = torch.where(inside, value.view(-1, *(1,) * len(space)), level)
    return level


def fuse(foreground: Tensor, background: Tensor, level: Tensor, levels: int) -> Tensor:
    """α F + (1 − α) B with α = level / K: images (B, C, *space), levels (B, *space)."""
    return torch.lerp(background, foreground, (level / levels)[:, None].to(background.dtype))
