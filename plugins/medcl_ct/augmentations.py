"""Named augmentations of CT: each draws its parameters and applies `medcl_ct.intensity` or
`medcl_ct.geometry`.

``x`` is (B, C, H, W) or (B, C, D, H, W) in Hounsfield units; C are neighbouring slices, or the
slices of a volume that are treated alike. Random numbers come from the generator; None: torch's
own. A recipe lists them under ``views.steps``. Each geometric step resamples once; the fixed order
of `medcl_ct.views.views` does all of them in one.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor

from medcl.augmentations import Bounds, Level, Levels, Positives, Share, Shares
from medcl.errors import UsageError
from medcl_ct import geometry
from medcl_ct import intensity as op
from medcl_ct.intensity import radians
from medcl_ct.views_draw import Dice, proportions

Random = Generator | None
Axis = Literal["head-foot", "front-back", "left-right"]
Window = Literal["abdomen", "angio", "bone", "brain", "chest", "lung"]
_AXES: dict[str, int] = {"head-foot": -3, "front-back": -2, "left-right": -1}


def crop(
    x: Tensor,
    generator: Random,
    *,
    size: tuple[int, ...],
    share: Shares = (0.3, 1.0),
    stretch: Annotated[float, Field(ge=1)] = 1.33,
) -> Tensor:
    """Cut out a part of a random area or volume, and proportions (Szegedy 2014, arXiv 1409.4842).

    Args:
        x: (B, C, *space) in HU.
        generator: of the random numbers.
        size: of the result, in voxels; the views give it.
        share: bounds of the part's area or volume, as a share of the whole, 0 to 1.
        stretch: the largest ratio of its sides to each other, 1 or more.
    """
    dice = Dice(len(x), x.device, generator)
    side = proportions(dice, len(size), share, stretch)
    centre = (1 - side) * dice.uniform(-1, 1, len(size))
    smallest = float(share[0]) ** (1 / len(size))
    return _moved(x, size=size, side=side, centre=centre, smallest=smallest)


def flip(x: Tensor, generator: Random, *, axes: tuple[Axis, ...] = ("left-right",)) -> Tensor:
    """Turn axes round; exact. A left-right flip moves the heart to the right. Common practice.

    Args:
        x: (B, C, *space) in HU.
        generator: not used.
        axes: all of them are turned round: head-foot (volumes only), front-back, left-right.
    """
    if "head-foot" in axes and x.dim() == 4:
        raise UsageError("views.steps: flip head-foot needs volumes (views.slices: volume).")
    return x.flip([x.dim() + _AXES[axis] for axis in axes])


def rotate(x: Tensor, generator: Random, *, degrees: Level = 15.0) -> Tensor:
    """Turn within the slice, in voxel space. Common practice.

    Args:
        x: (B, C, *space) in HU.
        generator: of the random numbers.
        degrees: the largest turn to either side, in degrees, 0 or more.
    """
    dice = Dice(len(x), x.device, generator)
    angle = radians(dice.uniform(-degrees, degrees, 1))
    if x.dim() == 5:
        angle = torch.cat([angle, torch.zeros(len(x), 2, device=x.device)], dim=1)
    return _moved(x, angle=angle)


def tilt(x: Tensor, generator: Random, *, degrees: Level = 10.0) -> Tensor:
    """Turn a volume about the other two axes, in voxel space. Common practice.

    Args:
        x: (B, C, D, H, W) in HU.
        generator: of the random numbers.
        degrees: the largest turn to either side, in degrees, 0 or more.
    """
    if x.dim() == 4:
        raise UsageError("views.steps: tilt needs volumes (views.slices: volume).")
    dice = Dice(len(x), x.device, generator)
    angle = radians(dice.uniform(-degrees, degrees, 2))
    return _moved(x, angle=torch.cat([torch.zeros(len(x), 1, device=x.device), angle], dim=1))


def elastic(
    x: Tensor,
    generator: Random,
    *,
    strength: Annotated[float, Field(ge=0, le=geometry.FOLDS_FROM)] = 0.2,
    knots: Annotated[int, Field(ge=1)] = 5,
) -> Tensor:
    """Deform smoothly (free-form deformation: Rueckert 1999, doi 10.1109/42.796284); cannot fold.

    Args:
        x: (B, C, *space) in HU.
        generator: of the random numbers.
        strength: the largest shift of a control point, in spacings of control points, 0 to 0.4.
        knots: control points along each axis, 1 or more.
    """
    dice, axes = Dice(len(x), x.device, generator), x.dim() - 2
    return _moved(x, shift=dice.uniform(-strength, strength, axes, *(knots + 3,) * axes))


def window(
    x: Tensor,
    generator: Random,
    *,
    shown: tuple[float, float],
    names: tuple[Window, ...] = ("abdomen", "angio", "bone", "chest", "lung"),
    jitter: Share = 0.2,
) -> Tensor:
    """Look through a display window of radiologists and spread it over ``shown``; ours.

    Args:
        x: (B, C, *space) in HU.
        generator: of the random numbers.
        shown: level and width in HU of the range that the encoder sees.
        names: windows to draw from, of `medcl_ct.intensity.WINDOWS`.
        jitter: level and width vary by up to this share of the width, 0 to 1.
    """
    if not names:
        raise UsageError("views.steps: window needs names to draw from.")
    dice = Dice(len(x), x.device, generator)
    presets = torch.tensor([op.WINDOWS[name] for name in names], device=x.device)  # (K, 2)
    which = (dice.uniform(0, 1) * len(presets)).long().clamp(max=len(presets) - 1)
    level, width = presets[which].unbind(1)
    level = level + dice.uniform(-jitter, jitter) * width
    return op.window(x, level, width * (1 + dice.uniform(-jitter, jitter)), shown)


def gamma(
    x: Tensor, generator: Random, *, shown: tuple[float, float], power: Positives = (0.7, 1.5)
) -> Tensor:
    """Bend the grey values within ``shown`` (as nnU-Net: Isensee 2021, arXiv 1904.08128).

    Args:
        x: (B, C, *space) in HU.
        generator: of the random numbers.
        shown: level and width in HU of the range that the encoder sees.
        power: bounds of the exponent, drawn log-uniformly, above 0.
    """
    low, high = (math.log(bound) for bound in power)
    return op.gamma(x, Dice(len(x), x.device, generator).uniform(low, high).exp(), shown)


def noise(x: Tensor, generator: Random, *, hu: Levels = (5.0, 40.0)) -> Tensor:
    """Add white noise, as of a lower dose; ours.

    Args:
        x: (B, C, *space) in HU.
        generator: of the random numbers.
        hu: bounds of its standard deviation, in HU, 0 or more.
    """
    level = Dice(len(x), x.device, generator).uniform(*hu)
    return op.noise(x, _white(x, generator), level)


def blur(x: Tensor, generator: Random, *, voxels: Levels = (0.3, 1.0)) -> Tensor:
    """Gaussian blur, along all axes (as nnU-Net: Isensee 2021, arXiv 1904.08128).

    Args:
        x: (B, C, *space) in HU.
        generator: of the random numbers.
        voxels: bounds of its standard deviation, in voxels, 0 to about 1.
    """
    sigma = Dice(len(x), x.device, generator).uniform(*voxels)
    return op.kernel(x, _each_axis(sigma, x), torch.ones_like(sigma))


def sharpen(x: Tensor, generator: Random, *, strength: Levels = (0.3, 1.0)) -> Tensor:
    """Unsharp masking along all axes, by a blur of one voxel. Common practice.

    Args:
        x: (B, C, *space) in HU.
        generator: of the random numbers.
        strength: bounds of its strength, 0 or more.
    """
    chosen = Dice(len(x), x.device, generator).uniform(*strength)
    return op.kernel(x, _each_axis(torch.ones_like(chosen), x), -chosen)


def kernel(
    x: Tensor, generator: Random, *, strength: Bounds = (-1.0, 1.0), hu: Levels = (5.0, 40.0)
) -> Tensor:
    """Another reconstruction kernel: noise, then smoothing or sharpening within the slice; ours.

    Args:
        x: (B, C, *space) in HU.
        generator: of the random numbers.
        strength: bounds, from −1, as sharp as unsharp masking by 1, to 1, a soft kernel.
        hu: bounds of the noise's standard deviation, in HU, 0 or more.
    """
    dice = Dice(len(x), x.device, generator)
    chosen, level = dice.uniform(*strength), dice.uniform(*hu)
    sigma = _each_axis(torch.ones_like(chosen), x)
    if x.dim() == 5:
        sigma[:, 0] = 0.0
    return op.kernel(op.noise(x, _white(x, generator), level), sigma, chosen)


def cutout(
    x: Tensor, generator: Random, *, shown: tuple[float, float], share: Shares = (0.1, 0.3)
) -> Tensor:
    """Fill a box with one random value (DeVries 2017, arXiv 1708.04552).

    Args:
        x: (B, C, *space) in HU.
        generator: of the random numbers.
        shown: level and width in HU of the range that the value is drawn from.
        share: bounds of the box's sides, as shares of the view's, 0 to 1.
    """
    dice, axes = Dice(len(x), x.device, generator), x.dim() - 2
    side = dice.uniform(*share, axes)
    start = (1 - side) * dice.uniform(0, 1, axes)
    low, high = shown[0] - shown[1] / 2, shown[0] + shown[1] / 2
    return op.cutout(x, start, side, dice.uniform(low, high))


def drop_slices(x: Tensor, generator: Random, *, share: Share = 0.2) -> Tensor:
    """Empty some slices of a volume: they become air; ours.

    Args:
        x: (B, C, D, H, W) in HU.
        generator: of the random numbers.
        share: the largest share of slices that are emptied, 0 to 1.
    """
    if x.dim() == 4:
        raise UsageError("views.steps: drop_slices needs volumes (views.slices: volume).")
    dice = Dice(len(x), x.device, generator)
    some = dice.uniform(0, share)
    return op.drop_slices(x, dice.uniform(0, 1, x.shape[2]) < some[:, None])


def whole(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """All of ``x`` (B, C, *space), resampled to (B, C, *size)."""
    return x if tuple(x.shape[2:]) == size else _moved(x, size=size)


def _moved(
    x: Tensor,
    *,
    size: tuple[int, ...] | None = None,
    angle: Tensor | None = None,
    side: Tensor | None = None,
    centre: Tensor | None = None,
    shift: Tensor | None = None,
    smallest: float = 1.0,
) -> Tensor:
    """One geometric resample; what is not given leaves things as they are."""
    axes, space = x.dim() - 2, tuple(x.shape[2:])
    size = space if size is None else size
    zero = torch.zeros(len(x), axes, device=x.device)
    angle = torch.zeros(len(x), 1 if axes == 2 else 3, device=x.device) if angle is None else angle
    side = zero + 1 if side is None else side
    matrix = geometry.linear(angle, side, zero + 1, space)
    points = geometry.lattice(matrix, zero if centre is None else centre, shift)
    return geometry.resample(geometry.shrink(x, size, smallest), points, size)


def _white(x: Tensor, generator: Random) -> Tensor:
    return torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)


def _each_axis(sigma: Tensor, x: Tensor) -> Tensor:
    return sigma[:, None].repeat(1, x.dim() - 2)
