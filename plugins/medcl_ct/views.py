"""Batched views of CT on the training device, in Hounsfield units; 2D and 3D from the same code.

`views` says what a recipe may set, `draw` draws a view's parameters for the whole batch, and
`CTViews` applies them: one geometric resample (`medcl_ct.geometry`), then intensity steps
(`medcl_ct.intensity`) on the samples that a coin chose.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Generator, Tensor, nn

from medcl.augmentations import beside_steps
from medcl.errors import UsageError
from medcl.nn.host import chosen_rows
from medcl_ct import geometry
from medcl_ct import intensity as op
from medcl_ct.augmentations import Axis
from medcl_ct.kinds import Kind, only_of_ct
from medcl_ct.views_draw import Parameters, Settings, draw
from medcl_ct.views_size import Slices, starts, view_size

_CACHED = 2**18  # voxels


def views(
    *,
    steps: Sequence[Mapping[str, Any]] | None = None,
    slices: Slices = "volume",
    size: tuple[int, ...] = (),
    local_size: tuple[int, ...] = (),
    crop: float = 1.0,
    crop_share: tuple[float, float] = (0.3, 1.0),
    local_share: tuple[float, float] = (0.05, 0.3),
    stretch: float = 1.33,
    flip: float = 0.5,
    flip_axes: tuple[Axis, ...] = ("left-right",),
    rotate: float = 0.5,
    rotate_degrees: float = 15.0,
    tilt_degrees: float = 0.0,
    elastic: float = 0.0,
    elastic_strength: float = 0.2,
    elastic_knots: int = 5,
    window: float = 0.5,
    windows: tuple[str, ...] = ("abdomen", "angio", "bone", "chest", "lung"),
    window_jitter: float = 0.2,
    shown: tuple[float, float] = (0.0, 2000.0),
    gamma: float = 0.2,
    gamma_power: tuple[float, float] = (0.7, 1.5),
    noise: float = 0.3,
    noise_hu: tuple[float, float] = (5.0, 40.0),
    blur: float = 0.2,
    blur_voxels: tuple[float, float] = (0.3, 1.0),
    sharpen: float = 0.1,
    sharpen_strength: tuple[float, float] = (0.3, 1.0),
    kernel: float = 0.1,
    kernel_strength: tuple[float, float] = (-1.0, 1.0),
    cutout: float = 0.0,
    cutout_share: tuple[float, float] = (0.1, 0.3),
    drop_slices: float = 0.0,
    drop_share: float = 0.2,
    modality: Kind = "ct",
) -> nn.Module:
    """The augmentations of a recipe; a name alone is the probability that a sample gets it.

    Args:
        steps: named augmentations in the order in which they happen, instead of all that follows
            but ``slices``, ``size``, ``local_size``, ``local_share`` and ``shown``: see
            `medcl_ct.views_composed.composed`. None: the order of a scanner, in one resample.
        slices: what a view of a volume is. "volume": one transformation in three axes.
            "consistent": one transformation within the slice, the same for all slices of a volume
            (CVRL: Qian 2021, arXiv 2008.03800). "independent": one for each slice. The last two
            keep slices parallel and in place. Images are the same in all three.
        size: of a view, in voxels, (H, W) or (D, H, W); one number for all axes; empty: as it came.
            Where slices stay in place, D slices in a row are cut out at a random position: the
            distance k of two such views of T positions has the density (2/T)(1 − k/T), which is
            the one that CVRL recommends.
        local_size: of a "local" view; empty: half of ``size``.
        crop: cut out a part of a random area or volume, and proportions.
        crop_share: how large a part, of the area or volume (SimCLR's random resized crop).
        local_share: how large a part a "local" view is.
        stretch: largest ratio of a crop's sides to each other.
        flip: turn each of ``flip_axes`` round, each with this probability.
        flip_axes: a left-right flip moves the heart to the right: leave it out where that matters.
        rotate: turn by up to ``rotate_degrees`` within the slice.
        rotate_degrees: largest turn within the slice, in voxel space.
        tilt_degrees: largest turn about the other two axes of a volume, with the same coin.
        elastic: deform smoothly; cannot fold.
        elastic_strength: largest shift of a control point, in spacings of control points; ≤ 0.4.
        elastic_knots: control points along each axis.
        window: look through a display window drawn from ``windows`` and spread it over ``shown``.
        windows: names from `medcl_ct.intensity.WINDOWS`.
        window_jitter: level and width vary by up to this share of the width.
        shown: level and width of the range that the encoder sees.
        gamma: bend grey values within ``shown``.
        gamma_power: bounds of the exponent, drawn log-uniformly.
        noise: white noise.
        noise_hu: bounds of its standard deviation.
        blur: Gaussian blur. At most one of blur, sharpen and kernel happens to a view.
        blur_voxels: bounds of its standard deviation, along all axes of the view.
        sharpen: unsharp masking.
        sharpen_strength: bounds of its strength.
        kernel: another reconstruction kernel: noise, then smoothing or sharpening within the slice.
        kernel_strength: from −1, as sharp as unsharp masking by 1, to 1, a soft kernel.
        cutout: fill a box with one random value.
        cutout_share: bounds of its sides, as shares of the view's.
        drop_slices: empty some slices of a volume.
        drop_share: the largest share of slices that are emptied.
        modality: what is seen, from ``prepare.modality``; MR and PET have no windows.

    Returns:
        a module ``(x, generator, kind) -> view`` for x (B, 1, H, W) or (B, 1, D, H, W) in HU.
        Kinds: "global"; "local", a smaller crop of another size; "none", the input as it is.
        Without a generator, random numbers come from torch's own.

    Raises:
        UsageError: for steps that do not fit, or another augmentation set beside them; an unknown
            window, shifts that may fold space, or probabilities of blur,
            sharpen and kernel that exceed 1 together.
    """
    if steps is not None:
        from medcl_ct.views_composed import composed

        beside_steps(views, composed, locals())
        return composed(
            steps,
            slices=slices,
            size=size,
            local_size=local_size,
            local_share=local_share,
            shown=shown,
            modality=modality,
        )
    if window > 0:
        only_of_ct(modality, "window")
    unknown = sorted(set(windows) - set(op.WINDOWS))
    if unknown or not windows:
        known = ", ".join(op.WINDOWS)
        raise UsageError(f"views.windows holds {unknown or 'nothing'}; choose from {known}.")
    if not 0 <= elastic_strength <= geometry.FOLDS_FROM:
        raise UsageError(
            f"views.elastic_strength is {elastic_strength}: between 0 and {geometry.FOLDS_FROM}, "
            "beyond which a deformation may fold."
        )
    if blur + sharpen + kernel > 1:
        raise UsageError("views.blur, sharpen and kernel exclude each other: their sum exceeds 1.")
    settings = Settings(
        crop=crop,
        stretch=stretch,
        flip=tuple(
            flip if axis in flip_axes else 0.0 for axis in ("head-foot", "front-back", "left-right")
        ),
        rotate=rotate,
        rotate_degrees=rotate_degrees,
        tilt_degrees=tilt_degrees,
        elastic=elastic,
        elastic_strength=elastic_strength,
        elastic_knots=elastic_knots,
        window=window,
        windows=tuple(op.WINDOWS[name] for name in windows),
        window_jitter=window_jitter,
        shown=shown,
        gamma=gamma,
        gamma_power=gamma_power,
        noise=noise,
        noise_hu=noise_hu,
        blur=blur,
        blur_voxels=blur_voxels,
        sharpen=sharpen,
        sharpen_strength=sharpen_strength,
        kernel=kernel,
        kernel_strength=kernel_strength,
        cutout=cutout,
        cutout_share=cutout_share,
        drop_slices=drop_slices,
        drop_share=drop_share,
    )
    return CTViews(
        settings, slices, {"global": size, "local": local_size}, crop_share, local_share, modality
    )


class CTViews(nn.Module):
    """See `views`. `view` also returns the parameters."""

    def __init__(
        self,
        settings: Settings,
        slices: Slices,
        sizes: dict[str, tuple[int, ...]],
        crop_share: tuple[float, float],
        local_share: tuple[float, float],
        modality: Kind = "ct",
    ) -> None:
        super().__init__()
        self.modality = modality
        self.settings, self.slices, self.sizes = settings, slices, sizes
        self.shares = {"global": crop_share, "local": local_share}

    @property
    def shown(self) -> tuple[float, float]:
        """Level and width in HU of the range that the encoder sees."""
        return self.settings.shown

    def forward(
        self, x: Tensor, generator: Generator | None = None, kind: str = "global"
    ) -> Tensor:
        return x if kind == "none" else self.view(x, generator, kind)[0]

    def view(
        self, x: Tensor, generator: Generator | None = None, kind: str = "global"
    ) -> tuple[Tensor, Parameters]:
        """A view and what was drawn for it: what a pretext task predicts, and tests check.

        Returns:
            the view, and its parameters by name (`medcl_ct.views_draw.draw`), a row a sample; with
            independent slices of a volume (B, 1, D, H, W), a row for each of the B·D slices.

        Raises:
            UsageError: for another kind, or a size that does not fit ``x``.
        """
        if kind not in self.shares:
            raise UsageError(f"Views of CT are global, local or none, not '{kind}'.")
        size = view_size(self.sizes, kind, x.shape[2:], whole=self.slices == "volume")
        share = self.shares[kind]
        if x.dim() == 4 or self.slices == "volume":
            p = draw(self.settings, x, size, share, generator)
            return self._drop(_apply(x, p, size, self.settings.shown, share, generator), p), p
        start = starts(x, size[0], generator)
        x = geometry.runs(x, start, size[0]) if size[0] < x.shape[2] else x
        batch, depth = x.shape[0], x.shape[2]
        images = x.transpose(1, 2).flatten(0, 1)  # (B·D, 1, H, W)
        if self.slices == "consistent":
            p = draw(self.settings, x[:, :, 0], size[1:], share, generator)
            each = {name: value.repeat_interleave(depth, dim=0) for name, value in p.items()}
        else:
            p = each = draw(self.settings, images, size[1:], share, generator)
        images = _apply(images, each, size[1:], self.settings.shown, share, generator)
        p = {**p, "start": start}
        out = images.unflatten(0, (batch, depth)).transpose(1, 2)
        return self._drop(out, p), p

    def together(
        self, x: Tensor, mask: Tensor, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """A view (B, 1, *size) and the class of each of its voxels (B, *size), moved alike.

        Args:
            x: (B, 1, *space) in HU.
            mask: (B, *space) int64, read at the nearest voxel.
            generator: see `forward`.

        Raises:
            UsageError: if slices of a volume move by themselves.
        """
        if x.dim() == 5 and self.slices != "volume":
            raise UsageError("views.slices must be 'volume' where volumes have masks.")
        view, p = self.view(x, generator)
        matrix = geometry.linear(p["angle"], p["side"], p["flip"], x.shape[2:])
        points = geometry.lattice(matrix, p["centre"], p.get("shift"))
        return view, geometry.nearest(mask, points, view.shape[2:])

    def _drop(self, x: Tensor, p: Parameters) -> Tensor:
        return op.drop_slices(x, p["dropped"]) if "dropped" in p else x


def _apply(
    x: Tensor,
    p: Parameters,
    size: Sequence[int],
    shown: tuple[float, float],
    share: tuple[float, float],
    g: Generator | None,
) -> Tensor:
    """The view with parameters ``p`` of images or volumes: (B, 1, *space) → (B, 1, *size)."""
    matrix = geometry.linear(p["angle"], p["side"], p["flip"], x.shape[2:])
    points = geometry.lattice(matrix, p["centre"], p.get("shift"))
    smallest = float(share[0]) ** (1 / (x.dim() - 2))
    x = geometry.resample(geometry.shrink(x, size, smallest), points, size)

    def hiss(part: Tensor, level: Tensor) -> Tensor:
        eps = torch.randn(part.shape, generator=g, device=part.device, dtype=part.dtype)
        return op.noise(part, eps, level)

    def refilter(part: Tensor, at: Tensor) -> Tensor:
        part = _some(part, p["kernel_hu"][at] > 0, lambda q, n: hiss(q, p["kernel_hu"][at][n]))
        return op.kernel(part, p["sigma"][at], p["strength"][at])

    x = _some(x, p["strength"] != 0, refilter)
    x = _some(x, p["noise_hu"] > 0, lambda part, at: hiss(part, p["noise_hu"][at]))
    x = _some(
        x, p["width"] > 0, lambda part, at: op.window(part, p["level"][at], p["width"][at], shown)
    )
    x = _some(x, p["gamma"] != 1, lambda part, at: op.gamma(part, p["gamma"][at], shown))
    return _some(
        x,
        p["cut_side"].amax(dim=1) > 0,
        lambda part, at: op.cutout(part, p["cut_start"][at], p["cut_side"][at], p["cut_hu"][at]),
    )


def _some(x: Tensor, chosen: Tensor, step: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """``x`` with its chosen (B,) rows replaced by what ``step(rows, positions)`` gives.

    A device takes the whole batch at once, a processor as many as its cache holds: fresh memory
    for whole batches costs it more than the arithmetic. ``x`` is ours to write in.
    """
    at = chosen_rows(chosen)
    if at is None:
        every = step(x, torch.arange(len(x), device=x.device))
        return torch.where(op.rows(chosen, x), every, x)
    if not len(at):
        return x
    for part in at.split(max(_CACHED // max(x[0].numel(), 1), 1)):
        first, last = int(part[0]), int(part[-1]) + 1
        if last - first == len(part):  # in a row: nothing to gather
            x[first:last] = step(x[first:last], part)
        else:
            x[part] = step(x[part], part)
    return x
