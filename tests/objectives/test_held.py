"""Small batches in one pass equal the tiles, in value and gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from medcl.objectives import held
from medcl.objectives.nt_xent import nt_xent
from medcl.objectives.supcon import supcon


def of(loss: Tensor, *inputs: Tensor) -> list[Tensor]:
    return [loss.detach(), *torch.autograd.grad(loss, inputs)]


@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nt_xent_is_that_of_the_tiles(
    decoupled: bool, grouped: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    a, b = (torch.randn(24, 8, dtype=dtype).requires_grad_() for _ in range(2))
    with torch.no_grad():
        a[3] = 0  # has no direction
    group = torch.arange(24) // 3 if grouped else None
    got = of(nt_xent(a, b, group=group, decoupled=decoupled), a, b)
    monkeypatch.setattr(held, "HELD", 0)
    want = of(nt_xent(a, b, group=group, decoupled=decoupled), a, b)
    tolerance = (
        {"rtol": 2e-5, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 1e-9, "atol": 0}
    )
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other, **tolerance)


@pytest.mark.parametrize("labels", ["all", "some unknown", "none known", "all alone"])
def test_supcon_is_that_of_the_tiles(labels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    z = torch.randn(24, 8, dtype=torch.float64).requires_grad_()
    label = torch.arange(24) if labels == "all alone" else torch.arange(24) % 5
    if labels == "some unknown":
        label[::4] = -1
    if labels == "none known":
        label[:] = -1
    got = of(supcon(z, label), z)
    monkeypatch.setattr(held, "HELD", 0)
    want = of(supcon(z, label), z)
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-15)


def test_a_batch_of_one_patient_has_no_negatives() -> None:
    a = torch.randn(4, 3).requires_grad_()
    for decoupled in (False, True):
        loss, grad = of(nt_xent(a, a * 2, group=torch.zeros(4).long(), decoupled=decoupled), a)
        assert loss == 0
        assert grad.abs().max() == 0


def test_an_almost_perfect_batch_keeps_its_digits() -> None:
    """At a loss of 1e-8 a difference of two log-sums would have none left."""
    z = torch.cat([torch.eye(2), -torch.eye(2)]).requires_grad_()
    loss = nt_xent(z, z.detach(), temperature=0.05)
    exact = nt_xent(z.double(), z.detach().double(), temperature=0.05)
    assert loss.item() < 1e-7
    assert loss.item() == pytest.approx(exact.item(), rel=1e-4)


def test_second_derivatives_are_refused() -> None:
    z = torch.randn(6, 3).requires_grad_()
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(supcon(z, torch.arange(6) % 2), z, create_graph=True)
