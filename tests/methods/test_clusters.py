"""SwAV, DeepCluster-v2 and DINO: prototypes, frozen steps, centres and temperatures."""

import digits
import pytest
import torch

from medcl.methods.contract import State, View
from medcl.methods.deepcluster import DeepClusterV2
from medcl.methods.dino import DINO, warmed
from medcl.methods.swav import SwAV


def steps(method: torch.nn.Module, start: int, stop: int) -> None:
    digits.train(method, digits.optimiser(method), start, stop, 100)


def test_swav_prototypes_are_held_then_move_and_stay_unit():
    torch.manual_seed(0)
    method = SwAV(digits.cnn(), prototypes=12, frozen=3, hidden=16, out=8)
    before = method.prototypes.weight.detach().clone()
    steps(method, 0, 3)
    torch.testing.assert_close(method.prototypes.weight.detach(), before, atol=1e-6, rtol=0)
    steps(method, 3, 5)
    after = method.prototypes.weight.detach()
    assert (after - before).norm(dim=1).min() > 1e-3
    torch.testing.assert_close(after.norm(dim=1), torch.ones(12))


def test_swav_queue_takes_part_only_when_its_time_has_come():
    torch.manual_seed(0)
    method = SwAV(digits.cnn(), prototypes=12, queue=100, queue_from=2, hidden=16, out=8)
    x, batch = digits.draw(16)
    assert method._stored(State(5)).shape == (2, 0, 12)  # in use, and still empty
    method.step([x, x], batch, State(0, 10))
    assert method._stored(State(1)) is None
    stored = method._stored(State(2))
    assert stored.shape == (2, 16, 12)
    with torch.no_grad():
        z = method.projector(method.encoder(torch.cat([x, x])))
    torch.testing.assert_close(stored[0], method.prototypes(z[:16]))


def test_multi_crop_asks_for_two_global_views_and_small_ones():
    views = SwAV(digits.cnn(), local=3, positives="patient").views
    assert views == (View(), View(source=1), View("local"), View("local"), View("local"))


def test_deepcluster_centroids_come_from_k_means_and_take_no_gradient():
    torch.manual_seed(0)
    method = DeepClusterV2(digits.cnn(), clusters=(5, 7), memory=256, every=4, hidden=16, out=8)
    assert not method.clustered
    steps(method, 0, 1)
    first = [c.clone() for c in method.centroids]
    torch.testing.assert_close(first[1].norm(dim=1), torch.ones(7))
    steps(method, 1, 3)
    assert all(torch.equal(a, b) for a, b in zip(first, method.centroids, strict=True))
    steps(method, 3, 4)  # the fourth step ends with k-means
    assert not torch.equal(first[0], method.centroids[0])
    assert not any(c.requires_grad for c in method.centroids)


def test_deepcluster_clusterings_of_one_size_differ_and_start_anew_each_time():
    starts = []
    for _ in range(2):
        torch.manual_seed(0)
        method = DeepClusterV2(digits.cnn(), clusters=(6, 6, 6), memory=64, hidden=16, out=8)
        x, batch = digits.draw(64)
        method.step([x, x.flip(3)], batch, State(0, 100))
        torch.rand(5)  # other ranks may have drawn other numbers in between
        method.after_step(State(method.every - 1, 1000))
        one, two, three = (c.clone() for c in method.centroids)
        assert not torch.equal(one, two)
        assert not torch.equal(two, three)
        # The order in which clusters are found is no difference.
        nearest = (one @ two.T).max(dim=1).values
        assert nearest.min() < 0.9999
        starts.append(one)
    assert torch.equal(*starts)


def test_dino_centre_follows_the_teacher_and_its_temperature_rises():
    torch.manual_seed(0)
    method = DINO(digits.cnn(), hidden=16, bottleneck=8, out=10, warmup=0.5)
    x, batch = digits.draw(16)
    views = [x, x.flip(3)]
    with torch.no_grad():
        seen = torch.cat([method.teacher(view) for view in views]).mean(dim=0)
    method.step(views, batch, State(0, 100))
    torch.testing.assert_close(method.centre, 0.1 * seen)
    rises = [warmed((0.04, 0.07), 0.5, State(n, 100)) for n in (0, 25, 50, 90)]
    assert rises == pytest.approx([0.04, 0.055, 0.07, 0.07])


def test_dino_last_layer_is_held_for_the_first_steps():
    torch.manual_seed(0)
    method = DINO(digits.cnn(), hidden=16, bottleneck=8, out=10, frozen=2)
    x, batch = digits.draw(16)
    for step, moves in ((0, False), (1, False), (2, True)):
        method.zero_grad()
        method.step([x, x.flip(3)], batch, State(step, 100))["loss"].backward()
        assert (method.head.last.grad.abs().max() > 0) == moves
