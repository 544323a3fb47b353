import pytest
import torch
from torch import nn

from medcl.nn.ema import Momentum, cosine_momentum


def test_constant_momentum_has_its_closed_form():
    """With the online weights held still, θ′_n − θ = mⁿ·(θ′_0 − θ)."""
    online = nn.Linear(3, 2)
    copy = Momentum(online)
    start = [p.clone() for p in copy.module.parameters()]
    with torch.no_grad():
        for parameter in online.parameters():
            parameter.add_(torch.randn_like(parameter))
    for _ in range(5):
        copy.follow(online, 0.9)
    for kept, first, goal in zip(copy.module.parameters(), start, online.parameters(), strict=True):
        torch.testing.assert_close(kept, goal + 0.9**5 * (first - goal))


def test_momentum_copies_buffers_and_takes_no_gradient():
    online = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    copy = Momentum(online)
    online(torch.randn(16, 3) + 5)
    copy.follow(online, 0.99)
    for kept, new in zip(copy.module.buffers(), online.buffers(), strict=True):
        assert torch.equal(kept, new)
    assert not any(p.requires_grad for p in copy.parameters())
    x = torch.randn(2, 3, requires_grad=True)
    assert not copy(x).requires_grad


def test_cosine_momentum_goes_from_base_to_one():
    assert cosine_momentum(0.99, 0, 100) == pytest.approx(0.99)
    assert cosine_momentum(0.99, 50, 100) == pytest.approx(0.995)
    assert cosine_momentum(0.99, 100, 100) == pytest.approx(1.0)
    assert cosine_momentum(0.99, 300, 100) == pytest.approx(1.0)
