"""Run a function in two gloo processes and hand back what each returned."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def _enter(rank: int, fn: Callable[[int], Any], folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    try:
        torch.save(fn(rank), Path(folder) / f"{rank}.pt")
    finally:
        dist.destroy_process_group()


def run(fn: Callable[[int], Any]) -> list[Any]:
    """``[fn(0), fn(1)]``, each in its own process of one group; ``fn`` is a module's function."""
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(_enter, (fn, folder), nprocs=2, start_method="forkserver")
        return [torch.load(Path(folder) / f"{r}.pt", weights_only=True) for r in (0, 1)]
