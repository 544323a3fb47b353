"""How large a view of CT is, and which run of slices it holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Generator, Tensor

from medcl.errors import UsageError

Slices = Literal["volume", "consistent", "independent"]
"""What a view of a volume is; see `medcl_ct.views.views`."""


def view_size(
    sizes: dict[str, tuple[int, ...]], kind: str, space: Sequence[int], *, whole: bool
) -> tuple[int, ...]:
    """The view's size for an input of ``space``; a missing depth is the input's."""
    size, axes = sizes[kind], len(space)
    if not size and kind == "local":
        return tuple(
            n if axis == 0 and axes == 3 and not whole else max(n // 2, 1)
            for axis, n in enumerate(view_size(sizes, "global", space, whole=whole))
        )
    if not size:
        return tuple(space)
    if len(size) == 1:
        size = size * (axes if whole else 2)
    if len(size) == 2 and axes == 3:
        size = (space[0], *size)
    if len(size) != axes:
        raise UsageError(f"views.size {tuple(size)} does not fit samples of {tuple(space)} voxels.")
    if axes == 3 and not whole and size[0] > space[0]:
        raise UsageError(
            f"views.size asks for {size[0]} slices and the samples have {space[0]}: "
            "lower it, or let dataset give more."
        )
    return tuple(size)


def starts(x: Tensor, depth: int, g: Generator | None) -> Tensor:
    """Where each run of ``depth`` slices begins: (B,), uniform over all places it fits."""
    free = x.shape[2] - depth + 1
    return torch.randint(free, (x.shape[0],), generator=g, device=x.device)
