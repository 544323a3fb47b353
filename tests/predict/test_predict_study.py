"""medcl predict with a study: folds averaged, and nobody judged by who learnt from them."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
import pytest
import torch
import yaml
from typer.testing import CliRunner

from medcl import manifest
from medcl.archive.index import Index
from medcl.errors import MedclError, UsageError
from medcl.finetune.finetune import finetune, opened
from medcl.finetune.opened import NAMED, Study
from medcl.labels.activation import probabilities
from medcl.predict import opening, study_predictor
from medcl.predict.batch import ASSIGNED, NO_PRIVATE, OTHER_KEY, predict
from medcl.predict.run_predictor import Embedded
from medcl.run import Run
from medcl.tensors import tensors

sys.path.append(str(Path(__file__).parents[1] / "engine"))
import tiny_engine

SMALL = ("finetune.epochs=2", "finetune.bootstraps=100", "finetune.batch_size=64")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Digits of forty synthetic persons, a run on them, a study of odd and even in three folds."""
    from medcl.engine.pretrain import pretrain

    folder = tmp_path_factory.mktemp("study")
    (folder / "key").write_text("synthetic patients have no secrets")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDCL_KEY_FILE", str(folder / "key"))
        tiny_engine.install(patch.setattr)
        index = tiny_engine.index(folder)
        run = pretrain(tiny_engine.recipe({"trainer": {"steps": 20}}), index, folder / "run")
        table = folder / "labels.csv"
        table.write_text("key,parity\n" + "".join(f"p{n:02},{LABEL[n % 2]}\n" for n in range(40)))
        source = opened(run.path, None, [*SMALL, "finetune.folds=3", "finetune.label=parity"])
        finetune(source, folder / "study", labels=table)
        own = opened(run.path, None, [*SMALL, "finetune.label=digit"])
        finetune(own, folder / "split", labels=None)
        yield folder


LABEL = ("even", "odd")


@pytest.fixture
def stranger(home: Path, tmp_path: Path) -> Path:
    """A recording of somebody who took no part."""
    rows = np.load(home / "archive" / "p00.npy")
    np.save(tmp_path / "someone.npy", rows[::-1].copy())
    return tmp_path / "someone.npy"


