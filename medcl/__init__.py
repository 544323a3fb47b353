"""medcl: contrastive representation learning for medical and sensor data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medcl.version import __version__

__all__ = ["__version__", "load_encoder"]

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn


def load_encoder(path: str | Path) -> nn.Module:
    """The trained encoder of a run or an exported folder; see `medcl.export.load_encoder`."""
    from medcl.export import load_encoder as load  # torch is loaded by whoever needs it

    return load(path)
