"""Where a classifier looks: axioms of integrated gradients, and signals whose reason is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from medcl.audit.saliency import evidence, flat, integrated_gradients, occlusion


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv1d(2, 8, 5), nn.GELU(), nn.Conv1d(8, 8, 5), nn.GELU(), nn.Flatten(), nn.LazyLinear(3)
    ).eval()


def scorer(network: nn.Module, target: int) -> object:
    def score(x: Tensor) -> Tensor:
        return evidence("multiclass", network(x), torch.full((len(x),), target))

    return score


def test_attributions_sum_to_what_the_sample_adds(network: nn.Module) -> None:
    """Completeness (axiom of the paper): Σ = score(x) − score(baseline)."""
    x = torch.randn(4, 2, 50, generator=torch.Generator().manual_seed(1))
    network(x)
    score = scorer(network, 2)
    for baseline in (None, torch.zeros_like(x)):
        made = integrated_gradients(score, x, baseline, steps=100)  # type: ignore[arg-type]
        start = flat(x) if baseline is None else baseline
        added = (score(x) - score(start)).detach()  # type: ignore[operator]
        assert made.shape == x.shape
        assert made.flatten(1).sum(1).numpy() == pytest.approx(added.numpy(), rel=1e-3, abs=1e-4)


def test_of_a_linear_score_they_are_weights_times_values() -> None:
    weight = torch.randn(1, 30, generator=torch.Generator().manual_seed(0))
    x = torch.randn(3, 1, 30, generator=torch.Generator().manual_seed(1))
    made = integrated_gradients(lambda v: (v * weight).sum((1, 2)), x, torch.zeros_like(x), steps=1)
    assert torch.allclose(made, x * weight)


def test_what_is_not_looked_at_gets_nothing() -> None:
    """Sensitivity and dummy: only the middle of the signal counts for the score."""
    x = torch.randn(2, 1, 64, generator=torch.Generator().manual_seed(0))

    def score(v: Tensor) -> Tensor:
        return (v[:, 0, 28:36] ** 3).sum(1)

    made = integrated_gradients(score, x, torch.zeros_like(x))
    assert (made[:, 0, :28] == 0).all()
    assert (made[:, 0, 36:] == 0).all()
    fall = occlusion(score, x)
    assert fall.shape == (2, 64)
    assert (fall[:, :26] == 0).all()
    assert (fall[:, 38:] == 0).all()
    assert (fall[:, 28:36] != 0).any()


@pytest.mark.parametrize("sides", [(17,), (5,), (20, 31), (9, 10, 11)])
def test_every_point_is_covered(sides: tuple[int, ...]) -> None:
    """The score is the sample's sum, so that covering any point matters."""
    x = torch.zeros(1, 1, *sides)
    x[0, 0][tuple(side // 2 for side in sides)] = 1000.0
    fall = occlusion(lambda v: v.flatten(1).max(1).values, x)
    assert fall.shape == (1, *sides)
    assert torch.isfinite(fall).all()
    top = (fall[0] == fall.max()).nonzero()[0]
    for place, side in zip(top.tolist(), sides, strict=True):
        assert abs(place - side // 2) <= max(1, side // 4 + 1)


def test_a_batch_is_explained_as_its_samples_are(network: nn.Module) -> None:
    x = torch.randn(3, 2, 50, generator=torch.Generator().manual_seed(1))
    network(x)
    score = scorer(network, 0)
    for how in (integrated_gradients, occlusion):
        whole = how(score, x)  # type: ignore[arg-type]
        single = torch.cat([how(score, row) for row in x.split(1)])  # type: ignore[arg-type]
        assert torch.allclose(whole, single, atol=1e-5)


def test_evidence_is_the_log_odds() -> None:
    scores = torch.tensor([[1.0, 2.0, 0.5], [0.0, -1.0, 3.0]])
    p = scores.softmax(1)[torch.arange(2), torch.tensor([1, 0])]
    target = torch.tensor([1, 0])
    assert torch.allclose(evidence("multiclass", scores, target), (p / (1 - p)).log())
    assert evidence("multilabel", scores, target).tolist() == [2.0, 0.0]
    assert evidence("regression", scores[:, :1], target).tolist() == [1.0, 0.0]
