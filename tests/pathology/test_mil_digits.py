"""Bags of real digits (scikit-learn's): a bag is positive if it holds a nine."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from torch import Tensor

from medcl.labels.outputs import Outputs
from medcl.methods.contract import State, after_step
from medcl.registry import resolve
from medcl_pathology.mil.registry import CLASSIFIERS

NINE = Outputs("binary", ("without", "with"))
STEPS, BATCH = 150, 16


def bags_of(images: np.ndarray, digit: np.ndarray, count: int, rng: np.random.Generator) -> Any:
    """Half of the bags hold one or two nines among 10 to 19 digits."""
    nines, others = np.flatnonzero(digit == 9), np.flatnonzero(digit != 9)
    each = []
    for b in range(count):
        held = rng.integers(1, 3) if b % 2 else 0
        rest = rng.choice(others, rng.integers(10, 20) - held)
        each.append(rng.permutation(np.concatenate((rng.choice(nines, held), rest))))
    return [(torch.from_numpy(images[i]), torch.from_numpy(digit[i] == 9)) for i in each]


def packed(bags: list[tuple[Tensor, Tensor]]) -> tuple[dict[str, Tensor], Tensor]:
    bag = torch.arange(len(bags)).repeat_interleave(torch.tensor([len(x) for x, _ in bags]))
    nine = torch.cat([is_nine for _, is_nine in bags])
    y = torch.zeros(len(bags), dtype=torch.long).index_add(0, bag, nine.long()).clamp_max(1)
    return {"x": torch.cat([x for x, _ in bags]), "bag": bag, "y": y, "patient": 0 * y}, nine


@cache
def trained(name: str, **settings: Any) -> tuple[float, float]:
    """AUC of unseen bags and of their instances; no image is in both halves."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    images, digit = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    order = rng.permutation(len(digit))
    learn = bags_of(images[order[:900]], digit[order[:900]], 100, rng)
    test, nine = packed(bags_of(images[order[900:]], digit[order[900:]], 100, rng))
    model = resolve(CLASSIFIERS[name])(test, NINE, **settings)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(STEPS):
        state = State(step, STEPS)
        chosen = rng.choice(len(learn), BATCH, replace=False)
        batch, _ = packed([learn[i] for i in chosen])
        optimiser.zero_grad()
        model.step(batch, state)["loss"].backward()
        optimiser.step()
        after_step(model, state)
    with torch.no_grad():
        shown = model.eval().predict(test)
    score = shown["scores"][:, 1] - shown["scores"][:, 0]
    return (
        float(roc_auc_score(test["y"], score)),
        float(roc_auc_score(nine, shown["instances"])),
    )


def test_attention_finds_bags_with_nines() -> None:
    bags, instances = trained("mil", aggregator="gated-abmil", layers=(128,))
    assert bags > 0.8
    assert instances > 0.75


@pytest.mark.slow
def test_sc_mil_finds_them_too() -> None:
    bags, _ = trained("sc-mil", layers=(128,))
    assert bags > 0.8


@pytest.mark.slow
def test_ins_finds_the_nines_themselves_better_than_attention_does() -> None:
    bags, instances = trained("ins", layers=(128,), queue=1024)
    assert bags > 0.8
    assert instances > 0.9
    for aggregator in ("abmil", "gated-abmil"):
        assert instances > trained("mil", aggregator=aggregator, layers=(128,))[1]


@pytest.mark.slow
def test_ins_becomes_all_negative_where_classes_of_instances_are_not_weighed_alike() -> None:
    _, balanced = trained("ins", layers=(128,), queue=1024)
    _, as_published = trained("ins", layers=(128,), queue=1024, balance=False)
    assert balanced > as_published + 0.05
