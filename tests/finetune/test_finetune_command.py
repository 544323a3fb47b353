"""medcl finetune as a user calls it: on an index of real bags (MUSK 1), and on a pretrained run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import polars as pl
import pytest
import yaml
from bags_in_memory import MUSK
from typer.testing import CliRunner

import medcl
from medcl.archive.index import Index, build
from medcl.errors import MedclError, UsageError
from medcl.finetune.finetune import finetune, opened, ratios
from medcl.labels import table as tables
from medcl.plugin import get
from medcl.report import study_page
from medcl_cli.main import app

KEY = b"these bags have no secrets at all"


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MUSK 1, indexed under a fixed key, so that folds are the same at every run."""
    folder = tmp_path_factory.mktemp("musk")
    (folder / "archive").mkdir()
    shutil.copy(MUSK, folder / "archive" / MUSK.name)
    (folder / "key").write_bytes(KEY)
    build(folder / "archive", folder / "idx", get("pathology"), key_file=folder / "key")
    return folder / "idx"


@pytest.fixture
def key(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDCL_KEY_FILE", str(index.parent / "key"))


SMALL = ("finetune.epochs=3", "finetune.folds=2", "finetune.repeats=1", "finetune.bootstraps=100")


def bags(index: Path) -> list[str]:
    return [str(key) for key in Index.open(index).paths["key"]]


@pytest.mark.slow
def test_the_published_recipe_runs_on_any_file_of_bags(index: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = [w for setting in SMALL for w in ("-s", setting)]
    asked = ["finetune", str(index), "-r", "pathology/musk", "--out", str(out), *words]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    assert "AUROC" in done.output
    raw = json.loads((out / "finetune.json").read_text())
    assert raw["trainings"] == 2
    assert raw["test"]["patients"] == 92
    assert yaml.safe_load((out / "recipe.yaml").read_text())["classifier"]["layers"] == [
        256,
        128,
        64,
    ]
    for path in out.rglob("*"):
        if path.is_file():
            assert b"MUSK-188" not in path.read_bytes(), f"a raw id in {path.name}"
    again = CliRunner().invoke(app, [*asked, "--json"])
    assert json.loads(again.stdout)["figures"] == raw["figures"], "nothing was trained anew"


def test_labels_join_by_item_by_patient_and_say_what_did_not_fit(
    index: Path, tmp_path: Path, key: None
) -> None:
    names = bags(index)
    parts = [name.partition("#")[2] for name in names]
    table = tmp_path / "labels.csv"
    rows = [f"{names[0]},a", f"{parts[1]},b", f"{names[2]},a", "nobody,b", "nothing,a"]
    table.write_text("key,grade\n" + "\n".join(rows) + "\n")
    opened_index = Index.open(index)
    found = tables.read(table, opened_index)
    assert {opened_index.locate(i): r["grade"] for i, r in found.rows.items()} == {
        names[0]: "a",
        names[1]: "b",
        names[2]: "a",
    }
    assert found.notes == ("2 of 5 labels are of items that the index does not hold.",)
    assert "nobody" not in " ".join(found.notes)
    table.write_text("key,grade\nsomebody,a\n")
    with pytest.raises(UsageError, match="None of the 1 rows"):
        tables.read(table, opened_index)


@pytest.mark.slow
def test_a_table_decides_what_is_learnt_and_who_is_left_out(
    index: Path, tmp_path: Path, key: None
) -> None:
    names = bags(index)
    table = tmp_path / "labels.csv"
    grades = ("low", "mid", "high")
    lines = [f"{name},{grades[n % 3]}" for n, name in enumerate(names[:60])]
    table.write_text("key,grade\n" + "\n".join([*lines, "ghost,low"]) + "\n")
    settings = [*SMALL, "finetune.task=null", "finetune.kind=ordinal"]
    settings.append("finetune.classes=[low, mid, high]")
    source = opened(index, "pathology/musk", settings)
    result = finetune(source, tmp_path / "out", labels=table)
    assert result.kind == "ordinal"
    assert result.classes == ["low", "mid", "high"]
    assert result.test.patients == 60
    assert result.notes[:2] == [
        "1 of 61 labels are of items that the index does not hold.",
        "32 items have no label and were left out.",
    ]
    assert result.table()[1][-1][0] == "mean distance of classes"


@pytest.mark.slow
def test_a_hand_crafted_split_is_taken_or_refused(index: Path, tmp_path: Path, key: None) -> None:
    names = bags(index)
    people = {name: f"p{n // 2}" for n, name in enumerate(names)}  # two bags a patient
    table = tmp_path / "patients.csv"
    table.write_text("key,patient\n" + "".join(f"{n},{p}\n" for n, p in people.items()))
    paired = tmp_path / "idx"
    build(
        index.parent / "archive",
        paired,
        get("pathology"),
        key_file=index.parent / "key",
        table=table,
    )
    split = tmp_path / "split.csv"
    sides = {n: "test" if int(people[n][1:]) % 3 == 0 else "train" for n in names}
    split.write_text("key,split\n" + "".join(f"{n},{s}\n" for n, s in sides.items()))
    source = opened(paired, "pathology/musk", [*SMALL, "finetune.folds=null"])
    result = finetune(source, tmp_path / "good", split=split)
    assert result.test.samples == sum(side == "test" for side in sides.values())
    sides[names[0]] = "train"  # the other bag of this patient stays in the test
    split.write_text("key,split\n" + "".join(f"{n},{s}\n" for n, s in sides.items()))
    with pytest.raises(MedclError, match="puts 1 patient in more than one part"):
        finetune(source, tmp_path / "bad", split=split)


def test_what_is_asked_wrongly_is_one_sentence(index: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="-r RECIPE"):
        opened(index, None)
    with pytest.raises(UsageError, match="is for plugin 'biosignals'"):
        opened(index, "biosignals/demo")
    with pytest.raises(UsageError, match="is not an index"):
        opened(tmp_path, "pathology/musk")
    with pytest.raises(UsageError, match="such as 1,5,10,50"):
        ratios("1,many")
    asked = ["finetune", str(index), "-r", "pathology/musk", "--out", str(tmp_path / "out")]
    refused = CliRunner().invoke(app, [*asked, "--imbalance", "1,2", "--explain", "2"])
    assert isinstance(refused.exception, UsageError)
    assert not (tmp_path / "out").exists()
    assert ratios("1,5") == (1, 5)


def test_a_recipe_that_only_classifies_cannot_be_pretrained(index: Path, tmp_path: Path) -> None:
    asked = ["pretrain", "pathology/musk", "--data", str(index), "--out", str(tmp_path / "run")]
    done = CliRunner().invoke(app, asked)
    assert isinstance(done.exception, UsageError)
    assert str(done.exception) == (
        "Recipe 'musk' has no section 'method': it can only be trained with labels: medcl finetune."
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_survival_of_bags_is_measured_by_concordance(
    index: Path, tmp_path: Path, key: None
) -> None:
    """Times are synthetic: bags whose first feature is high die early."""
    opened_index = Index.open(index)
    items = opened_index.items
    table = tmp_path / "times.csv"
    lines = [
        f"{opened_index.locate(item)},{10 - 6 * y + n % 3},{int(n % 4 > 0)}"
        for n, (item, y) in enumerate(items.select("id", "label.y").iter_rows())
    ]
    table.write_text("key,months,died\n" + "\n".join(lines) + "\n")
    for kind in ("cox", "hazard"):
        settings = [*SMALL[1:], "finetune.epochs=8", "finetune.task=null", f"finetune.kind={kind}"]
        settings += ["finetune.label=months", "finetune.event=died"]
        result = finetune(opened(index, "pathology/musk", settings), tmp_path / kind, labels=table)
        value = result.figures.metrics["c_index"].value
        assert value is not None
        assert value > 0.6
        predicted = pl.read_parquet(tmp_path / kind / "predictions.parquet")
        assert len(predicted) == 92
        page = study_page.write(tmp_path / kind, tmp_path / kind / "report.html").read_text()
        assert "Survival by predicted risk" in page
        assert "log-rank test p = " in page


@pytest.mark.slow
def test_the_report_of_a_study_is_one_escaped_page(index: Path, tmp_path: Path, key: None) -> None:
    names = bags(index)
    table = tmp_path / "labels.csv"
    evil = "<script>alert(1)</script>"
    lines = [f"{name},{evil if n % 2 else 'plain'}" for n, name in enumerate(names)]
    table.write_text("key,grade\n" + "\n".join(lines) + "\n")
    settings = [*SMALL, "finetune.task=null", "finetune.validation=0.2"]
    finetune(opened(index, "pathology/musk", settings), tmp_path / "out", labels=table)
    done = CliRunner().invoke(app, ["report", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    page = (tmp_path / "out" / "report.html").read_text()
    assert evil not in page
    assert "&lt;script&gt;" in page
    assert "came true" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert str(tmp_path) not in page


@pytest.mark.slow
def test_python_takes_what_the_command_line_takes(index: Path, tmp_path: Path) -> None:
    """A folder of files, a label column, imbalance; and what became of the archive is recorded."""
    archive = tmp_path / "archive"
    archive.mkdir()
    shutil.copy(MUSK, archive / MUSK.name)
    (archive / "notes.docx").write_text("none of ours")
    rows = [f"{key},{n % 2},{n % 3 == 0}" for n, key in enumerate(bags(index))]
    labels = tmp_path / "l.csv"
    labels.write_text("bag,odd,third\n" + "\n".join(rows) + "\n")
    result = medcl.finetune(
        archive,
        tmp_path / "study",
        recipe="pathology/musk",
        labels=labels,
        key_column="bag",
        label_column="odd",
        index=tmp_path / "idx",
        imbalance=2,
        settings=SMALL,
    )
    assert (result.label, result.imbalance) == ("odd", 2)
    assert (tmp_path / "idx" / "index.json").is_file()
    assert {"done": "ignored", "name": ".docx", "count": 1} in [
        {name: row[name] for name in ("done", "name", "count")} for row in result.outcomes or []
    ]
    asked = ["finetune", str(index), "-r", "pathology/musk", "--out", str(tmp_path / "cli")]
    words = [w for setting in SMALL for w in ("-s", setting)]
    done = CliRunner().invoke(app, [*asked, *words])
    assert done.exit_code == 0, done.output
    with pytest.raises(UsageError, match="an index was read already"):
        medcl.finetune(
            index, tmp_path / "no", recipe="pathology/musk", patient_from="(?P<patient>.)"
        )
