"""InfoNCE and NT-Xent against loops, against torch's cross-entropy, and at the edges."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from medcl.errors import UsageError
from medcl.objectives.info_nce import info_nce
from medcl.objectives.nt_xent import nt_xent


def plain_nt_xent(z1: Tensor, z2: Tensor, tau: float) -> Tensor:
    z = normalize(torch.cat([z1, z2]).double())
    s = (z @ z.T / tau).fill_diagonal_(-torch.inf)
    return cross_entropy(s, torch.arange(len(z)).roll(len(z1)))


def gradients(fn, *inputs: Tensor, **settings) -> tuple[Tensor, list[Tensor]]:
    inputs = [x.detach().clone().requires_grad_() for x in inputs]
    loss = fn(*inputs, **settings)
    return loss.detach(), list(torch.autograd.grad(loss, inputs))


def views(n: int = 60, d: int = 32, noise: float = 3.0, **kind) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    z = torch.randn(n, d, generator=rng)
    return z.to(**kind), (z + noise * torch.randn(n, d, generator=rng)).to(**kind)


def distance(a: list[Tensor], b: list[Tensor]) -> float:
    a, b = (torch.cat([x.flatten().double() for x in side]) for side in (a, b))
    return ((a - b).norm() / b.norm()).item()


@pytest.mark.parametrize("tau", [0.01, 0.026, 0.04, 0.1, 1.0])
def test_nt_xent_in_float32_equals_plain_float64(tau: float) -> None:
    z1, z2 = views()
    loss, grads = gradients(nt_xent, z1, z2, temperature=tau)
    want, wanted = gradients(plain_nt_xent, z1.double(), z2.double(), tau=tau)
    assert loss.item() == pytest.approx(want.item(), rel=1e-6)
    assert distance(grads, wanted) < 1e-6


@pytest.mark.parametrize("symmetric", [False, True])
def test_info_nce_equals_cross_entropy_with_a_diagonal_target(symmetric: bool) -> None:
    def plain(q: Tensor, k: Tensor) -> Tensor:
        s = normalize(q) @ normalize(k).T / 0.2
        t = torch.arange(len(q))
        return (
            (cross_entropy(s, t) + cross_entropy(s.T, t)) / 2 if symmetric else cross_entropy(s, t)
        )

    q, k = views(dtype=torch.float64)
    loss, grads = gradients(info_nce, q, k, temperature=0.2, symmetric=symmetric)
    want, wanted = gradients(plain, q, k)
    assert loss.item() == pytest.approx(want.item(), rel=1e-12)
    assert distance(grads, wanted) < 1e-12


@pytest.mark.parametrize("in_batch", [True, False])
def test_queue(in_batch: bool) -> None:
    def plain(q: Tensor, k: Tensor) -> Tensor:
        s = normalize(q) @ normalize(k).T / 0.2
        own = s.diag()[:, None]
        rest = s if in_batch else own
        logits = torch.cat([rest, normalize(q) @ normalize(queue).T / 0.2], dim=1)
        return cross_entropy(
            logits, torch.arange(len(q)) if in_batch else torch.zeros(len(q)).long()
        )

    q, k = views(dtype=torch.float64)
    queue = torch.randn(100, 32, dtype=torch.float64, requires_grad=True)
    loss, grads = gradients(info_nce, q, k, temperature=0.2, negatives=queue, in_batch=in_batch)
    want, wanted = gradients(plain, q, k)
    assert loss.item() == pytest.approx(want.item(), rel=1e-12)
    assert distance(grads, wanted) < 1e-12
    assert queue.grad is None


def test_two_windows_of_one_patient_are_no_negatives() -> None:
    z1, z2 = views(n=6, dtype=torch.float64)
    patient = torch.tensor([0, 0, 1, 2, 2, 2])
    z = normalize(torch.cat([z1, z2]))
    s, p = z @ z.T / 0.5, patient.repeat(2)
    total = 0.0
    for i in range(12):
        partner = (i + 6) % 12
        others = [j for j in range(12) if p[j] != p[i]]
        total += torch.log(s[i, partner].exp() + s[i, others].exp().sum()) - s[i, partner]
    loss = nt_xent(z1, z2, temperature=0.5, group=patient)
    assert loss.item() == pytest.approx(total.item() / 12, rel=1e-12)


def test_a_queue_hides_the_patients_own_keys() -> None:
    q, k = views(n=3, dtype=torch.float64)
    queue = torch.randn(4, 32, dtype=torch.float64)
    settings = {"temperature": 0.5, "group": torch.tensor([0, 1, 2])}
    loss = info_nce(q, k, negatives=queue, negative_group=torch.tensor([9, 9, 9, 9]), **settings)
    own = torch.cat([queue, q[:1]])  # the hardest negative of query 0, were it not its patient's
    groups = torch.tensor([9, 9, 9, 9, 0])
    hidden = info_nce(
        q[:1], k[:1], temperature=0.5, group=torch.tensor([0]), negatives=own, negative_group=groups
    )
    assert hidden.item() == pytest.approx(
        info_nce(q[:1], k[:1], temperature=0.5, negatives=queue).item()
    )
    assert loss.isfinite()


def test_closed_forms() -> None:
    n, tau = 5, 0.5
    same = torch.ones(n, 8)
    assert nt_xent(same, same, temperature=tau).item() == pytest.approx(math.log(2 * n - 1))
    assert info_nce(same, same, temperature=tau).item() == pytest.approx(math.log(n))
    apart = torch.eye(n)
    want = math.log(1 + (2 * n - 2) * math.exp(-1 / tau))
    assert nt_xent(apart, apart, temperature=tau).item() == pytest.approx(want)
    want = math.log(2 * n - 2) - 1 / tau
    assert nt_xent(apart, apart, temperature=tau, decoupled=True).item() == pytest.approx(
        want, abs=1e-6
    )


def test_a_tiny_loss_keeps_its_gradient() -> None:
    """Two orthogonal pairs at τ = 0.02: loss log(1 + 2e⁻⁵⁰); 1 − softmax is 0 in float32."""
    apart = torch.eye(2)
    loss, _ = gradients(nt_xent, apart, apart, temperature=0.02)
    assert loss.item() == pytest.approx(2 * math.exp(-50), rel=1e-5)


@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("tau", [0.01, 1.0])
def test_no_nan_at_the_edges(tau: float, decoupled: bool) -> None:
    zero, same = torch.zeros(4, 8), torch.ones(4, 8)
    for fn in (info_nce, nt_xent):
        for pair in ((zero, zero), (same, same), (same, -same), (zero, same), (1e-20 * same, same)):
            loss, grads = gradients(fn, *pair, temperature=tau, decoupled=decoupled)
            assert loss.isfinite()
            assert all(g.isfinite().all() for g in grads)
        assert not gradients(fn, zero, zero, temperature=tau)[1][0].any()
        alone, grads = gradients(
            fn, same, same, temperature=tau, decoupled=decoupled, group=torch.zeros(4).long()
        )
        assert alone == 0
        assert not any(g.any() for g in grads)


def test_bad_use_is_told() -> None:
    z = torch.eye(3)
    with pytest.raises(UsageError, match="one shape"):
        info_nce(z, z[:2])
    with pytest.raises(UsageError, match="temperature"):
        nt_xent(z, z, temperature=0.0)
    with pytest.raises(UsageError, match="queue"):
        info_nce(z, z, negatives=z, symmetric=True)
    with pytest.raises(UsageError, match="without a queue"):
        info_nce(z, z, in_batch=False)


@pytest.mark.parametrize("in_batch", [False, True])
def test_a_query_without_any_negative_gets_no_nan_gradient(in_batch: bool) -> None:
    """All samples and the whole queue are one patient's, as when there is only one."""
    q = torch.randn(4, 8, requires_grad=True)
    one = torch.zeros(4, dtype=torch.long)
    loss = info_nce(
        q,
        torch.randn(4, 8),
        negatives=torch.randn(6, 8),
        group=one,
        negative_group=torch.zeros(6, dtype=torch.long),
        in_batch=in_batch,
    )
    loss.backward()
    assert loss == 0
    assert torch.equal(q.grad, torch.zeros_like(q))  # type: ignore[arg-type]