def by_hand(study: Study, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(folds, N, C) probabilities, and (folds,) thresholds."""
    facts = [json.loads((fold / "fold.json").read_text()) for fold in study.folds]
    made = []
    for fold, told in zip(study.folds, facts, strict=True):
        scores = study.model(fold, {"x": x[:2]}).predict(tensors({"x": x}))["scores"].numpy()
        made.append(probabilities(told["outputs"]["kind"], scores, told["temperature"]))
    return np.stack(made), np.array([told["threshold"] for told in facts])


def placed(table: pl.DataFrame) -> pl.DataFrame:
    """With the item and the place in it: the tiny plugin counts samples over what it is given."""
    number = pl.col("sample").str.split(":").list.last().cast(pl.Int64)
    item = pl.col("sample").str.split(":").list.first()
    return table.with_columns(item=item, place=number.rank("ordinal").over(item).cast(pl.Int64))


@pytest.mark.slow
def test_a_stranger_is_judged_by_the_mean_of_all_folds(
    home: Path, stranger: Path, tmp_path: Path
) -> None:
    study = opening.opened(home / "study")
    assert isinstance(study, Study)
    out = tmp_path / "p.parquet"
    made = predict(study, [stranger], out)
    table = pl.read_parquet(out)
    each, threshold = by_hand(study, np.load(stranger)[:, :64])
    p = table.select("p.even", "p.odd").to_numpy()
    np.testing.assert_allclose(p, each.mean(axis=0), atol=1e-5)
    assert table["threshold"].to_list() == pytest.approx([threshold.mean()] * len(table))
    want = np.where(each.mean(axis=0)[:, 1] >= threshold.mean(), "odd", "even")
    assert table["said"].to_list() == want.tolist()
    assert table["folds"].unique().to_list() == [3]
    assert table["seen"].unique().to_list() == [False]
    assert "embedding" not in table.columns
    assert "anomaly" not in table.columns
    assert made.notes == ()
    record = pl.read_parquet(tmp_path / "p.records.parquet").row(0, named=True)
    assert record["p.odd"] == pytest.approx(p[:, 1].mean(), abs=1e-5)
    assert record["said"] == ("odd" if p[:, 1].mean() >= threshold.mean() else "even")
    assert (record["folds"], record["seen"], record["windows"]) == (3, False, len(table))
    assert pl.read_parquet(tmp_path / "p.patients.parquet")["folds"].to_list() == [3]


@pytest.mark.slow
def test_several_studies_count_once_each(home: Path, stranger: Path, tmp_path: Path) -> None:
    study = opening.opened(home / "study")
    lone = opening.opened(next(iter(sorted((home / "study" / "folds").iterdir()))))
    out = tmp_path / "p.parquet"
    made = predict(study, [stranger], out, also=[lone])
    table = pl.read_parquet(out)
    each, threshold = by_hand(Study.open(home / "study"), np.load(stranger)[:, :64])
    p = table.select("p.even", "p.odd").to_numpy()
    want = (each.mean(axis=0) + each[0]) / 2
    np.testing.assert_allclose(p, want, atol=1e-5)
    level = (threshold.mean() + threshold[0]) / 2
    assert table["threshold"].to_list() == pytest.approx([level] * len(table))
    assert table["said"].to_list() == np.where(want[:, 1] >= level, "odd", "even").tolist()
    assert table["folds"].unique().to_list() == [4]
    assert made.notes == ()
    # Of those who took part, a study predicts only whom not all its models were trained on.
    made = predict(study, [home / "archive"], out, also=[lone])
    table = pl.read_parquet(out)
    assert not table["seen"].any()
    assert sorted(table["folds"].unique()) == [1, 2]  # 2: the lone fold tested them too
    assert {note.split(":")[0] for note in made.notes} == {"study"}


def test_studies_of_other_targets_are_not_averaged(
    home: Path, stranger: Path, tmp_path: Path
) -> None:
    study, own = Study.open(home / "study"), Study.open(home / "split")
    with pytest.raises(UsageError, match="study and split predict different targets: binary of"):
        predict(study, [stranger], tmp_path / "p.parquet", also=[own])
    with pytest.raises(UsageError, match="run is no study of medcl finetune"):
        predict(study, [stranger], tmp_path / "p.parquet", also=[Run.open(home / "run")])


@pytest.mark.slow
def test_who_took_part_is_judged_by_the_fold_that_tested_them(home: Path, tmp_path: Path) -> None:
    study = Study.open(home / "study")
    out = tmp_path / "p.parquet"
    made = predict(study, [home / "archive"], out)
    table = pl.read_parquet(out)
    assert table["folds"].unique().to_list() == [1]
    assert not table["seen"].any()
    assert made.notes[0].startswith("40 of 40 patients are in the study: only models")
    tested = pl.concat([study.tested(fold) for fold in study.folds])
    temperature = {
        key: json.loads((fold / "fold.json").read_text())["temperature"]
        for fold in study.folds
        for key in study.tested(fold)["id"]
    }
    scores = tested.select("^score.*$").to_numpy()
    t = np.array([temperature[key] for key in tested["id"]])[:, None]
    want = pl.DataFrame({"sample": tested["id"], "p": probabilities("binary", scores / t)[:, 1]})
    both = placed(table).join(placed(want), on=("item", "place"), validate="1:1")
    assert len(both) == len(table) == len(want)
    np.testing.assert_allclose(both["p.odd"], both["p"], atol=1e-5)


def test_what_is_named_twice_is_predicted_once(home: Path, tmp_path: Path) -> None:
    """And nothing is written into a folder that holds what else was named."""
    study = Study.open(home / "study")
    copy = tmp_path / "elsewhere"
    shutil.copytree(home / "archive", copy)
    made = predict(study, [copy, copy / "p01.npy", copy], tmp_path / "p.parquet")
    assert made.notes[0].startswith("40 of 40 patients are in the study")
    assert made.records == 40
    assert {p.name for p in tmp_path.iterdir() if p.is_dir()} == {"elsewhere"}
    assert sorted(p.name for p in copy.iterdir()) == sorted(
        p.name for p in (home / "archive").iterdir()
    )


def test_where_every_model_learnt_from_somebody_it_is_said(home: Path, tmp_path: Path) -> None:
    """A study of one held-out split: its training patients are known to its only model."""
    study = Study.open(home / "split")
    made = predict(study, [home / "archive"], tmp_path / "p.parquet")
    people = pl.read_parquet(tmp_path / "p.patients.parquet")
    (fold,) = study.folds
    sides = pl.read_parquet(fold / "split.parquet")
    learnt = set(sides.filter(pl.col("split") != "test")["patient"])
    assert set(people.filter("seen")["patient"]) == learnt
    assert people["folds"].unique().to_list() == [1]
    assert f"{len(learnt)} of 40 patients are training patients of every model" in made.notes[0]
    saw = len(Run.open(home / "run").pretrained_on())
    assert 0 < saw < 40
    assert made.notes[1:] == (f"Pretraining used {saw} of 40 patients, without labels.",)


def test_under_another_key_nobody_can_tell(home: Path, tmp_path: Path) -> None:
    other = tmp_path / "key"
    other.write_text("quite another secret key")
    study = Study.open(home / "study")
    made = predict(study, [home / "archive"], tmp_path / "p.parquet", key_file=other)
    table = pl.read_parquet(tmp_path / "p.parquet")
    assert made.notes == (OTHER_KEY,)
    assert table["folds"].unique().to_list() == [3]
    assert table["seen"].null_count() == len(table)


def test_patients_by_path_are_the_same_only_at_the_same_place(
    home: Path, stranger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = Study.open(home / "study")
    facts = study.data / "index.json"
    before = facts.read_text()
    try:
        pattern = r"^(?P<patient>p\d\d)\."
        manifest.write_text(facts, json.dumps(json.loads(before) | {"patient_from": pattern}))
        inside = predict(study, [home / "archive" / "p01.npy"], tmp_path / "p.parquet")
        assert ASSIGNED not in inside.notes
        assert pl.read_parquet(tmp_path / "p.parquet")["folds"].unique().to_list() == [1]
        assert predict(study, [stranger], tmp_path / "q.parquet").notes == (ASSIGNED,)
        assert predict(study, [study.data], tmp_path / "r.parquet").notes[0] not in (ASSIGNED, "")
    finally:
        manifest.write_text(facts, before)


def test_an_index_is_taken_as_it_is(home: Path, tmp_path: Path) -> None:
    study = Study.open(home / "study")
    predict(study, [home / "archive"], tmp_path / "p.parquet")
    predict(study, [home / "index"], tmp_path / "q.parquet", settings=["dataset.extra=3"])
    files, some = (pl.read_parquet(tmp_path / f"{n}.parquet") for n in "pq")
    assert set(some["patient"]) == set(Index.open(home / "index").items["patient"])
    assert some["item"].value_counts()["count"].unique().to_list() == [3]
    both = placed(some).join(placed(files), on=("item", "place"))
    assert len(both) == len(some)
    np.testing.assert_allclose(both["p.odd"], both["p.odd_right"], atol=1e-6)
    with pytest.raises(UsageError, match="only dataset"):
        predict(study, [home / "index"], tmp_path / "q.parquet", settings=["prepare.crash=p01"])


def test_one_fold_alone(home: Path, stranger: Path, tmp_path: Path) -> None:
    one = opening.opened(home / "study" / "folds" / "r0f1")
    assert isinstance(one, Study)
    predict(one, [stranger], tmp_path / "p.parquet")
    each, _ = by_hand(Study.open(home / "study"), np.load(stranger)[:, :64])
    p = pl.read_parquet(tmp_path / "p.parquet").select("p.even", "p.odd").to_numpy()
    np.testing.assert_allclose(p, each[1], atol=1e-5)


def test_a_study_needs_neither_its_run_nor_its_index(
    home: Path, stranger: Path, tmp_path: Path
) -> None:
    predict(Study.open(home / "study"), [stranger], tmp_path / "p.parquet")
    shutil.copytree(home / "study", tmp_path / "elsewhere")
    where = tmp_path / "elsewhere" / "private" / "where.json"
    told = json.loads(where.read_text())
    manifest.write_text(where, json.dumps(told | {"data": "/gone/idx", "run": "/gone/run"}))
    made = predict(Study.open(tmp_path / "elsewhere"), [stranger], tmp_path / "q.parquet")
    assert made.notes == ()  # under the same key file
    one, two = (pl.read_parquet(tmp_path / f"{n}.parquet")["p.odd"] for n in "pq")
    np.testing.assert_allclose(one, two, atol=1e-6)


def test_a_study_is_used_without_its_private_folder(
    home: Path, stranger: Path, tmp_path: Path
) -> None:
    """It is to be left out of what is passed on; who was learnt from is not known then."""
    predict(Study.open(home / "study"), [stranger], tmp_path / "p.parquet")
    shutil.copytree(home / "study", tmp_path / "passed on")
    shutil.rmtree(tmp_path / "passed on" / "private")
    made = predict(Study.open(tmp_path / "passed on"), [stranger], tmp_path / "q.parquet")
    assert made.notes == (NO_PRIVATE,)
    one, two = (pl.read_parquet(tmp_path / f"{n}.parquet") for n in "pq")
    np.testing.assert_allclose(one["p.odd"], two["p.odd"], atol=1e-6)
    assert two["seen"].is_null().all()


def test_a_run_is_used_without_its_private_folder(
    home: Path, stranger: Path, tmp_path: Path
) -> None:
    """What it learnt once from its training patients lies beside its weights."""
    shutil.copytree(home / "run", tmp_path / "run")
    predict(Run.open(tmp_path / "run"), [stranger], tmp_path / "p.parquet")
    shutil.copytree(tmp_path / "run", tmp_path / "passed on")
    shutil.rmtree(tmp_path / "passed on" / "private")
    made = predict(Run.open(tmp_path / "passed on"), [stranger], tmp_path / "q.parquet")
    assert made.notes == (NO_PRIVATE,)
    shutil.rmtree(tmp_path / "passed on" / "predict")
    with pytest.raises(MedclError, match="came without its private folder"):
        predict(Run.open(tmp_path / "passed on"), [stranger], tmp_path / "r.parquet")


@pytest.mark.slow
def test_patients_whom_a_table_of_labels_names_are_recognised(home: Path, tmp_path: Path) -> None:
    """The recordings name nobody, and they come back without the table."""
    rows = [f"p{n:02},person {n // 2},{LABEL[n % 4 // 2]}\n" for n in range(40)]
    (tmp_path / "labels.csv").write_text("key,patient,parity\n" + "".join(rows))
    source = opened(home / "run", None, [*SMALL, "finetune.folds=2", "finetune.label=parity"])
    finetune(source, tmp_path / "study", labels=tmp_path / "labels.csv")
    study = Study.open(tmp_path / "study")
    predict(study, [home / "archive"], tmp_path / "p.parquet")
    found = pl.read_parquet(tmp_path / "p.parquet")
    assert found["folds"].unique().to_list() == [1]  # of two folds, the one that learnt of others
    assert not found["seen"].any()
    named = pl.read_parquet(tmp_path / "study" / NAMED)
    assert set(named["indexed"]) == set(found["patient"])
    assert named["patient"].n_unique() == 20
    one = Study.open(tmp_path / "study", only=study.folds[0].name)
    predict(one, [home / "archive"], tmp_path / "q.parquet")
    assert 0 < pl.read_parquet(tmp_path / "q.parquet")["seen"].sum() < len(found)


@pytest.mark.slow
def test_whom_pretraining_saw_is_said_though_the_run_is_gone(
    home: Path, stranger: Path, tmp_path: Path
) -> None:
    split = Run.open(home / "run").split()
    predict(Study.open(home / "study"), [home / "archive"], tmp_path / "all.parquet", paths=True)
    named = pl.read_parquet(tmp_path / "all.records.parquet").select("record", "patient")
    of = {split[patient]: home / "archive" / Path(record).name for record, patient in named.rows()}
    shutil.copytree(home / "study", tmp_path / "study")
    shutil.copytree(home / "study", tmp_path / "earlier")
    (tmp_path / "earlier" / "pretrained.parquet").unlink()
    where = tmp_path / "study" / "private" / "where.json"
    manifest.write_text(where, json.dumps(json.loads(where.read_text()) | {"run": "/gone/run"}))
    said = "Pretraining used 1 of 1 patients, without labels."
    for name in ("study", "earlier"):  # noted; asked of the run
        model = Study.open(tmp_path / name)
        assert predict(model, [of["train"]], tmp_path / "p.parquet").notes[1:] == (said,)
        assert predict(model, [of["test"]], tmp_path / "p.parquet").notes[1:] == ()
        assert predict(model, [stranger], tmp_path / "p.parquet").notes == ()
    manifest.write_text(tmp_path / "earlier" / "private" / "where.json", where.read_text())
    model = Study.open(tmp_path / "earlier")
    assert predict(model, [of["train"]], tmp_path / "p.parquet").notes[1:] == (
        study_predictor.UNKNOWN_PRETRAINING,
    )
    assert predict(model, [stranger], tmp_path / "p.parquet").notes == (
        study_predictor.UNKNOWN_PRETRAINING,
    )


@pytest.mark.slow
def test_a_study_without_a_run_had_no_pretraining(home: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    raw = yaml.safe_load((home / "split" / "recipe.yaml").read_text()) | {"method": None}
    manifest.write_text(recipe, yaml.safe_dump(raw))
    finetune(opened(home / "index", recipe), tmp_path / "study")
    model = Study.open(tmp_path / "study")
    assert model.pretrained_on() == set()
    made = predict(model, [home / "archive"], tmp_path / "p.parquet")
    assert not any("retraining" in note for note in made.notes)


@pytest.mark.parametrize("pretrain", ["train", "all"])
def test_a_run_says_whom_it_learnt_from_and_whom_pretraining_saw(
    home: Path, tmp_path: Path, pretrain: Literal["train", "all"]
) -> None:
    shutil.copytree(home / "run", tmp_path / "run")
    run = Run.open(tmp_path / "run")
    split = run.recipe.split.model_copy(update={"pretrain": pretrain})
    run = Run(run.path, run.recipe.model_copy(update={"split": split}))
    side = run.split()
    train, test = (next(p for p, s in side.items() if s == name) for name in ("train", "test"))
    answers = Embedded(run, None, "cpu", known=True)
    learnt = "1 of 3 patients are training patients of this run"
    saw = "Pretraining used 1 of 3 patients too, without labels."
    notes = answers.notes({train, test, "stranger"})
    assert notes[0].startswith(learnt)
    assert notes[1:] == ([saw] if pretrain == "all" else [])
    assert answers.notes({"stranger"}) == []
    told = answers.notes({test})
    assert told == ([saw.replace("3", "1")] if pretrain == "all" else [])
    assert Embedded(run, None, "cpu", known=False).notes({train, test}) == []


def test_what_is_no_number_is_no_class(home: Path) -> None:
    answers = study_predictor.Folds(Study.open(home / "study"), None, "cpu", known=True)
    x = np.load(home / "archive" / "p03.npy")[:4, :64]
    x[1] = np.nan
    columns, _ = answers({"x": x}, ["a"] * 4)
    assert columns["said"].null_count() == 1
    assert columns["said"][1] is None


def test_what_is_impossible_is_said(home: Path, tmp_path: Path) -> None:
    study = Study.open(home / "study")
    with pytest.raises(UsageError, match="predicts only parity"):
        predict(study, [home / "archive"], tmp_path / "p.parquet", task="digit")
    shutil.copytree(home / "study", tmp_path / "several" / "1to5")
    with pytest.raises(UsageError, match="several studies: give one of 1to5"):
        opening.opened(tmp_path / "several")
    survival = tmp_path / "several" / "1to5"
    for fold in Study.open(survival).folds:
        facts = json.loads((fold / "fold.json").read_text())
        facts["outputs"]["kind"] = "cox"
        manifest.write_text(fold / "fold.json", json.dumps(facts))
    with pytest.raises(UsageError, match=r"no common scale.*r0f0"):
        study_predictor.Folds(Study.open(survival), None, "cpu", known=True)
    (survival / "finetune.json").unlink()
    with pytest.raises(UsageError, match="Make one: medcl finetune"):
        opening.opened(survival)
    assert isinstance(opening.opened(home / "run"), Run)


def test_the_command_line(home: Path, tmp_path: Path) -> None:
    from medcl_cli.main import app

    torch.set_num_threads(1)
    asked = ["predict", str(home / "study"), str(home / "archive" / "p05.npy")]
    done = CliRunner().invoke(app, [*asked, "--out", str(tmp_path / "p.parquet")])
    assert done.exit_code == 0, done.output
    assert "1 of 1 patients are in the study" in done.output
    assert len(pl.read_parquet(tmp_path / "p.parquet")) == len(
        np.load(home / "archive" / "p05.npy")
    )
