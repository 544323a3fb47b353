"""The checkpoints of a run and what they hold, without Lightning, which takes seconds to load."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor


def saved(folder: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted(folder.glob("step-*.ckpt"))


def step_of(path: Path) -> int:
    """The optimiser step that a checkpoint was written after."""
    return int(path.stem.removeprefix("step-"))


def method_weights(path: Path, part: str = "") -> dict[str, Tensor]:
    """The method's part of a checkpoint, or that of a part of it: ``"encoder."``."""
    prefix = f"method.{part}"
    state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    return {k.removeprefix(prefix): v.clone() for k, v in state.items() if k.startswith(prefix)}


def encoder_weights(path: Path) -> dict[str, Tensor]:
    """The encoder's part of a checkpoint."""
    return method_weights(path, "encoder.")
