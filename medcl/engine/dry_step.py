"""Before a run begins: what a step takes, told, and refused where the memory does not hold it.

Two steps, of four and of eight samples, are taken on a copy of the method, and what autograd keeps
is counted: what grows from one to the other grows with the batch. Workspaces of single operations
are not counted, so the figure is a lower bound: what it refuses would not fit.
"""

from __future__ import annotations

import copy
import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from medcl.engine.data import Batches
from medcl.engine.module import Pretraining
from medcl.errors import UsageError
from medcl.methods.contract import State
from medcl.recipe import Recipe

SMALL = 4
"""Samples of the first of two dry steps; the second has twice as many."""
STATES = {"adamw": 2, "adam": 2, "sgd": 1, "lars": 1}
"""Tensors that an optimiser keeps for each weight."""


@dataclass(frozen=True)
class Cost:
    """What a step takes.

    Attributes:
        fixed: bytes of weights, gradients, the optimiser's state and what a method keeps.
        each: bytes for each sample of a batch: its views and what autograd keeps.
        seconds: of computation for each sample.
    """

    fixed: int
    each: int
    seconds: float

    def peak(self, batch: int) -> int:
        """Bytes of a step with ``batch`` samples."""
        return self.fixed + batch * self.each


def measured(module: Pretraining) -> Cost | None:
    """The cost of a step on this device; None where a few samples make no step.

    The method, its buffers and the random numbers of training are left as they are.
    """
    recipe = module.recipe
    if recipe.trainer.batch_size < 2 * SMALL:
        return None
    try:
        few, _ = _step(module, SMALL)
        more, seconds = _step(module, 2 * SMALL)
    except Exception:  # too few samples for it, or what the first step of the run will show
        return None
    assert isinstance(module.method, torch.nn.Module)
    weights = [p.nbytes for p in module.method.parameters()]
    trained = sum(p.nbytes for p in module.method.parameters() if p.requires_grad)
    fixed = sum(weights) + sum(b.nbytes for b in module.method.buffers())
    fixed += trained * (1 + STATES[recipe.optimizer.name])
    each = max(0, more - few) // SMALL
    return Cost(fixed + max(0, few - SMALL * each), each, seconds / (2 * SMALL))


def _step(module: Pretraining, samples: int) -> tuple[int, float]:
    """Bytes that are held when the backward pass of a step begins, and the seconds of both."""
    recipe, method = module.recipe, copy.deepcopy(module.method)
    assert isinstance(method, torch.nn.Module)
    own = {x.untyped_storage().data_ptr() for x in (*method.parameters(), *method.buffers())}
    kept: dict[int, int] = {}

    def count(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return x

    batches = Batches(
        module.selection,
        batch_size=samples,
        seed=recipe.seed,
        pairs=any(view.source for view in method.views),
        anew="label" not in method.needs,
    )
    began = time.perf_counter()
    with torch.random.fork_rng(devices=[]):
        number, batch = batches[0]
        views = [module.drawn_view(v, batch, number, n) for n, v in enumerate(method.views)]
        with torch.autograd.graph.saved_tensors_hooks(count, lambda x: x):
            loss = method.step(views, batch, State(0, recipe.trainer.steps))["loss"]
        held = sum(size for at, size in kept.items() if at not in own)
        held += sum(x.nbytes for x in (*views, *batch.values()))
        loss.backward()
    return held, time.perf_counter() - began


def free() -> int | None:
    """Bytes that a process may still take on this machine or in this container; None: unknown."""
    found = []
    if os.path.isfile("/proc/meminfo"):
        for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                found.append(int(line.split()[1]) * 1024)
    limit, used = (Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current"))
    if limit.is_file() and used.is_file():
        text = limit.read_text(encoding="utf-8").strip()
        if text.isdigit():
            found.append(int(text) - int(used.read_text(encoding="utf-8")))
    return min(found, default=None)


def fitting(cost: Cost, recipe: Recipe, memory: int) -> int:
    """The largest half, quarter, … of the batch that fits; at least 2."""
    batch = recipe.trainer.batch_size
    while batch > 2 and cost.peak(batch) > memory:
        batch //= 2
    return max(batch, 2)


def told(cost: Cost, recipe: Recipe, samples: int, memory: int | None) -> str:
    """What the run will take, in a sentence.

    Args:
        cost: of a step.
        recipe: of the run.
        samples: of an epoch.
        memory: bytes that each process may take; None: unknown.

    Raises:
        UsageError: if a step does not fit into ``memory``, with the settings that do.
    """
    settings = recipe.trainer
    batch = settings.batch_size
    peak = cost.peak(batch)
    if memory is not None and peak > memory:
        smaller = fitting(cost, recipe, memory)
        times = settings.accumulate * -(-batch // smaller)
        advice = (
            f"set trainer.batch_size={smaller} and trainer.accumulate={times}, or, for a method "
            f"that contrasts the samples of a batch, trainer.micro_batch={smaller}"
            if cost.peak(smaller) <= memory
            else "take a smaller encoder or smaller samples"
        )
        raise UsageError(
            f"A step with {batch:,} samples needs at least {size(peak)}, and {size(memory)} are "
            f"free: {advice}."
        )
    epoch = cost.seconds * samples
    steps = cost.seconds * batch * settings.accumulate * settings.steps
    return (
        f"A step with {batch:,} samples takes at least {size(peak)} of memory; an epoch of "
        f"{samples:,} samples about {duration(epoch)}, all {settings.steps:,} steps about "
        f"{duration(steps)} on one device."
    )


def size(count: float) -> str:
    """Bytes as text.

    Example:
        >>> size(3.2e9)
        '3.2 GB'
    """
    return f"{count / 1e9:,.1f} GB" if count >= 1e8 else f"{count / 1e6:,.1f} MB"


def duration(seconds: float) -> str:
    """Seconds as text.

    Example:
        >>> duration(5400), duration(3.2)
        ('1.5 h', '3 s')
    """
    if seconds >= 3600:
        return f"{seconds / 3600:,.1f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
