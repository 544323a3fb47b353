"""Runs, studies, embeddings and bags that were made before (``fixtures/before_house``) still open.

They were made at commit e9a4e34 by ``fixtures/make_before_house.py``. Prepared arrays are made anew
from the plugins' samples. Figures may differ by rounding alone, from one CPU to another.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import polars as pl
import pytest
from safetensors.torch import load_file
from typer.testing import CliRunner

import medcl
from medcl_cli.main import app

sys.path.append(str(Path(__file__).parent / "fixtures"))
import before_house_archive as before

CLOSE = {"rtol": 1e-3, "atol": 5e-4}  # signals were stored in half precision then


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fixtures with their archives, in a new place; not to be written to."""
    return before.laid_out(tmp_path_factory.mktemp("before") / "made")


@pytest.fixture(autouse=True)
def key(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDCL_KEY_FILE", str(home / "key"))
    monkeypatch.setenv("COLUMNS", "200")


def run(*words: object) -> str:
    """Call the command: what it printed."""
    done = CliRunner().invoke(app, [str(w) for w in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def as_json(*words: object) -> Any:
    return json.loads(run(*words, "--json"))


def copied(source: Path, folder: Path) -> Path:
    return Path(shutil.copytree(source, folder))


INTERVAL = ("low", "high")
"""They were percentiles of resamples, too narrow with few patients."""


def without_intervals(tree: Any) -> Any:
    """A tree of JSON without the ends of intervals."""
    if isinstance(tree, dict):
        return {k: without_intervals(v) for k, v in tree.items() if k not in INTERVAL}
    return [without_intervals(v) for v in tree] if isinstance(tree, list) else tree


def close(old: Any, new: Any, where: str = "") -> None:
    """Assert that two trees of JSON are equal but for rounding; other keys may have been added."""
    if isinstance(old, dict):
        assert isinstance(new, dict), where
        for name, value in old.items():
            if name in INTERVAL:
                continue
            assert name in new, f"{where}.{name}"
            close(value, new[name], f"{where}.{name}")
    elif isinstance(old, list):
        assert isinstance(new, list), where
        assert len(old) == len(new), where
        for at, (one, other) in enumerate(zip(old, new, strict=True)):
            close(one, other, f"{where}[{at}]")
    elif isinstance(old, float):
        assert new == pytest.approx(old, rel=0.02, abs=0.02), where
    elif isinstance(old, int) and not isinstance(old, bool):  # counts, which follow such figures
        assert new == pytest.approx(old, rel=0.02, abs=2), where
    else:
        assert old == new, where


def same_frame(old: pl.DataFrame, new: pl.DataFrame, by: str) -> None:
    """Assert that two tables hold the same rows; numbers but for rounding, other columns may be."""
    assert len(old) == len(new)
    order = [name for name in (by, "repeat", "start_s") if name in old.columns]
    old, new = old.sort(order), new.sort(order)
    for name in old.columns:
        if old[name].dtype.is_float():
            np.testing.assert_allclose(new[name], old[name], err_msg=name, rtol=1e-2, atol=1e-3)
        elif name == "embedding":
            np.testing.assert_allclose(new[name].to_numpy(), old[name].to_numpy(), **CLOSE)
        else:
            assert old[name].to_list() == new[name].to_list(), name


@pytest.mark.slow
@pytest.mark.parametrize("name", ["biosignals", "ct"])
def test_a_run_opens_and_embeds_as_it_did(home: Path, tmp_path: Path, name: str) -> None:
    from medcl.run import Run

    opened = Run.open(home / name / "run")
    assert opened.facts["finished"]
    assert opened.recipe.name == f"{name}/demo"
    assert set(opened.split().values()) == {"train", "test"}
    weights = load_file(opened.path / "encoder.safetensors")
    state = opened.encoder().state_dict()
    assert all(np.array_equal(state[key], weights[key]) for key in weights)
    run("embed", opened.path, "--out", tmp_path / "again")
    made = home / name / "embeddings", tmp_path / "again"
    old, new = (np.load(folder / "embeddings.npy") for folder in made)
    np.testing.assert_allclose(new, old, **CLOSE)
    rows, again = (pl.read_parquet(folder / "samples.parquet") for folder in made)
    assert rows.equals(again.select(rows.columns))


@pytest.mark.parametrize("folder", ["run", "exported", "huggingface"])
def test_an_encoder_loads_from_wherever_it_was_written(home: Path, folder: str) -> None:
    encoder = medcl.load_encoder(home / "biosignals" / folder)
    weights = load_file(home / "biosignals" / "run" / "encoder.safetensors")
    state = encoder.state_dict()
    assert state.keys() == weights.keys()
    assert all(np.array_equal(state[key], weights[key]) for key in weights)


@pytest.mark.slow
def test_a_probe_gives_the_figures_that_were_kept(home: Path, tmp_path: Path) -> None:
    source = home / "biosignals" / "run"
    text = (source / "probe" / "probe.json").read_text()
    old = json.loads(text.replace("handmade", "handcrafted"))  # as it is called now
    new = as_json("probe", source, "--out", tmp_path / "probe")
    for part in ("task", "label", "kind", "classes", "train", "test"):
        assert old[part] == new[part]
    for part in ("scores", "differences"):
        close(*([row for row in made[part] if alone(row)] for made in (old, new)))


def alone(row: dict[str, Any]) -> bool:
    """Features without others beside them: how those are weighted has changed since."""
    return " + " not in "".join(
        str(row.get(key, "")) for key in ("representation", "better", "than")
    )


@pytest.mark.slow
def test_locations_are_found_again_as_they_were(home: Path, tmp_path: Path) -> None:
    folder = copied(home / "ct" / "run", tmp_path / "run")
    old = json.loads((folder / "places.json").read_text())
    new = as_json("probe", folder, "--localisation")
    close(old, new)


@pytest.mark.slow
def test_the_report_shows_localisation_under_its_earlier_file_name(
    home: Path, tmp_path: Path
) -> None:
    run("report", home / "ct" / "run", "--out", tmp_path / "run.html")
    assert 'id="localisation"' in (tmp_path / "run.html").read_text()


@pytest.mark.slow
def test_a_report_of_a_run_shows_its_probe(home: Path, tmp_path: Path) -> None:
    run("report", home / "biosignals" / "run", "--out", tmp_path / "run.html")
    page = (tmp_path / "run.html").read_text()
    assert "aami-nsv" in page
    assert "0.839" in page, "the random encoder's macro AUROC"


@pytest.mark.slow
def test_new_recordings_are_predicted_as_they_were(home: Path, tmp_path: Path) -> None:
    folder = copied(home / "biosignals" / "run", tmp_path / "run")
    record = home / "biosignals" / "archive" / "106.hea"
    run("predict", folder, record, "--task", "aami-nsv", "--out", tmp_path / "p.parquet")
    for name in ("p.parquet", "p.records.parquet", "p.patients.parquet"):
        old = pl.read_parquet(home / "biosignals" / "predictions" / name)
        same_frame(old, pl.read_parquet(tmp_path / name), old.columns[0])


def test_similar_cases_are_found(home: Path, tmp_path: Path) -> None:
    folder = copied(home / "biosignals" / "run", tmp_path / "run")
    query = home / "biosignals" / "archive" / "106.hea"
    found = as_json("search", folder, query, "--k", "3")
    assert len(found["hits"]) == 3
    assert all(-1 <= hit["similarity"] <= 1 for hit in found["hits"])


def test_an_encoder_is_exported(home: Path, tmp_path: Path) -> None:
    run("export", home / "biosignals" / "run", "--out", tmp_path / "exported")
    old, new = (
        load_file(folder / "encoder.safetensors")
        for folder in (home / "biosignals" / "exported", tmp_path / "exported")
    )
    assert all(np.array_equal(old[key], new[key]) for key in old)


def test_a_run_that_was_broken_off_goes_on_to_the_end_it_would_have_had(
    home: Path, tmp_path: Path
) -> None:
    folder = copied(home / "biosignals" / "broken", tmp_path / "broken")
    asked = [word for value in before.SMALL["biosignals"] for word in ("-s", value)]
    index = home / "biosignals" / "index"
    asked += ["-s", "prepare.dtype=float16"]  # the default of then
    run("pretrain", "biosignals/demo", "--data", index, "--out", folder, *asked)
    old, new = (load_file(f / "encoder.safetensors") for f in (home / "biosignals" / "run", folder))
    for key in old:
        # Not equal: views round otherwise now, and its recordings are prepared anew.
        np.testing.assert_allclose(new[key], old[key], rtol=0.1, atol=0.02, err_msg=key)
    steps = pl.read_csv(folder / "metrics.csv")["step"].to_list()
    assert steps == pl.read_csv(home / "biosignals/run/metrics.csv")["step"].to_list()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["biosignals", "pathology"])
def test_a_study_opens_and_its_folds_are_not_trained_again(
    home: Path, tmp_path: Path, name: str
) -> None:
    folder = copied(home / name / "study", tmp_path / "study")
    old = json.loads((folder / "finetune.json").read_text())
    models = sorted(folder.glob("folds/*/model.safetensors"))
    times = [p.stat().st_mtime_ns for p in models]
    source = ["finetune", home / name / ("run" if name == "biosignals" else "index")]
    if name == "pathology":
        source += ["-s", "prepare.method=saturation"]  # the default of then
    new = as_json(*source, "--out", folder, *before.TUNED[name])
    assert without_intervals(old["figures"]) == without_intervals(new["figures"])
    assert times == [p.stat().st_mtime_ns for p in models]
    shutil.rmtree(folder / "folds" / "r0f1")
    again = as_json(*source, "--out", folder, *before.TUNED[name])
    close(old["figures"], again["figures"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["biosignals", "pathology"])
def test_a_study_is_reported_and_questioned(home: Path, tmp_path: Path, name: str) -> None:
    from medcl.finetune.opened import Study

    folder = copied(home / name / "study", tmp_path / "study")
    assert len(Study.open(folder).folds) == 2
    run("report", folder, "--out", tmp_path / "study.html")
    assert (tmp_path / "study.html").stat().st_size > 10_000
    made = as_json("evaluate", folder, "--fast")
    assert made["audit"]["passed"]


@pytest.mark.slow
def test_a_study_predicts_what_its_folds_predicted(home: Path, tmp_path: Path) -> None:
    """Each patient by the fold that did not see them, so that the two tables say the same."""
    folder = home / "pathology" / "study"
    run("predict", folder, home / "pathology" / "archive", "--out", tmp_path / "p.parquet")
    old = pl.read_parquet(folder / "predictions.parquet").sort("id")
    new = pl.read_parquet(tmp_path / "p.parquet").sort("item")
    assert old["id"].to_list() == new["item"].to_list()
    scores = old.select("score.negative", "score.positive").to_numpy()
    want = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)  # its temperature is 1
    np.testing.assert_allclose(new.select("p.negative", "p.positive").to_numpy(), want, **CLOSE)


def test_signals_are_predicted_by_a_study(home: Path, tmp_path: Path) -> None:
    folder = home / "biosignals" / "study"
    record = home / "biosignals" / "archive" / "106.hea"
    run("predict", folder, record, "--out", tmp_path / "p.parquet")
    new = pl.read_parquet(tmp_path / "p.parquet")
    assert new["patient"].n_unique() == 1
    assert not new["seen"].any()
    assert len(new) == len(pl.read_parquet(home / "biosignals" / "predictions" / "p.parquet"))


def test_bags_are_made_the_same(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bags"  # beside those of before, whose preparation is an older one
    done = as_json("embed", home / "ct" / "run", "--bags", "--out", folder)
    assert done["written"] == 4
    for path in (home / "ct" / "bags").glob("*.h5"):
        with h5py.File(path) as old, h5py.File(folder / path.name) as new:
            np.testing.assert_allclose(
                new["features"][:].astype("f4"), old["features"][:].astype("f4"), rtol=1e-2,
                atol=1e-3,
            )  # fmt: skip
