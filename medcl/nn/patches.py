"""Signals, images and volumes as sequences of patches, in one, two and three axes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from medcl.errors import MedclError


def grid_of(space: Sequence[int], patch: Sequence[int]) -> tuple[int, ...]:
    """Number of patches along each axis.

    Raises:
        MedclError: if the numbers of axes differ or a patch size does not divide its axis.
    """
    if len(space) != len(patch) or any(s % p for s, p in zip(space, patch, strict=True)):
        raise MedclError(
            f"Patches of {tuple(patch)} do not tile an input of {tuple(space)}: "
            "choose a patch size that divides the input along every axis."
        )
    return tuple(s // p for s, p in zip(space, patch, strict=True))


def patchify(x: Tensor, patch: Sequence[int]) -> Tensor:
    """Cut (B, C, *space) into (B, N, P·C): N patches in row-major order, P values × C channels."""
    grid, axes = grid_of(x.shape[2:], patch), len(patch)
    split = x.reshape(*x.shape[:2], *(n for pair in zip(grid, patch, strict=True) for n in pair))
    order = (0, *range(2, 2 + 2 * axes, 2), *range(3, 3 + 2 * axes, 2), 1)
    return split.permute(order).reshape(x.shape[0], math.prod(grid), -1)  # (B, *grid, *patch, C)


def unpatchify(patches: Tensor, patch: Sequence[int], grid: Sequence[int]) -> Tensor:
    """Undo `patchify`: (B, N, P·C) → (B, C, *space)."""
    axes, batch = len(patch), patches.shape[0]
    split = patches.reshape(batch, *grid, *patch, -1)
    pairs = (axis for n in range(1, axes + 1) for axis in (n, n + axes))
    space = (g * p for g, p in zip(grid, patch, strict=True))
    return split.permute(0, 1 + 2 * axes, *pairs).reshape(batch, -1, *space)


def random_mask(batch: int, count: int, ratio: float, device: torch.device) -> Tensor:
    """(B, count) bool, True where masked: the same number round(ratio·count) in every row.

    At least one patch is masked and one is visible, whatever the ratio.
    """
    order = torch.rand(batch, count, device=device).argsort(dim=1)
    return order < count - visible_count(count, ratio)


def visible_count(count: int, ratio: float) -> int:
    """How many of ``count`` patches `random_mask` leaves visible, without looking at a mask."""
    return count - min(max(round(ratio * count), 1), count - 1)


def seen(mask: Tensor, count: int) -> Tensor:
    """The positions (B, K) that are False in ``mask`` (B, N), ascending: K = ``count`` a row."""
    return mask.byte().argsort(dim=1, stable=True)[:, :count]


def take(tokens: Tensor, index: Tensor) -> Tensor:
    """Pick (B, K, D) out of (B, N, D) by positions (B, K)."""
    return tokens.gather(1, index[..., None].expand(-1, -1, tokens.shape[-1]))


def positions(grid: Sequence[int], width: int, device: torch.device) -> Tensor:
    """Fixed sine-cosine position codes (N, width), each axis with its own share of the width.

    The remainder, if ``width`` is not a multiple of 2·axes, is zero (Vaswani 2017, in the
    N-axis form of MAE: He 2021, arXiv 2111.06377).
    """
    share = width // (2 * len(grid))
    rates = 10000.0 ** (-torch.arange(share, device=device) / share)  # (share,)
    mesh = torch.meshgrid(*(torch.arange(n, device=device) for n in grid), indexing="ij")
    angles = [axis.reshape(-1, 1) * rates for axis in mesh]  # each (N, share)
    code = torch.cat([wave(a) for a in angles for wave in (torch.sin, torch.cos)], dim=1)
    return torch.nn.functional.pad(code, (0, width - code.shape[1]))
