"""Dropout of instances, which draws sixteen bits a value."""

from __future__ import annotations

import pytest
import torch

from medcl_pathology.mil.dropout import Dropout, dropped

COUNT = 400_000


@pytest.mark.parametrize("p", [0.05, 0.25, 0.5, 0.9])
def test_the_share_is_left_out_and_the_mean_stays(p: float) -> None:
    torch.manual_seed(0)
    y = dropped(torch.ones(COUNT // 4, 4), p)
    deviation = (p * (1 - p) / COUNT) ** 0.5
    assert float((y == 0).float().mean()) == pytest.approx(p, abs=5 * deviation)
    assert set(y.unique().tolist()) == {0.0, float(torch.tensor(1 / (1 - p)))}
    columns = (y == 0).float().mean(0)  # each of the four values of one draw has its own bits
    assert (columns - p).abs().max() < 10 * deviation


def test_values_of_one_draw_are_independent() -> None:
    torch.manual_seed(0)
    kept = (dropped(torch.ones(COUNT), 0.5) > 0).view(-1, 4).double()
    assert (torch.corrcoef(kept.T) - torch.eye(4)).abs().max() < 0.02


def test_the_gradient_goes_where_the_value_went() -> None:
    torch.manual_seed(0)
    x = torch.randn(7, 5, requires_grad=True)
    y = dropped(x, 0.4)
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(slope, torch.where(y == 0, 0.0, torch.tensor(1 / 0.6)))


def test_edges_seeds_and_evaluation() -> None:
    x = torch.randn(3, 3)
    layer = Dropout(0.5)
    assert layer.eval()(x) is x
    assert dropped(x, 0.0) is x
    assert not dropped(x, 1.0).any()
    assert dropped(torch.empty(0, 3), 0.5).shape == (0, 3)
    torch.manual_seed(3)
    one = layer.train()(x)
    torch.manual_seed(3)
    assert torch.equal(one, layer(x))
    with pytest.raises(ValueError, match="0 to 1"):
        Dropout(1.5)
