"""One grammar for all verbs: the same names of options, old spellings, and what is said next."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import polars as pl
import pytest
import typer
from typer.testing import CliRunner

from medcl import recipe as recipes
from medcl_biosignals.plugin import plugin as biosignals
from medcl_biosignals.suggest import suggest as first_signals
from medcl_cli.main import app
from medcl_cli.verbs import watch
from medcl_ct.suggest import suggest as first_scans
from medcl_pathology.suggest import suggest as first_slides

WRITE = (
    "index",
    "curate",
    "prepare",
    "pretrain",
    "embed",
    "probe",
    "finetune",
    "report",
    "predict",
)
WRITE += ("beats", "anomaly", "export", "benchmark", "demo")


def medcl(*words: str):
    return CliRunner().invoke(app, list(words))


def options(verb: str) -> dict[str, list[str]]:
    """Every spelling of a verb's options → all spellings of that option."""
    command = typer.main.get_command(app).commands[verb]  # type: ignore[attr-defined]
    return {o: list(p.opts) for p in command.params for o in p.opts}


@pytest.mark.parametrize("verb", WRITE)
def test_verbs_that_write_take_out_o_and_dry_run(verb: str) -> None:
    spelled = options(verb)
    assert "--dry-run" in spelled
    if verb != "prepare":  # it writes into the index
        assert "-o" in spelled["--out"]


def test_an_option_means_the_same_wherever_it_stands() -> None:
    verbs = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for shared in ("--workers", "--device"):
        texts = {}
        for verb, command in verbs.items():
            for parameter in command.params:
                if shared in parameter.opts[:1]:
                    texts[verb] = parameter.help
        assert len(set(texts.values())) == 1, texts
    assert medcl("-h").exit_code == 0
    assert medcl("probe", "-h").output == medcl("probe", "--help").output


def test_recipes_are_listed_by_a_word() -> None:
    names = [entry["name"] for entry in json.loads(medcl("recipes", "ct", "--json").output)]
    assert names
    assert all(name.startswith("ct/") for name in names)
    assert len(names) < len(recipes.available())
    some = json.loads(medcl("recipes", "simclr", "--json").output)
    assert {e["name"].split("/")[0] for e in some} == {"biosignals", "ct", "pathology"}
    assert "trainer:" in medcl("recipes", "biosignals/demo").output  # one by name is shown
    assert medcl("recipes", "nosuch").exit_code != 0


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("grammar") / "ecgs"
    folder.mkdir()
    for name in ("101", "106"):
        for path in biosignals.sample.glob(f"{name}.*"):  # type: ignore[union-attr]
            shutil.copy(path, folder)
    return folder


@pytest.fixture(scope="module")
def index(archive: Path) -> Path:
    out = archive.parent / "idx"
    done = medcl("index", str(archive), "--plugin", "biosignals", "-o", str(out))
    assert done.exit_code == 0
    return out


def test_a_wrong_plugin_names_the_one_that_fits(archive: Path, tmp_path: Path) -> None:
    done = medcl("index", str(archive), "--plugin", "ct", "--out", str(tmp_path / "idx"))
    assert done.exit_code == 1
    said = str(done.exception)
    assert "fit the plugin 'biosignals'" in said
    command = re.search(r"(medcl index .*)$", said)
    assert command is not None
    again = medcl(*shlex.split(command[1])[1:])
    assert again.exit_code == 0, again.output


def test_index_says_what_to_type_next(archive: Path, index: Path) -> None:
    done = medcl("index", str(archive), "--plugin", "biosignals", "-o", str(index))
    following = done.output.rstrip().splitlines()[-1]
    assert following.startswith("Next: medcl pretrain biosignals/mitbih --data ")
    tried = medcl(*shlex.split(following)[2:], "--dry-run")
    assert tried.exit_code == 0, tried.output


def test_old_spellings_work_and_say_so(index: Path, tmp_path: Path) -> None:
    new = medcl("finetune", "ct/segment", "--data", "idx", "-o", "x", "--dry-run", "--json")
    assert json.loads(new.output)["reads recipe"] == "ct/segment"
    old = medcl("finetune", "idx", "-r", "ct/segment", "--out", "x", "--dry-run")
    assert "old spelling" in old.output
    assert "medcl finetune ct/segment --data idx" in old.output
    for words in (["--data", str(index)], [str(index)]):
        done = medcl("curate", *words, "-o", str(tmp_path / "less"), "--dry-run", "--json")
        assert json.loads(done.output)["reads data"] == str(index)
        assert medcl("store", *words).exit_code == 0
    assert medcl("store").exit_code != 0


