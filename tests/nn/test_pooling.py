import torch
import torch.nn.functional as F

from medcl.nn.attention import AttentionPool
from medcl.nn.prototypes import Prototypes, cluster_sphere


def test_attention_sums_to_one_and_ignores_absent_members_and_order():
    torch.manual_seed(0)
    pool = AttentionPool(6, hidden=4)
    x, present = torch.randn(2, 5, 6), torch.ones(2, 5, dtype=torch.bool)
    present[0, 3:] = False
    weights = pool.weights(x, present)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(2))
    assert (weights[0, 3:] == 0).all()
    changed = x.clone()
    changed[0, 3:] = 99.0
    assert torch.equal(pool(x, present)[0], pool(changed, present)[0])
    torch.testing.assert_close(pool(x), pool(x.flip(1)))
    torch.testing.assert_close(pool(x, present)[:1], pool(x[:1, :3]))


def test_an_empty_set_pools_to_zero_with_a_finite_gradient():
    pool = AttentionPool(6)
    x = torch.randn(1, 3, 6, requires_grad=True)
    out = pool(x, torch.zeros(1, 3, dtype=torch.bool))
    assert (out == 0).all()
    out.sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_prototypes_are_unit_and_hold_still_when_held():
    torch.manual_seed(0)
    bank, z = Prototypes(4, 7), torch.randn(3, 4)
    scores = bank(z)
    assert scores.shape == (3, 7)
    assert scores.abs().max() <= 1 + 1e-6
    bank(z, held=True).sum().backward()
    assert bank.weight.grad is not None
    assert (bank.weight.grad == 0).all()
    with torch.no_grad():
        bank.weight.mul_(3)
    bank.normalise()
    torch.testing.assert_close(bank.weight.norm(dim=1), torch.ones(7))


def test_spherical_k_means_finds_separated_directions():
    torch.manual_seed(0)
    true = F.normalize(torch.randn(4, 16), dim=1)
    points = F.normalize(true.repeat_interleave(50, 0) + 0.05 * torch.randn(200, 16), dim=1)
    found = cluster_sphere(points, points[[0, 50, 100, 150]])
    assert ((found @ true.T).max(dim=0).values > 0.99).all()
    torch.testing.assert_close(found.norm(dim=1), torch.ones(4))


def test_a_centroid_without_points_stays():
    points = F.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.1]]), dim=1)
    lonely = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    assert torch.equal(cluster_sphere(points, lonely)[1], lonely[1])
