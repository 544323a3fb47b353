"""The number types that objectives compute in, whatever they are given."""

from __future__ import annotations

import torch
from torch import Tensor


def widened(x: Tensor) -> Tensor:
    """float32, or float64 as it is: the types that sums are made in."""
    return x if x.dtype == torch.float64 else x.float()


def exact(x: Tensor) -> torch.dtype:
    """float64 where the device of ``x`` has it: for numbers kept once a row."""
    return torch.float32 if x.device.type == "mps" else torch.float64


def full(x: Tensor) -> torch.autocast:
    """A context in which products are made in the types they are given, also under autocast."""
    return torch.autocast(x.device.type, enabled=False)
