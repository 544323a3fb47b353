"""The joint method: two processes with half a batch each take the step of one with all of it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "nn"))
import ranks2

from medcl.methods.contract import State
from medcl.nn.distributed import ALONE, Ranks, ranks
from medcl_ct.encoders.joint import joint
from medcl_ct.joint import Joint2D3D

DEPTH = torch.tensor([6, 1, 3, 4, 5, 1])  # ten slices a half, with other numbers hidden
HIDDEN = torch.tensor(
    [
        [0, 1, 0, 0, 1, 0],
        [0, 0, 1, 0, 0, 0],
        [1, 0, 0, 0, 0, 0],
        [0, 1, 0, 1, 1, 0],
    ],
    dtype=torch.bool,
)  # of the four volumes


def build(variant: str) -> Joint2D3D:
    """In eval mode: batch statistics and dropout are other tests' business."""
    torch.manual_seed(0)
    method = Joint2D3D(
        joint(depth=10, base=4, width=16, layers=2, heads=2, hidden=16),
        variant=variant,
        hidden=16,
        out=8,
        prototypes=5,
        volume_prototypes=3,
        clusters=(4,),
        volume_clusters=(2,),
        queue=12,
        volume_queue=4,
        frozen=0,
        slices_first=0.0,
        memory=40,
        volume_memory=8,
        every=1,
    )
    return method.eval()


def steps(rank: int, world: Ranks) -> dict[str, dict[str, Tensor]]:
    """Losses, averaged gradients and centroids of the second of two steps, by variant."""
    found = {}
    half = slice(3 * rank, 3 * rank + 3) if world.world > 1 else slice(None)
    volumes = slice(2 * rank, 2 * rank + 2) if world.world > 1 else slice(None)
    for variant in ("swav", "deepcluster"):
        method = build(variant)
        given = HIDDEN[volumes].repeat(2, 1)  # of both views
        method._hide = lambda tokens, depth, given=given: given
        generator = torch.Generator().manual_seed(1)
        for number in range(2):
            whole = torch.randn(2, 6, 1, 6, 20, 20, generator=generator) * 300
            batch = {"patient": torch.arange(6)[half], "depth": DEPTH[half]}
            method.zero_grad()
            result = method.step(list(whole[:, half]), batch, State(number, 4, world))
            result["loss"].backward()
            method.after_step(State(number, 4, world))
        found[variant] = {
            name: world.mean(result[name].detach()) for name in ("loss", "intra", "inter", "mask")
        }
        for name, parameter in method.named_parameters():
            if parameter.grad is not None:
                found[variant][name] = world.mean(parameter.grad)  # as DDP does
            elif "centroids" in name:
                found[variant][name] = parameter.detach()
    return found


def on_rank(rank: int) -> dict[str, dict[str, Tensor]]:
    return steps(rank, ranks())


@pytest.mark.slow
def test_two_ranks_are_one_process_with_both_batches() -> None:
    both, alone = ranks2.run(on_rank), steps(0, ALONE)
    for variant, expected in alone.items():
        moved = [name for name, value in expected.items() if float(value.abs().max()) > 0]
        assert {"intra", "inter", "mask", "hidden", "decoder.weight"} <= set(moved)
        assert any(name.startswith("encoder.intra") for name in moved)
        for name, value in expected.items():
            for mine in both:
                torch.testing.assert_close(
                    mine[variant][name],
                    value,
                    rtol=1e-4,
                    atol=1e-5,
                    msg=lambda text, at=f"{variant} {name}": f"{at}: {text}",
                )
