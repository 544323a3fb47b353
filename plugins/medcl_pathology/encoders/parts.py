"""What the tile encoders share: the scale of colours."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medcl.errors import UsageError

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def scaled(channels: int) -> nn.Module:
    """The first layer for tiles of so many channels: `Colours` of RGB; others are as they are."""
    return Colours(*IMAGENET) if channels == 3 else AsItIs(channels)


class AsItIs(nn.Module):
    """Channels of an image without stains, (B, C, H, W) → the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C, H, W).

        Raises:
            UsageError: if ``x`` has another number of channels.
        """
        if x.dim() != 4 or x.shape[1] != self.channels:
            raise UsageError(
                f"An encoder of {self.channels} channels takes (B, {self.channels}, H, W), not "
                f"{tuple(x.shape)}: set encoder.channels."
            )
        return x


class Colours(nn.Module):
    """The first layer of every encoder: RGB in 0 … 1 → as the network was, or will be, trained."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, 3, H, W).

        Raises:
            UsageError: if ``x`` is no RGB.
        """
        if x.dim() != 4 or x.shape[1] != 3:
            raise UsageError(
                f"An encoder of tiles takes (B, 3, H, W), not {tuple(x.shape)}. Of images of "
                "channels, set encoder.channels."
            )
        out: Tensor = (x - self.mean) / self.std  # type: ignore[operator]
        return out
