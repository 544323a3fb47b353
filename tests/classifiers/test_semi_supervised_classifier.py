"""Learning from samples without a label, with soft labels and label trees: who, and how."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch.nn import functional as F
from typer.testing import CliRunner

from medcl.classifiers.losses import soft, supervised
from medcl.classifiers.semi_supervised import SemiSupervised
from medcl.errors import MedclError, UsageError
from medcl.finetune.finetune import finetune, opened
from medcl.finetune.folds import Part, with_unlabelled
from medcl.labels.outputs import Outputs
from medcl.methods.contract import State
from medcl.objectives.nt_xent import nt_xent
from medcl.objectives.supcon import supcon
from medcl.objectives.tree_contrast import tree_contrast
from medcl.run import Run
from medcl_cli.main import app

sys.path.append(str(Path(__file__).parents[1] / "engine"))
import tiny_engine

THREE = Outputs("multiclass", ("a", "b", "c"))
SEMI = "classifier={name: semi-supervised, hidden: 32, out: 16}"
SMALL = (SEMI, "finetune.epochs=2", "finetune.bootstraps=100", "finetune.batch_size=64")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """An encoder of real digits by invented people, pretrained for a second."""
    from medcl.engine.pretrain import pretrain

    folder = tmp_path_factory.mktemp("semi")
    (folder / "key").write_text("synthetic patients have no secrets")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDCL_KEY_FILE", str(folder / "key"))
        tiny_engine.install(patch.setattr)
        yield pretrain(tiny_engine.recipe(), tiny_engine.index(folder), folder / "run")


def labels(path: Path, rows: dict[int, str], header: str = "key,parity") -> Path:
    path.write_text("\n".join([header, *(f"p{n:02},{value}" for n, value in rows.items())]) + "\n")
    return path


def parity(people: range) -> dict[int, str]:
    return {n: "odd" if n % 2 else "even" for n in people}


def split_of(folder: Path) -> dict[str, set[str]]:
    frame = pl.read_parquet(folder / "folds" / "r0f0" / "split.parquet")
    return {
        side: set(frame.filter(pl.col("split") == side)["patient"])
        for side in ("train", "validation", "test")
    }


@pytest.mark.slow
def test_people_without_a_label_are_learnt_from_unless_the_run_left_them_out(
    run: Run, tmp_path: Path
) -> None:
    table = labels(tmp_path / "l.csv", parity(range(20)))
    asked = [word for s in (*SMALL, "finetune.unlabelled=true") for word in ("-s", s)]
    command = ["finetune", str(run.path), "--labels", str(table), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*command, *asked, "--json"])
    assert done.exit_code == 0, done.exception
    told = json.loads(done.stdout)
    sides = split_of(tmp_path / "out")
    assert not sides["train"] & (sides["test"] | sides["validation"])
    of_run = run.split()
    assert {of_run[p] for p in sides["train"]} == {"train"}, "the run's test people are left out"
    without = {p for p, s in of_run.items() if s == "train"} - set().union(*sides.values())
    assert not without, "every other training patient, labelled or not, is learnt from"
    facts = json.loads((tmp_path / "out" / "folds" / "r0f0" / "fold.json").read_text())
    assert facts["samples"]["unlabelled"] > 0
    assert any("without a label too" in note for note in told["notes"])
    assert told["test"]["patients"] == len(sides["test"])
    again = CliRunner().invoke(app, [*command, *asked, "--json"])
    assert json.loads(again.stdout)["made_from"] == told["made_from"], "a study is opened again"


@pytest.mark.slow
def test_of_folds_and_given_splits_nobody_is_on_two_sides(run: Run, tmp_path: Path) -> None:
    table = labels(tmp_path / "l.csv", parity(range(20)))
    settings = [*SMALL, "finetune.unlabelled=true", "finetune.folds=2"]
    finetune(opened(run.path, None, settings), tmp_path / "folds", labels=table)
    sides = split_of(tmp_path / "folds")
    assert not sides["train"] & (sides["test"] | sides["validation"])
    assert len(set().union(*sides.values())) == len(run.split()), "nobody else is left out"
    says = {n: "train" if n % 4 else "test" for n in range(20)} | {30: "test", 31: "train"}
    given = labels(tmp_path / "split.csv", says, "key,split")
    settings = [*SMALL, "finetune.unlabelled=true"]
    finetune(opened(run.path, None, settings), tmp_path / "given", labels=table, split=given)
    sides = split_of(tmp_path / "given")
    assert sum(len(s) for s in sides.values()) == 21, "of those without a label, patient 31 alone"


def test_sites_that_are_held_out_give_nothing_to_learn() -> None:
    rows = [np.array(r) for r in ([0, 1], [2], [3])]
    part = Part(0, 0, *rows)
    patients, sites = list("abcdefgh"), ["x", "y", "x", "z", "z", "y", None, "x"]
    rest = np.arange(4, 8)
    by_patient = with_unlabelled(part, rest, patients, sites, "patient")
    assert by_patient.unlabelled.tolist() == [4, 5, 6, 7]
    by_site = with_unlabelled(part, rest, patients, sites, "site")
    assert by_site.unlabelled.tolist() == [5, 6, 7]
    own = with_unlabelled(part, rest, [*"abcd", "c", "d", "a", "e"], sites, "patient")
    assert own.unlabelled.tolist() == [6, 7], "the same people, other samples of theirs"


@pytest.mark.slow
def test_what_a_classifier_would_not_look_at_is_refused(run: Run, tmp_path: Path) -> None:
    for setting in ("unlabelled=true", "tree=[a]", "soft=[a, b]"):
        asked = ["classifier.name=full", f"finetune.{setting}"]
        with pytest.raises(UsageError, match="'full' learns from labels alone"):
            finetune(opened(run.path, None, asked), tmp_path / "out")
    with pytest.raises(UsageError, match="is not for finetune.kind regression"):
        SemiSupervised(_encoder(), {"x": torch.randn(4, 6)}, Outputs("regression", ("age",)))


def test_soft_labels_and_trees_reach_the_training(run: Run, tmp_path: Path) -> None:
    rows = {n: f"{w},{1 - n % 2},{n % 2}" for n, w in parity(range(0, 16)).items()}
    rows |= dict.fromkeys(range(16, 24), ",0.7,0.3")  # unsure, and of no class
    rows |= dict.fromkeys(range(24, 28), ",,")
    table = labels(tmp_path / "l.csv", rows, "key,parity,p.even,p.odd")
    settings = [*SMALL, "finetune.unlabelled=true", "finetune.soft=[p.even, p.odd]"]
    settings += ["classifier.objective=soft_contrast", "finetune.label=parity"]
    finetune(opened(run.path, None, settings), tmp_path / "soft", labels=table)
    wrong = labels(tmp_path / "w.csv", rows | {3: "odd,0.5,0.6"}, "key,parity,p.even,p.odd")
    with pytest.raises(MedclError, match="are not probabilities"):
        finetune(opened(run.path, None, settings), tmp_path / "wrong", labels=wrong)

    tree = {n: f"{'low' if n < 14 else 'high'},{w}" for n, w in parity(range(0, 20)).items()}
    tree |= dict.fromkeys(range(20, 30), "high,")  # only the first level is known
    table = labels(tmp_path / "t.csv", tree, "key,half,parity")
    settings = [*SMALL, "finetune.unlabelled=true", "finetune.tree=[half]"]
    settings += ["classifier.objective=tree_contrast"]
    result = finetune(opened(run.path, None, settings), tmp_path / "tree", labels=table)
    assert result.label == "parity"
    bare = [*SMALL, "classifier.objective=tree_contrast", "finetune.label=parity"]
    with pytest.raises(MedclError, match="learns from finetune.tree: name the columns"):
        finetune(opened(run.path, None, bare), tmp_path / "bare", labels=table, workers=1)


def _encoder() -> torch.nn.Module:
    torch.manual_seed(0)
    encoder = torch.nn.Linear(6, 5)
    encoder.width = 5  # type: ignore[assignment]
    return encoder


def _batch() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    views = {f"view.{n}": torch.randn(8, 6) for n in range(2)}
    y = torch.tensor([0, 1, 2, 0, 1, -1, -1, -1])
    return {"x": torch.randn(8, 6), **views, "y": y, "patient": torch.arange(8)}


def _parts(model: SemiSupervised, batch: dict[str, Any]) -> tuple[torch.Tensor, ...]:
    h = [model.contrast.encoder(batch[f"view.{n}"]) for n in range(2)]
    z = model.contrast.projector(torch.cat(h)).chunk(2)
    return model.head(torch.cat(h)), *z


def test_the_loss_is_the_sum_of_its_parts() -> None:
    batch = _batch()
    model = SemiSupervised(
        _encoder(), batch, THREE, weight=0.3, self_supervised=(0.2, 0.6), hidden=7, out=4
    ).eval()
    made = model.step(batch, State(5, 10))
    scores, z1, z2 = _parts(model, batch)
    y = batch["y"].repeat(2)
    told = supcon(torch.cat([z1, z2]), y)
    seen = nt_xent(z1, z2, temperature=0.1, group=batch["patient"])
    share = float((made["self_supervised"] / seen).detach())
    assert 0.2 < share < 0.6
    expected = supervised(THREE, scores, y) + 0.3 * ((1 - share) * told + share * seen)
    torch.testing.assert_close(made["loss"], expected)
    made["loss"].backward()
    assert all(p.grad is not None for p in model.parameters())


def test_without_any_label_the_views_teach_alone() -> None:
    batch = _batch() | {"y": torch.full((8,), -1)}
    model = SemiSupervised(_encoder(), batch, THREE, hidden=7, out=4)
    made = model.step(batch, State())
    assert made["loss"].isfinite()
    made["loss"].backward()
    assert (model.contrast.encoder.weight.grad != 0).any()
    assert (model.head[1].weight.grad == 0).all()


def test_a_tree_s_first_level_attracts_and_a_soft_label_counts_as_cross_entropy() -> None:
    batch = _batch()
    tree = torch.tensor([[0, 0], [0, 1], [1, 2], [0, 0], [0, 1], [1, -1], [1, -1], [-1, -1]])
    model = SemiSupervised(
        _encoder(), batch, THREE, objective="tree_contrast", self_supervised=(0, 0), hidden=7, out=4
    ).eval()
    made = model.step(batch | {"tree": tree}, State())
    _, z1, z2 = _parts(model, batch)
    torch.testing.assert_close(made["supervised"], tree_contrast(z1, z2, tree))

    given = torch.full((8, 3), torch.nan)
    given[1], given[5] = torch.tensor([0.1, 0.8, 0.1]), torch.tensor([0.5, 0.25, 0.25])
    model = SemiSupervised(_encoder(), batch, THREE, weight=0, hidden=7, out=4).eval()
    made = model.step(batch | {"soft": given}, State())
    scores, *_ = _parts(model, batch)
    target = torch.where(given.isfinite(), given, F.one_hot(batch["y"].clamp_min(0), 3).float())
    rows = torch.tensor([0, 1, 2, 3, 4, 5])
    logs = scores.log_softmax(1).view(2, 8, 3)[:, rows]
    torch.testing.assert_close(made["loss"], -(target[rows] * logs).sum(2).mean())


def test_soft_cross_entropy_of_certain_labels_is_the_weighted_cross_entropy() -> None:
    torch.manual_seed(0)
    scores, y = torch.randn(10, 3, dtype=torch.float64, requires_grad=True), torch.arange(10) % 3
    for weights in (None, (1.0, 2.0, 5.0)):
        outputs = Outputs("multiclass", ("a", "b", "c"), weights=weights)
        told = F.one_hot(y, 3).double()
        torch.testing.assert_close(soft(outputs, scores, told), supervised(outputs, scores, y))
    p = torch.rand(10, 3, dtype=torch.float64)
    p[4] = torch.nan
    assert torch.autograd.gradcheck(lambda s: soft(THREE, s, p), (scores,))
    assert soft(THREE, scores, torch.full_like(p, torch.nan)) == 0
