"""Named corruptions at five strengths, for samples of any shape: (B, C, ...) → (B, C, ...).

After Hendrycks & Dietterich 2019 (arXiv 1903.12261), whose corruptions are for photographs: these
are common to signals, slices, volumes and tiles. Strengths are relative to a sample's own
standard deviation or size, so that HU, mV and grey values are treated alike. Each is a function of
(sample, strength, generator): the same seed, the same corruption.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from medcl.errors import UsageError
from medcl.registry import did_you_mean

STRENGTHS = (1, 2, 3, 4, 5)

Corruption = Callable[[Tensor, int, torch.Generator], Tensor]


def corrupt(name: str, x: Tensor, strength: int, generator: torch.Generator) -> Tensor:
    """A batch under a named corruption.

    Args:
        name: one of `CORRUPTIONS`.
        x: (B, C, ...), one to three axes after the channels.
        strength: 1 … 5; 0 leaves the batch unchanged.
        generator: of random values.

    Raises:
        UsageError: for an unknown name or strength.
    """
    if name not in CORRUPTIONS:
        raise UsageError(f"Unknown corruption '{name}'. {did_you_mean(name, CORRUPTIONS)}")
    if strength not in (0, *STRENGTHS):
        raise UsageError(f"Strengths are 1 to 5, not {strength}.")
    return x if strength == 0 else CORRUPTIONS[name](x, strength, generator)


def noise(x: Tensor, strength: int, generator: torch.Generator) -> Tensor:
    """White noise of 5, 10, 20, 40, 80% of the sample's standard deviation."""
    drawn = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    return x + _std(x) * (0.05 * 2 ** (strength - 1)) * drawn


def blur(x: Tensor, strength: int, generator: torch.Generator) -> Tensor:
    """A moving mean over 3, 5, 7, 9, 11 values along every axis."""
    width = 2 * strength + 1
    for axis in range(2, x.ndim):
        moved = x.movedim(axis, -1)
        flat = moved.reshape(-1, 1, moved.shape[-1])
        reach = min(width // 2, max(0, flat.shape[-1] - 1))
        smooth = F.avg_pool1d(
            F.pad(flat, (reach, reach), mode="replicate"), 2 * reach + 1, stride=1
        )
        x = smooth.reshape(moved.shape).movedim(-1, axis)
    return x


def resolution(x: Tensor, strength: int, generator: torch.Generator) -> Tensor:
    """Sampled down by 1.5, 2, 3, 4, 6 along every axis, and up again."""
    factor = (1.5, 2.0, 3.0, 4.0, 6.0)[strength - 1]
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[x.ndim - 2]
    small = [max(1, round(n / factor)) for n in x.shape[2:]]
    down = F.interpolate(x, size=small, mode="area" if x.ndim < 6 else mode)
    return F.interpolate(down, size=x.shape[2:], mode=mode, align_corners=False)


def contrast(x: Tensor, strength: int, generator: torch.Generator) -> Tensor:
    """Deviations from the sample's mean scaled to 80, 65, 50, 35, 20%."""
    mean = x.flatten(1).mean(1).view(-1, *[1] * (x.ndim - 1))
    return mean + (x - mean) * (0.95 - 0.15 * strength)


def offset(x: Tensor, strength: int, generator: torch.Generator) -> Tensor:
    """Raised or lowered by 20, 40, 60, 80, 100% of the sample's standard deviation."""
    sign = torch.randint(0, 2, (len(x),), generator=generator, device=x.device) * 2 - 1
    return x + sign.view(-1, *[1] * (x.ndim - 1)) * _std(x) * 0.2 * strength


def drift(x: Tensor, strength: int, generator: torch.Generator) -> Tensor:
    """A slow wave added: baseline wander, a coil's or beam's shading; 20 … 100% of its std."""
    wave = torch.zeros_like(x[:, :1])
    for axis in range(2, x.ndim):
        place = torch.linspace(0, 1, x.shape[axis], device=x.device, dtype=x.dtype)
        draw = torch.rand(len(x), 2, generator=generator, device=x.device, dtype=x.dtype)
        turns = 0.5 + draw[:, :1]  # half to one and a half
        curve = torch.sin(2 * torch.pi * (turns * place + draw[:, 1:]))  # (B, n)
        wave = wave + curve.view(len(x), 1, *[-1 if a == axis else 1 for a in range(2, x.ndim)])
    return x + _std(x) * 0.2 * strength * wave / (x.ndim - 2) ** 0.5


def missing(x: Tensor, strength: int, generator: torch.Generator) -> Tensor:
    """One block of 10, 20, 30, 40, 50% of every axis set to the sample's mean."""
    mean = x.flatten(1).mean(1).view(-1, *[1] * (x.ndim - 1))
    hole = torch.ones_like(x[:, :1], dtype=torch.bool)
    for axis in range(2, x.ndim):
        size = x.shape[axis]
        length = max(1, round(0.1 * strength * size))
        draw = torch.rand(len(x), 1, generator=generator, device=x.device)
        start = (draw * (size - length + 1)).long()
        place = torch.arange(size, device=x.device)[None]
        inside = (place >= start) & (place < start + length)  # (B, n)
        hole = hole & inside.view(len(x), 1, *[-1 if a == axis else 1 for a in range(2, x.ndim)])
    return torch.where(hole, mean, x)


def spikes(x: Tensor, strength: int, generator: torch.Generator) -> Tensor:
    """0.5, 1, 2, 4, 8% of all values replaced by the sample's least or largest."""
    share = 0.005 * 2 ** (strength - 1)
    draw = torch.rand(x.shape, generator=generator, device=x.device)
    low, high = (f(x.flatten(1), 1).view(-1, *[1] * (x.ndim - 1)) for f in (torch.amin, torch.amax))
    return torch.where(draw < share / 2, low, torch.where(draw < share, high, x))


def clipping(x: Tensor, strength: int, generator: torch.Generator) -> Tensor:
    """The outermost 1, 2, 5, 10, 20% of values, at either end, cut off: saturation."""
    share = (0.01, 0.02, 0.05, 0.1, 0.2)[strength - 1]
    ordered = x.flatten(1).sort(1).values
    cut = max(1, int(share * (ordered.shape[1] - 1)))
    view = (-1, *[1] * (x.ndim - 1))
    low, high = ordered[:, cut].view(view), ordered[:, -1 - cut].view(view)
    return torch.minimum(torch.maximum(x, low), high)


CORRUPTIONS: Mapping[str, Corruption] = {
    "noise": noise,
    "blur": blur,
    "resolution": resolution,
    "contrast": contrast,
    "offset": offset,
    "drift": drift,
    "missing": missing,
    "spikes": spikes,
    "clipping": clipping,
}


def _std(x: Tensor) -> Tensor:
    """(B, 1, ...) standard deviation of every sample."""
    return x.flatten(1).std(1, correction=0).view(-1, *[1] * (x.ndim - 1))
