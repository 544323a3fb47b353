"""Reading packed bags, and orders of an epoch."""

from __future__ import annotations

import numpy as np
import torch
from bags_in_memory import of_bags

from medcl.finetune.batches import Held, ahead, balanced, cut, reader
from medcl.tensors import tensors

RNG = np.random.default_rng(0)
BAGS = [RNG.normal(size=(int(n), 3)).astype(np.float32) for n in RNG.integers(1, 9, size=300)]


def test_bags_from_memory_are_those_read_anew() -> None:
    samples = of_bags(BAGS)
    held, anew = reader(samples), reader(samples, limit=100)
    assert isinstance(held, Held)
    assert not isinstance(anew, Held)
    for _ in range(20):
        rows = RNG.choice(300, 7, replace=False)
        one, other = held(rows), anew(rows)
        assert set(one) == set(other) == {"x", "bag"}
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_reading_ahead_changes_nothing() -> None:
    samples = of_bags(BAGS)
    parts = cut(np.arange(50), 8)
    seen = list(ahead(reader(samples, limit=0), parts))
    assert [rows.tolist() for rows, _ in seen] == [rows.tolist() for rows in parts]
    for rows, batch in seen:
        assert torch.equal(batch["x"], tensors(samples.read(rows))["x"])


def test_batches_are_of_nearly_equal_size() -> None:
    sizes = [len(rows) for rows in cut(np.arange(33), 16)]
    assert sizes == [11, 11, 11]


def test_a_balanced_epoch_has_as_many_of_each_and_uses_all_rare_ones() -> None:
    rows = np.arange(100, 200)
    strata = np.array(["rare"] * 5 + ["common"] * 95)
    order = balanced(rows, strata, np.random.default_rng(0))
    rare = order[order < 105]
    assert len(order) == 100
    assert len(rare) == 50
    assert (np.bincount(rare - 100, minlength=5) == 10).all()
    assert len(np.unique(order[order >= 105])) == 50
    assert all(4 <= (order[i : i + 10] < 105).sum() <= 6 for i in range(0, 100, 10))
