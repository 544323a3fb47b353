"""Augmentations of a batch of signals: pure functions of (x, parameters), no randomness inside.

``x`` is (B, C, T); parameters have one row a sample. All work on the whole batch at once, on the
device where ``x`` is. `medcl_biosignals.views` draws the parameters.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def scale(x: Tensor, factor: Tensor) -> Tensor:
    """Multiply each lead by its factor (B, C): electrode contact and gain differ."""
    return x * factor.unsqueeze(-1)


def noise(x: Tensor, eps: Tensor, level: Tensor) -> Tensor:
    """Add ``level`` (B,) standard deviations of each lead of noise ``eps`` (B, C, T)."""
    return x + level.view(-1, 1, 1) * _spread(x) * eps


def baseline_wander(x: Tensor, hertz: Tensor, phase: Tensor, level: Tensor, fs: float) -> Tensor:
    """Add a slow sine: breathing moves the electrodes. Parameters (B,), phase (B, C)."""
    return x + level.view(-1, 1, 1) * _spread(x) * _sine(x, hertz, phase, fs)


def mains(x: Tensor, hertz: Tensor, phase: Tensor, level: Tensor, fs: float) -> Tensor:
    """Add hum of the power grid. It shows only where it lies under half the sampling rate."""
    heard = (hertz < fs / 2).to(x.dtype)
    return x + (heard * level).view(-1, 1, 1) * _spread(x) * _sine(x, hertz, phase, fs)


def motion(x: Tensor, knots: Tensor, start: Tensor, length: Tensor, level: Tensor) -> Tensor:
    """Add a burst of slow, irregular waves: the limb moves. ``knots`` (B, C, K) are their heights.

    The burst covers a share ``length`` (B,) of the window from ``start`` (B,), fading in and out.
    """
    t = torch.arange(x.shape[-1], device=x.device, dtype=x.dtype) / x.shape[-1]  # (T,)
    inside = ((t - start[:, None]) / length[:, None]).clamp(0, 1)  # (B, T), 0 to 1 over the burst
    fade = torch.sin(math.pi * inside).square()[:, None]
    waves = _curve(knots.flatten(0, 1), x.shape[-1]).unflatten(0, x.shape[:2])  # (B, C, T)
    return x + level.view(-1, 1, 1) * _spread(x) * fade * waves


def electrode(x: Tensor, at: Tensor, height: Tensor, seconds: Tensor, fs: float) -> Tensor:
    """Add a jump that decays: an electrode loses contact and settles again.

    Args:
        x: (B, C, T).
        at: (B, C) where each lead jumps, as a share of the window; above 1 it does not.
        height: (B, C) of the jump in standard deviations.
        seconds: (B,) in which it falls to a third.
        fs: sampling rate in Hz.
    """
    t = torch.arange(x.shape[-1], device=x.device, dtype=x.dtype)
    since = (t - at.unsqueeze(-1) * x.shape[-1]) / fs  # (B, C, T) seconds
    jump = torch.exp(-since.clamp_min(0) / seconds.view(-1, 1, 1)) * (since >= 0)
    return x + height.unsqueeze(-1) * _spread(x) * jump


def cutout(x: Tensor, start: Tensor, length: Tensor) -> Tensor:
    """Set a stretch to zero in all leads; ``start`` and ``length`` (B,) are shares of T."""
    t = torch.arange(x.shape[-1], device=x.device) / x.shape[-1]  # (T,)
    inside = (t >= start[:, None]) & (t < (start + length)[:, None])  # (B, T)
    return x.masked_fill(inside[:, None], 0.0)


def magnitude_warp(x: Tensor, knots: Tensor) -> Tensor:
    """Multiply by a smooth curve through ``knots`` (B, K): contact that changes slowly."""
    return x * _curve(knots, x.shape[-1])[:, None]


def time_warp(x: Tensor, knots: Tensor) -> Tensor:
    """Play faster here, slower there: ``knots`` (B, K) are positive speeds; the ends stay put."""
    speed = _curve(knots, x.shape[-1]).clamp_min(0.05)  # (B, T)
    position = speed.cumsum(dim=-1)
    position = (position - position[:, :1]) / (position[:, -1:] - position[:, :1])
    return _sample(x, position)


def crop_resize(x: Tensor, start: Tensor, length: Tensor, size: int | None = None) -> Tensor:
    """Cut out a share of the window (B,) and stretch it to ``size`` samples (default: T)."""
    size = x.shape[-1] if size is None else size
    grid = torch.linspace(0, 1, size, device=x.device, dtype=x.dtype)
    return _sample(x, start[:, None] + length[:, None] * grid)


def stretch(x: Tensor, factor: Tensor) -> Tensor:
    """Make everything last ``factor`` (B,) times as long; the middle stays in the middle.

    Another heart rate, but the same ratios between intervals. Zero where nothing is known.
    """
    grid = torch.linspace(-0.5, 0.5, x.shape[-1], device=x.device, dtype=x.dtype)
    position = 0.5 + grid / factor[:, None]
    outside = (position < -1e-6) | (position > 1 + 1e-6)
    return _sample(x, position).masked_fill(outside[:, None], 0.0)


def shift(x: Tensor, by: Tensor) -> Tensor:
    """Move by a share of T (B,), zero where nothing is known."""
    grid = torch.linspace(0, 1, x.shape[-1], device=x.device, dtype=x.dtype)
    position = grid - by[:, None]
    outside = (position < -1e-6) | (position > 1 + 1e-6)
    return _sample(x, position.clamp(0, 1)).masked_fill(outside[:, None], 0.0)


def drop_channels(x: Tensor, keep: Tensor) -> Tensor:
    """Silence leads where ``keep`` (B, C) is False: an electrode that fell off."""
    return x * keep.unsqueeze(-1)


def permute_channels(x: Tensor, order: Tensor) -> Tensor:
    """Put the leads into ``order`` (B, C)."""
    return x.gather(1, order.unsqueeze(-1).expand_as(x))


def rotate(x: Tensor, matrix: Tensor) -> Tensor:
    """Mix the leads by a matrix (B, C, C): the same heart, lying otherwise in the chest."""
    return matrix @ x


def flip_sign(x: Tensor, sign: Tensor) -> Tensor:
    """Multiply each lead by ``sign`` (B, C) of ±1: electrodes swapped."""
    return x * sign.unsqueeze(-1)


def low_pass(x: Tensor, hertz: Tensor, fs: float) -> Tensor:
    """Remove what lies above ``hertz`` (B,), with a soft edge of a fifth of it."""
    return _weigh(x, fs, lambda f: torch.sigmoid((hertz[:, None] - f) / (0.05 * hertz[:, None])))


def frequency_mask(x: Tensor, low: Tensor, width: Tensor, fs: float) -> Tensor:
    """Remove a band of frequencies: from ``low`` (B,), ``width`` (B,) wide, in Hz."""
    return _weigh(
        x, fs, lambda f: ~((f >= low[:, None]) & (f < (low + width)[:, None])) + f.new_zeros(1)
    )


def colour(x: Tensor, knots: Tensor, fs: float, top: float = 40.0) -> Tensor:
    """Weigh frequencies from 0 to ``top`` Hz by a smooth curve through ``knots`` (B, K).

    Waves become rounder or sharper, as they differ between people and recorders; time stays.
    """
    curve = _curve(knots, 64)

    def gain(f: Tensor) -> Tensor:
        at = (f / top).clamp(max=1)
        return _sample(curve[:, None], at.expand(len(x), -1))[:, 0]

    return _weigh(x, fs, gain)


def phase(x: Tensor, knots: Tensor, fs: float, top: float = 40.0) -> Tensor:
    """Shift the phases of 0 to ``top`` Hz by a smooth curve through ``knots`` (B, K), in radians.

    Waves lean to one side, as under a filter that delays frequencies unequally.
    """
    curve = _curve(knots, 64)

    def gain(f: Tensor) -> Tensor:
        at = (f / top).clamp(max=1)
        angle = _sample(curve[:, None], at.expand(len(x), -1))[:, 0]
        return torch.polar(torch.ones_like(angle), angle)

    return _weigh(x, fs, gain)


def _weigh(x: Tensor, fs: float, gain) -> Tensor:  # type: ignore[no-untyped-def]
    spectrum = torch.fft.rfft(x.float(), dim=-1)
    f = torch.fft.rfftfreq(x.shape[-1], 1 / fs, device=x.device)[None]  # (1, F)
    return torch.fft.irfft(spectrum * gain(f)[:, None], n=x.shape[-1], dim=-1).to(x.dtype)


def _sine(x: Tensor, hertz: Tensor, phase: Tensor, fs: float) -> Tensor:
    t = torch.arange(x.shape[-1], device=x.device, dtype=x.dtype) / fs
    return torch.sin(2 * math.pi * (hertz[:, None] * t)[:, None] + phase.unsqueeze(-1))


def _spread(x: Tensor) -> Tensor:
    """Standard deviation of each lead (B, C, 1): noise is loud or faint against the signal."""
    return x.std(dim=-1, keepdim=True, unbiased=False)


def _curve(knots: Tensor, length: int) -> Tensor:
    """A smooth curve (B, length) through equally spaced knots (B, K): cosine interpolation."""
    pieces = knots.shape[1] - 1
    at = torch.linspace(0, pieces, length, device=knots.device, dtype=knots.dtype)
    left = at.floor().clamp(max=pieces - 1).long()
    share = 0.5 - 0.5 * torch.cos(math.pi * (at - left))
    return knots[:, left] * (1 - share) + knots[:, left + 1] * share


def _sample(x: Tensor, position: Tensor) -> Tensor:
    """Read (B, C, T) at positions (B, S) in 0–1, linearly between samples."""
    at = (position.clamp(0, 1) * (x.shape[-1] - 1)).unsqueeze(1)  # (B, 1, S)
    left = at.floor().clamp(max=max(x.shape[-1] - 2, 0)).long()
    share = at - left
    index = left.expand(-1, x.shape[1], -1)
    after = (index + 1).clamp(max=x.shape[-1] - 1)
    return torch.lerp(x.gather(2, index), x.gather(2, after), share.expand_as(index))


def resize(x: Tensor, size: int) -> Tensor:
    """To another number of samples."""
    return F.interpolate(x, size=size, mode="linear", align_corners=True)
