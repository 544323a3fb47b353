"""A picture of samples beside their views, for the report."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from medcl.plugin import Views

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

_ROWS, _VIEWS = 3, 2


def preview(x: Tensor, views: Views) -> Figure:
    """Draw the first samples as they are and as training sees them.

    Args:
        x: (B, C, T) windows.
        views: the recipe's augmentations.

    Returns:
        a figure: a row a sample, the original on the left, channels one above the other in
        the order of the recipe's ``prepare.leads``.
    """
    from matplotlib.figure import Figure

    x = x[:_ROWS]
    generator = torch.Generator(device=x.device).manual_seed(0)
    columns = [x, *(views(x, generator, "global") for _ in range(_VIEWS))]
    figure = Figure(figsize=(4 * len(columns), 1.8 * len(x)), layout="constrained")
    axes = figure.subplots(len(x), len(columns), squeeze=False)
    for j, (title, batch) in enumerate(zip(["original", "view 1", "view 2"], columns, strict=True)):
        axes[0, j].set_title(title, fontsize=9)
        for i, sample in enumerate(batch.cpu().float().numpy()):
            axis = axes[i, j]
            for lead, line in enumerate(sample):
                axis.plot(line - 6 * lead, linewidth=0.6)
            named = [f"channel {lead + 1}" for lead in range(len(sample))] if j == 0 else []
            axis.set_yticks(-6.0 * np.arange(len(named)), named, fontsize=6)
            axis.tick_params(axis="x", labelsize=6)
            axis.margins(x=0)
            if i == len(x) - 1:
                axis.set_xlabel("samples", fontsize=7)
    return figure
