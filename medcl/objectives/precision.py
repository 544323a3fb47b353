"""Number types of computation in objectives, for inputs of any type."""

from __future__ import annotations

import torch
from torch import Tensor


def widened(x: Tensor) -> Tensor:
    """``x`` in float32, or float64 if it is float64: the types of sums."""
    return x if x.dtype == torch.float64 else x.float()


def exact(x: Tensor) -> torch.dtype:
    """float64 if the device of ``x`` supports it: for values stored once per row."""
    return torch.float32 if x.device.type == "mps" else torch.float64


def full(x: Tensor) -> torch.autocast:
    """A context in which products keep the types of their inputs, also under autocast."""
    return torch.autocast(x.device.type, enabled=False)
