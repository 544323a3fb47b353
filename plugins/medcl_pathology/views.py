"""Batched views of RGB tiles on the training device: geometry, stain, focus, compression.

Every step acts on the samples that a coin chose, the whole of them at once, with its own draw for
each; random numbers come from the generator that is handed in and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from medcl.errors import UsageError
from medcl_pathology import stain
from medcl_pathology.jpeg import jpeg

_FOCUS = 4  # the largest radius of defocus, in pixels


def views(
    *,
    size: int = 0,
    local_size: int = 0,
    zoom: tuple[float, float] = (1.0, 2.5),
    local_zoom: tuple[float, float] = (1.0, 2.0),
    symmetry: float = 1.0,
    hed: float = 0.8,
    hed_scale: float = 0.05,
    hed_shift: float = 0.02,
    mix: float = 0.0,
    mix_with: Literal["macenko", "reinhard"] = "macenko",
    brightness: float = 0.1,
    contrast: float = 0.1,
    grey: float = 0.0,
    blur: float = 0.3,
    blur_pixels: tuple[float, float] = (0.3, 1.5),
    focus: float = 0.0,
    focus_pixels: tuple[float, float] = (1.0, 3.0),
    compress: float = 0.2,
    quality: tuple[float, float] = (30.0, 90.0),
) -> nn.Module:
    """The augmentations of a recipe; a name alone is the probability that a sample gets it.

    Args:
        size: of a view, in pixels; 0: the tile's.
        local_size: of a "local" view; 0: half of ``size``.
        zoom: how much larger than in the tile things may appear: the view's mpp is the tile's
            divided by it, so this is a physical scale. A view cannot show more than the tile, so
            that a smaller zoom than size / tile is raised to it.
        local_zoom: that of a "local" view.
        symmetry: one of the eight turns and reflections of the square, all alike.
        hed: other amounts of haematoxylin, eosin and DAB (Tellez 2018).
        hed_scale: amounts are multiplied by up to 1 ± this.
        hed_shift: and shifted by up to ± this.
        mix: the stains of another image of the batch.
        mix_with: "macenko" (stains and their strength) or "reinhard" (mean and spread of colours).
        brightness: all values are multiplied by up to 1 ± this; with the coin of ``hed``.
        contrast: their distance from the mean likewise.
        grey: no colour at all.
        blur: Gaussian blur.
        blur_pixels: bounds of its standard deviation.
        focus: out of focus: the mean over a disk.
        focus_pixels: bounds of its radius, at most 4.
        compress: the losses of JPEG.
        quality: bounds of its quality.

    Returns:
        a module ``(x, generator, kind) -> view`` for x (B, 3, H, W) in 0 … 1. Kinds: "global";
        "local", a smaller crop of another size; "none", the tile as it is, in its middle if
        ``size`` is smaller.

    Raises:
        UsageError: for bounds that make no sense.
    """
    if min(*zoom, *local_zoom) <= 0 or zoom[0] > zoom[1] or local_zoom[0] > local_zoom[1]:
        raise UsageError("views.zoom and local_zoom are two positive numbers, the smaller first.")
    if focus_pixels[1] > _FOCUS or not 1 <= quality[0] <= quality[1] <= 100:
        raise UsageError(f"views.focus_pixels is at most {_FOCUS}; views.quality 1 to 100.")
    if size < 0 or local_size < 0:
        raise UsageError("views.size and local_size are 0 or more.")
    steps: list[tuple[float, Callable[[Tensor, Generator], Tensor]]] = [
        (hed, lambda x, g: _stains(x, g, hed_scale, hed_shift)),
        (hed, lambda x, g: _tone(x, g, brightness, contrast)),
        (grey, lambda x, g: x.mean(dim=1, keepdim=True).expand_as(x)),
        (blur, lambda x, g: gaussian(x, _uniform(x, g, *blur_pixels))),
        (focus, lambda x, g: defocus(x, _uniform(x, g, *focus_pixels))),
        (compress, lambda x, g: jpeg(x, _uniform(x, g, *quality))),
    ]
    return TileViews(
        {"global": size, "local": local_size},
        {"global": zoom, "local": local_zoom},
        symmetry,
        mix,
        mix_with,
        steps,
        of_colours=max(hed, grey, compress),
    )


class TileViews(nn.Module):
    """See `views`."""

    def __init__(
        self,
        sizes: dict[str, int],
        zooms: dict[str, tuple[float, float]],
        symmetry: float,
        mix: float,
        mix_with: Literal["macenko", "reinhard"],
        steps: list[tuple[float, Callable[[Tensor, Generator], Tensor]]],
        of_colours: float = 0.0,
    ) -> None:
        super().__init__()
        self.of_colours = of_colours
        self.sizes, self.zooms, self.symmetry = sizes, zooms, symmetry
        self.mix, self.mix_with, self.steps = mix, mix_with, steps

    def forward(self, x: Tensor, generator: Generator, kind: str = "global") -> Tensor:
        """(B, 3, H, W) → (B, 3, size, size).

        Raises:
            UsageError: for another kind of view, or steps for RGB on other channels.
        """
        if x.shape[1] != 3 and (self.mix > 0 or self.of_colours > 0):
            raise UsageError(
                f"Tiles of {x.shape[1]} channels have no stain and no JPEG: set views.hed, "
                "views.mix, views.grey and views.compress to 0, as recipe "
                "pathology/simclr-multiplex does."
            )
        if kind == "none":
            return middle(x, self.sizes["global"] or x.shape[-1])
        if kind not in self.sizes:
            raise UsageError(f"Views of tiles are global, local or none, not '{kind}'.")
        size = self.sizes["global"] or min(x.shape[2:])
        if kind == "local":
            size = self.sizes["local"] or max(size // 2, 1)
        if self.mix > 0:  # before cropping: a whole tile says more of its stain
            x = self._mixed(x, generator)
        x = crop(x, size, _uniform(x, generator, *self.zooms[kind]), _corner(x, generator))
        if self.symmetry > 0:
            turn = torch.randint(8, (len(x),), generator=generator, device=x.device)
            x = turned(x, torch.where(_coin(x, generator, self.symmetry), turn, 0))
        for chance, step in self.steps:
            x = _some(x, _coin(x, generator, chance), generator, step)
        return x

    def _mixed(self, x: Tensor, generator: Generator) -> Tensor:
        order = torch.randperm(len(x), generator=generator, device=x.device)
        change = stain.to_macenko if self.mix_with == "macenko" else stain.to_reinhard
        chosen = _coin(x, generator, self.mix)
        return torch.where(chosen[:, None, None, None], change(x, order), x)


def crop(x: Tensor, size: int, zoom: Tensor, corner: Tensor) -> Tensor:
    """Squares of size / zoom pixels, at most the image, resampled to ``size``.

    Args:
        x: (B, 3, H, W).
        size: of the result.
        zoom: (B,).
        corner: (B, 2) where in the free room along y, x, 0 … 1.

    Returns:
        (B, 3, size, size).
    """
    height, width = x.shape[2:]
    side = (size / zoom).clamp(max=min(height, width))  # (B,) pixels
    largest = float(side.max())
    if largest > 1.5 * size:  # averaged first, or fine detail would turn into coarse noise
        factor = largest / size
        x = F.interpolate(x, size=(round(height / factor), round(width / factor)), mode="area")
        side = side * (x.shape[2] / height)
        height, width = x.shape[2:]
    extent = torch.tensor([height, width], device=x.device, dtype=x.dtype)
    first = corner * (extent - side[:, None])  # (B, 2)
    middle_ = (first + side[:, None] / 2) / extent * 2 - 1  # (B, 2) in −1 … 1
    theta = torch.zeros(len(x), 2, 3, device=x.device, dtype=x.dtype)
    theta[:, 0, 0], theta[:, 1, 1] = side / width, side / height
    theta[:, 0, 2], theta[:, 1, 2] = middle_[:, 1], middle_[:, 0]
    grid = F.affine_grid(theta, [len(x), x.shape[1], size, size], align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


def middle(x: Tensor, size: int) -> Tensor:
    """The middle of images, which are left as they are where they are smaller."""
    top, left = (max((n - size) // 2, 0) for n in x.shape[2:])
    return x[..., top : top + size, left : left + size]


def turned(x: Tensor, turn: Tensor) -> Tensor:
    """One of the eight symmetries of the square for each image, exact: turn (B,) in 0 … 7.

    ``turn % 4`` quarter turns, after a reflection where ``turn`` is 4 or more.
    """
    out = torch.empty_like(x)
    for n in range(8):
        at = (turn == n).nonzero()[:, 0]
        if len(at):
            part = x[at].flip(3) if n >= 4 else x[at]
            out[at] = part.rot90(n % 4, (2, 3))
    return out


def gaussian(x: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur of each image by its own standard deviation (B,), in pixels."""
    reach = max(int(3 * float(sigma.max()) + 0.5), 1)
    place = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-(place**2) / (2 * sigma[:, None].clamp(min=1e-3) ** 2))
    kernel = kernel / kernel.sum(dim=1, keepdim=True)  # (B, K)
    for shape in ((1, -1), (-1, 1)):
        x = _filtered(x, kernel.unflatten(1, shape))
    return x


