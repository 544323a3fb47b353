"""A picture of samples beside their views, for the report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from medcl.plugin import Axes, Views

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

_ROWS, _VIEWS = 3, 2


def preview(x: Tensor, views: Views, *, axes: Sequence[Axes] | None = None) -> Figure:
    """Draw the first samples as they are and as training sees them.

    Args:
        x: (B, C, T) windows.
        views: the recipe's augmentations.
        axes: of each sample: names and units of its channels, and its rate.

    Returns:
        a figure: a row a sample, the original on the left with the names of its channels, one
        above the other, over seconds.
    """
    from matplotlib.figure import Figure

    x = x[:_ROWS]
    generator = torch.Generator(device=x.device).manual_seed(0)
    columns = [x, *(views(x, generator, "global") for _ in range(_VIEWS))]
    figure = Figure(figsize=(4 * len(columns), 1.8 * len(x)), layout="constrained")
    grid = figure.subplots(len(x), len(columns), squeeze=False)
    for j, (title, batch) in enumerate(zip(["original", "view 1", "view 2"], columns, strict=True)):
        grid[0, j].set_title(title, fontsize=9)
        for i, sample in enumerate(batch.cpu().float().numpy()):
            axis, known = grid[i, j], None if axes is None else axes[i]
            t = np.arange(sample.shape[1]) / (1.0 if known is None else known.fs)
            for lead, line in enumerate(sample):
                axis.plot(t, line - 6 * lead, linewidth=0.6)
            named = _names(len(sample), known) if j == 0 else []
            axis.set_yticks(-6.0 * np.arange(len(named)), named, fontsize=6)
            axis.tick_params(axis="x", labelsize=6)
            axis.margins(x=0)
            if i == len(x) - 1:
                axis.set_xlabel("samples" if known is None else "seconds", fontsize=7)
    return figure


def _names(channels: int, axes: Axes | None) -> list[str]:
    """Of each channel: its name and, of the distance to the next, the unit."""
    if axes is None:
        return [f"channel {n + 1}" for n in range(channels)]
    return [f"{name}\n6 {unit}" for name, unit in zip(axes.channels, axes.units, strict=True)]
