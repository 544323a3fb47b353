"""medcl: contrastive representation learning for medical and sensor data."""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn


def load_encoder(path: str | Path) -> nn.Module:
    """The trained encoder of a run or an exported folder; see `medcl.export.load_encoder`."""
    from medcl.export import load_encoder as load  # torch is loaded by whoever needs it

    return load(path)
