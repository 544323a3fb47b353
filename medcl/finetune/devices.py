"""One training on several devices: each takes its part of every batch, gradients are averaged.

The result is that of one process with the whole batches: the losses that are allowed are means over
samples, batch normalisation takes the statistics of all devices, and whatever else is drawn is of
the seed. Dropout and views are drawn by each device for itself.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from numpy.typing import NDArray
from torch import nn

from medcl import recipe as recipes
from medcl.classifiers.contract import Declares
from medcl.errors import UsageError
from medcl.nn.distributed import Ranks, ranks

MEANS = ("ce", "focal", "robust", "class-balanced", "logit-adjusted", "ldam")
"""Losses that are means over samples; the others divide by the weights of a batch."""


def check(name: str, can: Declares, settings: recipes.Finetune, kind: str) -> None:
    """Refuse what several devices would train to something else than one.

    Args:
        name: of the classifier.
        can: its properties.
        settings: of the recipe.
        kind: of the label, see `medcl.labels.outputs.Outputs`.

    Raises:
        UsageError: naming what is in the way.
    """
    if settings.devices == 1:
        return
    reason = ""
    if not can.mixup:
        reason = f"the classifier '{name}', whose loss is not a mean over samples"
    elif settings.loss not in MEANS:
        reason = f"finetune.loss {settings.loss}, which divides by the weights of a batch"
    elif kind == "cox":
        reason = "a Cox model, whose risk sets are batches"
    elif settings.mixup:
        reason = "finetune.mixup, which mixes the samples of one device"
    elif settings.batch_size < 2 * settings.devices:
        reason = f"a batch of {settings.batch_size}: each needs two samples at least"
    if reason:
        raise UsageError(f"finetune.devices {settings.devices} does not go with {reason}.")


def mine(rows: NDArray[np.int64], world: Ranks) -> NDArray[np.int64]:
    """This device's part of a batch; what does not divide is left out, in another epoch another.

    Example:
        >>> mine(np.arange(5), Ranks(1, 2)).tolist()
        [2, 3]
    """
    if world.world == 1:
        return rows
    each = len(rows) // world.world
    return rows[each * world.rank : each * (world.rank + 1)]


def synchronised(model: nn.Module, device: torch.device) -> nn.Module:
    """The model with batch normalisation over all devices; itself where there is one."""
    if ranks().world == 1:
        return model
    if device.type == "cuda":
        synced: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return synced
    from medcl.engine.batchnorm import SyncLayers  # it imports Lightning

    return SyncLayers().apply(model)


def average_gradients(model: nn.Module, world: Ranks) -> None:
    """Of all devices, in place: one message for all of them."""
    if world.world == 1:
        return
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    flat = world.mean(torch.cat([grad.flatten() for grad in grads]))
    for grad, part in zip(grads, flat.split([grad.numel() for grad in grads]), strict=True):
        grad.copy_(part.view_as(grad))


def on_each(devices: int, device: str, run: Callable[[str], None]) -> None:
    """``run(device)`` in as many processes of one group; ``run`` must be picklable."""
    with tempfile.TemporaryDirectory() as folder:
        meeting = f"file://{Path(folder) / 'meet'}"
        arguments = (devices, device, meeting, run)
        mp.start_processes(_enter, arguments, nprocs=devices, start_method="spawn")


def _enter(rank: int, devices: int, device: str, meeting: str, run: Callable[[str], None]) -> None:
    on_gpu = device.startswith("cuda")
    if on_gpu:
        torch.cuda.set_device(rank)
    else:
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // devices))
    backend = "nccl" if on_gpu else "gloo"
    dist.init_process_group(backend, init_method=meeting, rank=rank, world_size=devices)
    try:
        run(f"cuda:{rank}" if on_gpu else device)
    finally:
        dist.destroy_process_group()
