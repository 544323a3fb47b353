"""Batches of `Samples.read` as tensors."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor


def tensor(values: np.ndarray) -> Tensor:
    """An array as a tensor; floats as float32."""
    converted = torch.as_tensor(np.ascontiguousarray(values))
    return converted.float() if converted.is_floating_point() else converted


def tensors(batch: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """A batch of `Samples.read` as tensors: floats as float32, bag codes as int64."""
    out = {name: tensor(values) for name, values in batch.items()}
    if "bag" in out:
        out["bag"] = out["bag"].long()
    return out
