"""Training batches: their samples, order and reading."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medcl.contract import BAG, X
from medcl.errors import MedclError, UsageError
from medcl.labels.target import ONE_CLASS, SURVIVAL, Target
from medcl.plugin import Samples
from medcl.tensors import tensors

HELD = 2**30
"""Limit in bytes for samples in memory; larger data is read again for every batch."""
_AT_ONCE = 256

Read = Callable[[NDArray[np.int64]], dict[str, Tensor]]


@dataclass(frozen=True)
class Held:
    """All samples in memory; batches are indexed from them.

    Attributes:
        rows: name → (N, ...), one entry per sample.
        instances: name → (I, ...), one entry per instance; empty without bags.
        start: (N + 1,) first instance of each bag.
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
        shift = (
            first - size.cumsum(0) + size
        )  # from a position in the batch to one in all instances
        picked = torch.arange(int(size.sum())) + shift.repeat_interleave(size)
        batch |= {name: values[picked] for name, values in self.instances.items()}
        batch[BAG] = torch.arange(len(at)).repeat_interleave(size)
        return batch


def reader(samples: Samples, *, limit: int = HELD) -> Read:
    """A reader of batches: from memory, if the samples take at most ``limit`` bytes.

    Raises:
        MedclError: if a value of bags has neither one entry per bag nor one per instance.
    """
    parts: list[dict[str, Tensor]] = []
    size = 0
    for start in range(0, len(samples), _AT_ONCE):
        chunk = _finite(samples, np.arange(start, min(start + _AT_ONCE, len(samples))))
        size += sum(values.nbytes for values in chunk.values())
        if size > limit:
            return partial(_finite, samples)
        parts.append(chunk)
    bags = [part.pop(BAG, None) for part in parts]
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
    inside = [name for name in whole if name in samples.instances]
    for name, values in whole.items():
        of, count = ("instance", int(start_of[-1])) if name in inside else ("bag", len(samples))
        if len(values) != count:
            raise MedclError(
                f"The plugin's samples hold {len(values):,} values of '{name}' for {count:,} "
                f"{of}s. Samples.instances names the keys with one per instance: "
                f"{', '.join(samples.instances)}."
            )
    return Held(
        {name: values for name, values in whole.items() if name not in inside},
        {name: whole[name] for name in inside},
        start_of,
    )


def _finite(samples: Samples, rows: NDArray[np.int64]) -> dict[str, Tensor]:
    """Read samples.

    Raises:
        MedclError: if an input is not finite: it would silently spoil every weight.
    """
    batch = tensors(samples.read(rows))
    x = batch["x"]
    if x.is_floating_point() and not x.isfinite().all():
        first = int((~x.isfinite()).flatten(1).any(1).nonzero()[0])
        row = rows[int(batch[BAG][first]) if BAG in batch else first]
        raise MedclError(
            f"Sample {samples.ids[row]} holds NaN or infinite values: recompute its features, or "
            "leave it out (remove its label; finetune.unlabelled must be off)."
        )
    return batch


def size(batch: Mapping[str, Any]) -> int:
    """Number of samples in a batch; for bags, the number of bags."""
    return int(batch[BAG][-1]) + 1 if BAG in batch else len(batch[X])


def ahead(read: Read, batches: Iterable[NDArray[np.int64]]) -> Iterator[tuple[NDArray, dict]]:
    """(rows, batch) in order; a thread reads the next batch ahead unless samples are in memory."""
    if isinstance(read, Held):
        for rows in batches:
            yield rows, read(rows)
        return
    with ThreadPoolExecutor(1) as pool:
        pending = None
        for rows in batches:
            following = rows, pool.submit(read, rows)
            if pending is not None:
                yield pending[0], pending[1].result()
            pending = following
        if pending is not None:
            yield pending[0], pending[1].result()


def cut(order: NDArray[np.int64], batch_size: int) -> list[NDArray[np.int64]]:
    """An epoch in batches of nearly equal size, so that none has a single sample."""
    return np.array_split(order, max(1, -(-len(order) // batch_size)))


def shuffled(rows: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """An epoch that sees every sample once."""
    return rng.permutation(rows)


def balanced(
    rows: NDArray[np.int64], strata: NDArray[np.str_], rng: np.random.Generator
) -> NDArray[np.int64]:
    """An epoch of len(rows) samples in which every stratum is equally frequent.

    Strata alternate, so every batch is balanced too; each stratum uses all its samples before it
    repeats one.

    Args:
        rows: samples to draw from.
        strata: (len(rows),) a stratum for each.
        rng: of the order.
    """
    names = np.unique(strata)
    each = -(-len(rows) // len(names))
    columns = []
    for name in names:
        members = rows[strata == name]
        rounds = [rng.permutation(members) for _ in range(-(-each // len(members)))]
        columns.append(np.concatenate(rounds)[:each])
    turns = rng.permuted(np.stack(columns, 1), axis=1)  # (each, strata)
    return turns.reshape(-1)[: len(rows)]


def classes_of(target: Target, rows: NDArray[np.int64]) -> NDArray[np.str_]:
    """Strata of the balanced sampler.

    Raises:
        UsageError: for a regression.
    """
    if target.kind not in (*ONE_CLASS, *SURVIVAL, "multilabel"):
        raise UsageError("finetune.sampler balanced is for classes: set it to shuffled.")
    return np.array(target.at(rows).strata())
