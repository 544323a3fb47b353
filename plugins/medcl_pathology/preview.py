"""Pictures of tiles for the report: samples beside their views."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from medcl.plugin import Views

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ROWS, _VIEWS = 4, 3


def preview(x: Tensor, views: Views) -> Figure:
    """Draw the first tiles as they are, and as training sees them.

    Args:
        x: (B, 3, H, W) in 0 … 1.
        views: the recipe's augmentations.

    Returns:
        a figure: a row a tile, the original on the left.
    """
    from matplotlib.figure import Figure

    generator = torch.Generator(device=x.device).manual_seed(0)
    shown = [x, *(views(x, generator, "global") for _ in range(_VIEWS))]  # a batch: stains mix
    rows = min(_ROWS, len(x))
    figure = Figure(figsize=(2.0 * len(shown), 2.0 * rows), layout="constrained")
    axes = figure.subplots(rows, len(shown), squeeze=False)
    for j, batch in enumerate(shown):
        axes[0, j].set_title("original" if j == 0 else f"view {j}", fontsize=9)
        for i in range(rows):
            axes[i, j].imshow(batch[i].permute(1, 2, 0).float().cpu().clamp(0, 1).numpy())
            axes[i, j].set_xticks([])
            axes[i, j].set_yticks([])
    return figure
