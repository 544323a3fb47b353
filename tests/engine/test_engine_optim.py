"""Optimisers against naive versions, the schedule against its closed form."""

from __future__ import annotations

import copy
import io
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

from medcl import recipe as recipes
from medcl.engine.optim import build, groups, schedule


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3)).double()


def naive_lars(weights, gradients, memory, *, lr, momentum, decay, trust):
    """You 2017 in numpy, one array after the other."""
    for i, (w, g) in enumerate(zip(weights, gradients, strict=True)):
        if w.ndim > 1:
            g = g + decay * w
            size = math.sqrt(float((w**2).sum()))
            length = math.sqrt(float((g**2).sum()))
            if size > 0 and length > 0:
                g = g * (trust * size / length)
        memory[i] = momentum * memory[i] + g
        weights[i] = w - lr * memory[i]


def test_lars_equals_a_naive_one():
    net, x, y = model(), torch.randn(16, 5).double(), torch.randn(16, 3).double()
    nn.init.zeros_(net[3].weight)  # no direction to scale: takes the plain step
    settings = recipes.Optimizer(name="lars", lr=0.7, weight_decay=0.1, warmup=0, momentum=0.8)
    optimizer, scheduler = build(net, settings, steps=12)
    weights = [p.detach().numpy().copy() for p in net.parameters()]
    memory = [np.zeros_like(w) for w in weights]
    for step in range(12):
        optimizer.zero_grad()
        mse_loss(net(x), y).backward()
        gradients = [p.grad.numpy().copy() for p in net.parameters()]
        lr = 0.7 * 0.5 * (1 + math.cos(math.pi * step / 11))
        naive_lars(weights, gradients, memory, lr=lr, momentum=0.8, decay=0.1, trust=1e-3)
        optimizer.step()
        scheduler.step()
        for mine, theirs in zip(net.parameters(), weights, strict=True):
            np.testing.assert_allclose(mine.detach().numpy(), theirs, rtol=1e-12, atol=1e-15)


def test_lars_returns_what_the_closure_returns():
    net = model()
    optimizer, _ = build(net, recipes.Optimizer(name="lars"), steps=1)
    assert optimizer.step(lambda: 5) == 5


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd", "lars"])
def test_norms_biases_and_scalars_do_not_decay(name):
    net = model()
    settings = recipes.Optimizer(name=name, lr=0.1, weight_decay=0.5, warmup=0)
    optimizer, _ = build(net, settings, steps=5)
    before = copy.deepcopy(net.state_dict())
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    after = net.state_dict()
    for key, p in net.named_parameters():
        assert torch.equal(before[key], after[key]) == (p.ndim < 2), key


def test_frozen_parameters_are_left_out():
    net = model()
    net[0].requires_grad_(False)
    assert sum(len(group["params"]) for group in groups(net, 0.1)) == 4


@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.25, 1.0])
def test_schedule_is_its_closed_form(warmup):
    steps, lr, final = 40, 0.3, 0.01
    settings = recipes.Optimizer(lr=lr, warmup=warmup, final_lr=final)
    optimizer, scheduler = build(model(), settings, steps)
    warm = int(warmup * steps)
    for t in range(steps):
        if t < warm:
            expected = lr * (t + 1) / warm
        else:
            half = math.cos(math.pi * (t - warm) / (steps - 1 - warm))
            expected = final + (lr - final) * (1 + half) / 2
        assert optimizer.param_groups[0]["lr"] == pytest.approx(expected, rel=1e-12)
        optimizer.step()
        scheduler.step()


def test_constant_schedule_and_a_single_step():
    factor = schedule(recipes.Optimizer(schedule="constant", warmup=0.5), 10)
    assert [factor(t) for t in range(10)] == [0.2, 0.4, 0.6, 0.8, 1.0, 1, 1, 1, 1, 1]
    assert schedule(recipes.Optimizer(warmup=0), 1)(0) == 1.0


def test_weight_decay_moves_on_a_cosine_and_only_where_there_is_one():
    net = model()
    settings = recipes.Optimizer(weight_decay=0.04, final_weight_decay=0.4, warmup=0)
    optimizer, scheduler = build(net, settings, steps=9)
    found = []
    for _ in range(9):
        found.append([group["weight_decay"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    for t, (weights, others) in enumerate(found):
        expected = 0.4 - 0.36 * 0.5 * (1 + math.cos(math.pi * t / 8))
        assert weights == pytest.approx(expected, rel=1e-12)
        assert others == 0.0


def test_a_predictor_keeps_its_rate_after_the_warm_up():
    net = model()
    settings = recipes.Optimizer(lr=0.1, warmup=0.2)
    optimizer, scheduler = build(net, settings, steps=10, constant=("3.",))
    kept = {id(p) for p in net[3].parameters()}
    for t in range(10):
        for group in optimizer.param_groups:
            stays = {id(p) in kept for p in group["params"]}
            assert len(stays) == 1
            cosine = 0.5 * (1 + math.cos(math.pi * (t - 2) / 7))
            factor = (t + 1) / 2 if t < 2 else 1.0 if True in stays else cosine
            assert group["lr"] == pytest.approx(0.1 * factor, abs=1e-12)
        optimizer.step()
        scheduler.step()


def test_what_is_saved_of_a_schedule_continues_it():
    net = model()
    settings = recipes.Optimizer(weight_decay=0.1, final_weight_decay=0.3)
    built = [build(net, settings, steps=8, constant=("3.",)) for _ in range(2)]
    (optimizer, scheduler), (again, resumed) = built
    for _ in range(3):
        optimizer.step()
        scheduler.step()
    file = io.BytesIO()
    torch.save([optimizer.state_dict(), scheduler.state_dict()], file)
    file.seek(0)
    moments, position = torch.load(file, weights_only=True)
    again.load_state_dict(moments)
    resumed.load_state_dict(position)
    for moving, following in built:
        moving.step()
        following.step()
    for one, two in zip(optimizer.param_groups, again.param_groups, strict=True):
        assert (one["lr"], one["weight_decay"]) == (two["lr"], two["weight_decay"])
