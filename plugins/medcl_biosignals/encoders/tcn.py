"""A temporal convolutional network: dilated convolutions, on request without a look ahead."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medcl_biosignals.encoders.parts import Pool, known


class _Dilated(nn.Module):
    """A convolution that keeps the length, padded on the left alone if it is causal."""

    def __init__(self, inner: int, outer: int, kernel: int, dilation: int, causal: bool) -> None:
        super().__init__()
        reach = (kernel - 1) * dilation
        self.pad = (reach, 0) if causal else (reach // 2, reach - reach // 2)
        self.conv = nn.Conv1d(inner, outer, kernel, dilation=dilation, bias=False)
        self.norm = nn.BatchNorm1d(outer)  # statistics over time would let the future in

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(F.pad(x, self.pad)))


class _Block(nn.Module):
    def __init__(self, inner: int, outer: int, kernel: int, dilation: int, causal: bool) -> None:
        super().__init__()
        self.first = _Dilated(inner, outer, kernel, dilation, causal)
        self.second = _Dilated(outer, outer, kernel, dilation, causal)
        self.shortcut = nn.Conv1d(inner, outer, 1) if inner != outer else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        made = torch.relu(self.second(torch.relu(self.first(x))))
        return torch.relu(made + self.shortcut(x))


class TCN(nn.Module):
    """See `tcn`."""

    def __init__(
        self,
        channels: int,
        widths: tuple[int, ...],
        kernel: int,
        causal: bool,
        pool: str,
        width: int | None,
    ) -> None:
        super().__init__()
        inners = (channels, *widths[:-1])
        self.blocks = nn.Sequential(
            *(
                _Block(inner, outer, kernel, 1 << level, causal)
                for level, (inner, outer) in enumerate(zip(inners, widths, strict=True))
            )
        )
        self.pooling = Pool(pool)
        pooled = widths[-1] * self.pooling.times
        self.head = nn.Linear(pooled, width) if width else nn.Identity()
        self.width = width or pooled
        self.sees = 1 + 2 * (kernel - 1) * ((1 << len(widths)) - 1)
        """Samples that one position depends on."""

    def positions(self, x: Tensor) -> Tensor:
        """(B, C, T) → (B, widths[-1], T); of a causal network, position t needs no sample after t.

        So a stream may be encoded in chunks that overlap by ``sees − 1`` samples.
        """
        out: Tensor = self.blocks(known(x))
        return out

    def forward(self, x: Tensor) -> Tensor:  # (B, C, T) → (B, width)
        return self.head(self.pooling(self.positions(x)))


def tcn(
    *,
    channels: int = 2,
    widths: tuple[int, ...] = (32, 32, 64, 64, 128, 128, 128, 128),
    kernel: int = 5,
    causal: bool = True,
    pool: Literal["mean", "max", "meanmax", "centre", "last"] = "mean",
    width: int | None = None,
) -> nn.Module:
    """A TCN (Bai 2018, arXiv 1803.01271), with batch norm in place of its weight norm.

    Parameters: 0.72 M by default, which see 2,041 samples each way back.

    Args:
        channels: of the signal.
        widths: channels of the residual blocks; each doubles the dilation.
        kernel: samples a convolution sees, ``dilation`` apart.
        causal: look back only, for streams; else to both sides.
        pool: over time, as in `resnet1d`, or "last": the newest position, for forecasts.
        width: of the embedding; None for whatever the pooling gives.

    Returns:
        a module (B, channels, T) → (B, width), for any T.
    """
    return TCN(channels, widths, kernel, causal, pool, width)
