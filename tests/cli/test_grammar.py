"""One grammar for all verbs: the same names of options, old spellings, and what is said next."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest
import typer
from typer.testing import CliRunner

from medcl import plugin as plugins
from medcl import recipe as recipes
from medcl.run import Run
from medcl_biosignals.plugin import plugin as biosignals
from medcl_biosignals.suggest import suggest as first_signals
from medcl_cli import next_steps
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


def items(**columns: list[object]) -> pl.DataFrame:
    count = len(next(iter(columns.values())))
    return pl.DataFrame({"id": [str(n) for n in range(count)], **columns})


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


ECGS, PULSES = items(kinds=["ECG,ECG", "ECG"]), items(kinds=["PPG", "PPG,ACC"])
KNOWN_TILES = items(kind=["tile"], **{"label.tissue": ["TUMOR"]})
SIGNALS = [  # without a GPU, with one, what was found
    ("biosignals/ecg-small", "biosignals/ecg-small", ECGS),
    (
        "biosignals/ecg-handheld",
        "biosignals/ecg-handheld",
        items(kinds=["ECG", "ECG,ACC", "ECG,ECG"]),
    ),
    ("biosignals/ppg-demo", "biosignals/wearable-ppg", PULSES),
    (
        "biosignals/cross-modal",
        "biosignals/cross-modal",
        items(kinds=["ECG,PPG", "ECG,PPG", "ECG", "other"]),
    ),
    ("biosignals/lsm2", "biosignals/lsm2", items(kinds=["EDA", None])),
]
SCANS = [
    ("ct/demo", "ct/simclr-2d", items(modality=["ct", None])),
    ("ct/mr-demo", "ct/mr-simclr-2d", items(modality=["mr", "mr", "ct"])),
    ("ct/pet-demo", "ct/pet-mae-3d", items(modality=["pet"])),
]
SLIDES = [
    ("pathology/demo", "pathology/simclr-tiles", items(kind=["slide"])),
    ("pathology/abmil", "pathology/abmil", items(kind=["bag", "bag"])),
    ("pathology/demo", "pathology/kather-tiles", KNOWN_TILES),
    (
        "pathology/simclr-multiplex",
        "pathology/simclr-multiplex",
        items(kind=["multiplex"], channels=["DAPI"]),
    ),
]
FIRST = [
    (plugin, suggest, gpu, row[gpu], row[2])
    for plugin, suggest, rows in (
        ("biosignals", first_signals, SIGNALS),
        ("ct", first_scans, SCANS),
        ("pathology", first_slides, SLIDES),
    )
    for row in rows
    for gpu in (False, True)
]


def works_as_typed(line: str) -> None:
    """Each command of a line is understood, and its recipe, index and run are found."""
    for command in line.split(" && "):
        tried = medcl(*shlex.split(command)[1:], "--dry-run")
        assert tried.exit_code == 0, f"{command}: {tried.output} {tried.exception}"


@pytest.mark.parametrize(("plugin", "suggest", "gpu", "name", "frame"), FIRST)
def test_what_index_says_next_works(plugin, suggest, gpu, name, frame, index: Path) -> None:
    assert suggest(frame, gpu) == name
    place = index.parent / "an index; of mine"
    if not place.exists():
        shutil.copytree(index, place)
    made = SimpleNamespace(plugin_name=plugin, items=frame, path=place)
    following = next_steps.after_index(made, gpu=gpu)  # type: ignore[arg-type]
    if name == "pathology/abmil":  # the label is not known
        assert following is None
        column = "1p/19q 'codeleted'"
        made.items = frame.with_columns(pl.lit(1).alias(f"label.{column}"))
        following = next_steps.after_index(made, gpu=gpu)  # type: ignore[arg-type]
        words = shlex.split(following or "")
        assert words[words.index("--label-column") + 1] == column
    assert following is not None
    works_as_typed(following)


@pytest.mark.slow
def test_what_pretrain_says_next_works_for_every_recipe(
    digits_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "a run; of mine"
    shutil.copytree(digits_run.path, place)
    lines: dict[str, str] = {}
    for name in recipes.available():
        recipe = recipes.load(name)
        if recipe.method is None:
            continue
        plugin = plugins.get(recipe.plugin)
        run = SimpleNamespace(path=place, recipe=recipe, data=tmp_path, plugin=plugin)
        known = plugin.tasks.get(recipe.probe.task or "")
        labels = {known.label: [1]} if known is not None else {}
        for has, of in ((labels, None), ({}, [[0.0]]), ({}, None)):
            samples = SimpleNamespace(labels=has, locations=of)
            monkeypatch.setattr("medcl.run.load_samples", lambda *_, s=samples, **__: s)
            line = next_steps.after_pretrain(run)  # type: ignore[arg-type]
            lines.setdefault(line, name)
    assert any("medcl probe" in line and "--localisation" not in line for line in lines)
    assert any("--localisation" in line for line in lines)
    for line in lines:
        works_as_typed(line)


def test_what_finetune_says_next_works(tmp_path: Path) -> None:
    out = tmp_path / "my study"
    one = next_steps.after_finetune([out], out)
    several = next_steps.after_finetune([out / "1to1", out / "1to5"], out)
    assert shlex.split(one) == ["medcl", "report", str(out)]
    assert shlex.split(several)[-2:] == ["--out", str(out / "report.html")]
    for line in (one, several):
        works_as_typed(line)


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
