"""Positives as indices and as sparse weights: one loss, and linear memory."""

from __future__ import annotations

import math

import pytest
import torch

from medcl.errors import UsageError
from medcl.objectives.graph_contrast import graph_contrast
from medcl.objectives.supcon import supcon

INDICES = torch.tensor([[1, 3], [0, -1], [-1, -1], [3, 2]])
DENSE = torch.tensor([[0.0, 1, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 1]])


def draw(n: int, d: int = 5) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
def test_indices_coo_and_csr_are_one_loss_with_one_gradient() -> None:
    found = []
    for edges in (INDICES, DENSE.to_sparse(), DENSE.to_sparse_csr()):
        z = draw(4).requires_grad_()
        loss = graph_contrast(z, edges)
        found.append((loss.detach(), *torch.autograd.grad(loss, z)))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0])


def test_the_edges_of_classes_are_supcon() -> None:
    labels = torch.arange(30) % 4
    edges = (labels[:, None] == labels).double()
    z = draw(30)
    want = supcon(z, labels, temperature=0.05)
    assert graph_contrast(z, edges.to_sparse(), temperature=0.05).item() == pytest.approx(
        want.item(), rel=1e-12
    )


def test_weights_matter_by_their_ratio_alone() -> None:
    z = draw(4)
    one = graph_contrast(z, DENSE.to_sparse())
    assert graph_contrast(z, (5 * DENSE).to_sparse()).item() == pytest.approx(one.item())
    assert graph_contrast(z, (DENSE.cumsum(1) * DENSE).to_sparse()) != one


@pytest.mark.parametrize("tau", [0.01, 1.0])
def test_edges_of_zero_vectors_equal_vectors_and_none_at_all(tau: float) -> None:
    for z in (torch.zeros(4, 5), torch.ones(4, 5)):
        z.requires_grad_()
        loss = graph_contrast(z, INDICES, temperature=tau)
        assert loss.item() == pytest.approx(math.log(3), rel=1e-6)
        assert torch.autograd.grad(loss, z)[0].isfinite().all()
    z = torch.ones(4, 5, requires_grad=True)
    for nothing in (torch.full((4, 2), -1), torch.empty(4, 0).long(), torch.eye(4).to_sparse()):
        loss = graph_contrast(z, nothing)
        assert loss == 0
        assert not torch.autograd.grad(loss, z)[0].any()


def test_bad_edges_are_told() -> None:
    z = draw(4)
    with pytest.raises(UsageError, match="column beyond a batch of 4"):
        graph_contrast(z, torch.tensor([[4], [0], [0], [0]]))
    with pytest.raises(UsageError, match="one column for each of the 4"):
        graph_contrast(z, torch.zeros(4, 5).to_sparse())
    with pytest.raises(UsageError, match="as many rows"):
        graph_contrast(z, INDICES[:3])
