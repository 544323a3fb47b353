"""Paths may name persons: none of them is in what a run writes, shows or hands on."""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
import yaml
from safetensors.torch import save_file

from medcl import manifest
from medcl.archive.index import Index
from medcl.engine.pretrain import pretrain
from medcl.errors import MedclError, UsageError
from medcl.export import export
from medcl.finetune.finetune import finetune, opened
from medcl.finetune.opened import Study
from medcl.predict.batch import predict
from medcl.private import command_without_paths, recall, without_paths
from medcl.probe.probe import probe
from medcl.report import comparison_page, report, study_page
from medcl.run import Run

sys.path.append(str(Path(__file__).parent / "engine"))
import tiny_engine

PLANTED = "JANE_DOE"
BESIDE = f"{PLANTED} beside"
"""A folder that a recipe names without a slash."""
SETTINGS = ("finetune.epochs=1", "finetune.bootstraps=100", "finetune.label=digit")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run that was probed, and a study, in a folder that names a person."""
    made = tmp_path_factory.mktemp("private") / f"archive of {PLANTED}"
    made.mkdir()
    (made / "key").write_text("synthetic patients have no secrets")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDCL_KEY_FILE", str(made / "key"))
        tiny_engine.install(patch.setattr)
        index = tiny_engine.index(made)
        patch.chdir(made)
        Path(BESIDE).mkdir()
        save_file(tiny_engine.MLP().state_dict(), made / "weights.safetensors")
        places = {
            "dataset": {"beside": BESIDE},
            "encoder": {"weights": str(made / "weights.safetensors")},
        }
        said = f"medcl pretrain '{made}/r.yaml' --data '{index}' --out='{made}/run'"
        run = pretrain(tiny_engine.recipe(places), index, made / "run", command=said)
        probe([run], task="digit", command=f"medcl probe '{run.path}' --task digit")
        predict(run, [index], made / "predicted.parquet", task="digit")
        finetune(
            opened(run.path, None, SETTINGS),
            made / "study",
            command=f"medcl finetune '{run.path}' --labels {PLANTED}.csv -s finetune.epochs=1",
        )
        yield made


@pytest.fixture(autouse=True)
def small_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few points on the map of embeddings, which is not what is looked at here."""
    for module in ("samples", "test_examples"):
        monkeypatch.setattr(f"medcl.report.{module}.MAPPED", 20)


def readable(root: Path) -> Iterator[tuple[Path, str]]:
    """Everything below a folder but what is private, as text; tables by their values."""
    for path in sorted(root.rglob("*")):
        if path.is_file() and "private" not in path.relative_to(root).parts:
            text = path.read_bytes().decode("utf-8", "replace")
            if path.suffix == ".parquet":
                text += str(pl.read_parquet(path).to_dicts())
            yield path, text


@pytest.mark.slow
@pytest.mark.parametrize("name", ["run", "study", "index"])
def test_what_is_written_names_nobody(folder: Path, name: str) -> None:
    files = dict(readable(folder / name))
    assert len(files) > 3
    assert [str(p) for p, text in files.items() if PLANTED in text] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["run", "study"])
def test_what_must_stay_is_the_owner_s_alone(folder: Path, name: str) -> None:
    private = folder / name / "private"
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    files = {path.name: stat.S_IMODE(path.stat().st_mode) for path in private.iterdir()}
    assert files == dict.fromkeys(("manifest.json", "where.json", "recipe.yaml"), 0o600)
    where = recall(folder / name)
    assert where.data == folder / "index"
    assert where.key == Index.open(folder / "index").key_check
    assert PLANTED in json.loads((private / "where.json").read_text())["command"]
    assert Study.open(folder / "study").run == Run.open(folder / "run")


