"""A mask and its prediction over the slices of a volume."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = (40.0, 400.0)
"""Level and width in HU of the grey values: soft tissue."""
_SLICES = 3
_COLOURS = ("#ffb000", "#dc267f", "#648fff", "#fe6100", "#785ef0", "#4cc38a")


def overlay(
    x: NDArray[Any], truth: NDArray[Any], predicted: NDArray[Any], classes: Sequence[str]
) -> tuple[Figure, str]:
    """Draw the slices with most of the mask: its outline solid, the prediction's dashed.

    Args:
        x: (1, Z, Y, X) in HU.
        truth: (Z, Y, X), −1 where the class is unknown.
        predicted: (Z, Y, X).
        classes: names, the background first; the first six are drawn.

    Returns:
        the figure and its caption, with the window in HU.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    low, high = SHOWN[0] - SHOWN[1] / 2, SHOWN[0] + SHOWN[1] / 2
    chosen = _chosen(truth, predicted)
    figure = Figure(figsize=(3.0 * len(chosen), 3.2), layout="constrained")
    present = [n for n in np.unique([truth[chosen], predicted[chosen]]) if 0 < n <= len(_COLOURS)]
    for axis, z in zip(figure.subplots(1, len(chosen), squeeze=False)[0], chosen, strict=True):
        axis.imshow(x[0, z], cmap="gray", vmin=low, vmax=high)
        for n in present:
            for mask, style in ((truth[z] == n, "solid"), (predicted[z] == n, "dashed")):
                if mask.any() and not mask.all():
                    axis.contour(
                        mask, [0.5], colors=_COLOURS[n - 1], linestyles=style, linewidths=1.2
                    )
        axis.set_title(f"slice {z + 1} of {len(truth)}", fontsize=8)
        axis.set_xticks([])
        axis.set_yticks([])
    lines = [Line2D([], [], color=_COLOURS[n - 1], label=classes[n]) for n in present]
    if lines:
        figure.legend(handles=lines, loc="outside lower center", ncols=len(lines), fontsize=8)
    caption = (
        f"Solid: the mask, dashed: the prediction. Grey from {low:g} to {high:g} HU (level "
        f"{SHOWN[0]:g}, width {SHOWN[1]:g})."
    )
    return figure, caption


def _chosen(truth: NDArray[Any], predicted: NDArray[Any]) -> list[int]:
    """Slices at the quartiles of what is drawn or predicted; the middle one if nothing is."""
    amount = ((truth > 0) | (predicted > 0)).sum(axis=(1, 2))
    drawn = np.flatnonzero(amount)
    if not len(drawn):
        return [len(truth) // 2]
    share = np.cumsum(amount) / amount.sum()
    return sorted({int(np.searchsorted(share, q)) for q in np.linspace(0, 1, _SLICES + 2)[1:-1]})
