"""Batches to train on: which samples, in what order, and reading them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medcl.errors import MedclError, UsageError
from medcl.labels.target import ONE_CLASS, SURVIVAL, Target
from medcl.plugin import Samples

HELD = 2**30
"""Bytes of samples that are kept in memory; more are read anew for every batch."""
_AT_ONCE = 256

Read = Callable[[NDArray[np.int64]], dict[str, Tensor]]


@dataclass(frozen=True)
class Held:
    """All samples in memory; a batch is picked out of them.

    Attributes:
        rows: name → (N, ...), one entry a sample.
        instances: name → (I, ...), one entry an instance of a bag; empty where there are no bags.
        start: (N + 1,) where each bag begins.
    """

    rows: Mapping[str, Tensor]
    instances: Mapping[str, Tensor]
    start: Tensor

    def __call__(self, rows: NDArray[np.int64]) -> dict[str, Tensor]:
        """The batch of samples at these positions, bags packed in this order."""
        at = torch.from_numpy(np.ascontiguousarray(rows))
        batch = {name: values[at] for name, values in self.rows.items()}
        if not self.instances:
            return batch
        first = self.start[at]
        size = self.start[at + 1] - first
        shift = first - size.cumsum(0) + size  # from a place in the batch to one in all instances
        picked = torch.arange(int(size.sum())) + shift.repeat_interleave(size)
        batch |= {name: values[picked] for name, values in self.instances.items()}
        batch["bag"] = torch.arange(len(at)).repeat_interleave(size)
        return batch


def reader(samples: Samples, *, limit: int = HELD) -> Read:
    """How to read batches: from memory, if the samples take no more than ``limit`` bytes."""
    parts: list[dict[str, Tensor]] = []
    size = 0
    for start in range(0, len(samples), _AT_ONCE):
        chunk = _finite(samples, np.arange(start, min(start + _AT_ONCE, len(samples))))
        size += sum(values.nbytes for values in chunk.values())
        if size > limit:
            return partial(_finite, samples)
        parts.append(chunk)
    bags = [part.pop("bag", None) for part in parts]
    whole = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    if bags[0] is None:
        return Held(whole, {}, torch.empty(0, dtype=torch.int64))
    counts = torch.cat(
        [
            torch.bincount(bag, minlength=min(_AT_ONCE, len(samples) - n * _AT_ONCE))
            for n, bag in enumerate(bags)
            if bag is not None
        ]
    )
    start_of = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
    inside = {name for name, values in whole.items() if len(values) == int(start_of[-1])}
    return Held(
        {name: values for name, values in whole.items() if name not in inside},
        {name: values for name, values in whole.items() if name in inside},
        start_of,
    )


def _finite(samples: Samples, rows: NDArray[np.int64]) -> dict[str, Tensor]:
    """Read samples.

    Raises:
        MedclError: if an input is not a number: it would go unnoticed into every weight.
    """
    batch = tensors(samples.read(rows))
    x = batch["x"]
    if x.is_floating_point() and not x.isfinite().all():
        first = int((~x.isfinite()).flatten(1).any(1).nonzero()[0])
        row = rows[int(batch["bag"][first]) if "bag" in batch else first]
        raise MedclError(
            f"Sample {samples.ids[row]} holds NaN or infinite values: make its features again, or "
            "leave it out (without a label it is not used, unless finetune.unlabelled asks for it)."
        )
    return batch


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


def ahead(read: Read, batches: Iterable[NDArray[np.int64]]) -> Iterator[tuple[NDArray, dict]]:
    """(rows, batch) one after the other, the next one being read meanwhile, if that takes time."""
    if isinstance(read, Held):
        for rows in batches:
            yield rows, read(rows)
        return
    with ThreadPoolExecutor(1) as pool:
        before = None
        for rows in batches:
            following = rows, pool.submit(read, rows)
            if before is not None:
                yield before[0], before[1].result()
            before = following
        if before is not None:
            yield before[0], before[1].result()


def cut(order: NDArray[np.int64], batch_size: int) -> list[NDArray[np.int64]]:
    """An epoch in batches of nearly equal size, so that none is left with one sample."""
    return np.array_split(order, max(1, -(-len(order) // batch_size)))


def shuffled(rows: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """An epoch that sees every sample once."""
    return rng.permutation(rows)


def balanced(
    rows: NDArray[np.int64], strata: NDArray[np.str_], rng: np.random.Generator
) -> NDArray[np.int64]:
    """An epoch as long as there are samples, in which every stratum is equally frequent.

    Strata take turns, so that every batch is balanced too; each goes through all of its samples
    before it repeats one.

    Args:
        rows: samples to draw from.
        strata: a stratum for each of them.
        rng: of the order.
    """
    names = np.unique(strata)
    each = -(-len(rows) // len(names))
    columns = []
    for name in names:
        mine = rows[strata == name]
        rounds = [rng.permutation(mine) for _ in range(-(-each // len(mine)))]
        columns.append(np.concatenate(rounds)[:each])
    turns = rng.permuted(np.stack(columns, 1), axis=1)  # (each, strata)
    return turns.reshape(-1)[: len(rows)]


def classes_of(found: Target, rows: NDArray[np.int64]) -> NDArray[np.str_]:
    """What the balanced sampler balances.

    Raises:
        UsageError: for a regression, which has nothing of the kind.
    """
    if found.kind not in (*ONE_CLASS, *SURVIVAL, "multilabel"):
        raise UsageError("finetune.sampler balanced is for classes: set it to shuffled.")
    return np.array(found.at(rows).strata())
