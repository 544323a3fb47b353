"""A picture of a sample by its shape alone, for pages that know no modality."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medcl.report import plots


def picture(x: NDArray) -> str:
    """A sample as a data URI: (C, L) as curves, (C, H, W) as an image, (C, D, H, W) as its middle.

    Raises:
        ValueError: for any other shape.
    """
    from matplotlib.figure import Figure

    x = np.asarray(x, np.float32)
    with plots.style():
        if x.ndim in (1, 2):
            figure = Figure(figsize=(3.2, 1.5), layout="constrained")
            axes = figure.subplots()
            for row in np.atleast_2d(x)[:3]:
                axes.plot(row, linewidth=0.9)
            axes.set(xticks=[], yticks=[])
            axes.margins(x=0)
            return plots.png(figure, dpi=80)
        if x.ndim not in (3, 4):
            raise ValueError(f"no picture of a sample of shape {x.shape}")
        image = x[:, x.shape[1] // 2] if x.ndim == 4 else x  # (C, H, W)
        figure = Figure(figsize=(1.6, 1.6))
        axes = figure.add_axes((0, 0, 1, 1))
        colour = len(image) == 3
        low, high = np.nanquantile(image, (0.005, 0.995))
        shown = np.clip((image - low) / max(float(high - low), 1e-6), 0, 1)
        axes.imshow(
            shown.transpose(1, 2, 0) if colour else shown[0], cmap=None if colour else "gray"
        )
        axes.set_axis_off()
        return plots.png(figure, dpi=80)
