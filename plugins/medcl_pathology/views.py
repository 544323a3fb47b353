"""Batched views of RGB tiles on the training device: geometry, stain, focus, compression.

Every step acts on the samples that a coin chose, the whole of them at once, with its own draw for
each; random numbers come from the generator that is handed in and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Generator, Tensor, nn

from medcl.augmentations import Step, beside_steps
from medcl.errors import UsageError
from medcl.nn.augment import augment
from medcl_pathology import augmentations as named
from medcl_pathology import stain
from medcl_pathology.augment import FOCUS, crop, middle, turned
from medcl_pathology.augmentations import corner, uniform


def views(
    *,
    steps: Sequence[Mapping[str, Any]] | None = None,
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
        steps: named augmentations in the order in which they happen, instead of all that follows
            but ``size``, ``local_size`` and ``local_zoom``: see
            `medcl_pathology.views_composed.composed`. None: the order of the names below.
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
        ``size`` is smaller. Without a generator, random numbers come from torch's own.

    Raises:
        UsageError: for bounds that make no sense, steps that do not fit, or another augmentation
            set beside them.
    """
    if steps is not None:
        from medcl_pathology.views_composed import composed

        beside_steps(views, composed, locals())
        return composed(steps, size=size, local_size=local_size, local_zoom=local_zoom)
    if min(*zoom, *local_zoom) <= 0 or zoom[0] > zoom[1] or local_zoom[0] > local_zoom[1]:
        raise UsageError("views.zoom and local_zoom are two positive numbers, the smaller first.")
    if focus_pixels[1] > FOCUS or not 1 <= quality[0] <= quality[1] <= 100:
        raise UsageError(f"views.focus_pixels is at most {FOCUS}; views.quality 1 to 100.")
    if size < 0 or local_size < 0:
        raise UsageError("views.size and local_size are 0 or more.")
    order: list[tuple[float, Callable[..., Tensor], dict[str, Any]]] = [
        (hed, named.hed, {"scale": hed_scale, "shift": hed_shift}),
        (hed, named.tone, {"brightness": brightness, "contrast": contrast}),
        (grey, named.grey, {}),
        (blur, named.blur, {"pixels": blur_pixels}),
        (focus, named.focus, {"pixels": focus_pixels}),
        (compress, named.compress, {"quality": quality}),
    ]
    return TileViews(
        {"global": size, "local": local_size},
        {"global": zoom, "local": local_zoom},
        symmetry,
        mix,
        mix_with,
        tuple(Step(function.__name__, p, function, settings) for p, function, settings in order),
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
        steps: tuple[Step, ...],
        of_colours: float = 0.0,
    ) -> None:
        super().__init__()
        self.of_colours = of_colours
        self.sizes, self.zooms, self.symmetry = sizes, zooms, symmetry
        self.mix, self.mix_with, self.steps = mix, mix_with, steps

    def forward(
        self, x: Tensor, generator: Generator | None = None, kind: str = "global"
    ) -> Tensor:
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
        size = view_size(self.sizes, kind, x)
        if self.mix > 0:  # before cropping: a whole tile says more of its stain
            x = self._mixed(x, generator)
        zoom = self.zooms[kind]
        x = crop(x, size, uniform(x, generator, *zoom), corner(x, generator), zoom[0])
        if self.symmetry > 0:
            turn = torch.randint(8, (len(x),), generator=generator, device=x.device)
            x = turned(x, torch.where(_coin(x, generator, self.symmetry), turn, 0))
        for step in self.steps:
            x = augment(step, x, generator)
        return x

    def _mixed(self, x: Tensor, generator: Generator | None) -> Tensor:
        order = torch.randperm(len(x), generator=generator, device=x.device)
        change = stain.to_macenko if self.mix_with == "macenko" else stain.to_reinhard
        chosen = _coin(x, generator, self.mix)
        return torch.where(chosen[:, None, None, None], change(x, order), x)


def view_size(sizes: Mapping[str, int], kind: str, x: Tensor) -> int:
    """The side of a view of tiles ``x`` (B, 3, H, W), in pixels."""
    size = sizes["global"] or min(x.shape[2:])
    return size if kind == "global" else sizes["local"] or max(size // 2, 1)


def _coin(x: Tensor, g: Generator | None, chance: float) -> Tensor:
    return torch.rand(len(x), generator=g, device=x.device) < chance
