"""From a pretrained run and labels to a classifier: the engine's tiny modality (real digits)."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors.torch import load_file

from medcl.errors import MedclError, UsageError
from medcl.finetune.explain import explain
from medcl.finetune.finetune import finetune, opened
from medcl.run import Run

sys.path.append(str(Path(__file__).parents[1] / "engine"))
import tiny_engine

SMALL = ("finetune.epochs=4", "finetune.bootstraps=100", "finetune.batch_size=64")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """An encoder of digits, pretrained for a second."""
    from medcl.engine.pretrain import pretrain

    folder = tmp_path_factory.mktemp("tiny")
    (folder / "key").write_text("synthetic patients have no secrets")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDCL_KEY_FILE", str(folder / "key"))
        tiny_engine.install(patch.setattr)
        index = tiny_engine.index(folder)
        yield pretrain(tiny_engine.recipe(), index, folder / "run")


@pytest.mark.slow
@pytest.mark.parametrize("classifier", ["linear", "lp-ft", "full"])
def test_the_run_s_own_test_patients_are_tested(run: Run, tmp_path: Path, classifier: str) -> None:
    settings = [*SMALL, f"classifier={{name: {classifier}}}", "optimizer.lr=1e-2"]
    result = finetune(opened(run.path, None, settings), tmp_path / "out")
    side = run.split()
    predicted = pl.read_parquet(tmp_path / "out" / "predictions.parquet")
    assert set(predicted["patient"]) == {p for p, s in side.items() if s == "test"}
    assert result.label == "digit"
    assert result.kind == "multiclass"
    accuracy = result.figures.metrics["accuracy"].value
    assert accuracy is not None
    assert accuracy > 0.6
    kept = load_file(tmp_path / "out" / "folds" / "r0f0" / "model.safetensors")
    before = run.encoder().state_dict()
    (name,) = [n for n in kept if n.endswith("encoder.body.4.weight")]
    moved = not np.allclose(kept[name], before["body.4.weight"])
    assert moved == (classifier != "linear")


@pytest.mark.slow
def test_labels_of_patients_reach_all_of_their_samples(run: Run, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    lines = [f"p{n:02},{'odd' if n % 2 else 'even'}" for n in range(0, 40) if n != 3]
    table.write_text("key,parity\n" + "\n".join([*lines, "p99,odd"]) + "\n")
    settings = [*SMALL, "finetune.folds=2", "finetune.label=parity"]
    result = finetune(opened(run.path, None, settings), tmp_path / "out", labels=table)
    assert result.kind == "binary"
    assert result.test.patients == 39
    assert result.notes[:3] == [
        "1 of 40 labels are of items that the index does not hold.",
        "1 item has no label and was left out.",
        "Pretraining used the test patients too, without labels.",
    ]
    facts = json.loads((tmp_path / "out" / "folds" / "r0f0" / "fold.json").read_text())
    assert facts["samples"]["test"] > 500, "all digits of twenty patients"


@pytest.mark.slow
def test_samples_that_are_no_bags_cannot_be_explained(run: Run, tmp_path: Path) -> None:
    source = opened(run.path, None, SMALL)
    finetune(source, tmp_path / "out", instances=True)
    with pytest.raises(MedclError, match="holds no instances"):
        explain(source, tmp_path / "out", 2)


def test_a_run_takes_only_a_recipe_of_its_plugin(run: Run) -> None:
    with pytest.raises(UsageError, match="Unknown classifier 'lpft'. Did you mean 'lp-ft'"):
        opened(run.path, None, ["classifier.name=lpft"])
