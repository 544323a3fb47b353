"""Views of CT from an ordered list of named augmentations (``views.steps`` of a recipe)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Generator, Tensor, nn

from medcl.augmentations import BATCH, Step, build
from medcl.errors import UsageError
from medcl.nn.augment import augment
from medcl_ct import augmentations as named
from medcl_ct import geometry
from medcl_ct.kinds import Kind, only_of_ct
from medcl_ct.plugin import plugin
from medcl_ct.views_size import Slices, starts, view_size


def composed(
    steps: Sequence[Mapping[str, Any]],
    *,
    slices: Slices = "volume",
    size: tuple[int, ...] = (),
    local_size: tuple[int, ...] = (),
    local_share: tuple[float, float] = (0.05, 0.3),
    shown: tuple[float, float] = (0.0, 2000.0),
    modality: Kind = "ct",
) -> nn.Module:
    """Views of named augmentations, in the order of the list.

    A view is of ``size`` from the first step on that asks for one (``crop``); without such a step
    the whole sample is resampled to it before all others. In a "local" view a crop of
    ``local_share`` takes the place of that step.

    Args:
        steps: ``{name, p, ...}`` each: one of `medcl_ct.augmentations`, or ``module:function``; the
            probability that a sample gets it; its settings. See `medcl.augmentations`.
        slices: what a view of a volume is: "volume", "consistent" or "independent", see
            `medcl_ct.views.views`. With "consistent", a function is given the slices as channels.
        size: of a view, in voxels, (H, W) or (D, H, W); one number for all axes; empty: as it came.
        local_size: of a "local" view; empty: half of ``size``.
        local_share: bounds of the area or volume of a "local" view, as a share of the whole.
        shown: level and width in HU of the range that the encoder sees.
        modality: what is seen, from ``prepare.modality``; MR and PET have no windows.

    Returns:
        see `medcl_ct.views.views`.

    Raises:
        UsageError: for an unknown augmentation or setting.
    """
    if any(step.get("name") == "window" for step in steps):
        only_of_ct(modality, "steps: window")
    beside = {
        "slices": slices, "size": size, "local_size": local_size, "local_share": local_share,
        "shown": shown,
    }  # fmt: skip
    made = build(steps, plugin.augmentations, beside, later=("size",))
    sizes = {"global": size, "local": local_size}
    return ComposedViews(made, slices, sizes, local_share, shown, modality)


class ComposedViews(nn.Module):
    """See `composed`."""

    def __init__(
        self,
        steps: tuple[Step, ...],
        slices: Slices,
        sizes: dict[str, tuple[int, ...]],
        local_share: tuple[float, float],
        shown: tuple[float, float],
        modality: Kind = "ct",
    ) -> None:
        super().__init__()
        self.modality = modality
        self.steps, self.slices, self.sizes = steps, slices, sizes
        self.local_share, self.shown = local_share, shown

    def forward(
        self, x: Tensor, generator: Generator | None = None, kind: str = "global"
    ) -> Tensor:
        """(B, 1, H, W) or (B, 1, D, H, W) in HU → a view of them.

        Raises:
            UsageError: for another kind, or a size that does not fit ``x``.
        """
        if kind == "none":
            return x
        if kind not in self.sizes:
            raise UsageError(f"Views of CT are global, local or none, not '{kind}'.")
        size = view_size(self.sizes, kind, x.shape[2:], whole=self.slices == "volume")
        if x.dim() == 4 or self.slices == "volume":
            return self._applied(x, size, generator, kind)
        if size[0] < x.shape[2]:
            x = geometry.runs(x, starts(x, size[0], generator), size[0])
        if self.slices == "consistent":  # slices as channels: each row is drawn for once
            return self._applied(x[:, 0], size[1:], generator, kind)[:, None]
        images = self._applied(x.transpose(1, 2).flatten(0, 1), size[1:], generator, kind)
        return images.unflatten(0, (x.shape[0], x.shape[2])).transpose(1, 2)

    def _applied(
        self, x: Tensor, size: tuple[int, ...], generator: Generator | None, kind: str
    ) -> Tensor:
        resizing = next((n for n, step in enumerate(self.steps) if "size" in step.asks), None)
        if resizing is None:
            x = self._local(x, size, generator) if kind == "local" else named.whole(x, size)
        for number, step in enumerate(self.steps):
            if number != resizing:
                x = augment(step, x, generator, {"size": size})
            elif kind == "local":
                x = self._local(x, size, generator)
            else:
                cut = step(x, generator, {"size": size, BATCH: x})
                if step.p < 1:
                    chosen = torch.rand(len(x), generator=generator, device=x.device) < step.p
                    rows = chosen.view(-1, *(1,) * (x.dim() - 1))
                    cut = torch.where(rows, cut, named.whole(x, size))
                x = cut
        return x

    def _local(self, x: Tensor, size: tuple[int, ...], generator: Generator | None) -> Tensor:
        return named.crop(x, generator, size=size, share=self.local_share)
