"""What must be true of every aggregator of `AGGREGATORS`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from medcl.errors import UsageError
from medcl.labels.outputs import Outputs
from medcl.registry import resolve
from medcl_pathology.mil.bags import Aggregator, Bags, Pooled
from medcl_pathology.mil.registry import AGGREGATORS

OUTPUTS = Outputs("multiclass", ("a", "b", "c"))
SMALL: dict[str, dict[str, Any]] = {
    "transmil": {"width": 16, "heads": 4, "landmarks": 4},
    "graph": {"width": 16, "neighbours": 3, "masked": 1.0, "community": 1.0},
    "camil": {"width": 16, "heads": 4, "landmarks": 4, "neighbours": 3},
    "patch-gcn": {"width": 16, "neighbours": 3},
    "dgr-mil": {"width": 16, "heads": 4, "landmarks": 4, "vectors": 3},
    "sm-abmil": {"neighbours": 3},
    "clam-sb": {"k": 2, "subtyping": True},
    "clam-mb": {"k": 2, "subtyping": True},
}
ORDERED = ("transmil", "camil", "dtfd", "dgr-mil")
"""Read a bag as a sequence, or part it: no invariance to its order is claimed."""


def built(name: str, features: int = 6) -> nn.Module:
    torch.manual_seed(3)
    module: nn.Module = resolve(AGGREGATORS[name])(features, OUTPUTS, **SMALL.get(name, {}))
    return module


def synthetic_bags(counts: list[int], features: int = 6, seed: int = 0) -> Bags:
    generator = torch.Generator().manual_seed(seed)
    bag = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return Bags(
        x=torch.randn(len(bag), features, generator=generator),
        bag=bag,
        count=len(counts),
        coords=torch.rand(len(bag), 2, generator=generator),
    )


def pooled(module: nn.Module, bags: Bags) -> Pooled:
    module.eval()
    with torch.no_grad():
        out: Pooled = module(bags)
    return out


def labelled(bags: Bags) -> Bags:
    y = torch.arange(bags.count) % 3
    x = bags.x.clone().requires_grad_()
    return Bags(x, bags.bag, bags.count, coords=bags.coords, y=y)


@pytest.mark.parametrize("name", AGGREGATORS)
def test_shapes(name: str) -> None:
    module = built(name)
    assert isinstance(module, Aggregator)
    bags = synthetic_bags([4, 1, 9])
    out = pooled(module, bags)
    shape = (3, 3, module.width) if module.classwise else (3, module.width)
    assert out.embedding.shape == shape
    assert out.weights.shape in {(14,), (14, 3)}
    assert not out.losses
    total = torch.zeros(3, *out.weights.shape[1:]).index_add(0, bags.bag, out.weights)
    if name not in ORDERED:  # Nyström's pseudo-inverse may give a weight below zero
        torch.testing.assert_close(total, torch.ones_like(total))


@pytest.mark.parametrize("name", AGGREGATORS)
@settings(max_examples=8)
@given(counts=st.lists(st.integers(1, 9), min_size=1, max_size=4), seed=st.integers(0, 2**16))
def test_packed_is_each_bag_alone(name: str, counts: list[int], seed: int) -> None:
    module, bags = built(name), synthetic_bags(counts, seed=seed)
    together = pooled(module, bags)
    start = 0
    for i, n in enumerate(counts):
        at = slice(start, start + n)
        assert bags.coords is not None
        one = Bags(bags.x[at], torch.zeros(n, dtype=torch.long), 1, coords=bags.coords[at])
        alone = pooled(module, one)
        torch.testing.assert_close(together.embedding[i], alone.embedding[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(together.weights[at], alone.weights, rtol=1e-4, atol=1e-5)
        start += n


@pytest.mark.parametrize("name", [n for n in AGGREGATORS if n not in ORDERED])
@settings(max_examples=8)
@given(counts=st.lists(st.integers(1, 9), min_size=1, max_size=4), seed=st.integers(0, 2**16))
def test_the_order_of_instances_does_not_matter(name: str, counts: list[int], seed: int) -> None:
    module, bags = built(name), synthetic_bags(counts, seed=seed)
    shuffled = torch.cat([torch.randperm(n) + sum(counts[:i]) for i, n in enumerate(counts)])
    assert bags.coords is not None
    other = Bags(bags.x[shuffled], bags.bag, bags.count, coords=bags.coords[shuffled])
    one, two = pooled(module, bags), pooled(module, other)
    torch.testing.assert_close(one.embedding, two.embedding, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(one.weights[shuffled], two.weights, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", AGGREGATORS)
def test_every_parameter_gets_a_gradient(name: str) -> None:
    module, bags = built(name), labelled(synthetic_bags([5, 1, 6, 7]))
    module.train()
    out = module(bags)
    (out.embedding.square().sum() + sum(out.losses.values())).backward()
    for key, parameter in [("x", bags.x), *module.named_parameters()]:
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.any() or key.endswith("bias"), key


@pytest.mark.parametrize("name", AGGREGATORS)
def test_the_same_bits_under_one_seed(name: str) -> None:
    results = []
    for _ in range(2):
        module, bags = built(name), labelled(synthetic_bags([5, 1, 6]))
        module.train()
        torch.manual_seed(7)
        out = module(bags)
        loss = out.embedding.square().sum() + sum(out.losses.values())
        loss.backward()
        grads = [p.grad for p in (bags.x, *module.parameters())]
        results.append([loss.detach(), *grads])
    for one, two in zip(*results, strict=True):
        assert torch.equal(one, two)


@pytest.mark.slow
@pytest.mark.parametrize("name", AGGREGATORS)
def test_a_bag_of_a_hundred_thousand(name: str) -> None:
    module, bags = built(name, 4), labelled(synthetic_bags([100_000, 1], features=4))
    module.train()
    out = module(bags)
    (out.embedding.square().sum() + sum(out.losses.values())).backward()
    assert out.embedding.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())


def test_clam_has_no_classes_to_sort_by_in_a_regression() -> None:
    with pytest.raises(UsageError, match="gated-abmil"):
        resolve(AGGREGATORS["clam-sb"])(4, Outputs("regression", ("age",)))


def test_a_graph_needs_coordinates() -> None:
    with pytest.raises(UsageError, match="no coordinates"):
        built("graph")(Bags(torch.zeros(2, 6), torch.zeros(2).long(), 1))
