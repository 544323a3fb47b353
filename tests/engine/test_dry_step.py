"""What a step takes is told before a run, and what does not fit is refused with what does."""

from __future__ import annotations

import pytest
import tiny_engine
import torch

from medcl.engine import dry_step
from medcl.engine.data import select
from medcl.engine.dry_step import Cost
from medcl.engine.pretrain import build, pretrain
from medcl.errors import UsageError
from medcl.run import load_samples

RECIPE = {
    "method": {"name": "tiny_contrast"},
    "trainer": {"steps": 2, "batch_size": 64, "log_every": 1},
}


@pytest.fixture
def module(index):
    recipe = tiny_engine.recipe(RECIPE)
    samples = load_samples(recipe, index)
    patients = dict.fromkeys(samples.patients, "train")
    return build(recipe, select(samples, patients))


def test_the_cost_is_that_of_weights_and_what_autograd_keeps(module):
    cost = dry_step.measured(module)
    weights = sum(p.numel() for p in module.method.parameters()) * 4
    buffers = sum(b.nbytes for b in module.method.buffers())
    model = 4 * weights + buffers  # weights, gradients, and two moments of AdamW
    assert model <= cost.fixed < 1.1 * model
    one_view = 64 * 4  # bytes of an image; two of them, and at least as much of each layer
    assert 4 * one_view < cost.each < 100 * one_view
    assert cost.peak(64) == cost.fixed + 64 * cost.each


def test_what_does_not_grow_with_the_batch_is_not_multiplied(index):
    recipe = tiny_engine.recipe({**RECIPE, "method": {"name": "tiny_momentum", "queue": 2**16}})
    samples = load_samples(recipe, index)
    chosen = build(recipe, select(samples, dict.fromkeys(samples.patients, "train")))
    queue = chosen.method.queue.nbytes
    cost = dry_step.measured(chosen)
    assert cost.fixed > queue > 8 * 10**6
    assert cost.each < queue  # the logits of a sample, twice


def test_the_run_is_left_as_it_was(module):
    before = {k: v.clone() for k, v in module.method.state_dict().items()}
    torch.manual_seed(5)
    first = torch.rand(3)
    torch.manual_seed(5)
    dry_step.measured(module)
    assert torch.equal(torch.rand(3), first)
    for name, value in module.method.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(p.grad is None for p in module.method.parameters())


def test_what_does_not_fit_is_refused_with_what_does():
    recipe = tiny_engine.recipe({**RECIPE, "trainer": {"batch_size": 256, "steps": 10}})
    cost = Cost(fixed=10**9, each=10**8, seconds=0.01)
    with pytest.raises(UsageError) as refused:
        dry_step.told(cost, recipe, samples=1000, memory=8 * 10**9)
    message = str(refused.value)
    assert "26.6 GB, and 8.0 GB are free" in message
    assert "trainer.batch_size=64 and trainer.accumulate=4" in message
    assert cost.peak(64) <= 8 * 10**9 < cost.peak(128)
    with pytest.raises(UsageError, match="smaller encoder"):
        dry_step.told(cost, recipe, samples=1000, memory=10**9)


def test_what_fits_is_told_with_its_time():
    recipe = tiny_engine.recipe({**RECIPE, "trainer": {"batch_size": 100, "steps": 60}})
    cost = Cost(fixed=10**9, each=10**7, seconds=0.01)
    told = dry_step.told(cost, recipe, samples=360_000, memory=8 * 10**9)
    assert "100 samples takes at least 2.0 GB" in told
    assert "an epoch of 360,000 samples about 1.0 h, all 60 steps about 60 s" in told


def test_a_run_that_cannot_fit_writes_nothing(index, tmp_path, monkeypatch):
    monkeypatch.setattr(dry_step, "free", lambda: 100_000)
    with pytest.raises(UsageError, match="are free"):
        pretrain(tiny_engine.recipe(RECIPE), index, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_free_memory_of_this_machine_is_known():
    memory = dry_step.free()
    assert memory is None or 0 < memory < 2**50
