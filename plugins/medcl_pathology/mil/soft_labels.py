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
    """

    def __init__(self, classes: int) -> None:
        self.keys = torch.zeros(0, dtype=torch.long)  # (N,) ascending
        self.values = torch.zeros(0, classes)  # (N, C)

    def __len__(self) -> int:
        return len(self.keys)

    def get(self, keys: Tensor, unknown: Tensor) -> Tensor:
        """The labels (I, C) of ``keys`` (I,); those of ``unknown`` (I, C) where there is none."""
        self.keys, self.values = self.keys.to(keys.device), self.values.to(unknown)
        if not len(self):
            return unknown
        at = torch.searchsorted(self.keys, keys).clamp_max(len(self) - 1)
        return torch.where((self.keys[at] == keys)[:, None], self.values[at], unknown)

    def put(self, keys: Tensor, values: Tensor) -> None:
        """Remember ``values`` (I, C) under ``keys`` (I,), in place of what was there."""
        keys, first = _first(keys)
        values = values[first]
        kept = ~torch.isin(self.keys, keys)
        keys, order = torch.cat((self.keys[kept], keys)).sort()
        self.keys, self.values = keys, torch.cat((self.values[kept], values))[order]


def _first(keys: Tensor) -> tuple[Tensor, Tensor]:
    """The different keys, ascending, and where each first stands."""
    ordered, order = keys.sort(stable=True)
    new = torch.ones_like(ordered, dtype=torch.bool)
    new[1:] = ordered[1:] != ordered[:-1]
    return ordered[new], order[new]
