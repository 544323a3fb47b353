"""Batched augmentation on the training device: draws the parameters that `augment` applies."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Generator, Tensor, nn

from medcl_biosignals import augment as op
from medcl_biosignals.vcg import turn

Step = Callable[[Tensor, Generator], Tensor]


def views(
    *,
    fs: float = 125.0,
    crop: float = 0.0,
    crop_share: tuple[float, float] = (0.6, 1.0),
    local_share: tuple[float, float] = (0.2, 0.5),
    shift: float = 0.0,
    shift_share: float = 0.05,
    stretch: float = 0.0,
    stretch_share: float = 0.25,
    time_warp: float = 0.3,
    time_warp_speed: float = 0.2,
    magnitude_warp: float = 0.5,
    magnitude_warp_level: float = 0.2,
    scale: float = 0.5,
    scale_level: float = 0.3,
    rotate: float = 0.0,
    rotate_level: float = 0.5,
    vcg: float = 0.0,
    vcg_degrees: float = 45.0,
    vcg_scale: float = 1.5,
    flip_sign: float = 0.0,
    channel_drop: float = 0.0,
    channel_permute: float = 0.0,
    colour: float = 0.0,
    colour_level: float = 0.4,
    phase: float = 0.0,
    phase_level: float = 0.5,
    low_pass: float = 0.0,
    low_pass_hertz: tuple[float, float] = (8.0, 35.0),
    frequency_mask: float = 0.0,
    frequency_mask_hertz: float = 5.0,
    noise: float = 0.5,
    noise_level: float = 0.1,
    baseline: float = 0.3,
    baseline_level: float = 0.3,
    mains: float = 0.1,
    mains_level: float = 0.1,
    motion: float = 0.0,
    motion_level: float = 1.0,
    electrode: float = 0.0,
    electrode_level: float = 3.0,
    cutout: float = 0.8,
    cutout_share: tuple[float, float] = (0.1, 0.2),
) -> nn.Module:
    """The augmentations of a recipe; a name alone is the probability that a sample gets it.

    Probabilities of cut-out, warps and noise are those that the wearable paper gives for ECG
    (Abbaspourazad 2024, arXiv 2312.05409); its strengths are not published, ours are in the
    defaults. Flipping time is left out: it turns one arrhythmia into another.

    Args:
        fs: sampling rate of what the views are given, in Hz.
        crop: cut out a part and stretch it to the window's length. It changes the heart rate.
        crop_share: how large a part.
        local_share: the part that a "local" view keeps; not stretched, so it is shorter.
        shift: move in time by up to ``shift_share`` of the window.
        shift_share: the largest shift.
        stretch: slow down or speed up about the middle. Ratios of intervals stay as they are.
        stretch_share: by a factor of up to 1 + this, or its inverse.
        time_warp: play faster and slower within the window.
        time_warp_speed: spread of the speed around 1.
        magnitude_warp: a slowly changing gain.
        magnitude_warp_level: spread of the gain around 1.
        scale: another gain for each lead.
        scale_level: spread of its logarithm.
        rotate: mix the leads by a random rotation, as if the heart lay otherwise.
        rotate_level: how far from leaving them alone.
        vcg: turn and stretch the heart in three dimensions, of twelve standard leads
            (`medcl_biosignals.vcg`).
        vcg_degrees: the largest angle about each axis (3KG: 45).
        vcg_scale: the largest stretch along each (3KG: 1.5), or its inverse.
        flip_sign: turn leads upside down, each with probability one half.
        channel_drop: silence each lead with probability one half, but never all.
        channel_permute: shuffle the leads.
        colour: weigh frequencies by a smooth random curve: other shapes of the same beats.
        colour_level: spread of the curve's logarithm.
        phase: shift phases by a smooth random curve: waves lean.
        phase_level: spread of the shift, in radians.
        low_pass: remove high frequencies, from a bound drawn in ``low_pass_hertz``.
        low_pass_hertz: bounds of the bound.
        frequency_mask: remove a band of up to ``frequency_mask_hertz``.
        frequency_mask_hertz: the widest band.
        noise: white noise of up to ``noise_level`` standard deviations.
        noise_level: the loudest noise.
        baseline: a sine of 0.05–0.5 Hz of up to ``baseline_level`` standard deviations.
        baseline_level: its largest amplitude.
        mains: hum at 50 or 60 Hz of up to ``mains_level`` standard deviations.
        mains_level: its largest amplitude.
        motion: a burst of slow, irregular waves of up to ``motion_level`` standard deviations.
        motion_level: their largest amplitude.
        electrode: a jump that decays, in each lead with probability one half.
        electrode_level: its largest height, in standard deviations.
        cutout: set a part to zero.
        cutout_share: how large a part.

    Returns:
        a module ``(x (B, C, T), generator, kind) -> (B, C, T′)``. Kinds: "global"; "local", a
        shorter crop (T′ < T) with the same augmentations; "none", the input as it is.
    """
    steps: list[tuple[float, Step]] = [
        (crop, partial(_crop, share=crop_share)),
        (shift, partial(_shift, share=shift_share)),
        (stretch, partial(_stretch, share=stretch_share)),
        (time_warp, partial(_time_warp, spread=time_warp_speed)),
        (magnitude_warp, partial(_magnitude_warp, spread=magnitude_warp_level)),
        (scale, partial(_scale, spread=scale_level)),
        (rotate, partial(_rotate, spread=rotate_level)),
        (vcg, partial(_vcg, angle=math.radians(vcg_degrees), scale=vcg_scale)),
        (flip_sign, _flip_sign),
        (channel_drop, _channel_drop),
        (channel_permute, _channel_permute),
        (colour, partial(_colour, spread=colour_level, fs=fs)),
        (phase, partial(_phase_shift, spread=phase_level, fs=fs)),
        (low_pass, partial(_low_pass, hertz=low_pass_hertz, fs=fs)),
        (frequency_mask, partial(_frequency_mask, widest=frequency_mask_hertz, fs=fs)),
        (noise, partial(_noise, loudest=noise_level)),
        (baseline, partial(_baseline, largest=baseline_level, fs=fs)),
        (mains, partial(_mains, largest=mains_level, fs=fs)),
        (motion, partial(_motion, largest=motion_level, fs=fs)),
        (electrode, partial(_electrode, highest=electrode_level, fs=fs)),
        (cutout, partial(_cutout, share=cutout_share)),
    ]
    return SignalViews(tuple((p, step) for p, step in steps if p > 0), local_share)


class SignalViews(nn.Module):
    """Applies each step to the samples that a coin chooses. See `views`."""

    def __init__(
        self, steps: tuple[tuple[float, Step], ...], local_share: tuple[float, float]
    ) -> None:
        super().__init__()
        self.steps = steps
        self.local_share = local_share

    def forward(self, x: Tensor, generator: Generator, kind: str = "global") -> Tensor:
        if kind == "none":
            return x
        if kind == "local":
            x = _local(x, generator, self.local_share)
        elif kind != "global":
            raise ValueError(f"views of biosignals are global, local or none, not '{kind}'")
        for probability, step in self.steps:
            chosen = _uniform(x, generator, 0, 1) < probability
            x = torch.where(chosen.view(-1, 1, 1), step(x, generator), x)
        return x


# Each step draws its parameters for the whole batch: (x, generator) → x.


def _crop(x: Tensor, g: Generator, share: tuple[float, float]) -> Tensor:
    length = _uniform(x, g, *share)
    return op.crop_resize(x, (1 - length) * _uniform(x, g, 0, 1), length)


def _local(x: Tensor, g: Generator, share: tuple[float, float]) -> Tensor:
    """One length for the batch, another start for each sample, no stretching."""
    part = float(torch.rand((), generator=g, device=x.device))
    size = max(round((share[0] + (share[1] - share[0]) * part) * x.shape[-1]), 2)
    length = torch.full_like(x[:, 0, 0], (size - 1) / max(x.shape[-1] - 1, 1))
    return op.crop_resize(x, (1 - length) * _uniform(x, g, 0, 1), length, size)


def _shift(x: Tensor, g: Generator, share: float) -> Tensor:
    return op.shift(x, _uniform(x, g, -share, share))


def _stretch(x: Tensor, g: Generator, share: float) -> Tensor:
    return op.stretch(x, torch.exp(math.log1p(share) * _uniform(x, g, -1, 1)))


def _time_warp(x: Tensor, g: Generator, spread: float) -> Tensor:
    return op.time_warp(x, _knots(x, g, spread))


def _magnitude_warp(x: Tensor, g: Generator, spread: float) -> Tensor:
    return op.magnitude_warp(x, _knots(x, g, spread))


def _scale(x: Tensor, g: Generator, spread: float) -> Tensor:
    return op.scale(x, torch.exp(spread * _normal(x, g, x.shape[1])))


def _rotate(x: Tensor, g: Generator, spread: float) -> Tensor:
    """The orthogonal part of a matrix near the identity."""
    eye = torch.eye(x.shape[1], device=x.device)
    drawn = _normal(x, g, x.shape[1], x.shape[1]).float()
    q, r = torch.linalg.qr(eye + spread * drawn)
    signs = torch.where(r.diagonal(dim1=1, dim2=2) < 0, -1.0, 1.0)
    return op.rotate(x, (q * signs.unsqueeze(1)).to(x.dtype))


def _vcg(x: Tensor, g: Generator, angle: float, scale: float) -> Tensor:
    angles = angle * (2 * torch.rand(len(x), 3, generator=g, device=x.device, dtype=x.dtype) - 1)
    powers = 2 * torch.rand(len(x), 3, generator=g, device=x.device, dtype=x.dtype) - 1
    return turn(x, angles, torch.exp(math.log(scale) * powers))


def _flip_sign(x: Tensor, g: Generator) -> Tensor:
    return op.flip_sign(x, torch.where(_normal(x, g, x.shape[1]) < 0, -1.0, 1.0).to(x.dtype))


def _channel_drop(x: Tensor, g: Generator) -> Tensor:
    drawn = torch.rand(*x.shape[:2], generator=g, device=x.device)
    return op.drop_channels(x, (drawn > 0.5) | (drawn == drawn.amax(dim=1, keepdim=True)))


def _channel_permute(x: Tensor, g: Generator) -> Tensor:
    return op.permute_channels(x, _normal(x, g, x.shape[1]).argsort(dim=1))


def _colour(x: Tensor, g: Generator, spread: float, fs: float) -> Tensor:
    return op.colour(x, torch.exp(spread * _normal(x, g, 6)), fs)


def _phase_shift(x: Tensor, g: Generator, spread: float, fs: float) -> Tensor:
    return op.phase(x, spread * _normal(x, g, 6), fs)


def _low_pass(x: Tensor, g: Generator, hertz: tuple[float, float], fs: float) -> Tensor:
    return op.low_pass(x, _uniform(x, g, *hertz), fs)


def _frequency_mask(x: Tensor, g: Generator, widest: float, fs: float) -> Tensor:
    return op.frequency_mask(x, _uniform(x, g, 0, fs / 2), _uniform(x, g, 0, widest), fs)


def _noise(x: Tensor, g: Generator, loudest: float) -> Tensor:
    return op.noise(x, _normal(x, g, *x.shape[1:]), _uniform(x, g, 0, loudest))


def _baseline(x: Tensor, g: Generator, largest: float, fs: float) -> Tensor:
    hertz, level = _uniform(x, g, 0.05, 0.5), _uniform(x, g, 0, largest)
    return op.baseline_wander(x, hertz, _phase(x, g), level, fs)


def _mains(x: Tensor, g: Generator, largest: float, fs: float) -> Tensor:
    hertz = torch.where(_uniform(x, g, 0, 1) < 0.5, 50.0, 60.0).to(x.dtype)
    return op.mains(x, hertz, _phase(x, g), _uniform(x, g, 0, largest), fs)


def _motion(x: Tensor, g: Generator, largest: float, fs: float) -> Tensor:
    """About three knots a second: most of the power lies between a half and two hertz."""
    knots = _normal(x, g, x.shape[1], max(round(3 * x.shape[-1] / fs), 4))
    length = _uniform(x, g, 0.1, 0.5)
    start = (1 - length) * _uniform(x, g, 0, 1)
    return op.motion(x, knots, start, length, _uniform(x, g, 0, largest))


def _electrode(x: Tensor, g: Generator, highest: float, fs: float) -> Tensor:
    at = 2 * torch.rand(*x.shape[:2], generator=g, device=x.device, dtype=x.dtype)
    height = highest * (2 * torch.rand(at.shape, generator=g, device=x.device, dtype=x.dtype) - 1)
    return op.electrode(x, at, height, _uniform(x, g, 0.1, 1.0), fs)


def _cutout(x: Tensor, g: Generator, share: tuple[float, float]) -> Tensor:
    length = _uniform(x, g, *share)
    return op.cutout(x, (1 - length) * _uniform(x, g, 0, 1), length)


def _uniform(x: Tensor, g: Generator, low: float, high: float) -> Tensor:
    """One number a sample: (B,)."""
    drawn = torch.rand(x.shape[0], generator=g, device=x.device, dtype=x.dtype)
    return low + (high - low) * drawn


def _normal(x: Tensor, g: Generator, *shape: int) -> Tensor:
    return torch.randn(x.shape[0], *shape, generator=g, device=x.device, dtype=x.dtype)


def _knots(x: Tensor, g: Generator, spread: float) -> Tensor:
    """Five positive factors around 1 (the paper's re-implementation has four to six)."""
    return (1 + spread * _normal(x, g, 5)).clamp_min(0.1)


def _phase(x: Tensor, g: Generator) -> Tensor:
    drawn = torch.rand(*x.shape[:2], generator=g, device=x.device, dtype=x.dtype)
    return 2 * math.pi * drawn
