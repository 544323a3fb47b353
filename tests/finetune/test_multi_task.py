"""Further labels beside the one that is wanted: masked, weighted, and possibly wrong."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from typer.testing import CliRunner

from medcl.classifiers.contrast import Contrast
from medcl.classifiers.full import Full
from medcl.classifiers.losses import supervised
from medcl.classifiers.lp_ft import ProbeThenTune
from medcl.classifiers.semi_supervised import SemiSupervised
from medcl.errors import MedclError, UsageError
from medcl.finetune.finetune import finetune, opened
from medcl.finetune.opened import Study
from medcl.labels.auxiliary import further, on_one_scale
from medcl.labels.outputs import Auxiliary, Outputs
from medcl.methods.contract import State
from medcl.plugin import Samples
from medcl.recipe import Finetune
from medcl.run import Run
from medcl_cli.main import app

sys.path.append(str(Path(__file__).parents[1] / "engine"))
import tiny_engine

SEX = Auxiliary("sex", Outputs("binary", ("F", "M"), "robust"), 0.5)
AGE = Auxiliary("age", Outputs("regression", ("age",)), 0.1)
MAIN = Outputs("multiclass", ("a", "b", "c"), auxiliary=(SEX, AGE))
SMALL = ("classifier.name=full", "finetune.epochs=2", "finetune.bootstraps=100")


def _encoder() -> nn.Module:
    torch.manual_seed(0)
    encoder = nn.Linear(6, 5)
    encoder.width = 5  # type: ignore[assignment]
    return encoder


def _batch() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    x = torch.randn(6, 6)
    return {
        "x": x,
        "view.0": x,
        "view.1": x,
        "y": torch.tensor([0, 1, 2, -1, -1, 0]),
        "patient": torch.arange(6),
        "also.sex": torch.tensor([0, 1, -1, 1, 0, -1]),
        "also.age": torch.tensor([0.5, torch.nan, -1.0, 0.2, torch.nan, 1.0]),
    }


def test_the_loss_is_the_weighted_sum_over_what_is_known() -> None:
    batch = _batch()
    model = Full(_encoder(), batch, MAIN)
    h = model.encoder(batch["x"])
    expected = supervised(MAIN, model.head(h), batch["y"])
    for one, head in zip(MAIN.auxiliary, model.also.heads, strict=True):
        known = batch[f"also.{one.name}"] >= (0 if one is SEX else -99)
        term = supervised(one.outputs, head(h)[known], batch[f"also.{one.name}"][known])
        expected = expected + one.weight * term
    made = model.step(batch, State())["loss"]
    torch.testing.assert_close(made, expected)
    without = model.step(
        batch | {"also.sex": torch.full((6,), -1), "also.age": torch.full((6,), torch.nan)}, State()
    )
    torch.testing.assert_close(without["loss"], supervised(MAIN, model.head(h), batch["y"]))


@pytest.mark.parametrize("kind", [Full, ProbeThenTune, Contrast, SemiSupervised])
def test_every_classifier_that_says_so_learns_from_samples_with_a_further_label_alone(kind) -> None:
    batch = _batch() | {"y": torch.full((6,), -1)}
    assert kind.declares.auxiliary
    model = kind(_encoder(), batch, MAIN)
    model.step(batch, State(9, 10))["loss"].backward()
    grown = [p.grad for n, p in model.named_parameters() if n.endswith("encoder.weight")]
    assert all((g != 0).any() for g in grown)
    alone = kind(_encoder(), batch, Outputs("multiclass", ("a", "b", "c")))
    assert alone.predict(batch)["scores"].shape == (6, 3)
    assert not any("also" in name for name in alone.state_dict())


def test_values_are_put_on_one_scale_by_the_training_samples() -> None:
    ages = np.array([40.0, 60.0, np.nan, 300.0])
    np.testing.assert_allclose(on_one_scale(ages, np.array([0, 1, 2])), [-1, 1, np.nan, 25])
    np.testing.assert_array_equal(on_one_scale(np.array([0, 1, -1]), np.arange(3)), [0, 1, -1])
    assert on_one_scale(np.array([7.0, np.nan]), np.arange(2))[0] == 0


def test_what_a_further_label_is_goes_by_its_values() -> None:
    ids = [str(n) for n in range(24)]
    labels = {
        "age": np.array([np.nan, 999.0, *(30.0 + n % 11 for n in range(22))]),
        "grade": np.array([1.0 + n % 5 for n in range(24)]),
        "smoker": np.array([float(n % 2) for n in range(24)]),
        "beat": np.arange(24) % 8 - 1,  # a plugin's own codes
        "ward": np.array([f"w{n % 7}" for n in range(24)]),
    }
    samples = Samples(ids, ids, ids, dict, labels)
    made, values = further(samples, Finetune(auxiliary={name: {} for name in labels}))
    kinds = {one.name: one.outputs.kind for one in made}
    assert kinds == {
        "age": "regression",
        "grade": "multiclass",
        "smoker": "binary",
        "beat": "multiclass",
        "ward": "multiclass",
    }
    np.testing.assert_array_equal(values["also.age"], labels["age"])
    (said,), _ = further(samples, Finetune(auxiliary={"age": {"kind": "ordinal"}}))
    assert (said.outputs.kind, len(said.outputs.classes)) == ("ordinal", 12)


@pytest.mark.slow
def test_a_robust_loss_is_misled_less_by_wrong_labels() -> None:
    """Real digits, of which 40 % of the labels are replaced at random (synthetic noise)."""
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = torch.tensor(x[order], dtype=torch.float32) / 16, torch.tensor(y[order])
    made = torch.Generator().manual_seed(0)
    wrong = torch.rand(1000, generator=made) < 0.4
    told = torch.where(wrong, torch.randint(10, (1000,), generator=made), y[:1000])
    right = {}
    for loss in ("ce", "robust"):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
        adam = torch.optim.Adam(net.parameters(), 3e-3)
        outputs = Outputs("multiclass", tuple("0123456789"), loss)  # type: ignore[arg-type]
        for _ in range(400):
            adam.zero_grad()
            supervised(outputs, net(x[:1000]), told).backward()
            adam.step()
        right[loss] = float((net(x[1000:]).argmax(1) == y[1000:]).float().mean())
    assert right["robust"] > right["ce"] + 0.1


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """An encoder of real digits by invented people, pretrained for a second."""
    from medcl.engine.pretrain import pretrain

    folder = tmp_path_factory.mktemp("tasks")
    (folder / "key").write_text("synthetic patients have no secrets")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDCL_KEY_FILE", str(folder / "key"))
        tiny_engine.install(patch.setattr)
        yield pretrain(tiny_engine.recipe(), tiny_engine.index(folder), folder / "run")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Labels of invented people: parity of all but ten, sex of some, ages, one of them absurd."""
    rows = ["key,parity,sex,age"]
    for n in range(40):
        sex = "" if n % 3 == 0 else "FM"[n // 7 % 2]
        rows.append(f"p{n:02},{('even', 'odd')[n % 2] if n < 30 else ''},{sex},{20 + n or ''}")
    rows[6] = "p05,odd,M,999"
    (tmp_path / "l.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "l.csv"


@pytest.mark.slow
def test_it_is_asked_for_on_the_command_line_and_opened_again(
    run: Run, table: Path, tmp_path: Path
) -> None:
    also = "finetune.auxiliary={sex: {noisy: true}, age: {weight: 0.1, noisy: true}, size: {}}"
    settings = [*SMALL, also, "finetune.unlabelled=true"]
    asked = [word for s in settings for word in ("-s", s)]
    command = ["finetune", str(run.path), "--labels", str(table), "--out", str(tmp_path / "out")]
    refused = CliRunner().invoke(app, [*command, *asked])
    assert isinstance(refused.exception, UsageError)
    assert "No label 'size'" in str(refused.exception)
    asked = [word.replace(", size: {}", "") for word in asked]
    done = CliRunner().invoke(app, [*command, *asked, "--json"])
    assert done.exit_code == 0, done.exception
    told = json.loads(done.stdout)
    assert told["label"] == "parity", "the only column that is not named otherwise"
    facts = json.loads((tmp_path / "out" / "folds" / "r0f0" / "fold.json").read_text())
    assert [(a["name"], a["kind"], a["weight"]) for a in facts["auxiliary"]] == [
        ("sex", "binary", 0.3),
        ("age", "regression", 0.1),
    ]
    assert facts["samples"]["unlabelled"] > 0, "ten people have a further label alone"
    study = Study.open(tmp_path / "out")
    samples = study.samples()
    example = samples.read(np.arange(4))
    model = study.model(study.folds[0], example)
    scores = model.predict({n: torch.as_tensor(v) for n, v in example.items()})["scores"]
    assert scores.shape == (4, 2)


@pytest.mark.slow
def test_what_cannot_be_learnt_is_said(run: Run, table: Path, tmp_path: Path) -> None:
    also = "finetune.auxiliary={sex: {}}"
    with pytest.raises(UsageError, match="'linear' learns one label"):
        finetune(
            opened(run.path, None, ["classifier.name=linear", also]), tmp_path / "a", labels=table
        )
    with pytest.raises(MedclError, match="holds text where numbers"):
        finetune(
            opened(
                run.path,
                None,
                [*SMALL, "finetune.label=parity", "finetune.auxiliary={sex: {kind: regression}}"],
            ),
            tmp_path / "b",
            labels=table,
        )
    with pytest.raises(UsageError, match="finetune.auxiliary.sex.wait"):
        opened(run.path, None, [*SMALL, "finetune.auxiliary={sex: {wait: 1}}"])