def test_a_dry_run_writes_nothing(archive: Path, index: Path, tmp_path: Path) -> None:
    runs = [
        ["index", str(archive), "--plugin", "biosignals", "-o", str(tmp_path / "idx")],
        ["pretrain", "biosignals/demo", "--data", str(index), "-o", str(tmp_path / "run")],
        ["prepare", "biosignals/demo", "--data", str(index)],
        ["beats", str(archive), "-o", str(tmp_path / "beats")],
        ["demo", "-o", str(tmp_path / "demo")],
    ]
    before = sorted(index.rglob("*"))
    for words in runs:
        done = medcl(*words, "--dry-run", "--json")
        assert done.exit_code == 0, done.output
        assert json.loads(done.output)["dry_run"] is True
    assert list(tmp_path.iterdir()) == []
    assert sorted(index.rglob("*")) == before
    wrong = medcl("pretrain", "nosuch", "--data", str(index), "-o", "x", "--dry-run")
    assert wrong.exit_code != 0


def test_the_first_recipe_fits_what_was_found() -> None:
    def items(**columns: list[object]) -> pl.DataFrame:
        count = len(next(iter(columns.values())))
        return pl.DataFrame({"id": [str(n) for n in range(count)], **columns})

    signals = {
        "biosignals/ecg-small": items(kinds=["ECG,ECG", "ECG"]),
        "biosignals/wearable-ppg": items(kinds=["PPG", "PPG,ACC"]),
        "biosignals/cross-modal": items(kinds=["ECG,PPG", "ECG,PPG", "ECG"]),
        "biosignals/lsm2": items(kinds=["EDA", None]),
    }
    scans = {
        "ct/simclr-2d": items(modality=["ct", None]),
        "ct/mr-simclr-2d": items(modality=["mr", "mr", "ct"]),
        "ct/pet-mae-3d": items(modality=["pet"]),
    }
    slides = {
        "pathology/simclr-tiles": items(kind=["slide"]),
        "pathology/abmil": items(kind=["bag", "bag"]),
        "pathology/kather-tiles": items(kind=["tile"], **{"label.tissue": ["TUMOR"]}),
    }
    tables = ((first_signals, signals), (first_scans, scans), (first_slides, slides))
    for suggest, expected in tables:
        for name, frame in expected.items():
            assert suggest(frame) == name
            assert name in recipes.available()


def test_watch_draws_the_curves(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    assert "no metrics yet" in medcl("watch", str(run), "--once").output
    (run / "metrics.csv").write_text("step,loss,knn\n0,,0.5\n1,4.0,\n2,2.0,\n3,1.0,0.75\n4,")
    (run / "run.json").write_text('{"finished": true}')
    text = medcl("watch", str(run)).output  # finished: it ends by itself
    assert "step 3, finished" in text
    assert "█▃▁" in text
    assert "now 0.75" in text
    assert watch.curves(run)["loss"] == [(1, 4.0), (2, 2.0), (3, 1.0)]


def test_runs_lists_what_is_there(tmp_path: Path) -> None:
    for name, text in (("a", '{"recipe": "ct/demo", "steps": 3, "finished": true}'), ("b", "{")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(text)
    rows = json.loads(medcl("runs", str(tmp_path), "--json").output)
    assert [(r["folder"], r["state"], r["steps"]) for r in rows] == [
        ("a", "finished", 3),
        ("b", "damaged", None),
    ]


@pytest.mark.slow
def test_schemas_fit_what_recipes_and_results_hold() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    listed = json.loads(medcl("schema", "--json").output)
    schemas = {name: json.loads(medcl("schema", name).output) for name in listed}
    for schema in schemas.values():
        jsonschema.Draft202012Validator.check_schema(schema)
    row = {"folder": "a", "kind": "run", "recipe": "x", "patients": 1, "steps": None}
    row |= {"result": "", "state": "finished", "started": ""}
    jsonschema.validate(row, schemas["runs"])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**row, "steps": "many"}, schemas["runs"])
    for name in ("biosignals/demo", "ct/segment", "pathology/abmil"):
        jsonschema.validate(recipes.load(name).model_dump(mode="json"), schemas["recipe"])
