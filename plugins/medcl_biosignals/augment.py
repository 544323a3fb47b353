"""Augmentations of a batch of signals: pure functions of (x, parameters), no randomness inside.

``x`` is (B, C, T); parameters have one row a sample. All work on the whole batch at once, on the
device where ``x`` is. `medcl_biosignals.views` draws the parameters.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

CACHED = 2**21
"""Values of a batch that a processor's cache holds, with a few copies of them."""


def parts(first: Tensor, *others: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The same rows of tensors (B, ...), as many as the processor's cache holds; a device's: all.

    Fresh memory for whole batches, at every operation, costs a processor more than the arithmetic.
    """
    rows = max(CACHED // max(first[:1].numel(), 1), 1)
    rows = rows if first.device.type == "cpu" else max(len(first), 1)
    return zip(*(tensor.split(rows) for tensor in (first, *others)), strict=True)


def scale(x: Tensor, factor: Tensor) -> Tensor:
    """Multiply each lead by its factor (B, C): electrode contact and gain differ."""
    return x * factor.unsqueeze(-1)


def noise(x: Tensor, eps: Tensor, level: Tensor) -> Tensor:
    """Add ``level`` (B,) standard deviations of each lead of noise ``eps`` (B, C, T)."""
    return torch.addcmul(x, level.view(-1, 1, 1) * _spread(x), eps)


def baseline_wander(x: Tensor, hertz: Tensor, phase: Tensor, level: Tensor, fs: float) -> Tensor:
    """Add a slow sine: breathing moves the electrodes. Parameters (B,), phase (B, C)."""
    return _add_sine(x, level, hertz, phase, fs)


def mains(x: Tensor, hertz: Tensor, phase: Tensor, level: Tensor, fs: float) -> Tensor:
    """Add hum of the power grid. It shows only where it lies under half the sampling rate."""
    heard = (hertz < fs / 2).to(x.dtype)
    return _add_sine(x, heard * level, hertz, phase, fs)


def motion(x: Tensor, knots: Tensor, start: Tensor, length: Tensor, level: Tensor) -> Tensor:
    """Add a burst of slow, irregular waves: the limb moves. ``knots`` (B, C, K) are their heights.

    The burst covers a share ``length`` (B,) of the window from ``start`` (B,), fading in and out.
    """
    t = torch.arange(x.shape[-1], device=x.device, dtype=x.dtype) / x.shape[-1]  # (T,)
    inside = ((t - start[:, None]) / length[:, None]).clamp(0, 1)  # (B, T), 0 to 1 over the burst
    fade = torch.sin(math.pi * inside).square()[:, None]
    height = level.view(-1, 1, 1) * _spread(x)
    out = torch.empty_like(x)
    for signals, k, f, h, result in parts(x, knots, fade, height, out):
        waves = _curve(k.flatten(0, 1), x.shape[-1]).unflatten(0, k.shape[:2])  # (B, C, T)
        torch.addcmul(signals, h * f, waves, out=result)
    return out


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
    out = torch.empty_like(x)
    for signals, a, tau, h, result in parts(x, at, seconds, height.unsqueeze(-1) * _spread(x), out):
        since = (t - a.unsqueeze(-1) * x.shape[-1]) / fs  # (B, C, T) seconds
        jump = torch.exp(-since.clamp_min(0) / tau.view(-1, 1, 1)) * (since >= 0)
        torch.addcmul(signals, h, jump, out=result)
    return out


def cutout(x: Tensor, start: Tensor, length: Tensor) -> Tensor:
    """Set a stretch to zero in all leads; ``start`` and ``length`` (B,) are shares of T."""
    t = torch.arange(x.shape[-1], device=x.device) / x.shape[-1]  # (T,)
    outside = (t < start[:, None]) | (t >= (start + length)[:, None])  # (B, T)
    return x * outside[:, None]


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
    return _sample(x, 0.5 + grid / factor[:, None], outside="zeros")


def shift(x: Tensor, by: Tensor, most: float = 1.0) -> Tensor:
    """Move by a share of T (B,), rounded to whole samples; zero where nothing is known.

    Each sample is one copy of a stretch of memory, moved as a whole: what comes into a lead from
    the lead beside it is set to zero.

    Args:
        x: (B, C, T).
        by: (B,) within -1 to 1; above 0: to later.
        most: the largest of ``by`` to either side, if that is known: only so much is set to zero.
    """
    batch, leads, length = x.shape
    samples = (by * (length - 1)).round().long()
    place = torch.arange(length, device=x.device)
    stretches = x.reshape(-1).unfold(0, leads * length, 1)  # a view: one from each value on
    first = torch.arange(batch, device=x.device) * leads * length - samples
    out = stretches.index_select(0, first.clamp(0, len(stretches) - 1)).view_as(x)
    for end in (0, -1):  # before the first of all and after the last there is nothing to copy
        out[end] = x[end].index_select(-1, (place - samples[end]).clamp(0, length - 1))
    room = math.ceil(most * length)
    for edge in (slice(0, room), slice(length - room, length)):
        source = place[edge] - samples[:, None]  # (B, room)
        out[..., edge].masked_fill_(((source < 0) | (source >= length))[:, None], 0.0)
    return out


def drop_channels(x: Tensor, keep: Tensor) -> Tensor:
    """Silence leads where ``keep`` (B, C) is False: an electrode that fell off."""
    return x * keep.unsqueeze(-1)


def permute_channels(x: Tensor, order: Tensor) -> Tensor:
    """Put the leads into ``order`` (B, C)."""
    return x[torch.arange(len(x), device=x.device)[:, None], order]


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
    weights = gain(torch.fft.rfftfreq(x.shape[-1], 1 / fs, device=x.device)[None])  # (B, F)
    out = torch.empty_like(x)
    for signals, weight, result in parts(x, weights, out):
        spectrum = torch.fft.rfft(signals.float(), dim=-1).mul_(weight[:, None])
        result.copy_(torch.fft.irfft(spectrum, n=x.shape[-1], dim=-1))
    return out


def _add_sine(x: Tensor, level: Tensor, hertz: Tensor, phase: Tensor, fs: float) -> Tensor:
    """sin(ωt + φ) = sin φ cos ωt + cos φ sin ωt: two waves a sample serve all its leads."""
    t = torch.arange(x.shape[-1], device=x.device, dtype=x.dtype) / fs
    angle = 2 * math.pi * hertz[:, None] * t  # (B, T)
    waves = torch.stack([angle.cos(), angle.sin()], dim=1)
    heights = level.view(-1, 1, 1) * _spread(x) * torch.stack([phase.sin(), phase.cos()], dim=2)
    return torch.baddbmm(x, heights, waves)


def _spread(x: Tensor) -> Tensor:
    """Standard deviation of each lead (B, C, 1): noise is loud or faint against the signal.

    In two passes, which stay exact under an offset; `Tensor.std` takes ten times as long on a CPU.
    """
    spreads = []
    for (signals,) in parts(x):
        centred = signals - signals.mean(dim=-1, keepdim=True)
        spreads.append(torch.linalg.vector_norm(centred, dim=-1, keepdim=True))
    return torch.cat(spreads) / math.sqrt(x.shape[-1])


def _curve(knots: Tensor, length: int) -> Tensor:
    """A smooth curve (B, length) through equally spaced knots (B, K): cosine interpolation."""
    pieces = knots.shape[1] - 1
    at = torch.linspace(0, pieces, length, device=knots.device, dtype=knots.dtype)
    left = at.floor().clamp(max=pieces - 1).long()
    share = 0.5 - 0.5 * torch.cos(math.pi * (at - left))
    return knots[:, left] * (1 - share) + knots[:, left + 1] * share


def _sample(x: Tensor, position: Tensor, outside: str = "border") -> Tensor:
    """Read (B, C, T) at positions (B, S) in 0–1, linearly between samples.

    As images one pixel high: `grid_sample` finds each place once for all leads. Outside lies the
    last sample ("border"), or nothing ("zeros").
    """
    across = 2 * position.float() - 1
    grid = torch.stack([across, torch.zeros_like(across)], dim=-1)[:, None]  # (B, 1, S, 2)
    image = x.float().unsqueeze(2)
    return F.grid_sample(image, grid, "bilinear", outside, align_corners=True)[:, :, 0].to(x.dtype)
