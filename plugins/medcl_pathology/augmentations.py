"""Named augmentations of tiles: each draws its parameters and applies them.

``x`` is (B, 3, H, W) in 0 … 1. Random numbers come from the generator; None: torch's own. A recipe
lists them under ``views.steps``, by the names in ``Plugin.augmentations``.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor

from medcl.augmentations import Positives, Share
from medcl_pathology import augment as op
from medcl_pathology import stain
from medcl_pathology.jpeg import jpeg as compressed

Random = Generator | None
Radius = Annotated[float, Field(ge=0, le=op.FOCUS)]
Quality = Annotated[float, Field(ge=1, le=100)]


def crop(
    x: Tensor, generator: Random, *, size: tuple[int, ...], zoom: Positives = (1.0, 2.5)
) -> Tensor:
    """Cut out a square at a random place and magnification (Chen 2020, arXiv 2002.05709).

    Args:
        x: (B, 3, H, W).
        generator: of the random numbers.
        size: of the result, in pixels; the views give it.
        zoom: bounds of how much larger than in the tile things appear, above 0: the view's mpp is
            the tile's divided by it. A smaller zoom than size / tile is raised to it.
    """
    return op.crop(x, size[0], uniform(x, generator, *zoom), corner(x, generator), zoom[0])


def mix(
    x: Tensor,
    generator: Random,
    *,
    batch: Tensor,
    by: Literal["macenko", "reinhard"] = "macenko",
) -> Tensor:
    """The stains of another tile of the batch (Macenko 2009, doi 10.1109/ISBI.2009.5193250).

    Args:
        x: (B, 3, H, W).
        generator: of the random numbers.
        batch: (N, 3, H, W) the tiles to take stains from.
        by: "macenko" (stains and their strength) or "reinhard" (mean and spread of colours:
            Reinhard 2001, doi 10.1109/38.946629).
    """
    other = torch.randint(len(batch), (len(x),), generator=generator, device=x.device)
    change = stain.to_macenko if by == "macenko" else stain.to_reinhard
    both = torch.cat([x, batch[other]])
    order = torch.arange(len(both), device=x.device)
    order[: len(x)] += len(x)
    return change(both, order)[: len(x)]


def symmetry(x: Tensor, generator: Random) -> Tensor:
    """One of the eight turns and reflections of the square, all alike; exact. Common practice.

    Args:
        x: (B, 3, H, W), H = W.
        generator: of the random numbers.
    """
    return op.turned(x, torch.randint(8, (len(x),), generator=generator, device=x.device))


def hed(x: Tensor, generator: Random, *, scale: Share = 0.05, shift: Share = 0.02) -> Tensor:
    """Other amounts of haematoxylin, eosin and DAB (Tellez 2018, doi 10.1109/TMI.2018.2820199).

    Args:
        x: (B, 3, H, W).
        generator: of the random numbers.
        scale: amounts are multiplied by up to 1 ± this, 0 to 1.
        shift: and shifted by up to ± this, in optical density, 0 to 1.
    """
    draw = 2 * torch.rand(2, len(x), 3, generator=generator, device=x.device) - 1
    return stain.jitter(x, 1 + scale * draw[0], shift * draw[1])


def tone(x: Tensor, generator: Random, *, brightness: Share = 0.1, contrast: Share = 0.1) -> Tensor:
    """Other brightness and contrast (Chen 2020, arXiv 2002.05709).

    Args:
        x: (B, 3, H, W).
        generator: of the random numbers.
        brightness: all values are multiplied by up to 1 ± this, 0 to 1.
        contrast: their distance from the mean is multiplied by up to 1 ± this, 0 to 1.
    """
    bright = uniform(x, generator, 1 - brightness, 1 + brightness)[:, None, None, None]
    strong = uniform(x, generator, 1 - contrast, 1 + contrast)[:, None, None, None]
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    return (((x - mean) * strong + mean) * bright).clamp(0, 1)


def grey(x: Tensor, generator: Random) -> Tensor:
    """No colour at all (Chen 2020, arXiv 2002.05709).

    Args:
        x: (B, 3, H, W).
        generator: not used.
    """
    return x.mean(dim=1, keepdim=True).expand_as(x)


def blur(x: Tensor, generator: Random, *, pixels: Positives = (0.3, 1.5)) -> Tensor:
    """Gaussian blur (Chen 2020, arXiv 2002.05709).

    Args:
        x: (B, 3, H, W).
        generator: of the random numbers.
        pixels: bounds of its standard deviation, in pixels, above 0.
    """
    return op.gaussian(x, uniform(x, generator, *pixels), pixels[1])


def focus(x: Tensor, generator: Random, *, pixels: tuple[Radius, Radius] = (1.0, 3.0)) -> Tensor:
    """Out of focus: the mean over a disk; ours.

    Args:
        x: (B, 3, H, W).
        generator: of the random numbers.
        pixels: bounds of its radius, in pixels, 0 to 4.
    """
    return op.defocus(x, uniform(x, generator, *pixels))


def compress(
    x: Tensor, generator: Random, *, quality: tuple[Quality, Quality] = (30.0, 90.0)
) -> Tensor:
    """The losses of JPEG, whose quantisation is that of ITU-T T.81; ours.

    Args:
        x: (B, 3, H, W).
        generator: of the random numbers.
        quality: bounds of its quality, 1 to 100.
    """
    return compressed(x, uniform(x, generator, *quality))


def uniform(x: Tensor, generator: Random, low: float, high: float) -> Tensor:
    """One number a tile: (B,)."""
    return low + (high - low) * torch.rand(len(x), generator=generator, device=x.device)


def corner(x: Tensor, generator: Random) -> Tensor:
    """Where in the free room a crop lies, along y and x: (B, 2) in 0 … 1."""
    return torch.rand(len(x), 2, generator=generator, device=x.device)
