"""Every objective under ``torch.compile``: the same loss, and the same gradients.

The tiles and the sparse products are graph breaks: what is around them is compiled.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
import test_objectives_contract as contract
import torch
from torch import Tensor

from medcl.objectives import OBJECTIVES
from medcl.objectives.nt_xent import nt_xent

FAMILY = [name for name, o in OBJECTIVES.items() if o.needs == "negatives"]
REST = [name for name in OBJECTIVES if name not in FAMILY]


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def equals_itself_compiled(name: str, case: contract.Case) -> None:
    fn = contract.objective(name)
    want, wanted = contract.called(fn, case.inputs, case.settings)
    compiled = torch.compile(fn, backend="aot_eager")
    loss, grads = contract.called(compiled, case.inputs, case.settings)
    assert loss.item() == pytest.approx(want.item(), rel=1e-9, abs=1e-12)
    assert contract.relative(grads, wanted, case.learns) < 1e-8


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILY)
def test_objectives_with_negatives(name: str) -> None:
    equals_itself_compiled(name, contract.CASES[name][0])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["info_nce", "supcon", "graph_contrast", "ot_contrast"])
def test_their_other_ways(name: str) -> None:
    """A queue, sets of labels, sparse weights, references missing: the contract's last case."""
    equals_itself_compiled(name, contract.CASES[name][-1])


@pytest.mark.slow
@pytest.mark.parametrize("name", REST)
def test_the_other_objectives(name: str) -> None:
    equals_itself_compiled(name, contract.CASES[name][0])


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
def test_a_network_and_its_loss_through_inductor() -> None:
    """Machine code for the layer, the tiles as they are."""
    layer = torch.nn.Linear(8, 4)
    x1, x2 = (torch.randn(16, 8, generator=torch.Generator().manual_seed(k)) for k in (0, 1))

    def step(a: Tensor, b: Tensor) -> Tensor:
        return nt_xent(layer(a).tanh(), layer(b).tanh(), temperature=0.1)

    want = step(x1, x2)
    wanted = torch.autograd.grad(want, layer.weight)[0]
    loss = torch.compile(step, backend="inductor")(x1, x2)
    torch.testing.assert_close(loss, want)
    torch.testing.assert_close(torch.autograd.grad(loss, layer.weight)[0], wanted)
