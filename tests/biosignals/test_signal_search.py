"""From ECG to PPG and back, and from ECG to a table: real recordings, through the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner, Result

from medcl.errors import UsageError
from medcl.retrieval import search as searching
from medcl.retrieval.search import OTHER_KEY, search
from medcl.run import Run, load_samples
from medcl_cli.main import app

SMALL = ["encoder.widths=[8,16,32]", "trainer.batch_size=24", "monitor.every=1000"]


def medcl(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def ran(*arguments: object) -> str:
    done = medcl(*arguments)
    assert done.exit_code == 0, done.exception
    return done.stdout


def refused(message: str, *arguments: object) -> None:
    done = medcl(*arguments)
    assert isinstance(done.exception, UsageError), done.output
    assert message in str(done.exception)


def trained(recipe: str, folder: Path, *settings: str) -> Path:
    asked = [word for setting in (*SMALL, *settings) for word in ("-s", setting)]
    ran("pretrain", recipe, "--data", folder / "idx", "--out", folder / "run", *asked)
    return folder / "run"


@pytest.fixture(scope="module")
def pulses(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on three real recordings with ECG and PPG, and one with ECG alone."""
    folder = tmp_path_factory.mktemp("across")
    # Under this one the recording with an ECG alone is the test patient.
    (folder / "key").write_text("a key of tests hides nothing, number 4")
    (folder / "archive").mkdir()
    files = [shared_data / "ppg" / "bidmc_01_Signals.csv"]
    for stem in ("a103l", "03700181", "s0010_re"):
        files += (shared_data / "ecg" / "other").glob(f"{stem}.*")
    for file in files:
        shutil.copy(file, folder / "archive" / file.name)
    asked = ("--plugin", "biosignals", "--out", folder / "idx", "--key-file", folder / "key")
    ran("index", folder / "archive", *asked)
    settings = ("encoder.width=64", "trainer.steps=60", "optimizer.lr=0.003", "split.test=0.1")
    return trained("biosignals/cross-modal", folder, *settings)


def found(run: Path, query: object, *options: object) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(ran("search", run, query, *options, "--json"))
    assert {hit["rank"] for hit in told["hits"]} == set(range(1, len(told["hits"]) + 1))
    return told


def items(run: Path) -> dict[str, str]:
    """What each record's item is called."""
    table = Run.open(run).data / "private" / "paths.parquet"
    return {Path(key).stem: id_ for id_, key in pl.read_parquet(table)["id", "key"].iter_rows()}


@pytest.mark.slow
def test_an_ecg_finds_the_ppg_of_its_own_recording(pulses: Path) -> None:
    run, item = Run.open(pulses), items(pulses)
    samples = load_samples(run.recipe, run.data)
    both = {item[name] for name in ("bidmc_01_Signals", "a103l", "03700181")}
    asked = [s for s, i in zip(samples.ids, samples.items, strict=True) if i in both][::25]
    for source in ("ecg", "ppg"):
        hits = [search(run, s, source=source, own_patient=True, level="item").hits for s in asked]
        right = [h[0].item == s.split(":")[0] for h, s in zip(hits, asked, strict=True)]
        assert sum(right) / len(right) > 0.8, f"chance is a third, from {source}"


@pytest.mark.slow
def test_one_option_says_the_other_and_patients_stay_apart(pulses: Path) -> None:
    item = items(pulses)
    told = found(pulses, item["a103l"], "--from", "ecg", "--html", pulses / "like.html")
    assert told["sides"] == ["ecg", "ppg"]
    assert told == found(pulses, item["a103l"], "--to", "ppg")
    assert {hit["item"] for hit in told["hits"]} == {item["bidmc_01_Signals"], item["03700181"]}
    page = (pulses / "like.html").read_text()
    assert "from ecg to ppg" in page
    assert page.count("data:image/png") == 3
    back = found(pulses, item["a103l"], "--from", "ppg")
    assert item["s0010_re"] in {hit["item"] for hit in back["hits"]}, "it has an ECG to be found"
    every = found(pulses, item["a103l"], "--to", "ppg", "--every", "--level", "sample", "--k", 9)
    assert len({hit["patient"] for hit in every["hits"]}) < 9
    narrow = found(pulses, item["a103l"], "--to", "ppg", "--where", f"id={item['03700181']}")
    assert [hit["item"] for hit in narrow["hits"]] == [item["03700181"]]


