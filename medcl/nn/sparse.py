"""Run an ordinary convolutional encoder on the visible part of its input only.

SparK (Tian 2023, arXiv 2301.03580) trains a CNN on masked inputs with sparse convolutions, so that
masked positions neither leak in nor shift the statistics of normalisation. Sparse convolution over
visible positions equals dense convolution over an input that is zero elsewhere, followed by setting
masked outputs to zero. So it needs no special layer or library, in any number of axes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.pooling import _AdaptiveAvgPoolNd, _AvgPoolNd, _MaxPoolNd

from medcl.errors import MedclError
from medcl.nn.patches import seen

STATISTICS = (_NormBase, nn.GroupNorm)  # batch, synchronised batch, instance, group
SPREADING = (_ConvNd, _AvgPoolNd, _MaxPoolNd)
CHANNELS_LAST = (nn.LayerNorm, nn.Linear)


def stretch(visible: Tensor, space: Sequence[int]) -> Tensor:
    """The mask (B, 1, *grid) at the resolution of a feature map: (B, 1, *space).

    A map of a single position is a pooled vector, and visible.

    Raises:
        MedclError: if the feature map is not a whole multiple of the grid.
    """
    if set(space) == {1}:
        return visible.flatten(2).any(dim=2).reshape(-1, 1, *space)
    for axis, (size, cells) in enumerate(zip(space, visible.shape[2:], strict=True), start=2):
        if size % cells:
            raise MedclError(
                f"A feature map of {tuple(space)} does not follow a mask of "
                f"{tuple(visible.shape[2:])}: the input must be a multiple of the encoder's "
                "largest stride along every axis."
            )
        visible = visible.repeat_interleave(size // cells, dim=axis)
    return visible


def pack(x: Tensor, at: Tensor) -> Tensor:
    """Only the visible positions of (B, C, *space), at (B, K) flat indices: (B, C, K, 1, …)."""
    picked = x.flatten(2).gather(2, at[:, None].expand(-1, x.shape[1], -1))
    return picked.reshape(*picked.shape, *(1,) * (x.dim() - 3))


def unpack(packed: Tensor, at: Tensor, space: Sequence[int]) -> Tensor:
    """Undo `pack`, with zeros where nothing was visible: (B, C, *space)."""
    flat = packed.flatten(2)  # (B, C, K)
    empty = flat.new_zeros(*flat.shape[:2], int(torch.Size(space).numel()))
    return empty.scatter(2, at[:, None].expand_as(flat), flat).unflatten(2, tuple(space))


def visible_at(visible: Tensor, space: Sequence[int], count: int) -> Tensor:
    """The flat positions (B, K) of a feature map that are visible, of ``count`` cells a row."""
    each = 1 if set(space) == {1} else count * math.prod(space) // math.prod(visible.shape[2:])
    return seen(~stretch(visible, space).flatten(1), each)


def _norm(forward: Callable[[Tensor], Tensor], visible: Tensor, x: Tensor, count: int) -> Tensor:
    """Normalise visible positions only, so that statistics are computed over them."""
    at = visible_at(visible, x.shape[2:], count)
    return unpack(forward(pack(x, at)), at, x.shape[2:])


def _pool(forward: Callable[[Tensor], Tensor], visible: Tensor, x: Tensor, count: int) -> Tensor:
    """Global average pooling: the mean over visible positions."""
    return forward(pack(x, visible_at(visible, x.shape[2:], count)))


def _spread(forward: Callable[[Tensor], Tensor], visible: Tensor, x: Tensor) -> Tensor:
    """Convolutions and poolings: masked positions are zero in input and output.

    An earlier layer (a display window, a bias) may have filled masked positions of the input.
    """
    out = forward(x * stretch(visible, x.shape[2:]))
    return out * stretch(visible, out.shape[2:])


def _channels_last(forward: Callable[[Tensor], Tensor], visible: Tensor, x: Tensor) -> Tensor:
    """Layers on (B, *space, C), as in ConvNeXt blocks, whose bias would fill masked positions."""
    out = forward(x)
    if out.dim() != visible.dim():  # a vector per sample, as in squeeze-and-excitation
        return out
    return out * stretch(visible, out.shape[1:-1]).movedim(1, -1)


def _either_way(
    part: nn.Module, forward: Callable[[Tensor], Tensor], visible: Tensor, x: Tensor
) -> Tensor:
    """A custom subclass, whose channels may be last or first: the shape decides.

    Raises:
        MedclError: if both axes fit, or neither.
    """
    out = forward(x)
    if out.dim() != visible.dim():
        return out
    fits = [axis for axis in (-1, 1) if _follows(visible, out.movedim(axis, 1), part)]
    if len(fits) != 1:
        raise MedclError(
            f"Masking cannot tell which axis of {tuple(out.shape)} holds the channels that "
            f"{type(part).__name__} gives. Use torch's own LayerNorm or Linear (channels last) or "
            "GroupNorm (channels first) in its place, or inputs of another size."
        )
    return out * stretch(visible, out.movedim(fits[0], 1).shape[2:]).movedim(1, fits[0])


def _follows(visible: Tensor, out: Tensor, part: nn.Module) -> bool:
    """Whether (B, C, *space) has the layer's channels, and space a whole multiple of the grid."""
    width = part.normalized_shape[-1] if isinstance(part, nn.LayerNorm) else part.out_features
    space, grid = out.shape[2:], visible.shape[2:]
    whole = all(size % cells == 0 for size, cells in zip(space, grid, strict=True))
    return out.shape[1] == width and (whole or set(space) == {1})


def _rule(part: nn.Module, count: int) -> Callable[..., Tensor] | None:
    if isinstance(part, STATISTICS):
        return partial(_norm, count=count)
    if isinstance(part, _AdaptiveAvgPoolNd):
        return partial(_pool, count=count)
    if isinstance(part, SPREADING):
        return _spread
    if type(part) in CHANNELS_LAST:
        return _channels_last
    if isinstance(part, CHANNELS_LAST):
        return partial(_either_way, part)
    return None


@contextmanager
def visible_only(encoder: nn.Module, visible: Tensor, count: int | None = None) -> Iterator[None]:
    """Within the context, ``encoder`` computes on visible positions only.

    Args:
        encoder: any CNN made of torch's own convolution, pooling and normalisation modules.
        visible: (B, 1, *grid) bool, with as many True in each row; feature maps must be whole
            multiples of the grid.
        count: that number; None: read from ``visible``, for which the host waits.
    """
    count = int(visible[0].sum()) if count is None else count
    patched: list[Any] = []
    try:
        for part in encoder.modules():
            rule = _rule(part, count)
            if rule is not None:
                part.forward = partial(rule, part.forward, visible)
                patched.append(part)
        yield
    finally:
        for part in patched:
            del part.forward