@pytest.mark.slow
def test_what_is_handed_on_names_nobody(folder: Path, tmp_path: Path) -> None:
    run = Run.open(folder / "run")
    report.write(run, tmp_path / "run.html")
    study_page.write(folder / "study", tmp_path / "study.html")
    comparison_page.write([folder / "run", folder / "study"], tmp_path / "both.html")
    export(run, tmp_path / "hf", to="huggingface-folder")
    export(run, tmp_path / "script", to="torchscript")
    files = dict(readable(tmp_path))
    assert {p.name for p in files} >= {"run.html", "study.html", "README.md", "encoder.json"}
    assert [str(p) for p, text in files.items() if PLANTED in text or str(folder) in text] == []
    assert "medcl finetune PATH --labels PATH -s finetune.epochs=1" in (
        tmp_path / "study.html"
    ).read_text("utf-8")
    assert not list(tmp_path.rglob("private"))


LATER = {"split": ("pretrain",), "finetune": ("auxiliary", "unlabelled", "tree", "soft", "loss")}
"""Settings that recipes did not always have."""


def written_earlier(folder: Path) -> None:
    """Take from a folder's recipe what there was not."""
    path = folder / "recipe.yaml"
    (folder / "private" / "recipe.yaml").rename(path)
    raw = yaml.safe_load(path.read_text())
    for section, names in LATER.items():
        for name in names if section in raw else ():
            del raw[section][name]
    manifest.write_text(path, yaml.safe_dump(raw, sort_keys=False))


@pytest.mark.slow
def test_earlier_runs_and_studies_still_open(folder: Path, tmp_path: Path) -> None:
    """They kept the index in run.json, or in where.json, and recipes had fewer settings."""
    for name in ("run", "study"):
        shutil.copytree(folder / name, tmp_path / name)
        written_earlier(tmp_path / name)
        shutil.rmtree(tmp_path / name / "private")
    with pytest.raises(MedclError, match="came without its private folder"):
        _ = Run.open(tmp_path / "run").data
    (tmp_path / "study" / "private").mkdir()
    (tmp_path / "study" / "private" / "where.json").write_text("{")
    with pytest.raises(MedclError, match=r"where.json is damaged.*Restore it"):
        _ = Study.open(tmp_path / "study").data
    shutil.rmtree(tmp_path / "study" / "private")
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    told = facts | {"data": str(folder / "index"), "command": f"medcl pretrain /{PLANTED}/x.yaml"}
    manifest.write_text(tmp_path / "run" / "run.json", json.dumps(told))
    where = {"data": str(folder / "index"), "run": str(tmp_path / "run")}
    (tmp_path / "study" / "where.json").write_text(json.dumps(where))
    assert Run.open(tmp_path / "run").data == folder / "index"
    assert recall(tmp_path / "run").key == Index.open(folder / "index").key_check
    study = Study.open(tmp_path / "study")
    assert study.data == folder / "index"
    assert study.run == Run.open(tmp_path / "run")
    again = pretrain(study.run.recipe, folder / "index", tmp_path / "run")
    assert again.facts["finished"]
    with pytest.raises(UsageError, match="holds a run on other data"):
        pretrain(study.run.recipe, folder, tmp_path / "run")
    report.write(again, tmp_path / "report.html")
    assert PLANTED not in (tmp_path / "report.html").read_text("utf-8")


def test_a_recipe_s_places_stay_in_private(folder: Path, tmp_path: Path) -> None:
    """All is done with the real ones; what was passed on without them says PATH, and its weights
    can be used."""
    for name in ("run", "study"):
        shown = yaml.safe_load((folder / name / "recipe.yaml").read_text())
        assert shown["dataset"]["beside"] == shown["encoder"]["weights"] == "PATH"
        assert shown["name"] == "tiny"
        shutil.copytree(folder / name, tmp_path / name)
        shutil.rmtree(tmp_path / name / "private")
    run, study = Run.open(folder / "run"), Study.open(folder / "study")
    for recipe in (run.recipe, study.recipe):
        assert recipe.dataset["beside"] == folder / BESIDE  # wherever this is read
        assert recipe.part("encoder").arguments["weights"] == folder / "weights.safetensors"
    assert pretrain(run.recipe, folder / "index", run.path) == run  # nothing to do
    again = finetune(opened(run.path, None, SETTINGS), folder / "study")
    assert again.figures == study.result.figures
    passed = Run.open(tmp_path / "run")
    assert passed.recipe.dataset["beside"] == Path("PATH")
    x = torch.rand(3, 64)
    torch.testing.assert_close(passed.encoder()(x), run.encoder()(x))
    with pytest.raises(UsageError, match="No weights at PATH"):
        passed.encoder(trained=False)  # as it began is not known without the file
    theirs, own = (
        s.model(s.folds[0], {"x": x.numpy()}).predict({"x": x})["scores"]
        for s in (Study.open(tmp_path / "study"), study)
    )
    torch.testing.assert_close(theirs, own)


