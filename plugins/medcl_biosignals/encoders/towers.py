"""Two networks side by side, one for each of two sensors."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from medcl.errors import UsageError
from medcl_biosignals.encoders.parts import Stages
from medcl_biosignals.encoders.resnet import resnet1d


class TwoTowers(nn.Module):
    """See `two_towers`."""

    def __init__(self, first: Stages, second: Stages, split: int, width: int) -> None:
        super().__init__()
        self.first, self.second = first, second
        self.split, self.width = split, width

    @property
    def stage_widths(self) -> tuple[int, ...]:
        """Channels of the stages of either tower."""
        return tuple(self.first.stage_widths)

    def both(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, T) → the embeddings of either sensor, (B, width/2) each."""
        return self.first(x[:, : self.split]), self.second(x[:, self.split :])

    def depths(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Of either sensor the means over time of each stage (B, stage_width), and the embedding
        (B, width/2) behind them."""
        first, second = (
            tower.stages(part)
            for tower, part in (
                (self.first, x[:, : self.split]),
                (self.second, x[:, self.split :]),
            )
        )
        return (
            [*(stage.mean(dim=2) for stage in first), self.first.pool(first[-1])],
            [*(stage.mean(dim=2) for stage in second), self.second.pool(second[-1])],
        )

    def present(self, x: Tensor) -> Tensor:
        """(B,) whether a window has a signal of both sensors."""
        return self.heard(x).all(dim=1)

    def heard(self, x: Tensor) -> Tensor:
        """(B, 2) of which sensors a window has a signal."""
        there = (torch.nan_to_num(x) != 0).any(dim=-1)  # (B, C)
        parts = there[:, : self.split], there[:, self.split :]
        return torch.stack([part.any(dim=1) for part in parts], dim=1)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, T) → (B, width)
        return torch.cat(self.both(x), dim=1)


def two_towers(
    *,
    channels: int = 2,
    split: int = 1,
    widths: tuple[int, ...] = (32, 64, 128),
    blocks: int = 1,
    kernel: int = 7,
    stride: int = 4,
    norm: Literal["batch", "group", "layer"] = "batch",
    pool: Literal["mean", "max", "meanmax", "centre"] = "mean",
    width: int = 256,
) -> nn.Module:
    """A 1D ResNet for each of two sensors (ECG beside PPG), their embeddings side by side.

    Each half can be used alone: it does not see the other. Parameters: 0.52 M by default.

    Args:
        channels: of the signal.
        split: how many of them, from the first, are the first sensor's.
        widths: channels of the stages, of both towers.
        blocks: residual blocks a stage.
        kernel: samples a convolution sees.
        stride: of the stems.
        norm: normalisation.
        pool: over time, as in `medcl_biosignals.encoders.resnet.resnet1d`.
        width: of the embedding, half of it each sensor's.

    Returns:
        a module (B, channels, T) → (B, width), for any T.

    Raises:
        UsageError: if that leaves a sensor without a channel.
    """
    if not 0 < split < channels:
        raise UsageError(
            f"encoder.split = {split} of {channels} channels leaves a sensor without one: "
            "it must lie between 0 and that."
        )
    first, second = (
        resnet1d(
            channels=count,
            widths=widths,
            blocks=blocks,
            kernel=kernel,
            stride=stride,
            norm=norm,
            pool=pool,
            width=width // 2,
        )
        for count in (split, channels - split)
    )
    return TwoTowers(first, second, split, width)
