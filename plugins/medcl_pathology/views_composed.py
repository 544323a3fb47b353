"""Views of tiles from an ordered list of named augmentations (``views.steps`` of a recipe)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Generator, Tensor, nn

from medcl.augmentations import BATCH, Step, build
from medcl.errors import UsageError
from medcl.nn.augment import augment
from medcl_pathology import augment as op
from medcl_pathology import augmentations as named
from medcl_pathology.plugin import plugin
from medcl_pathology.views import view_size


def composed(
    steps: Sequence[Mapping[str, Any]],
    *,
    size: int = 0,
    local_size: int = 0,
    local_zoom: tuple[float, float] = (1.0, 2.0),
) -> nn.Module:
    """Views of named augmentations, in the order of the list.

    A view is of ``size`` from the first step on that asks for one (``crop``); without such a step
    the whole tile is resampled to it before all others. In a "local" view a crop of ``local_zoom``
    takes the place of that step.

    Args:
        steps: ``{name, p, ...}`` each: one of `medcl_pathology.augmentations`, or
            ``module:function``; the probability that a tile gets it; its settings. See
            `medcl.augmentations`.
        size: of a view, in pixels; 0: the tile's.
        local_size: of a "local" view, in pixels; 0: half of ``size``.
        local_zoom: bounds of how much larger things appear in a "local" view, above 0.

    Returns:
        see `medcl_pathology.views.views`.

    Raises:
        UsageError: for an unknown augmentation or setting, or bounds that make no sense.
    """
    if not 0 < local_zoom[0] <= local_zoom[1]:
        raise UsageError("views.local_zoom is two positive numbers, the smaller first.")
    if size < 0 or local_size < 0:
        raise UsageError("views.size and local_size are 0 or more.")
    beside = {"size": size, "local_size": local_size, "local_zoom": local_zoom}
    made = build(steps, plugin.augmentations, beside, later=("size",))
    return ComposedViews(made, {"global": size, "local": local_size}, local_zoom)


class ComposedViews(nn.Module):
    """See `composed`."""

    def __init__(
        self, steps: tuple[Step, ...], sizes: dict[str, int], local_zoom: tuple[float, float]
    ) -> None:
        super().__init__()
        self.steps, self.sizes, self.local_zoom = steps, sizes, local_zoom

    def forward(
        self, x: Tensor, generator: Generator | None = None, kind: str = "global"
    ) -> Tensor:
        """(B, 3, H, W) → (B, 3, size, size).

        Raises:
            UsageError: for another kind of view.
        """
        if kind == "none":
            return op.middle(x, self.sizes["global"] or x.shape[-1])
        if kind not in self.sizes:
            raise UsageError(f"Views of tiles are global, local or none, not '{kind}'.")
        size = (view_size(self.sizes, kind, x),) * 2
        resizing = next((n for n, step in enumerate(self.steps) if "size" in step.asks), None)
        if resizing is None:
            x = self._local(x, size, generator) if kind == "local" else _whole(x, size)
        for number, step in enumerate(self.steps):
            if number != resizing:
                x = augment(step, x, generator, {"size": size})
            elif kind == "local":
                x = self._local(x, size, generator)
            else:
                cut = step(x, generator, {"size": size, BATCH: x})
                if step.p < 1:
                    chosen = torch.rand(len(x), generator=generator, device=x.device) < step.p
                    cut = torch.where(chosen[:, None, None, None], cut, _whole(x, size))
                x = cut
        return x

    def _local(self, x: Tensor, size: tuple[int, int], generator: Generator | None) -> Tensor:
        return named.crop(x, generator, size=size, zoom=self.local_zoom)


def _whole(x: Tensor, size: tuple[int, int]) -> Tensor:
    """The largest square in the middle of tiles, resampled to ``size``."""
    if tuple(x.shape[2:]) == size:
        return x
    room, zoom = torch.full((len(x), 2), 0.5, device=x.device), 1e-6
    return op.crop(x, size[0], torch.full((len(x),), zoom, device=x.device), room, zoom)
