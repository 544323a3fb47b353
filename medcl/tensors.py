"""What `Samples.read` returned, as tensors."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor


def tensor(values: np.ndarray) -> Tensor:
    """As a tensor; floats of 32 bits."""
    made = torch.as_tensor(np.ascontiguousarray(values))
    return made.float() if made.is_floating_point() else made


def tensors(batch: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """What `Samples.read` returned, as tensors: floats of 32 bits, codes of 64."""
    out = {name: tensor(values) for name, values in batch.items()}
    if "bag" in out:
        out["bag"] = out["bag"].long()
    return out
