"""Soft labels of instances, remembered by what the instances look like."""

from __future__ import annotations

import torch
from torch import Tensor


def fingerprints(x: Tensor) -> Tensor:
    """A 64-bit hash of each row's bits: (I, F) → (I,) int64. Equal rows have equal ones.

    Example:
        >>> a, b, c = fingerprints(torch.tensor([[1.0, 2.0], [1.0, 2.0], [2.0, 1.0]]))
        >>> bool(a == b), bool(a == c)
        (True, False)
    """
    generator = torch.Generator().manual_seed(0x5EED)
    factors = torch.randint(-(2**62), 2**62, (x.shape[1],), generator=generator)
    bits = (x.detach().float() + 0.0).view(torch.int32).long()  # + 0: the two zeros are one
    return ((bits + 1) * (2 * factors + 1).to(x.device)).sum(1)


class SoftLabels:
    """A table from fingerprints to soft labels (C,); in memory only, and gone with the training.

    Batches of bags carry no names of instances, and need none: an instance is known by its
    features, whatever part of its bag a batch holds. Equal instances share a label.

    Known keys are overwritten where they lie. New ones become a block of sorted keys, and blocks
    of like size are merged (the logarithmic method of Bentley and Saxe, 1980): a batch costs
    O(I log² N) among N known instances, not O(N).
    """

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.blocks: list[tuple[Tensor, Tensor]] = []  # ascending keys (n,), values (n, C)

    def __len__(self) -> int:
        return sum(len(keys) for keys, _ in self.blocks)

    def get(self, keys: Tensor, unknown: Tensor) -> Tensor:
        """The labels (I, C) of ``keys`` (I,); those of ``unknown`` (I, C) where there is none."""
        for known, values in self.blocks:
            at, there = _find(known, keys)
            unknown = torch.where(there[:, None], values[at].to(unknown.dtype), unknown)
        return unknown

    def put(self, keys: Tensor, values: Tensor) -> None:
        """Remember ``values`` (I, C) under ``keys`` (I,), in place of what was there."""
        keys, first = _first(keys)
        values = values[first].detach()
        new = torch.ones_like(keys, dtype=torch.bool)
        for known, held in self.blocks:
            at, there = _find(known, keys)
            held[at[there]] = values[there].to(held.dtype)
            new &= ~there
        if not new.any():
            return
        self.blocks.append((keys[new], values[new]))
        while len(self.blocks) > 1 and len(self.blocks[-2][0]) < 2 * len(self.blocks[-1][0]):
            (k1, v1), (k2, v2) = self.blocks[-2:]
            merged, order = torch.cat((k1, k2)).sort()
            self.blocks[-2:] = [(merged, torch.cat((v1, v2.to(v1.dtype)))[order])]


def _find(known: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """Where each of ``keys`` (I,) lies among ``known``, ascending, and whether it is there."""
    at = torch.searchsorted(known, keys).clamp_max(len(known) - 1)
    return at, known[at] == keys


def _first(keys: Tensor) -> tuple[Tensor, Tensor]:
    """The different keys, ascending, and where each first stands."""
    ordered, order = keys.sort(stable=True)
    new = torch.ones_like(ordered, dtype=torch.bool)
    new[1:] = ordered[1:] != ordered[:-1]
    return ordered[new], order[new]
