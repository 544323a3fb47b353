"""Classifiers of bags: the contract, every aggregator in `mil`, every kind of problem."""

from __future__ import annotations

import pytest
import torch

from medcl.classifiers.contract import Classifier
from medcl.errors import UsageError
from medcl.labels.outputs import Outputs
from medcl.methods.contract import State
from medcl_pathology.mil.classifier import Mil

KINDS = {
    "binary": (Outputs("binary", ("no", "yes")), torch.tensor([0, 1, -1])),
    "multiclass": (Outputs("multiclass", ("a", "b", "c")), torch.tensor([2, 0, 1])),
    "multilabel": (
        Outputs("multilabel", ("a", "b")),
        torch.tensor([[1.0, 0.0], [torch.nan, 1.0], [0.0, 0.0]]),
    ),
    "ordinal": (Outputs("ordinal", ("1", "2", "3")), torch.tensor([0, 2, 1])),
    "regression": (Outputs("regression", ("age",)), torch.tensor([0.3, torch.nan, -1.0])),
    "cox": (Outputs("cox", ("death",)), torch.tensor([[3.0, 1.0], [2.0, 0.0], [1.0, 1.0]])),
    "hazard": (
        Outputs("hazard", ("y1", "y2", "y3")),
        torch.tensor([[0.0, 1.0], [2.0, 0.0], [1.0, 1.0]]),
    ),
}


def synthetic_batch(y: torch.Tensor, width: int = 6) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    bag = torch.tensor([0, 0, 0, 1, 2, 2, 2, 2])
    x = torch.randn(len(bag), width)
    coords = torch.rand(len(bag), 2)
    return {"x": x, "bag": bag, "y": y, "patient": torch.arange(3), "coords": coords}


@pytest.mark.parametrize("kind", KINDS)
def test_mil_takes_every_kind_of_problem(kind: str) -> None:
    outputs, y = KINDS[kind]
    batch = synthetic_batch(y)
    model = Mil(batch, outputs, aggregator="abmil", layers=(5,))
    assert isinstance(model, Classifier)
    out = model.step(batch, State())
    out["loss"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    shown = model.predict({k: v for k, v in batch.items() if k != "y"})
    assert shown["scores"].shape == (3, outputs.size)
    assert len(shown["instances"]) == 8


def test_samples_that_are_no_bags_are_refused() -> None:
    with pytest.raises(UsageError, match="have no 'bag'"):
        Mil({"x": torch.zeros(3, 4)}, KINDS["binary"][0])


def test_an_unknown_setting_is_named() -> None:
    batch = synthetic_batch(KINDS["binary"][1])
    with pytest.raises(UsageError, match=r"classifier\.settings\.hiden.*'hidden'"):
        Mil(batch, KINDS["binary"][0], settings={"hiden": 3})
    with pytest.raises(UsageError, match=r"aggregator 'abmill'.*'abmil'"):
        Mil(batch, KINDS["binary"][0], aggregator="abmill")


def test_settings_of_another_aggregator_are_said_to_be_that() -> None:
    batch = synthetic_batch(KINDS["binary"][1])
    with pytest.raises(UsageError, match=r"aggregator transmil; .* -s classifier.settings=\{\}"):
        Mil(batch, KINDS["binary"][0], aggregator="transmil", settings={"hidden": 3})


@pytest.mark.parametrize("loss", ["class-balanced", "ldam", "ldam-drw", "logit-adjusted"])
@pytest.mark.parametrize("aggregator", ["abmil", "clam-mb", "dsmil", "acmil"])
def test_losses_for_rare_classes_train_every_kind_of_head(loss: str, aggregator: str) -> None:
    outputs = Outputs("multiclass", ("a", "b", "c"), loss, counts=(50, 20, 2))  # type: ignore[arg-type]
    batch = synthetic_batch(torch.tensor([2, 0, 1]))
    model = Mil(batch, outputs, aggregator=aggregator, layers=(5,))
    first = model.step(batch, State(0, 10))["loss"]
    first.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.head.parameters())
    late = model.step(batch, State(9, 10))["bag"]
    early = model.step(batch, State(0, 10))["bag"]
    assert (late != early) == (loss == "ldam-drw") or aggregator == "acmil"  # it hides at random
    if loss.startswith("ldam"):
        shown = model.eval().predict({k: v for k, v in batch.items() if k != "y"})["scores"]
        assert shown.abs().max() <= 30.001  # cosines
