"""Two processes with half a batch each take the steps of one process with the whole of it.

Over the whole registry: three optimiser steps, after which loss, weights and buffers (momentum
copies, queues, centres, centroids) are compared. Batch normalisation uses its running statistics
here: across ranks it is the business of synchronised batch normalisation, which the engine puts in.

What is drawn at random differs from rank to rank, as it should, so masks are drawn here for the
whole batch and each rank takes its rows. Where a draw is *from the rank's own batch* two ranks
cannot equal one: TIP takes hard negatives and replacement values there, and is compared in its
other two losses, without replacement. `harmonised` is compared around such a method. Codes of
`quantised` are drawn by their noise within a rank, and are the likeliest here.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import digits
import pytest
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1] / "nn"))
import ranks2
import test_contract as contract

from medcl.methods.contract import State, after_step
from medcl.nn.distributed import ALONE, Ranks, ranks
from medcl_biosignals.methods.quantised import Quantiser

B = 8  # samples in all
STEPS = 3
SETTINGS: dict[str, dict[str, Any]] = {
    "moco-v2": {"queue": 24},
    "swav": {"queue": 24, "prototypes": 5, "frozen": 1},
    "deepcluster-v2": {"clusters": (5, 3), "memory": 24, "every": 2},
    "dino": {"frozen": 1},
    "dinov2": {"frozen": 1},
    "tip": {"corruption": 0.0},
    "participant": {"dropout": 0.0},
    "joint2d3d": {"frozen": 1, "volume_queue": 24},
    "songci": {"frozen": 1, "frozen_last": 1, "queue": 24, "queue_from": 1},
    "harmonised": {"method": "can", "settings": contract.CASES["can"].settings},
}
ENCODERS: dict[str, Callable[[], nn.Module]] = {"harmonised": digits.vit}
COMPARED: dict[str, tuple[str, ...]] = {"tip": ("loss_itc", "loss_mtr")}
UNORDERED = {"swav": ("queue.store",), "songci": ("queue.store",)}  # the same keys, rank by rank


def built(name: str) -> nn.Module:
    torch.manual_seed(0)
    case = contract.CASES[name]
    encoder = ENCODERS.get(name, case.encoder)()
    settings = (
        SETTINGS[name] if name == "harmonised" else {**case.settings, **SETTINGS.get(name, {})}
    )
    method: nn.Module = contract.resolve(contract.METHODS[name])(encoder, **settings).double()
    for part in method.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm | Quantiser):
            part.eval()
    return method


@contextmanager
def masks_of_the_whole_batch(world: Ranks) -> Iterator[None]:
    """``torch.rand``, ``rand_like`` and ``randint`` give this rank its rows of one draw for all."""
    rand, rand_like, randint = torch.rand, torch.rand_like, torch.randint
    mine = B // world.world
    generator = torch.Generator().manual_seed(0)  # of its own: what else is drawn may differ

    def rows_of(size: Any, kind: dict[str, Any]) -> Tensor:
        size = tuple(size[0]) if isinstance(size[0], tuple) else tuple(size)
        if size[0] % mine:  # not of the samples
            return rand(size, generator=generator, **kind)
        views, *rest = size[0] // mine, *size[1:]
        whole = rand(views, B, *rest, generator=generator, **kind)
        return whole[:, mine * world.rank :][:, :mine].reshape(size)

    def whole_numbers(*asked: Any, **kind: Any) -> Tensor:
        low, high, size = asked if len(asked) == 3 else (0, *asked)
        return low + (rows_of(size, {}) * (high - low)).long()

    with (
        mock.patch("torch.randint", whole_numbers),
        mock.patch("torch.rand", lambda *size, **kind: rows_of(size, kind)),
        mock.patch("torch.rand_like", lambda x: rows_of(tuple(x.shape), {"dtype": x.dtype})),
    ):
        yield
    assert (torch.rand, torch.rand_like, torch.randint) == (rand, rand_like, randint)


def whole_batch(name: str, method: Any) -> tuple[list[Tensor], dict[str, Tensor]]:
    material = contract.CASES[name].material
    x, batch = material.draw(B)
    batch["patient"] = torch.arange(B) // 2
    views = [material.augment(x, view).double() for view in method.views]
    return views, {k: v.double() if v.is_floating_point() else v for k, v in batch.items()}


def trained(name: str, world: Ranks) -> dict[str, Tensor]:
    """Three steps as the engine takes them: gradients averaged, then the optimiser."""
    method: Any = built(name)
    moving = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1)
    mine = slice(B // world.world * world.rank, B // world.world * (world.rank + 1))
    found = {}
    for step in range(STEPS):
        torch.manual_seed(step)
        views, batch = whole_batch(name, method)
        state = State(step, STEPS, world)
        with masks_of_the_whole_batch(world):
            result = method.step(
                [view[mine] for view in views], {key: x[mine] for key, x in batch.items()}, state
            )
        loss = result["loss"]
        if name in COMPARED:
            loss = torch.stack([result[part] for part in COMPARED[name]]).sum()
        moving.zero_grad()
        loss.backward()
        for group in moving.param_groups:
            for p in group["params"]:
                p.grad = None if p.grad is None else world.mean(p.grad)  # as DDP does
        moving.step()
        after_step(method, state)
        found[f"loss {step}"] = world.mean(loss.detach())
    return {**found, **method.state_dict()}


def on_rank(rank: int) -> dict[str, dict[str, Tensor]]:
    return {name: trained(name, ranks()) for name in contract.METHODS}


@pytest.fixture(scope="module")
def of_two_ranks() -> list[dict[str, dict[str, Tensor]]]:
    found: list[dict[str, dict[str, Tensor]]] = ranks2.run(on_rank)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", contract.METHODS)
def test_two_ranks_are_one_process_with_both_batches(
    name: str, of_two_ranks: list[dict[str, dict[str, Tensor]]]
) -> None:
    alone, start = trained(name, ALONE), built(name).state_dict()
    assert any(not torch.equal(alone[key], start[key]) for key in start)
    assert all(math.isfinite(alone[f"loss {step}"]) for step in range(STEPS))
    for key, value in alone.items():
        if key in UNORDERED.get(name, ()):
            continue
        for rank in of_two_ranks:
            torch.testing.assert_close(
                rank[name][key], value, rtol=1e-6, atol=1e-9, msg=f"{name}: {key}"
            )
