"""What the CT encoders share."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from medcl.errors import UsageError

Scale = Literal["water", "unit"]


class Window(nn.Module):
    """The HU that a network sees: clipped to a display window, then scaled.

    "water": divided by half the width, so that water stays 0 and so does what a masking method has
    set to zero. "unit": 0 to 1 over the window, as MONAI's and SuPreM's released weights expect.

    It is the first layer of every encoder, so that an encoder takes a scanner's numbers, whoever
    calls it.
    """

    def __init__(self, window: tuple[float, float], scale: Scale) -> None:
        super().__init__()
        level, width = window
        if width <= 0:
            raise UsageError(f"encoder.window is {window}: the width must be positive.")
        self.low, self.high, self.scale = level - width / 2, level + width / 2, scale

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...) in HU → (B, ...)."""
        x = x.clamp(self.low, self.high)
        if self.scale == "water":
            return x * (2 / (self.high - self.low))
        return (x - self.low) / (self.high - self.low)


def planes(x: Tensor, channels: int) -> Tensor:
    """Slices as 2D networks take them: (B, 1, H, W) or slabs (B, 1, channels, H, W) → (B, C, H, W).

    Raises:
        UsageError: if ``x`` is something else.
    """
    if x.dim() == 5 and x.shape[1] == 1 and x.shape[2] == channels:
        return x[:, 0]
    if x.dim() == 4 and x.shape[1] == channels:
        return x
    raise UsageError(
        f"A 2D encoder with channels={channels} cannot take samples of {tuple(x.shape[1:])}: give "
        "slices (1, H, W), or slabs of as many neighbouring slices as it has channels (2.5D)."
    )
