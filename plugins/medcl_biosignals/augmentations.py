"""Named augmentations of signals: each draws its parameters and applies `medcl_biosignals.augment`.

``x`` is (B, C, T); the result has its shape. Random numbers come from the generator; None: torch's
own. A recipe lists them under ``views.steps``, by the names in ``Plugin.augmentations``.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from medcl.augmentations import Level, Positive, Positives, Share, Shares
from medcl_biosignals import augment as op
from medcl_biosignals.vcg import turn

Random = Generator | None


def crop(x: Tensor, generator: Random, *, share: Shares = (0.6, 1.0)) -> Tensor:
    """Cut out a part and stretch it to the window's length: another heart rate.

    SimCLR's random resized crop in time (Chen 2020, arXiv 2002.05709).

    Args:
        x: (B, C, T).
        generator: of the random numbers.
        share: bounds of the part's length, as a share of the window, 0 to 1.
    """
    length = uniform(x, generator, *share)
    return op.crop_resize(x, (1 - length) * uniform(x, generator, 0, 1), length)


def shift(x: Tensor, generator: Random, *, share: Share = 0.05) -> Tensor:
    """Move in time by whole samples, zero where nothing is known.

    A random translation, as is common for images (ours for signals).

    Args:
        x: (B, C, T).
        generator: of the random numbers.
        share: the largest shift to either side, as a share of the window, 0 to 1.
    """
    return op.shift(x, uniform(x, generator, -share, share), most=share)


def stretch(x: Tensor, generator: Random, *, share: Level = 0.25) -> Tensor:
    """Slow down or speed up about the middle: another heart rate, the same ratios of intervals.

    Ours; a uniform form of the time warp of Um 2017, arXiv 1706.00527.

    Args:
        x: (B, C, T).
        generator: of the random numbers.
        share: durations change by a factor of up to 1 + this, or its inverse; 0 or more.
    """
    return op.stretch(x, torch.exp(math.log1p(share) * uniform(x, generator, -1, 1)))


def time_warp(x: Tensor, generator: Random, *, level: Level = 0.2) -> Tensor:
    """Play faster and slower within the window; its ends stay put (Um 2017, arXiv 1706.00527).

    Args:
        x: (B, C, T).
        generator: of the random numbers.
        level: standard deviation of the speed around 1, 0 or more.
    """
    return op.time_warp(x, _knots(x, generator, level))


def magnitude_warp(x: Tensor, generator: Random, *, level: Level = 0.2) -> Tensor:
    """Multiply by a slowly changing gain (Um 2017, arXiv 1706.00527).

    Args:
        x: (B, C, T).
        generator: of the random numbers.
        level: standard deviation of the gain around 1, 0 or more.
    """
    return op.magnitude_warp(x, _knots(x, generator, level))


def scale(x: Tensor, generator: Random, *, level: Level = 0.3) -> Tensor:
    """Multiply each lead by a gain of its own (Um 2017, arXiv 1706.00527).

    Args:
        x: (B, C, T).
        generator: of the random numbers.
        level: standard deviation of the gain's logarithm, 0 or more.
    """
    return op.scale(x, torch.exp(level * _normal(x, generator, x.shape[1])))


def rotate(x: Tensor, generator: Random, *, level: Level = 0.5) -> Tensor:
    """Mix the leads by a random rotation, as if the heart lay otherwise.

    Um 2017, arXiv 1706.00527, turns the axes of an accelerometer so.

    Args:
        x: (B, C, T).
        generator: of the random numbers.
        level: distance of the mixing matrix from the identity, 0 (leave alone) or more.
    """
    eye = torch.eye(x.shape[1], device=x.device)
    drawn = _normal(x, generator, x.shape[1], x.shape[1]).float()
    q, r = torch.linalg.qr(eye + level * drawn)  # the orthogonal part of a matrix near the identity
    signs = torch.where(r.diagonal(dim1=1, dim2=2) < 0, -1.0, 1.0)
    q = q * signs.unsqueeze(1)
    q[:, 0] *= torch.linalg.det(q).sign().unsqueeze(1)  # no mirror image
    return op.rotate(x, q.to(x.dtype))


def vcg(x: Tensor, generator: Random, *, degrees: Level = 45.0, scale: Positive = 1.5) -> Tensor:
    """Turn and stretch the heart in three dimensions (3KG: Gopal 2021, arXiv 2106.04452).

    Args:
        x: (B, 12, T): the twelve standard leads.
        generator: of the random numbers.
        degrees: the largest angle about each axis, in degrees, 0 or more.
        scale: the largest stretch along each axis, or its inverse; above 0.
    """
    angles = math.radians(degrees) * (2 * _rand(x, generator, 3) - 1)
    powers = 2 * _rand(x, generator, 3) - 1
    return turn(x, angles, torch.exp(math.log(scale) * powers))


def flip_sign(x: Tensor, generator: Random) -> Tensor:
    """Turn leads upside down, each with probability one half (negation: Sarkar 2020,
    arXiv 2002.03898).

    Args:
        x: (B, C, T).
        generator: of the random numbers.
    """
    signs = torch.where(_normal(x, generator, x.shape[1]) < 0, -1.0, 1.0)
    return op.flip_sign(x, signs.to(x.dtype))


def channel_drop(x: Tensor, generator: Random) -> Tensor:
    """Silence each lead with probability one half, but never all.

    As random lead masking (Oh 2022, arXiv 2203.06889).

    Args:
        x: (B, C, T).
        generator: of the random numbers.
    """
    drawn = torch.rand(*x.shape[:2], generator=generator, device=x.device)
    return op.drop_channels(x, (drawn > 0.5) | (drawn == drawn.amax(dim=1, keepdim=True)))


def channel_permute(x: Tensor, generator: Random) -> Tensor:
    """Shuffle the leads (Abbaspourazad 2024, arXiv 2312.05409, for PPG).

    Args:
        x: (B, C, T).
        generator: of the random numbers.
    """
    return op.permute_channels(x, _normal(x, generator, x.shape[1]).argsort(dim=1))


def colour(x: Tensor, generator: Random, *, fs: float, level: Level = 0.4) -> Tensor:
    """Weigh the frequencies from 0 to 40 Hz by a smooth random curve: other shapes of beats.

    Ours.

    Args:
        x: (B, C, T).
        generator: of the random numbers.
        fs: sampling rate in Hz.
        level: standard deviation of the curve's logarithm, 0 or more.
    """
    return op.colour(x, torch.exp(level * _normal(x, generator, 6)), fs)


def phase(x: Tensor, generator: Random, *, fs: float, level: Level = 0.5) -> Tensor:
    """Shift the phases of 0 to 40 Hz by a smooth random curve: waves lean.

    Ours; the effect of a filter that delays frequencies unequally.

    Args:
        x: (B, C, T).
        generator: of the random numbers.
        fs: sampling rate in Hz.
        level: standard deviation of the shift, in radians, 0 or more.
    """
    return op.phase(x, level * _normal(x, generator, 6), fs)


def low_pass(x: Tensor, generator: Random, *, fs: float, hertz: Positives = (8.0, 35.0)) -> Tensor:
    """Remove high frequencies, above a random bound; ours.

    Args:
        x: (B, C, T).
        generator: of the random numbers.
        fs: sampling rate in Hz.
        hertz: bounds of the bound, in Hz, above 0.
    """
    return op.low_pass(x, uniform(x, generator, *hertz), fs)


def frequency_mask(x: Tensor, generator: Random, *, fs: float, hertz: Level = 5.0) -> Tensor:
    """Remove a random band of frequencies (SpecAugment: Park 2019, arXiv 1904.08779).

    Args:
        x: (B, C, T).
        generator: of the random numbers.
        fs: sampling rate in Hz.
        hertz: the widest band, in Hz, 0 or more.
    """
    low = uniform(x, generator, 0, fs / 2)
    return op.frequency_mask(x, low, uniform(x, generator, 0, hertz), fs)


def noise(x: Tensor, generator: Random, *, level: Level = 0.1) -> Tensor:
    """Add white noise (jitter: Um 2017, arXiv 1706.00527).

    Args:
        x: (B, C, T).
        generator: of the random numbers.
        level: the loudest noise, in standard deviations of each lead, 0 or more.
    """
    return op.noise(x, _normal(x, generator, *x.shape[1:]), uniform(x, generator, 0, level))


def baseline(x: Tensor, generator: Random, *, fs: float, level: Level = 0.3) -> Tensor:
    """Add a sine of 0.05 to 0.5 Hz: breathing moves the electrodes (Mehari 2022, arXiv 2103.12676).

    Args:
        x: (B, C, T).
        generator: of the random numbers.
        fs: sampling rate in Hz.
        level: the largest amplitude, in standard deviations of each lead, 0 or more.
    """
    hertz, height = uniform(x, generator, 0.05, 0.5), uniform(x, generator, 0, level)
    return op.baseline_wander(x, hertz, _phases(x, generator), height, fs)


def mains(x: Tensor, generator: Random, *, fs: float, level: Level = 0.1) -> Tensor:
    """Add hum at 50 or 60 Hz (Mehari 2022, arXiv 2103.12676), where half of ``fs`` lies above it.

    Args:
        x: (B, C, T).
        generator: of the random numbers.
        fs: sampling rate in Hz.
        level: the largest amplitude, in standard deviations of each lead, 0 or more.
    """
    hertz = torch.where(uniform(x, generator, 0, 1) < 0.5, 50.0, 60.0).to(x.dtype)
    return op.mains(x, hertz, _phases(x, generator), uniform(x, generator, 0, level), fs)


def motion(x: Tensor, generator: Random, *, fs: float, level: Level = 1.0) -> Tensor:
    """Add a burst of slow, irregular waves: the limb moves. Ours.

    About three knots a second: most of the power lies between a half and two hertz.

    Args:
        x: (B, C, T).
        generator: of the random numbers.
        fs: sampling rate in Hz.
        level: the largest amplitude, in standard deviations of each lead, 0 or more.
    """
    knots = _normal(x, generator, x.shape[1], max(round(3 * x.shape[-1] / fs), 4))
    length = uniform(x, generator, 0.1, 0.5)
    start = (1 - length) * uniform(x, generator, 0, 1)
    return op.motion(x, knots, start, length, uniform(x, generator, 0, level))


def electrode(x: Tensor, generator: Random, *, fs: float, level: Level = 3.0) -> Tensor:
    """Add a jump that decays, in each lead with probability one half: an electrode settles. Ours.

    Args:
        x: (B, C, T).
        generator: of the random numbers.
        fs: sampling rate in Hz.
        level: the largest height, in standard deviations of each lead, 0 or more.
    """
    at = 2 * _rand(x, generator, x.shape[1])
    height = level * (2 * _rand(x, generator, x.shape[1]) - 1)
    return op.electrode(x, at, height, uniform(x, generator, 0.1, 1.0), fs)


def cutout(x: Tensor, generator: Random, *, share: Shares = (0.1, 0.2)) -> Tensor:
    """Set a part to zero, in all leads (DeVries 2017, arXiv 1708.04552).

    Args:
        x: (B, C, T).
        generator: of the random numbers.
        share: bounds of the part's length, as a share of the window, 0 to 1.
    """
    length = uniform(x, generator, *share)
    return op.cutout(x, (1 - length) * uniform(x, generator, 0, 1), length)


def uniform(x: Tensor, generator: Random, low: float, high: float) -> Tensor:
    """One number a sample: (B,)."""
    drawn = torch.rand(x.shape[0], generator=generator, device=x.device, dtype=x.dtype)
    return low + (high - low) * drawn


def _rand(x: Tensor, generator: Random, *shape: int) -> Tensor:
    return torch.rand(x.shape[0], *shape, generator=generator, device=x.device, dtype=x.dtype)


def _normal(x: Tensor, generator: Random, *shape: int) -> Tensor:
    return torch.randn(x.shape[0], *shape, generator=generator, device=x.device, dtype=x.dtype)


def _knots(x: Tensor, generator: Random, level: float) -> Tensor:
    """Five positive factors around 1 (the paper's re-implementation has four to six)."""
    return (1 + level * _normal(x, generator, 5)).clamp_min(0.1)


def _phases(x: Tensor, generator: Random) -> Tensor:
    return 2 * math.pi * _rand(x, generator, x.shape[1])
