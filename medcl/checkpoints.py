"""Reading a run's checkpoints without Lightning, whose import takes seconds."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from medcl import manifest
from medcl.errors import MedclError


def saved(folder: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted(folder.glob("step-*.ckpt"))


def newest(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest intact checkpoint (None without any), and a message for each newer, damaged one.

    Raises:
        MedclError: if all checkpoints, or the folder's manifest, are damaged.
    """
    manifest.load(folder)
    checkpoints, damaged = saved(folder), list[Path]()
    for path in reversed(checkpoints):
        if _whole(path):
            took = f"training went on from {path.name}, which is older."
            return path, [f"{newer.name} is damaged: {took}" for newer in damaged]
        damaged.append(path)
    if damaged:
        raise MedclError(
            f"All checkpoints in {folder} are damaged. Restore one from a copy, or remove that "
            "folder: the same command then begins anew."
        )
    return None, []


def _whole(path: Path) -> bool:
    try:
        if not manifest.check(path, ""):  # of before there were manifests: can it be read?
            torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # torch raises several kinds, from zip files to the unpickler
        return False
    return True


def step_of(path: Path) -> int:
    """The optimiser step that a checkpoint was written after."""
    return int(path.stem.removeprefix("step-"))


def method_weights(path: Path, part: str = "") -> dict[str, Tensor]:
    """The method's weights in a checkpoint, or those of one part of it: ``"encoder."``.

    Raises:
        MedclError: if the checkpoint is damaged.
    """
    manifest.check(path, "Restore it from a copy, or take an older one.")
    prefix = f"method.{part}"
    state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    return {k.removeprefix(prefix): v.clone() for k, v in state.items() if k.startswith(prefix)}


def encoder_weights(path: Path) -> dict[str, Tensor]:
    """The encoder's weights in a checkpoint."""
    return method_weights(path, "encoder.")
