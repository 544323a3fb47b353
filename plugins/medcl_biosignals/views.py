"""Batched views of signals on the training device: augmentations in a fixed or a given order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Generator, Tensor, nn

from medcl.augmentations import BATCH, Step, beside_steps, build
from medcl.errors import UsageError
from medcl.seeds import host_uniform
from medcl_biosignals import augment as op
from medcl_biosignals import augmentations as named
from medcl_biosignals.augmentations import uniform


def views(
    *,
    steps: Sequence[Mapping[str, Any]] | None = None,
    fs: float = 125.0,
    piece: float = 1.0,
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
    (Abbaspourazad 2024, arXiv 2312.05409); their strengths are those of the authors' code, see the
    defaults. Flipping time is left out: it turns one arrhythmia into another.

    Args:
        steps: named augmentations in the order in which they happen, instead of all that follows
            but ``fs`` and ``local_share``: see `composed`. None: the order of the names below.
        fs: sampling rate of what the views are given, in Hz.
        piece: the part of the window that each view keeps, at another place each, not stretched;
            1.0 keeps it all. That pieces of a recording are alike is CLOCS's idea (Kiyasseh 2021,
            arXiv 2005.13249); half the length takes half the work.
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
        shorter crop (T′ < T) with the same augmentations; "none", the input as it is. Without a
        generator, random numbers come from torch's own.

    Raises:
        UsageError: for steps that do not fit, or another augmentation set beside them.
    """
    if steps is not None:
        beside_steps(views, composed, locals())
        return composed(steps, fs=fs, local_share=local_share, piece=piece)
    order: list[tuple[float, Callable[..., Tensor], dict[str, Any]]] = [
        (crop, named.crop, {"share": crop_share}),
        (shift, named.shift, {"share": shift_share}),
        (stretch, named.stretch, {"share": stretch_share}),
        (time_warp, named.time_warp, {"level": time_warp_speed}),
        (magnitude_warp, named.magnitude_warp, {"level": magnitude_warp_level}),
        (scale, named.scale, {"level": scale_level}),
        (rotate, named.rotate, {"level": rotate_level}),
        (vcg, named.vcg, {"degrees": vcg_degrees, "scale": vcg_scale}),
        (flip_sign, named.flip_sign, {}),
        (channel_drop, named.channel_drop, {}),
        (channel_permute, named.channel_permute, {}),
        (colour, named.colour, {"level": colour_level, "fs": fs}),
        (phase, named.phase, {"level": phase_level, "fs": fs}),
        (low_pass, named.low_pass, {"hertz": low_pass_hertz, "fs": fs}),
        (frequency_mask, named.frequency_mask, {"hertz": frequency_mask_hertz, "fs": fs}),
        (noise, named.noise, {"level": noise_level}),
        (baseline, named.baseline, {"level": baseline_level, "fs": fs}),
        (mains, named.mains, {"level": mains_level, "fs": fs}),
        (motion, named.motion, {"level": motion_level, "fs": fs}),
        (electrode, named.electrode, {"level": electrode_level, "fs": fs}),
        (cutout, named.cutout, {"share": cutout_share}),
    ]
    chosen = [Step(f.__name__, p, f, settings) for p, f, settings in order if p > 0]
    return SignalViews(tuple(chosen), local_share, piece)


def composed(
    steps: Sequence[Mapping[str, Any]],
    *,
    fs: float = 125.0,
    local_share: tuple[float, float] = (0.2, 0.5),
    piece: float = 1.0,
) -> nn.Module:
    """Views of named augmentations, in the order of the list.

    Args:
        steps: ``{name, p, ...}`` each: one of `medcl_biosignals.augmentations`, or
            ``module:function``; the probability that a sample gets it; its settings. See
            `medcl.augmentations`. Every function is given the whole batch.
        fs: sampling rate of what the views are given, in Hz.
        local_share: bounds of the part that a "local" view keeps, as a share of the window, 0 to 1.
        piece: the part that a "global" view keeps.

    Returns:
        see `views`.

    Raises:
        UsageError: for an unknown augmentation or setting.
    """
    from medcl_biosignals.plugin import plugin

    beside = {"fs": fs, "local_share": local_share}
    return SignalViews(build(steps, plugin.augmentations, beside), local_share, piece)


class SignalViews(nn.Module):
    """Applies each step to the samples that a coin chooses. See `views`."""

    def __init__(
        self, steps: tuple[Step, ...], local_share: tuple[float, float], piece: float = 1.0
    ) -> None:
        super().__init__()
        if not 0 < piece <= 1:
            raise UsageError(f"views.piece = {piece:g}: give a share above 0, up to 1.")
        self.steps, self.piece = steps, piece
        self.local_share = local_share

    def forward(
        self, x: Tensor, generator: Generator | None = None, kind: str = "global"
    ) -> Tensor:
        if kind == "none":
            return x
        if kind == "local":
            x = _local(x, generator, self.local_share)
        elif kind == "global" and self.piece < 1:
            x = _local(x, generator, (self.piece, self.piece))
        elif kind != "global":
            raise ValueError(f"views of biosignals are global, local or none, not '{kind}'")
        at_once = len(self.steps) == 1 and self.steps[0].p >= 1  # it writes its result only once
        if at_once or any(BATCH in step.asks for step in self.steps):
            return self._augmented(x, generator)
        out = torch.empty_like(x)
        for part, result in op.parts(x, out):
            result.copy_(self._augmented(part, generator))
        return out

    def _augmented(self, x: Tensor, generator: Generator | None) -> Tensor:
        for step in self.steps:
            if step.p >= 1:
                x = step(x, generator, {BATCH: x})
                continue
            chosen = uniform(x, generator, 0, 1) < step.p
            x = torch.where(chosen.view(-1, 1, 1), step(x, generator, {BATCH: x}), x)
        return x


def _local(x: Tensor, g: Generator | None, share: tuple[float, float]) -> Tensor:
    """One length for the batch, another start for each sample, no stretching."""
    part = share[0] + (share[1] - share[0]) * host_uniform(g)
    size = max(round(part * x.shape[-1]), 2)
    length = torch.full_like(x[:, 0, 0], (size - 1) / max(x.shape[-1] - 1, 1))
    return op.crop_resize(x, (1 - length) * uniform(x, g, 0, 1), length, size)