def defocus(x: Tensor, radius: Tensor) -> Tensor:
    """Out of focus: the mean over a disk of each image's own radius (B,), in pixels."""
    place = torch.arange(-_FOCUS, _FOCUS + 1, device=x.device, dtype=x.dtype)
    away = (place[:, None] ** 2 + place**2).sqrt()
    kernel = (radius[:, None, None] + 0.5 - away).clamp(0, 1)  # soft at its edge
    return _filtered(x, kernel / kernel.sum(dim=(1, 2), keepdim=True))


def _filtered(x: Tensor, kernel: Tensor) -> Tensor:
    """Each image with its own kernel (B, Kh, Kw); edges are mirrored."""
    high, wide = kernel.shape[1] // 2, kernel.shape[2] // 2
    mode = "reflect" if high < x.shape[2] and wide < x.shape[3] else "replicate"
    padded = F.pad(x, (wide, wide, high, high), mode=mode)
    batch, channels = x.shape[:2]
    each = kernel.repeat_interleave(channels, dim=0)[:, None]  # (B·C, 1, Kh, Kw)
    out = F.conv2d(padded.flatten(0, 1)[None], each, groups=batch * channels)
    return out.unflatten(1, (batch, channels))[0]


def _stains(x: Tensor, g: Generator, scale: float, shift: float) -> Tensor:
    draw = 2 * torch.rand(2, len(x), 3, generator=g, device=x.device) - 1
    return stain.jitter(x, 1 + scale * draw[0], shift * draw[1])


def _tone(x: Tensor, g: Generator, brightness: float, contrast: float) -> Tensor:
    bright = _uniform(x, g, 1 - brightness, 1 + brightness)[:, None, None, None]
    strong = _uniform(x, g, 1 - contrast, 1 + contrast)[:, None, None, None]
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    return (((x - mean) * strong + mean) * bright).clamp(0, 1)


def _uniform(x: Tensor, g: Generator, low: float, high: float) -> Tensor:
    return low + (high - low) * torch.rand(len(x), generator=g, device=x.device)


def _corner(x: Tensor, g: Generator) -> Tensor:
    return torch.rand(len(x), 2, generator=g, device=x.device)


def _coin(x: Tensor, g: Generator, chance: float) -> Tensor:
    return torch.rand(len(x), generator=g, device=x.device) < chance


def _some(
    x: Tensor, chosen: Tensor, g: Generator, step: Callable[[Tensor, Generator], Tensor]
) -> Tensor:
    """``x`` with its chosen (B,) rows replaced by what ``step`` gives of them."""
    at = chosen.nonzero()[:, 0]
    if len(at) == len(x):
        return step(x, g)
    if len(at):
        x = x.clone()
        x[at] = step(x[at], g)
    return x