def test_what_another_kept_private_is_not_asked_for(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A colleague may read the run, and not its private folder."""
    shutil.copytree(folder / "run", tmp_path / "run")
    stat_of = os.stat

    def refused(path: Any, *args: Any, **more: Any) -> os.stat_result:
        if "private" in Path(path).parts:
            raise PermissionError(13, "Permission denied")
        return stat_of(path, *args, **more)

    monkeypatch.setattr(os, "stat", refused)
    assert Run.open(tmp_path / "run").recipe.dataset["beside"] == Path("PATH")


def test_earlier_runs_and_studies_go_on(folder: Path, tmp_path: Path) -> None:
    """Broken off before recipes had today's settings, they end with the same weights and figures,
    and an evaluation of the study is still one of it."""
    for name in ("run", "study"):
        shutil.copytree(folder / name, tmp_path / name)
        written_earlier(tmp_path / name)
    weights = (tmp_path / "run" / "encoder.safetensors").read_bytes()
    (tmp_path / "run" / "encoder.safetensors").unlink()
    (tmp_path / "run" / "checkpoints" / "step-000000060.ckpt").unlink()
    run = pretrain(Run.open(folder / "run").recipe, folder / "index", tmp_path / "run")
    assert (run.path / "encoder.safetensors").read_bytes() == weights
    want = finetune(opened(run.path, None, SETTINGS), tmp_path / "study")
    shutil.rmtree(tmp_path / "study" / "folds")
    got = finetune(opened(run.path, None, SETTINGS), tmp_path / "study")
    assert got.figures == want.figures
    assert got.figures.metrics == Study.open(folder / "study").result.figures.metrics
    assert got.made_from == Study.open(folder / "study").result.made_from
    with pytest.raises(UsageError, match="another recipe: finetune.loss is 'ce' there"):
        finetune(opened(run.path, None, [*SETTINGS, "finetune.loss=focal"]), tmp_path / "study")


def test_settings_are_shown_without_places(tmp_path: Path) -> None:
    (tmp_path / "bags").mkdir()
    settings = {
        "bags": str(tmp_path / "bags"), "home": "~/JANE", "up": "../JANE", "win": "C:\\JANE",
        "model": "hf-hub:lab/model", "unit": "mV/s", "list": [str(tmp_path), 3], "none": None,
    }  # fmt: skip
    assert without_paths(settings) == {
        "bags": "PATH", "home": "PATH", "up": "PATH", "win": "PATH",
        "model": "hf-hub:lab/model", "unit": "mV/s", "list": ["PATH", 3], "none": None,
    }  # fmt: skip


def test_a_bare_name_that_exists_is_a_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(PLANTED).mkdir()
    Path("5").mkdir()
    shown = command_without_paths(
        f"medcl finetune idx --instances {PLANTED} --split {PLANTED} --folds 5 --device cpu"
    )
    assert shown == "medcl finetune PATH --instances PATH --split PATH --folds 5 --device cpu"


def test_a_name_with_a_dot_is_no_place_where_a_name_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("ward.b").mkdir()
    said = f"medcl finetune idx -s finetune.label=dx.AF -s dataset.label={PLANTED}.csv"
    assert command_without_paths(said) == (
        "medcl finetune PATH -s finetune.label=dx.AF -s dataset.label=PATH"
    )
    for task, shown in (("a.b", "a.b"), ("x/a.b", "PATH"), ("ward.b", "PATH")):
        assert command_without_paths(f"medcl probe run --task {task}") == (
            f"medcl probe RUN --task {shown}"
        )
        assert command_without_paths(f"medcl probe run --task={task}").endswith(f"--task={shown}")
