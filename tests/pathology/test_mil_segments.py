"""Segment sums, maxima and softmaxes against a loop over bags."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medcl.errors import UsageError
from medcl_pathology.mil.segments import (
    ranked,
    segment_max,
    segment_mean,
    segment_softmax,
    segment_sum,
    sizes,
    weighted_sum,
)

SIZES = st.lists(st.integers(1, 7), min_size=1, max_size=6)


def synthetic(counts: list[int], width: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    bag = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return torch.randn(len(bag), width, generator=generator, dtype=torch.float64) * 5, bag


@settings(max_examples=40)
@given(SIZES, st.integers(0, 1000))
def test_all_of_them_are_a_loop_over_bags(counts: list[int], seed: int) -> None:
    x, bag = synthetic(counts, 3, seed)
    b = len(counts)
    each = x.split(counts)
    start = torch.tensor([0, *counts]).cumsum(0)
    torch.testing.assert_close(
        segment_softmax(x, bag, b), torch.cat([part.softmax(0) for part in each])
    )
    torch.testing.assert_close(
        segment_softmax(x[:, 0], bag, b), torch.cat([part[:, 0].softmax(0) for part in each])
    )
    torch.testing.assert_close(segment_sum(x, bag, b), torch.stack([p.sum(0) for p in each]))
    torch.testing.assert_close(segment_mean(x, bag, b), torch.stack([p.mean(0) for p in each]))
    top, where = segment_max(x, bag, b)
    torch.testing.assert_close(top, torch.stack([p.amax(0) for p in each]))
    torch.testing.assert_close(x.gather(0, where), top)
    assert all(((start[i] <= where[i]) & (where[i] < start[i + 1])).all() for i in range(b))
    order = torch.cat(
        [s + p[:, 0].argsort(descending=True) for s, p in zip(start, each, strict=False)]
    )
    assert torch.equal(ranked(x[:, 0], bag), order)
    w = torch.randn(len(x), 2, dtype=torch.float64)
    torch.testing.assert_close(
        weighted_sum(w, x, bag, b),
        torch.stack(
            [
                (u[:, :, None] * p[:, None]).sum(0)
                for u, p in zip(w.split(counts), each, strict=True)
            ]
        ),
    )
    torch.testing.assert_close(weighted_sum(w[:, 0], x, bag, b), weighted_sum(w, x, bag, b)[:, 0])


@pytest.mark.parametrize("counts", [[1], [1, 1, 4], [3, 1, 5]])
def test_gradients(counts: list[int]) -> None:
    x, bag = synthetic(counts, 2)
    x.requires_grad_()
    b = len(counts)
    for fn in (segment_softmax, segment_sum, segment_mean, lambda *a: segment_max(*a)[0]):
        assert torch.autograd.gradcheck(lambda t, fn=fn: fn(t, bag, b), (x,))
    w = torch.randn(len(x), 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda w, t: weighted_sum(w, t, bag, b), (w, x))


def test_softmax_of_scores_of_any_size() -> None:
    bag = torch.tensor([0, 0, 0, 1, 1])
    scores = torch.tensor([1e4, 1e4, -1e4, -3e38, -3e38], requires_grad=True)
    p = segment_softmax(scores, bag, 2)
    torch.testing.assert_close(p.detach(), torch.tensor([0.5, 0.5, 0.0, 0.5, 0.5]))
    p[0].backward()
    assert scores.grad is not None
    assert scores.grad.isfinite().all()
    hidden = torch.tensor([-torch.inf, 2.0, 2.0, 0.0, -torch.inf])  # masked instances
    torch.testing.assert_close(
        segment_softmax(hidden, bag, 2), torch.tensor([0.0, 0.5, 0.5, 1.0, 0.0])
    )


def test_a_softmax_over_a_million_adds_up_to_one() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(1_000_000, generator=generator)
    bag = torch.zeros(1_000_000, dtype=torch.long)
    p = segment_softmax(scores, bag, 1)
    assert abs(p.double().sum().item() - 1) < 1e-6
    torch.testing.assert_close(p, scores.double().softmax(0).float(), rtol=1e-5, atol=0)


def test_the_same_bits_every_time() -> None:
    x, bag = synthetic([500, 1, 700], 4)
    assert all(
        torch.equal(segment_softmax(x, bag, 3), segment_softmax(x, bag, 3)) for _ in range(5)
    )


def test_a_weighted_sum_makes_no_gradient_of_features_that_want_none() -> None:
    x, bag = synthetic([2, 3], 4)
    w = torch.ones(5, dtype=torch.float64, requires_grad=True)
    weighted_sum(w, x, bag, 2).sum().backward()
    torch.testing.assert_close(w.grad, x.sum(1))
    assert x.grad is None


def test_bags_out_of_order_or_empty_are_refused() -> None:
    with pytest.raises(UsageError, match="bag after bag"):
        sizes(torch.tensor([1, 0]), 2)
    with pytest.raises(UsageError, match="bag after bag"):
        sizes(torch.tensor([0, 1, 2]), 2)
    with pytest.raises(UsageError, match="Bag 1 of the batch has no instance"):
        sizes(torch.tensor([0, 2]), 3)
