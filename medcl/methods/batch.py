"""Reading a batch: required keys, and labels that may be partly missing."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from medcl.errors import UsageError

MISSING = -1


def required(batch: Mapping[str, Tensor], name: str, method: str) -> Tensor:
    """``batch[name]``.

    Raises:
        UsageError: if the samples lack it.
    """
    if name not in batch:
        raise UsageError(
            f"Method '{method}' needs '{name}' with every sample, and this dataset gives "
            f"{', '.join(sorted(batch))}. Choose a dataset that reads it, or another method."
        )
    return batch[name]


def class_labels(label: Tensor) -> Tensor:
    """Codes as (B, ...) int64, with −1 for every missing one (NaN or negative)."""
    missing = label < 0
    if label.is_floating_point():
        missing = missing | label.isnan()
        label = label.nan_to_num()
    return torch.where(missing, MISSING, label.long())


def number_labels(label: Tensor) -> Tensor:
    """Numbers as (B, ...) floats, with NaN for every missing one (NaN, or −1 among integers)."""
    if label.is_floating_point():
        return label
    return torch.where(label == MISSING, torch.nan, label.float())
