"""Drawing the parameters of a view for a whole batch, from an explicit generator."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from medcl_ct.intensity import radians

Parameters = dict[str, Tensor]
"""What was drawn, by name, a row a sample. See `draw`."""

Bounds = tuple[float, float]


@dataclass(frozen=True)
class Settings:
    """What `medcl_ct.views.views` was given, checked; ``flip`` is per axis (D, H, W)."""

    crop: float
    stretch: float
    flip: tuple[float, ...]
    rotate: float
    rotate_degrees: float
    tilt_degrees: float
    elastic: float
    elastic_strength: float
    elastic_knots: int
    window: float
    windows: tuple[tuple[float, float], ...]
    window_jitter: float
    shown: tuple[float, float]
    gamma: float
    gamma_power: Bounds
    noise: float
    noise_hu: Bounds
    blur: float
    blur_voxels: Bounds
    sharpen: float
    sharpen_strength: Bounds
    kernel: float
    kernel_strength: Bounds
    cutout: float
    cutout_share: Bounds
    drop_slices: float
    drop_share: float


class Dice:
    """Random numbers for B samples, on the device of the generator's tensors."""

    def __init__(self, count: int, device: torch.device, g: Generator | None) -> None:
        self.count, self.device, self.g = count, device, g

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """(B, *shape) between ``low`` and ``high``."""
        drawn = torch.rand(self.count, *shape, generator=self.g, device=self.device)
        return low + (high - low) * drawn

    def coin(self, p: float, *shape: int) -> Tensor:
        """(B, *shape) bool, True with probability ``p``."""
        return self.uniform(0, 1, *shape) < p


def draw(
    s: Settings, x: Tensor, size: Sequence[int], share: Bounds, g: Generator | None
) -> Parameters:
    """Parameters of one view of each row of ``x`` (B, 1, *space).

    Returns, a row a sample, neutral where the coin said no:
        side, centre, flip (B, axes); angle (B, 1 or 3) in radians; shift (B, axes, *lattice), only
        with elastic; level, width (B,), width 0 for no window; gamma, 1 for none; noise_hu, 0 for
        none; strength, 0 for no filter, with sigma (B, axes) and kernel_hu; cut_start, cut_side
        (B, axes) and cut_hu; dropped (B, D), only for volumes with drop_slices.
    """
    dice = Dice(len(x), x.device, g)
    axes = len(size)
    p = _geometry(s, dice, axes, share) | _window(s, dice) | _filter(s, dice, axes)
    p |= _cutout(s, dice, axes)
    if s.drop_slices > 0 and axes == 3:
        some = dice.coin(s.drop_slices) * dice.uniform(0, s.drop_share)
        p["dropped"] = dice.uniform(0, 1, size[0]) < some[:, None]
    return p


def _geometry(s: Settings, dice: Dice, axes: int, share: Bounds) -> Parameters:
    chosen = dice.coin(s.crop)[:, None]
    side = torch.where(chosen, proportions(dice, axes, share, s.stretch), 1.0)  # (B, axes)
    centre = (1 - side) * dice.uniform(-1, 1, axes)
    heads = torch.stack([dice.coin(probability) for probability in s.flip[-axes:]], dim=1)
    turned = dice.coin(s.rotate)[:, None]
    degrees = dice.uniform(-1, 1, 1 if axes == 2 else 3)
    largest = [s.rotate_degrees, s.tilt_degrees, s.tilt_degrees][: degrees.shape[1]]
    angle = radians(degrees * torch.tensor(largest, device=degrees.device)) * turned
    p = {"side": side, "centre": centre, "flip": 1.0 - 2.0 * heads, "angle": angle}
    if s.elastic > 0:
        lattice = (s.elastic_knots + 3,) * axes
        shift = dice.uniform(-s.elastic_strength, s.elastic_strength, axes, *lattice)
        p["shift"] = shift * dice.coin(s.elastic).view(-1, *(1,) * (axes + 1))
    return p


def proportions(dice: Dice, axes: int, share: Bounds, stretch: float) -> Tensor:
    """Sides of a part (B, axes), as shares of the whole's: its area or volume is within ``share``.

    Proportions up to 1 : stretch, with the share kept: half of its logarithm to either side.
    """
    part = dice.uniform(*share)
    log = dice.uniform(-0.5, 0.5, axes) * math.log(stretch)
    log = log - log.mean(dim=1, keepdim=True) + part.log()[:, None] / axes
    return log.exp().clamp(max=1.0)


def _window(s: Settings, dice: Dice) -> Parameters:
    presets = torch.tensor(s.windows, device=dice.device)  # (K, 2)
    which = (dice.uniform(0, 1) * len(presets)).long().clamp(max=len(presets) - 1)
    level, width = presets[which].unbind(1)
    level = level + dice.uniform(-s.window_jitter, s.window_jitter) * width
    width = width * (1 + dice.uniform(-s.window_jitter, s.window_jitter))
    low, high = (math.log(power) for power in s.gamma_power)
    bent = dice.coin(s.gamma)
    return {
        "level": level,
        "width": width * dice.coin(s.window),
        "gamma": torch.where(bent, dice.uniform(low, high).exp(), 1.0),
        "noise_hu": dice.uniform(*s.noise_hu) * dice.coin(s.noise),
    }


def _filter(s: Settings, dice: Dice, axes: int) -> Parameters:
    """Blur, sharpen, kernel or nothing: one roll of the dice for all of them."""
    roll = dice.uniform(0, 1)
    blurred = roll < s.blur
    sharpened = ~blurred & (roll < s.blur + s.sharpen)
    rekerneled = ~blurred & ~sharpened & (roll < s.blur + s.sharpen + s.kernel)
    strength = torch.where(sharpened, -dice.uniform(*s.sharpen_strength), blurred.float())
    strength = torch.where(rekerneled, dice.uniform(*s.kernel_strength), strength)
    sigma = torch.where(blurred, dice.uniform(*s.blur_voxels), 1.0)[:, None].repeat(1, axes)
    if axes == 3:  # a kernel acts within the slice
        sigma[:, 0] = torch.where(rekerneled, 0.0, sigma[:, 0])
    return {
        "strength": strength,
        "sigma": sigma,
        "kernel_hu": dice.uniform(*s.noise_hu) * rekerneled,
    }


def _cutout(s: Settings, dice: Dice, axes: int) -> Parameters:
    side = dice.uniform(*s.cutout_share, axes) * dice.coin(s.cutout)[:, None]
    level, width = s.shown
    return {
        "cut_side": side,
        "cut_start": (1 - side) * dice.uniform(0, 1, axes),
        "cut_hu": dice.uniform(level - width / 2, level + width / 2),
    }
