"""Two processes with half a batch each take the step of one process with the whole of it."""

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1] / "nn"))
import ranks2

from medcl.methods.contract import State
from medcl.methods.moco import MoCoV2
from medcl.methods.participant import Participant
from medcl.methods.swav import SwAV
from medcl.nn.distributed import ALONE, Ranks, ranks


class Linear(nn.Module):
    """No batch statistics: those are the business of synchronised batch normalisation."""

    width = 6

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(10, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


def methods() -> dict[str, nn.Module]:
    built: dict[str, nn.Module] = {}
    for name, factory, settings in (
        ("moco", MoCoV2, {"queue": 12}),
        ("participant", Participant, {"instance": 0.5}),
        ("swav", SwAV, {"prototypes": 5, "frozen": 0, "queue": 12}),
    ):
        torch.manual_seed(0)
        method = factory(Linear(), hidden=8, out=4, **settings)
        for part in method.modules():
            if isinstance(part, nn.BatchNorm1d):
                part.eval()
        built[name] = method
    return built


def gradients(rank: int, world: Ranks) -> dict[str, dict[str, Tensor]]:
    """What two steps leave behind: the averaged gradients of the second, and all buffers."""
    found = {}
    for name, method in methods().items():
        generator = torch.Generator().manual_seed(1)
        for step in range(2):
            whole = torch.randn(len(method.views), 8, 10, generator=generator)
            mine = whole[:, 4 * rank : 4 * rank + 4] if world.world > 1 else whole
            patients = torch.arange(8) // 2
            patients = patients[4 * rank : 4 * rank + 4] if world.world > 1 else patients
            method.zero_grad()
            batch = {"patient": patients}
            method.step(list(mine), batch, State(step, 4, world))["loss"].backward()
            for parameter in method.parameters():
                if parameter.grad is not None:
                    parameter.grad = world.mean(parameter.grad)  # as DDP does
        grads = {k: p.grad for k, p in method.named_parameters() if p.grad is not None}
        found[name] = {**grads, **dict(method.named_buffers())}
    return found


def on_rank(rank: int) -> dict[str, dict[str, Tensor]]:
    return gradients(rank, ranks())


def test_two_ranks_are_one_process_with_both_batches():
    both, alone = ranks2.run(on_rank), gradients(0, ALONE)
    for name, expected in alone.items():
        assert expected
        for key, value in expected.items():
            if name == "swav" and key.startswith("queue.store"):
                continue  # the same keys
            for mine in both:
                torch.testing.assert_close(
                    mine[name][key], value, rtol=1e-4, atol=1e-5, msg=f"{name} {key}"
                )
