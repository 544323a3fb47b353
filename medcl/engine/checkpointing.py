"""Atomic checkpoints, and a guard that keeps NaN or infinite weights out of them."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from medcl import manifest
from medcl.checkpoints import saved
from medcl.engine.module import Pretraining
from medcl.errors import MedclError
from medcl.io import stopping
from medcl.nn.distributed import ranks

MAX_CHECKPOINTS = 2
"""How many checkpoints stay on disk: the newest, and one to fall back on."""


class AtomicIO(CheckpointIO):
    """Writes checkpoints atomically, and reads them without executing code."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Write a temporary file, then rename it; record its hash in the folder's manifest."""
        with manifest.replacing(Path(path)) as temporary, temporary.open("wb") as file:
            torch.save(checkpoint, file)  # into an open file: a full disk has its error number

    def load_checkpoint(
        self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Tensors and plain values only."""
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return checkpoint

    def remove_checkpoint(self, path: Any) -> None:
        """Remove one file."""
        Path(path).unlink(missing_ok=True)


class Checkpoints(Callback):
    """Saves every ``checkpoint_every`` steps, at the end and at a signal; measures training time.

    Attributes:
        folder: of the checkpoints.
        notice: of a signal: after the step that it came in, a checkpoint is saved and the run ends.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.notice = stopping.Notice(wanted=False)
        self.earlier = 0.0  # seconds before this process resumed the run
        self.started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Training time until now, over all processes that resumed the run."""
        return self.earlier + time.monotonic() - self.started

    def state_dict(self) -> dict[str, Any]:
        """Goes into the checkpoint."""
        return {"seconds": self.seconds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Comes from the checkpoint."""
        self.earlier = state["seconds"]

    def on_train_start(self, trainer: Trainer, module: Pretraining) -> None:  # type: ignore[override]
        """Start the clock; remove temporary files of a killed process."""
        self.started = time.monotonic()
        if threading.current_thread() is threading.main_thread() and self.notice.wanted:
            stopping.take()  # Lightning has its own handlers now, which would end the run at once
        if trainer.is_global_zero:
            for leftover in self.folder.glob(".*.tmp"):
                leftover.unlink()

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: Trainer, module: Pretraining, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save if due, then delete the oldest."""
        settings, step = module.recipe.trainer, trainer.global_step
        if (batch_idx + 1) % settings.accumulate:
            return
        stop = self._stop(module, step)
        due = step % settings.checkpoint_every == 0 or step == settings.steps
        if not due and stop is None:
            return
        _check_weights(module, step)
        trainer.save_checkpoint(self.folder / f"step-{step:09d}.ckpt")
        if trainer.is_global_zero:
            for old in saved(self.folder)[:-MAX_CHECKPOINTS]:
                old.unlink()
        if stop is not None and step < settings.steps:
            raise stopping.Stopped(stop)

    def _stop(self, module: Pretraining, step: int) -> int | None:
        """The signal to stop by. Several ranks agree on it when metrics are due: that is a wait."""
        told = self.notice.number
        if ranks().world == 1:
            return told
        if step % module.recipe.trainer.log_every:
            return None
        flag = torch.tensor(float(told or 0), device=module.device)
        return int(ranks().gather(flag.reshape(1)).max()) or None


class Guard(Callback):
    """Stops all ranks together when the loss is NaN or infinite.

    On a GPU the loss is read only when something else is due: each read waits for the GPU.
    """

    def __init__(self) -> None:
        self.bad: Tensor | None = None  # the first step with a bad loss, or infinity

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: Trainer, module: Pretraining, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """After each micro-batch."""
        settings, step = module.recipe.trainer, batch_idx // module.recipe.trainer.accumulate + 1
        loss = module.scalars[-1]["loss"]
        never = torch.full_like(loss, torch.inf, dtype=torch.float32)
        now = torch.where(torch.isfinite(loss), never, torch.full_like(never, step))
        self.bad = now if self.bad is None else torch.minimum(self.bad, now)
        due = (
            loss.device.type == "cpu"
            or step % settings.log_every == 0
            or step % settings.checkpoint_every == 0
            or step % module.recipe.monitor.every == 0
            or step == settings.steps
        )
        if not due:
            return
        first = _lowest(self.bad)
        if first < torch.inf:
            raise MedclError(_advice(f"The loss became NaN or infinite at step {int(first)}"))


def _check_weights(module: Pretraining, step: int) -> None:
    """Raises MedclError for bad weights: a finite loss can have an infinite gradient."""
    bad = [not torch.isfinite(p).all() for p in module.parameters() if p.is_floating_point()]
    flag = torch.tensor(0.0 if any(bad) else 1.0, device=module.device)
    if _lowest(flag) == 0:
        raise MedclError(_advice(f"Weights became NaN or infinite at or before step {step}"))


def _lowest(value: Tensor) -> float:
    """The minimum over ranks."""
    return float(ranks().gather(value.reshape(1)).min())


def _advice(what: str) -> str:
    return (
        f"{what}. Lower optimizer.lr, set optimizer.clip (1.0, say), lengthen optimizer.warmup, or "
        "take trainer.precision bf16 instead of 16. The last good checkpoint is kept."
    )
