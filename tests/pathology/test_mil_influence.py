"""Influence contrast on graphs of tiles beside loops over dense matrices."""

from __future__ import annotations

import math

import pytest
import torch
from test_mil_graph import Encoder, two_regions

from medcl.labels.outputs import Outputs
from medcl_pathology.mil.aggregators.graph import Graph
from medcl_pathology.mil.bags import Bags
from medcl_pathology.mil.graph import neighbours
from medcl_pathology.mil.influence import Influence, influence


def dense(graph: torch.Tensor, hops: int) -> torch.Tensor:
    """γ (I, I) by powers of the normalised matrix, as the authors' code has it."""
    a = torch.eye(len(graph))
    for i, row in enumerate(graph.tolist()):
        for j in row:
            a[i, j] = a[j, i] = 1.0
    a = a / a.sum(1, keepdim=True)
    return sum((torch.linalg.matrix_power(a, r) for r in range(1, hops + 1)), torch.zeros_like(a))


@pytest.mark.parametrize("hops", [1, 2, 3])
def test_the_loss_is_the_formula(hops: int) -> None:
    torch.manual_seed(hops)
    bags = Bags(torch.randn(9, 5), torch.zeros(9).long(), 1, coords=torch.rand(9, 2))
    graph = neighbours(bags, 2)
    encode, task = Encoder(5, 6), Influence(6, hops, temperature=0.5)
    z = task.projector(encode(bags.x, graph)).detach()
    z = z / z.norm(dim=1, keepdim=True)
    gamma, losses = dense(graph, hops), []
    for i in range(9):
        e = {j: math.exp(float(z[i] @ z[j]) / 0.5) for j in range(9) if j != i}
        losses.append(-math.log(sum(float(gamma[i, j]) * e[j] for j in e) / sum(e.values())))
    found = task(encode, bags.x, graph)
    assert found.item() == pytest.approx(sum(losses) / 9, rel=1e-4)
    row, near, values = influence(graph, torch.tensor([4, 2]), hops)
    for at, anchor in enumerate((4, 2)):
        reached = dict(zip(near[row == at].tolist(), values[row == at].tolist(), strict=True))
        expected = {
            j: float(gamma[anchor, j]) for j in range(9) if j != anchor and gamma[anchor, j]
        }
        assert reached == pytest.approx(expected)


def test_tiles_alone_have_nobody_and_cost_nothing() -> None:
    bags = Bags(torch.randn(2, 5), torch.tensor([0, 1]), 2, coords=torch.zeros(2, 2))
    encode, task = Encoder(5, 6), Influence(6)
    loss = task(encode, bags.x, neighbours(bags, 3))
    loss.backward()
    assert loss == 0
    assert all(p.grad is None or p.grad.isfinite().all() for p in encode.parameters())


@pytest.mark.slow
def test_what_lies_together_becomes_alike() -> None:
    torch.manual_seed(0)
    bags, region = two_regions()
    x, graph = 0.3 * bags.x + torch.randn(len(bags.x), 16), neighbours(bags, 8)
    encode, task = Encoder(16, 24), Influence(24)

    def apart() -> float:
        with torch.no_grad():
            z = torch.nn.functional.normalize(encode(x, graph), dim=1)
        s, same = z @ z.T, region[:, None] == region
        return float(s[same].mean() - s[~same].mean())

    before = apart()
    optimiser = torch.optim.Adam([*encode.parameters(), *task.parameters()], lr=1e-2)
    for _ in range(60):
        optimiser.zero_grad()
        task(encode, x, graph).backward()
        optimiser.step()
    assert apart() > before + 0.1


def test_an_aggregator_takes_its_weight() -> None:
    bags, _ = two_regions(4)
    labelled = Bags(bags.x, bags.bag, 1, coords=bags.coords, y=torch.tensor([1]))
    graph = Graph(16, Outputs("binary", ("a", "b")), width=8, influence=0.5, hops=1)
    torch.manual_seed(0)
    found = graph(labelled).losses["influence"]
    graph.weights["influence"] = 1.0
    torch.manual_seed(0)
    torch.testing.assert_close(2 * found, graph(labelled).losses["influence"])
    assert not graph(bags).losses
