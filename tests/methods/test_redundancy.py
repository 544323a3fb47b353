"""VICReg and Barlow Twins against their equations, written out for one batch; CAN's two terms."""

import digits
import pytest
import torch
from torch import Tensor

from medcl.methods.can import CAN
from medcl.methods.contract import State
from medcl.methods.redundancy import BarlowTwins, VICReg


def projections(method: torch.nn.Module, views: list[Tensor]) -> list[Tensor]:
    return [method.projector(method.encoder(view)).detach().double() for view in views]


def test_vicreg_weighs_its_terms_as_the_authors_code_does():
    torch.manual_seed(0)
    method = VICReg(digits.cnn(), hidden=16, out=8)
    x, batch = digits.draw(16)
    views = [x, x.flip(3)]
    loss = method.step(views, batch, State())["loss"]
    a, b = projections(method, views)
    invariance = ((a - b) ** 2).mean()  # over samples and dimensions
    hinge = sum(torch.relu(1 - (z.var(dim=0) + 1e-4).sqrt()).mean() / 2 for z in (a, b))
    covariance = sum((torch.cov(z.T).fill_diagonal_(0) ** 2).sum() / 8 for z in (a, b))
    expected = 25 * invariance + 25 * hinge + covariance
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)


def test_barlow_twins_pulls_the_cross_correlation_to_the_identity():
    torch.manual_seed(0)
    method = BarlowTwins(digits.cnn(), hidden=16, out=8, redundancy=0.01)
    x, batch = digits.draw(16)
    views = [x, x.flip(3)]
    loss = method.step(views, batch, State())["loss"]
    a, b = projections(method, views)
    a, b = ((z - z.mean(dim=0)) / (z.var(dim=0, correction=0) + 1e-5).sqrt() for z in (a, b))
    apart = (a.T @ b / 16 - torch.eye(8)) ** 2
    expected = apart.trace() + 0.01 * (apart.sum() - apart.trace())
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)


def test_can_is_between_mae_and_simclr():
    x, batch = digits.draw(16)
    for weight in (0.0, 0.3, 1.0):
        torch.manual_seed(0)
        method = CAN(digits.vit(), width=16, depth=1, heads=2, hidden=16, out=8, contrast=weight)
        result = method.step([x, x.flip(3)], batch, State())
        parts = result["loss_contrast"], result["loss_reconstruction"]
        torch.testing.assert_close(result["loss"], parts[0] + parts[1])
        assert (parts[0] > 0) == (weight > 0)
        assert (parts[1] > 0) == (weight < 1)
