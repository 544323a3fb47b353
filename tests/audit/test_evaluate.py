"""A study questioned, on real digits of invented writers (synthetic persons); and planted leaks."""

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from medcl import manifest
from medcl import plugin as plugins
from medcl import recipe as recipes
from medcl.archive.index import build
from medcl.audit.evaluate import _grouping, evaluate
from medcl.embeddings.embeddings import evenly
from medcl.errors import UsageError
from medcl.finetune.finetune import finetune, opened
from medcl.run import Run
from medcl_cli.main import app

SETTINGS = ["finetune.task=digit", "finetune.epochs=15", "finetune.bootstraps=100"]


def _study(run: Run, out: Path, *settings: str) -> Path:
    finetune(opened(run.path, None, ["classifier.name=linear", *SETTINGS, *settings]), out)
    return out


@pytest.fixture(scope="module")
def study(digits_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _study(digits_run, tmp_path_factory.mktemp("evaluated") / "study", "finetune.folds=2")


@pytest.mark.slow
def test_a_clean_study_is_questioned(study: Path) -> None:
    made = evaluate(study, corruptions=("noise", "blur"), limit=200, resamples=100)
    assert made.audit.passed
    assert (made.audit.train_patients, made.audit.test_patients) == (12, 12)
    assert made.tested == (200, 12)
    auroc = {(c.corruption, c.strength): c.metrics["auroc"].value for c in made.corruptions}
    assert auroc["none", 0] == pytest.approx(made.study.figures.metrics["auroc"].value, abs=0.05)
    assert auroc["noise", 5] < auroc["none", 0]  # type: ignore[operator]
    strongest = [a for a in made.attacks if a.epsilon == 0.3]
    assert all(a.success.value > 0.05 for a in strongest)  # type: ignore[operator]
    kept = json.loads((study / "evaluation" / "evaluation.json").read_text())
    assert kept["audit"]["passed"] is True
    columns, rows = made.corruption_table()
    assert columns == ["corruption", "as it is", *"12345"]
    assert len(rows) == 2


def test_counts_among_the_labels_are_no_groups() -> None:
    """A rhythm or a sex is one, how many ectopic beats somebody had is not."""
    table = pl.DataFrame(
        {
            "label.sex": [0, 1, 1],
            "label.beats_F": [0, 3, 7],
            "label.rhythm": ["AF", "N", "N"],
            "label.age": [50, 60, 70],
            "slices": [20, 30, 40],
            "vendor": ["A", "A", "A"],
        }
    )
    grouping = [c for c in table.columns if _grouping(table[c])]
    assert grouping == ["label.sex", "label.rhythm", "label.age", "slices"]


@pytest.mark.slow
def test_groups_come_from_the_index(study: Path) -> None:
    made = evaluate(study, by=["digits"], corruptions=(), attack=False)
    assert not made.subgroups  # every writer has sixty digits: nothing to compare
    with pytest.raises(UsageError, match="no column 'sex'"):
        evaluate(study, by=["sex"], corruptions=(), attack=False)
    with pytest.raises(UsageError, match="Unknown corruption 'nois'"):
        evaluate(study, corruptions=("nois",))


def _leaky(digits_index: Path, digits_run: Run, tmp_path: Path) -> tuple[Path, Run]:
    """The same archive with one writer's file under another name: an invented 13th person."""
    from toy_run import make_run

    archive = tmp_path / "archive"
    shutil.copytree(digits_index.parent / "archive", archive)
    shutil.copy(archive / "writer_03.csv", archive / "writer_77.csv")
    key = tmp_path / "key"
    key.write_bytes(b"a test's key, of no secret")
    build(archive, tmp_path / "index", plugins.get("toy"), key_file=key)
    return tmp_path / "index", make_run(tmp_path / "index", tmp_path / "run")


@pytest.mark.slow
def test_a_copied_file_under_another_name_fails_the_command(
    digits_index: Path, digits_run: Run, tmp_path: Path
) -> None:
    _, run = _leaky(digits_index, digits_run, tmp_path)
    study = _study(run, tmp_path / "study", "finetune.folds=12")
    result = CliRunner().invoke(app, ["evaluate", str(study), "--fast"])
    assert result.exit_code != 0
    assert "60 copies" in str(result.exception)
    assert "LEAK" in result.output
    kept = json.loads((study / "evaluation" / "evaluation.json").read_text())
    assert kept["audit"]["counts"] == {"patient": 0, "copy": 60, "near-copy": 0}


def test_a_patient_on_both_sides_fails_the_command(study: Path, tmp_path: Path) -> None:
    """As if a split had been written by hand: one writer's sample moves to the other side."""
    broken = tmp_path / "broken"
    shutil.copytree(study, broken)
    path = broken / "folds" / "r0f0" / "split.parquet"
    frame = pl.read_parquet(path)
    moved = frame.filter(pl.col("split") == "test")["id"][0]
    side = pl.when(pl.col("id") == moved).then(pl.lit("train")).otherwise("split")
    with manifest.replacing(path) as temporary:
        frame.with_columns(side.alias("split")).write_parquet(temporary)
    result = CliRunner().invoke(app, ["evaluate", str(broken), "--fast"])
    assert result.exit_code != 0
    assert "1 patients" in str(result.exception)


def test_an_unfinished_or_foreign_folder_is_refused(digits_run: Run) -> None:
    with pytest.raises(UsageError, match="is not a study"):
        evaluate(digits_run.path)


def test_patients_take_turns() -> None:
    patients = np.repeat(["a", "b", "c"], [100, 10, 2])
    chosen = patients[evenly(patients, 9, 0)]
    assert dict(zip(*np.unique(chosen, return_counts=True), strict=True)) == {
        "a": 4,
        "b": 3,
        "c": 2,
    }
    assert len(evenly(patients, 500, 0)) == 112
    patients = np.repeat([0, 1, 2], [1000, 10, 3])
    assert np.bincount(patients[evenly(patients, 30, 0)]).tolist() == [17, 10, 3]


def test_repeats_without_folds_are_judged_by_whom_they_were_tested(
    digits_run: Run, tmp_path: Path
) -> None:
    """Each repeat holds out other writers: not all of them are of the first."""
    study = tmp_path / "study"
    settings = ["classifier.name=linear", *SETTINGS, "finetune.epochs=1", "finetune.repeats=3"]
    recipe = tmp_path / "recipe.yaml"
    shutil.copy(_study(digits_run, tmp_path / "own", *settings[3:]) / "recipe.yaml", recipe)
    finetune(opened(digits_run.data, recipe), study)
    tested = pl.read_parquet(study / "predictions.parquet").group_by("id").agg("repeat")
    assert tested["repeat"].list.len().min() == 1, "some are tested once"
    made = evaluate(study, corruptions=("noise",), attack=False, limit=100, resamples=100)
    assert made.tested[0] == 100


def test_a_study_of_the_probe_s_task_remembers_it(digits_run: Run, tmp_path: Path) -> None:
    finetune(opened(digits_run.path, None, ["classifier.name=linear", *SETTINGS[1:]]), tmp_path)
    assert recipes.load(tmp_path / "recipe.yaml").finetune.task == "digit"


def test_another_encoder_does_not_go_on_with_a_study(study: Path, digits_run: Run) -> None:
    """Or else the figures of the pretrained one would be told as those of training from nothing."""
    with pytest.raises(UsageError, match="a study with other encoder"):
        finetune(opened(digits_run.data, study / "recipe.yaml"), study)


def test_a_split_that_tests_people_of_the_pretraining_says_so(
    digits_run: Run, tmp_path: Path
) -> None:
    table = tmp_path / "split.csv"
    lines = [f"writer_{n:02},{'test' if n < 6 else 'train'}" for n in range(12)]
    table.write_text("\n".join(["key,split", *lines]) + "\n")
    settings = ["classifier.name=linear", *SETTINGS, "finetune.epochs=1"]
    made = finetune(opened(digits_run.path, None, settings), tmp_path / "study", split=table)
    assert any("Pretraining used" in note for note in made.notes)


def test_a_study_is_not_taken_for_a_run(study: Path) -> None:
    with pytest.raises(UsageError, match="a study of medcl finetune, not a run"):
        Run.open(study)
