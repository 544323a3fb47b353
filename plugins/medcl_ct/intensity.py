"""Intensity augmentations of a batch in Hounsfield units: pure functions of (x, parameters).

``x`` is (B, 1, H, W) or (B, 1, D, H, W); parameters have one row a sample. `medcl_ct.views` draws
them. The order of a scanner is kept: quantum noise, reconstruction kernel, display window.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from medcl.nn.host import chosen_rows

AIR = -1000.0

WINDOWS: dict[str, tuple[float, float]] = {
    "abdomen": (60.0, 400.0),
    "angio": (300.0, 600.0),
    "bone": (300.0, 1500.0),
    "brain": (40.0, 80.0),
    "chest": (40.0, 400.0),
    "lung": (-400.0, 1500.0),
}
"""Level and width in HU of the display windows that radiologists use."""


def rows(value: Tensor, x: Tensor) -> Tensor:
    """One value a sample (B,), in the shape that multiplies ``x``: (B, 1, ...)."""
    return value.view(-1, *(1,) * (x.dim() - 1))


def gaussian(sigma: Tensor, reach: int) -> Tensor:
    """Gaussian taps (B, 2·reach + 1) of ``sigma`` (B,) voxels, summing to 1; σ = 0 does nothing."""
    at = torch.arange(-reach, reach + 1, device=sigma.device, dtype=sigma.dtype)
    taps = torch.exp(-0.5 * (at / sigma.clamp_min(1e-3)[:, None]) ** 2)
    return taps / taps.sum(dim=1, keepdim=True)


def smooth(x: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian smoothing, the edge voxel repeated outside; ``sigma`` (B, axes) in voxels.

    Reaches two voxels, so for σ up to about 1. Sums of shifted copies: on a CPU that is several
    times faster than a grouped convolution with a kernel of its own for each sample.
    """
    for axis in range(2, x.dim()):
        taps = gaussian(sigma[:, axis - 2], 2)  # (B, 5), symmetric
        at = chosen_rows(sigma[:, axis - 2] > 0)
        if at is not None and not len(at):
            continue
        out = x * rows(taps[:, 2], x)
        for step in (1, 2):
            _add_neighbours(out, x, axis, min(step, x.shape[axis]), rows(taps[:, 2 + step], x))
        x = out
    return x


def _add_neighbours(out: Tensor, x: Tensor, axis: int, step: int, weight: Tensor) -> None:
    """Add to ``out`` the voxels ``step`` to either side in ``x``, the edge voxel beyond it."""
    rest = x.shape[axis] - step
    first, last = x.narrow(axis, 0, 1), x.narrow(axis, x.shape[axis] - 1, 1)
    out.narrow(axis, step, rest).addcmul_(x.narrow(axis, 0, rest), weight)
    out.narrow(axis, 0, step).addcmul_(first, weight)
    out.narrow(axis, 0, rest).addcmul_(x.narrow(axis, step, rest), weight)
    out.narrow(axis, rest, step).addcmul_(last, weight)


def kernel(x: Tensor, sigma: Tensor, strength: Tensor) -> Tensor:
    """A reconstruction kernel: x + s·(G_σ x − x), with ``strength`` s (B,).

    s = 1 is a Gaussian blur (a soft kernel), s < 0 unsharp masking (a sharp one). With noise in
    ``x`` its texture follows the kernel, as it does in a scanner: grainy where sharp.
    """
    return torch.lerp(x, smooth(x, sigma), rows(strength, x))


def noise(x: Tensor, eps: Tensor, level: Tensor) -> Tensor:
    """Add noise ``eps`` of a standard deviation of ``level`` (B,) HU."""
    return torch.addcmul(x, eps, rows(level, x))


def window(x: Tensor, level: Tensor, width: Tensor, shown: tuple[float, float]) -> Tensor:
    """Look through a display window, and spread what it shows over the window ``shown``.

    HU below ``level`` − ``width``/2 (B,) become the lower end of ``shown`` (level, width), those
    above the upper end; between them the contrast changes by the ratio of the widths.
    """
    low, high = shown[0] - shown[1] / 2, shown[0] + shown[1] / 2
    gain = shown[1] / width
    return torch.addcmul(rows(low - (level - width / 2) * gain, x), x, rows(gain, x)).clamp_(
        low, high
    )


def gamma(x: Tensor, power: Tensor, shown: tuple[float, float]) -> Tensor:
    """Bend the grey values within the window ``shown`` by ``power`` (B,); its ends stay put."""
    low = shown[0] - shown[1] / 2
    unit = ((x - low) / shown[1]).clamp_(0, 1)
    return unit.pow_(rows(power, x)).mul_(shown[1]).add_(low)


def boxes(start: Tensor, side: Tensor, space: Sequence[int]) -> Tensor:
    """True inside a box a sample: ``start`` and ``side`` (B, axes) as shares → (B, 1, *space)."""
    inside = torch.ones((), dtype=torch.bool, device=start.device)
    for axis, count in enumerate(space):
        at = (torch.arange(count, device=start.device) + 0.5) / count
        low = start[:, axis, None]
        line = (at >= low) & (at < low + side[:, axis, None])  # (B, count)
        inside = inside & line.view(-1, *(count if a == axis else 1 for a in range(len(space))))
    return inside[:, None]


def cutout(x: Tensor, start: Tensor, side: Tensor, fill: Tensor) -> Tensor:
    """Fill a box (DeVries 2017, arXiv 1708.04552) with ``fill`` (B,) HU."""
    return torch.where(boxes(start, side, x.shape[2:]), rows(fill, x), x)


def drop_slices(x: Tensor, dropped: Tensor) -> Tensor:
    """Empty the slices where ``dropped`` (B, D) is True: they become air."""
    return x.masked_fill(dropped[:, None, :, None, None], AIR)


def radians(degrees: Tensor) -> Tensor:
    """Degrees to radians."""
    return degrees * (math.pi / 180)
