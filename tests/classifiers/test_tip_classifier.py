"""TIP downstream: what is missing leaves the other head, and prediction never reads it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "methods"))
import digits

from medcl.classifiers.contract import Classifier
from medcl.classifiers.tip import TIPClassifier
from medcl.engine import optim
from medcl.errors import UsageError
from medcl.labels.outputs import Outputs
from medcl.methods.contract import State
from medcl.methods.simclr import SimCLR
from medcl.methods.tip import TIP
from medcl.recipe import Optimizer

TEN = Outputs("multiclass", tuple("0123456789"))
TABLE = {"numeric": 16, "inner": 32, "depth": 1, "heads": 2, "out": 16}


def ink(x: torch.Tensor) -> torch.Tensor:
    """Of each row and each column: (B, 16)."""
    return torch.cat([x.mean(dim=3), x.mean(dim=2)], dim=2).flatten(1) / 0.25 - 1.2


def batch(rows: int = 32) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    pictures, labels = digits.digits()
    return {"x": pictures[:rows].clone(), "table": ink(pictures[:rows]), "y": labels[:rows]}


def built(**settings: object) -> TIPClassifier:
    torch.manual_seed(0)
    return TIPClassifier(TIP(digits.cnn(), **TABLE), batch(), TEN, **settings)  # type: ignore[arg-type]


def test_the_contract_is_met_and_every_weight_learns() -> None:
    made = built()
    assert isinstance(made, Classifier)
    result = made.step(batch(), State(0, 10))
    parts = [result[f"loss_{name}"] for name in ("sample", "table", "both")]
    torch.testing.assert_close(result["loss"], torch.stack(parts).mean())
    result["loss"].backward()
    assert all(p.grad is not None for p in made.parameters())


def test_the_heads_that_have_what_they_look_at_are_averaged() -> None:
    made, given = built().eval(), batch(4)
    given["table"][1] = torch.nan  # no table
    given["x"][2] = torch.nan  # no picture
    found, _ = made(given["x"], given["table"])
    scores = made.predict(given)["scores"]
    whole = torch.stack(list(found.values())).mean(0)
    torch.testing.assert_close(scores[[0, 3]], whole[[0, 3]])
    torch.testing.assert_close(scores[1], found["sample"][1])
    torch.testing.assert_close(scores[2], found["table"][2])
    alone = {name: value for name, value in given.items() if name != "x"}
    torch.testing.assert_close(made.predict(alone)["scores"], found["table"])


def test_what_is_missing_does_not_matter() -> None:
    """Values behind NaN: a prediction without the picture is the same whatever picture it was."""
    made, given = built().eval(), batch(6)
    hidden = {**given, "x": torch.full_like(given["x"], torch.nan)}
    torch.testing.assert_close(
        made.predict(hidden)["scores"], made.predict({"table": given["table"]})["scores"]
    )
    blank = {**given, "table": torch.full_like(given["table"], torch.nan)}
    torch.testing.assert_close(
        made.predict(blank)["scores"], made.heads["sample"](made.encoder(given["x"]))
    )


def test_one_input_has_one_head_and_frozen_parts_stay() -> None:
    assert list(built(inputs="table").heads) == ["table"]
    given = batch()
    del given["x"]
    assert built(inputs="table").eval().predict(given)["scores"].shape == (32, 10)
    with pytest.raises(UsageError, match="these have none"):
        built(inputs="sample").predict(given)
    made = built(frozen=True)
    before = {n: v.clone() for n, v in made.encoder.state_dict().items()}
    optimizer, _ = optim.build(made, Optimizer(lr=0.1, warmup=0), 3)
    for step in range(3):
        made.step(batch(), State(step, 3))["loss"].backward()
        optimizer.step()
    assert all(torch.equal(before[n], v) for n, v in made.encoder.state_dict().items())


def test_another_method_is_refused() -> None:
    with pytest.raises(UsageError, match="goes on from method tip"):
        TIPClassifier(SimCLR(digits.cnn()), batch(), TEN)
    with pytest.raises(UsageError, match=r"classifier\.missing"):
        built(missing=1.0)


@pytest.mark.slow
def test_it_learns_to_do_with_what_there_is() -> None:
    made = built()
    optimizer, _ = optim.build(made, Optimizer(lr=5e-3, warmup=0), 200)
    pictures, labels = digits.digits()
    made.train()
    for step in range(200):
        rows = torch.randint(digits.TRAIN, (64,))
        given = {"x": pictures[rows], "table": ink(pictures[rows]), "y": labels[rows]}
        optimizer.zero_grad()
        made.step(given, State(step, 200))["loss"].backward()
        optimizer.step()
    test = slice(digits.TRAIN, None)
    table = ink(pictures[test])

    def accuracy(given: dict[str, torch.Tensor]) -> float:
        with torch.no_grad():
            guess = made.eval().predict(given)["scores"].argmax(1)
        return float((guess == labels[test]).float().mean())

    gone = torch.where(torch.rand_like(table) < 0.9, torch.nan, table)
    found = {
        "both": accuracy({"x": pictures[test], "table": table}),
        "a tenth of the table": accuracy({"x": pictures[test], "table": gone}),
        "table": accuracy({"table": table}),
        "a tenth of the table alone": accuracy({"table": gone}),
    }
    print(found)
    assert found["both"] > 0.9
    assert found["a tenth of the table"] > 0.9  # the picture is still there
    assert found["table"] > 0.25  # 0.1 is chance; 200 steps are few
    assert found["table"] > 1.5 * found["a tenth of the table alone"]
