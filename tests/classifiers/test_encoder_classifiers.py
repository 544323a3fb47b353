"""Heads on an encoder: what moves, how fast, and every kind of problem through the loop."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from medcl.classifiers.contract import Classifier
from medcl.classifiers.encoding import rates
from medcl.classifiers.full import Full
from medcl.classifiers.linear import Linear
from medcl.classifiers.lp_ft import ProbeThenTune
from medcl.engine import optim
from medcl.finetune import batches, loop
from medcl.labels.outputs import Outputs
from medcl.methods.contract import State
from medcl.metrics.metrics import Kind
from medcl.plugin import Samples
from medcl.recipe import Finetune, Optimizer

TEN = Outputs("multiclass", tuple("0123456789"))
CPU = torch.device("cpu")
DIGITS = load_digits()
X = (DIGITS.data / 16).astype(np.float32)


def read(rows: np.ndarray) -> dict[str, np.ndarray]:
    return {"x": X[rows]}


IDS = [str(n) for n in range(len(X))]
READ = batches.reader(Samples(IDS, IDS, IDS, read))


def encoder() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 48), nn.BatchNorm1d(48), nn.ReLU(), nn.Linear(48, 32))


def batch(rows: int = 16) -> dict[str, torch.Tensor]:
    return {"x": torch.from_numpy(X[:rows]), "y": torch.from_numpy(DIGITS.target[:rows])}


def weights(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


@pytest.mark.parametrize("factory", [Linear, Full, ProbeThenTune])
def test_the_contract_is_met(factory: type) -> None:
    made = factory(encoder(), batch(), TEN)
    assert isinstance(made, Classifier)
    assert made.step(batch(), State(0, 10))["loss"].requires_grad
    made.eval()
    assert made.predict(batch())["scores"].shape == (16, 10)


def test_a_linear_classifier_leaves_the_encoder_as_it_is() -> None:
    made = Linear(encoder(), batch(), TEN)
    before = weights(made.encoder)
    made.train()
    optimizer, _ = optim.build(made, Optimizer(lr=0.1, warmup=0), 5)
    for step in range(5):
        made.step(batch(), State(step, 5))["loss"].backward()
        optimizer.step()
    after = weights(made.encoder)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_head_comes_first_then_everything() -> None:
    made = ProbeThenTune(encoder(), batch(), TEN, probe=0.5)
    for step, trained in ((0, False), (4, False), (5, True), (9, True)):
        made.zero_grad(set_to_none=True)
        made.train()
        made.step(batch(), State(step, 10))["loss"].backward()
        got = [p.grad is not None for p in made.whole.encoder.parameters()]
        assert all(got) if trained else not any(got)
        assert made.whole.head[1].weight.grad is not None
    assert made.rate("whole.encoder.0.weight") == pytest.approx(0.1)
    assert made.rate("whole.head.1.weight") == 1


def test_deeper_layers_learn_more_slowly() -> None:
    found = rates(encoder(), 0.5)
    assert [found[f"{n}.weight"] for n in (0, 1, 3)] == [0.125, 0.25, 0.5]
    made = Full(encoder(), batch(), TEN, decay=0.5)
    optimizer, _ = optim.build(made, Optimizer(lr=1.0, warmup=0), 10, rate=made.rate)
    rate_of = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
    assert len(rate_of) == len(list(made.parameters()))
    for name, parameter in made.named_parameters():
        assert rate_of[id(parameter)] == made.rate(name)


KINDS: dict[Kind, tuple[Outputs, np.ndarray]] = {
    "binary": (Outputs("binary", ("even", "odd")), DIGITS.target % 2),
    "multiclass": (TEN, DIGITS.target),
    "multilabel": (
        Outputs("multilabel", ("odd", "big")),
        np.stack([DIGITS.target % 2, DIGITS.target > 4], 1).astype(float),
    ),
    "ordinal": (Outputs("ordinal", tuple("0123456789")), DIGITS.target),
    "regression": (Outputs("regression", ("digit",)), DIGITS.target * 100.0 + 5000),
    "cox": (
        Outputs("cox", ("time",)),
        np.stack([10.0 - DIGITS.target, np.arange(len(X)) % 4 > 0], 1),
    ),
    "hazard": (
        Outputs("hazard", ("early", "late")),
        np.stack([DIGITS.target < 5, np.ones(len(X))], 1).astype(float),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(KINDS))
def test_every_kind_is_learnt_and_the_same_seed_gives_the_same(kind: Kind) -> None:
    outputs, y = KINDS[kind]
    y = torch.from_numpy(y) if y.dtype.kind == "i" else torch.from_numpy(y).float()
    learning = loop.Learning(READ, y, torch.arange(len(X)), np.arange(300), np.arange(300, 400))
    build = partial(lambda example, out: Full(encoder(), example, out, decay=1.0))
    settings = Finetune(epochs=6, batch_size=32)
    go = partial(loop.fit, build, outputs, learning, settings, Optimizer(lr=3e-3), device=CPU)
    one, again = go(seed=1), go(seed=1)
    assert one.history == again.history
    assert one.history[-1]["loss"] < 0.8 * one.history[0]["loss"]
    assert 1 <= one.best <= one.epochs == 6
    scores = loop.predict(one.model, READ, np.arange(400, 500), 64, CPU).numpy()
    truth = DIGITS.target[400:500]
    if kind == "regression":
        assert np.corrcoef(scores[:, 0], truth)[0, 1] > 0.7
        assert 5000 < scores.mean() < 5900, "in the unit of the label"
    if kind == "cox":  # high digits die first
        assert np.corrcoef(scores[:, 0], truth)[0, 1] > 0.6


def test_patience_stops_and_the_best_epoch_is_kept(tmp_path: Path) -> None:
    y = torch.from_numpy(np.random.default_rng(0).integers(0, 10, len(X)))  # nothing to learn
    learning = loop.Learning(READ, y, torch.arange(len(X)), np.arange(200), np.arange(200, 260))
    settings = Finetune(epochs=60, batch_size=32, patience=3)
    trained = loop.fit(
        lambda example, out: Full(encoder(), example, out),
        TEN, learning, settings, Optimizer(lr=1e-2), seed=0, device=CPU,
    )  # fmt: skip
    figures = [epoch["validation"] for epoch in trained.history]
    assert trained.epochs < 60
    assert trained.best == int(np.argmax(figures)) + 1 == trained.epochs - 3


@pytest.mark.parametrize(("share", "first"), [(0.0, 1), (0.5, 4), (1.0, 6)])
def test_no_epoch_is_chosen_before_a_schedule_is_over(share: float, first: int) -> None:
    y = torch.from_numpy(np.random.default_rng(0).integers(0, 10, len(X)))  # nothing to learn
    learning = loop.Learning(READ, y, torch.arange(len(X)), np.arange(200), np.arange(200, 260))
    settings = Finetune(epochs=6, batch_size=32, patience=1)

    def build(example: object, out: Outputs) -> Full:
        made = Full(encoder(), example, out)  # type: ignore[arg-type]
        made.scheduled = share  # type: ignore[assignment]
        return made

    trained = loop.fit(build, TEN, learning, settings, Optimizer(lr=1e-2), seed=0, device=CPU)
    figures = [epoch["validation"] for epoch in trained.history]
    assert trained.best >= first
    assert trained.epochs >= first
    assert trained.best == first + int(np.argmax(figures[first - 1 :]))
