"""BYOL, SimSiam and DirectPred against their formulas; what may and may not get a gradient."""

import digits
import pytest
import torch
import torch.nn.functional as F

from medcl.methods.byol import BYOL, SimSiam
from medcl.methods.contract import State, after_step
from medcl.methods.direct_pred import DirectPredictor
from medcl.nn.ema import cosine_momentum


def test_byol_predicts_the_copys_projection_of_the_other_view():
    torch.manual_seed(0)
    method = BYOL(digits.cnn(), hidden=16, out=8)
    with torch.no_grad():
        for parameter in method.projector.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    x, batch = digits.draw(16)
    views = [x, x.flip(3)]
    loss = method.step(views, batch, State())["loss"]
    p = [method.predictor(method.projector(method.encoder(view))) for view in views]
    t = [method.target(view) for view in views]
    expected = -(F.cosine_similarity(p[0], t[1]) + F.cosine_similarity(p[1], t[0])).mean() / 2
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert all(p.grad is None for p in method.target.parameters())


def test_byol_momentum_has_its_closed_form_under_the_cosine():
    torch.manual_seed(0)
    method = BYOL(digits.cnn(), momentum=0.9, hidden=16, out=8)
    start = [p.clone() for p in method.target.parameters()]
    online = [*method.encoder.parameters(), *method.projector.parameters()]
    with torch.no_grad():
        for parameter in online:
            parameter.add_(torch.randn_like(parameter))
    left = 1.0
    for n in range(5):
        after_step(method, State(n, 10))
        left *= cosine_momentum(0.9, n, 10)
    for kept, first, goal in zip(method.target.parameters(), start, online, strict=True):
        torch.testing.assert_close(kept, goal + left * (first - goal))


def test_simsiam_stops_the_gradient_at_the_target():
    torch.manual_seed(0)
    method = SimSiam(digits.cnn(), hidden=16, out=8, bottleneck=4)
    x, batch = digits.draw(16)
    for parameter in method.predictor.parameters():
        torch.nn.init.zeros_(parameter)  # nothing flows through the predictor any more
    method.step([x, x.flip(3)], batch, State())["loss"].backward()
    assert all((p.grad == 0).all() for p in method.projector.parameters())


def test_directpred_weights_follow_the_paper():
    """W shares F's eigenvectors; its eigenvalues are √(s/max s) + ε (arXiv 2102.06810)."""
    torch.manual_seed(0)
    head, moments = DirectPredictor(6, rho=0.3, eps=0.1), torch.zeros(6, 6)
    for _ in range(4):
        z = torch.randn(32, 6) * torch.arange(1.0, 7.0)
        head.observe(z)
        moments = 0.3 * moments + 0.7 * sum(torch.outer(row, row) for row in z) / 32
    torch.testing.assert_close(head.correlation, moments, rtol=1e-4, atol=1e-4)
    values, vectors = torch.linalg.eigh(moments)
    inside = vectors.T @ head.weight @ vectors  # diagonal in the basis of F
    expected = torch.diag((values / values.max()).sqrt() + 0.1)
    torch.testing.assert_close(inside, expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(head(z), z @ head.weight.T)
    assert not list(head.parameters())


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_directpred_boosts_small_directions_alike_whatever_the_size_of_projections(size):
    """In the authors' code the ratio of the smallest eigenvalue to the largest stays near 0.1."""
    torch.manual_seed(0)
    head = DirectPredictor(6, eps=0.1)
    head.observe(size * torch.randn(64, 6) * torch.tensor([1.0, 1, 1, 1, 1e-2, 1e-3]))
    values = torch.linalg.eigvalsh(head.weight)
    assert (values[0] / values[-1]).item() == pytest.approx(0.1 / 1.1, abs=0.01)


@pytest.mark.parametrize("kind", [BYOL, SimSiam])
def test_direct_predictor_is_set_before_it_is_used(kind):
    torch.manual_seed(0)
    method = kind(digits.cnn(), hidden=16, out=8, predictor="direct")
    x, batch = digits.draw(16)
    method.step([x, x.flip(3)], batch, State())["loss"].backward()
    assert not torch.equal(method.predictor.weight, torch.eye(8))