@pytest.mark.slow
def test_all_are_embedded_only_by_the_side_that_is_found(
    pulses: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, item = Run.open(pulses), items(pulses)["a103l"]
    sides, make = [], searching.bank_of

    def spy(run: Run, data: Path, out: Path, side: str | None, **how: Any) -> Any:
        sides.append(side)
        return make(run, data, out, side, **how)

    monkeypatch.setattr(searching, "bank_of", spy)
    monkeypatch.setattr(searching, "_banks", {})
    sample = next(s for s in load_samples(run.recipe, run.data).ids if s.startswith(item))
    for query in (item, sample):
        assert search(run, query, source="ecg").hits
    assert sides == ["ppg"], "once: the second query takes the same bank"


@pytest.mark.slow
def test_recordings_of_one_sensor_ask_and_are_asked_for(
    pulses: Path, shared_data: Path, tmp_path: Path
) -> None:
    item = items(pulses)
    beside = pl.read_csv(shared_data / "ppg" / "bidmc_01_Signals.csv")
    alone = tmp_path / "wrist.csv"
    beside.select("Time [s]", " PLETH").head(15_000).write_csv(alone)
    told = found(pulses, alone, "--from", "ppg")
    assert told["hits"][0]["item"] == item["bidmc_01_Signals"]
    for query in (alone, item["s0010_re"]):
        wrong = "ecg" if query == alone else "ppg"
        refused(f"has no {wrong}", "search", pulses, query, "--from", wrong)


@pytest.mark.slow
def test_what_a_run_cannot_do_is_said(pulses: Path, tmp_path: Path) -> None:
    run, item = Run.open(pulses), items(pulses)["a103l"]
    with pytest.raises(UsageError, match="no modality 'eeg'. Did you mean 'ecg'"):
        search(run, item, source="eeg")
    moved = tmp_path / "run"
    moved.mkdir()
    for file in pulses.iterdir():
        if file.name not in ("checkpoints", "search"):
            copy = shutil.copytree if file.is_dir() else shutil.copy
            copy(file, moved / file.name)
    with pytest.raises(UsageError, match="no checkpoint"):
        search(Run.open(moved), item, source="ecg")


@pytest.fixture(scope="module")
def tabled(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real ECGs; sex and age are those of the MIT-BIH headers, some of them left out."""
    folder = tmp_path_factory.mktemp("table")
    (folder / "key").write_text("search in tests: hides nothing")
    rows = ["key,sex,age", "101,F,75", "106,F,24", "114,F,", "118,M,69", "207,F,89", "208,F,23"]
    (folder / "table.csv").write_text("\n".join(rows) + "\n")
    (folder / "archive").mkdir()
    for row in rows[1:]:
        for file in sample.glob(f"{row.split(',')[0]}.*"):
            shutil.copy(file, folder / "archive" / file.name)
    asked = ("--plugin", "biosignals", "--out", folder / "idx", "--key-file", folder / "key")
    ran("index", folder / "archive", *asked, "--table", folder / "table.csv")
    settings = ("method.inner=32", "method.depth=1", "method.heads=2", "trainer.steps=60",
                "encoder.blocks=1", "encoder.width=32", "dataset.stride=15")  # fmt: skip
    return trained("biosignals/tip-ecg", folder, *settings, "split.test=0.1", "optimizer.lr=0.002")


@pytest.mark.slow
def test_a_table_finds_ecgs_and_an_ecg_tables(
    tabled: Path, sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = items(tabled)
    described = found(tabled, "sex=m, age=69", "--from", "table")
    assert described["query"] == "sex=m, age=69"
    assert described["hits"][0]["item"] == item["118"], "the only man"
    own = found(tabled, item["118"], "--from", "sample", "--own")
    assert own["hits"][0]["item"] == item["118"]
    towards = found(tabled, item["118"], "--to", "table", "--task", "aami-nsv", "--pull", 0.5)
    assert towards["sides"] == ["sample", "table"]
    assert all(-0.5 <= hit["similarity"] <= 1 for hit in towards["hits"])
    for file in sample.glob("118.*"):  # a new recording, of whom no table is known
        (tmp_path / file.name.replace("118", "new")).write_bytes(
            file.read_bytes().replace(b"118", b"new")
            if file.suffix == ".hea"
            else file.read_bytes()
        )
    new = found(tabled, tmp_path / "new.hea", "--to", "table")
    assert new["query"] == "files"
    assert new["hits"][0]["item"] == item["118"]
    asked = ("search", tabled, tmp_path / "new.hea", "--to", "table")
    assert new["notes"] == [OTHER_KEY]
    assert OTHER_KEY in ran(*asked, "--html", tmp_path / "like.html")
    assert "different keys" in (tmp_path / "like.html").read_text()
    assert OTHER_KEY not in ran(*asked, "--own"), "nobody is to be left out"
    monkeypatch.setenv("MEDCL_KEY_FILE", str(tabled.parent / "key"))
    assert OTHER_KEY not in ran(*asked)
    monkeypatch.delenv("MEDCL_KEY_FILE")
    assert OTHER_KEY not in ran(*asked, "--key-file", tabled.parent / "key")
    assert described["notes"] == own["notes"] == []
    refused("has no table", "search", tabled, tmp_path / "new.hea", "--from", "table")
    for query, message in (
        ("sx=M", "no column 'sx'. Did you mean 'sex'"),
        ("sex=X", "'sex' cannot be 'X'"),
        ("age=old", "'old' is no number"),
    ):
        refused(message, "search", tabled, query, "--from", "table")
