"""Pictures of samples by shape alone, independent of modality; and of their saliency."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medcl.report import plots

if TYPE_CHECKING:
    from matplotlib.axes import Axes as PlotAxes

    from medcl.plugin import Axes, Samples

METHODS = ("integrated gradients", "occlusion")


def picture(x: NDArray, axes: Axes | None = None) -> str:
    """A sample as a data URI: (C, L) as curves, (C, H, W) as an image, (C, D, H, W) as its middle.

    Args:
        x: the sample.
        axes: of curves: their channels and units are named then, and time is in seconds.

    Raises:
        ValueError: for any other shape.
    """
    from matplotlib.figure import Figure

    x = np.asarray(x, np.float32)
    with plots.style():
        if x.ndim in (1, 2):
            rows = np.atleast_2d(x)
            figure = Figure(figsize=(3.2, 1.0 + 0.3 * len(rows)), layout="constrained")
            _curves(figure.subplots(), rows, axes)
            return plots.png(figure, dpi=80)
        if x.ndim not in (3, 4):
            raise ValueError(f"no picture of a sample of shape {x.shape}")
        image = x[:, x.shape[1] // 2] if x.ndim == 4 else x  # (C, H, W)
        figure = Figure(figsize=(1.6, 1.6))
        _image(figure.add_axes((0, 0, 1, 1)), image)
        return plots.png(figure, dpi=80)


def of_sample(samples: Samples, position: int) -> str:
    """The `picture` of a sample, with its axes where they are known.

    Raises:
        ValueError: for samples without a picture, such as bags.
    """
    axes = None if samples.axes is None else samples.axes(position)
    return picture(samples.read(np.array([position]))["x"][0], axes)


def explained(x: NDArray, gradients: NDArray, fall: NDArray, axes: Axes | None = None) -> str:
    """A sample with evidence for a class in red, and against it in blue: a data URI.

    Args:
        x: (C, L), (C, H, W), or (C, D, H, W), drawn by its most salient slice.
        gradients: integrated gradients, of the same shape; drawn on the left (signals: above).
        fall: of occlusion, (L,), (H, W) or (D, H, W); drawn on the right (signals: below).
        axes: see `picture`.

    Raises:
        ValueError: for any other shape.
    """
    from matplotlib.figure import Figure

    x, parts = np.asarray(x, np.float32), gradients.sum(axis=0)
    if x.ndim not in (2, 3, 4):
        raise ValueError(f"no picture of a sample of shape {x.shape}")
    if x.ndim == 4:
        most = int(np.abs(parts).sum(axis=(1, 2)).argmax())
        x, parts, fall = x[:, most], parts[most], fall[most]
    with plots.style():
        if x.ndim == 2:
            figure = Figure(figsize=(3.2, 1.8 + 0.5 * len(x)), layout="constrained")
            for place, heat, name in zip(
                figure.subplots(2, 1, sharex=True), (parts, fall), METHODS, strict=True
            ):
                _curves(place, x, axes, colour=plots.INK)
                low, high = place.get_ylim()
                step = 1.0 if axes is None else 1 / axes.fs
                strip = (-0.5 * step, (len(heat) - 0.5) * step, low, high)
                place.imshow(heat[None], extent=strip, aspect="auto", zorder=0, **_scaled(heat))
                place.set_title(name, fontsize=7)
                place.grid(visible=False)
            return plots.png(figure, dpi=90)
        figure = Figure(figsize=(3.2, 1.8), layout="constrained")
        for place, heat, name in zip(figure.subplots(1, 2), (parts, fall), METHODS, strict=True):
            _image(place, x)
            strength = np.abs(heat) / max(float(np.abs(heat).max()), 1e-12)
            place.imshow(heat, alpha=0.75 * strength, **_scaled(heat))
            place.set_title(name, fontsize=7)
        return plots.png(figure, dpi=90)


def image(pixels: NDArray[np.uint8]) -> str:
    """Pixels (H, W, 3) as they are: a data URI."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def instances(weights: NDArray, coords: NDArray | None) -> str:
    """Contributions of a bag's instances, darker for larger ones: a data URI.

    Args:
        weights: (I,), in any unit.
        coords: (I, 2) locations, y downwards; None: bars in order of weight.
    """
    from matplotlib.figure import Figure

    with plots.style():
        figure = Figure(figsize=(3.2, 2.2), layout="constrained")
        axes = figure.subplots()
        if coords is None:
            axes.bar(np.arange(1, len(weights) + 1), np.sort(weights)[::-1], width=1.0)
            axes.set_xlabel("instances, by weight", fontsize=7)
            axes.tick_params(labelsize=6)
        else:
            order = np.argsort(weights)  # the largest on top
            size = float(np.clip(2000 / len(weights), 1, 40))
            x, y = np.asarray(coords)[order].T
            axes.scatter(x, y, c=weights[order], s=size, cmap="viridis_r", marker="s")
            axes.invert_yaxis()
            axes.set_aspect("equal")
            axes.set(xticks=[], yticks=[])
            axes.grid(visible=False)
        return plots.png(figure, dpi=90)


def _curves(
    place: PlotAxes, rows: NDArray, axes: Axes | None, *, colour: str | None = None
) -> None:
    """Channels (C, L) one above the other, the first on top, each as high as its own range.

    With ``axes`` it is labelled with its name and that range in its unit, over seconds.
    """
    t = np.arange(rows.shape[1]) / (1.0 if axes is None else axes.fs)
    ranges = []
    for n, row in enumerate(rows):
        known = row[np.isfinite(row)]
        low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 0.0)
        middle, span = (low + high) / 2, (high - low) or 1.0
        place.plot(t, 0.9 * (row - middle) / span - n, linewidth=0.8, color=colour)
        ranges.append(high - low)
    place.set_ylim(0.5 - len(rows), 0.5)
    place.margins(x=0)
    if axes is None:
        place.set(xticks=[], yticks=[])
        return
    labels = [
        f"{name}\n{high:.3g} {unit}"
        for name, high, unit in zip(axes.channels, ranges, axes.units, strict=True)
    ]
    place.set_yticks(-np.arange(len(rows)), labels, fontsize=5)
    place.tick_params(axis="x", labelsize=5)
    place.set_xlabel("seconds", fontsize=6)


def _scaled(heat: NDArray) -> dict[str, Any]:
    """White at zero, symmetric around it; the few strongest points saturate."""
    most = max(float(np.nanquantile(np.abs(heat), 0.99)), 1e-12)
    return {"cmap": "bwr", "vmin": -most, "vmax": most, "interpolation": "nearest"}


def _image(axes: PlotAxes, image: NDArray) -> None:
    """(C, H, W) in grey, or in colour for three channels."""
    colour = len(image) == 3
    low, high = np.nanquantile(image, (0.005, 0.995))
    shown = np.clip((image - low) / max(float(high - low), 1e-6), 0, 1)
    axes.imshow(shown.transpose(1, 2, 0) if colour else shown[0], cmap=None if colour else "gray")
    axes.set_axis_off()
