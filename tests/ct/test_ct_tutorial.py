"""The tutorial's commands, as they stand there, on the sample; and the demo."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tutorials import REPO, follow, of, verbs
from typer.testing import CliRunner

from medcl.archive.index import Index
from medcl_cli.main import app

PAGE = REPO / "docs" / "tutorial-ct.md"


@pytest.mark.slow
def test_every_command_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = follow(PAGE, tmp_path, monkeypatch)
    steps = ["index", "index", "prepare", "curate", "pretrain", "embed", "probe"]
    assert verbs(said) == [*steps, "finetune", "evaluate", "report", "report"]

    first = of(said, "medcl index")
    for told in ("no-series-uid\t1", "no-patient-id\t2", "derived\t2", "truncated"):
        assert told in first
    index = Index.open(tmp_path / "idx")
    assert sorted(index.items["slices"]) == [8, 20, 20, 64]
    named = {name for names in index.items["findings"] for name in names}
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    assert named == {"no-series-uid", "no-patient-id", "derived"}
    assert all(any(f"`{name}`" in row for row in rows) for name in named)
    assert index.rejects["code"].to_list() == ["truncated"]
    labelled = Index.open(tmp_path / "labelled").items
    assert labelled["patient"].n_unique() == 3
    assert labelled["label.ward"].null_count() == 0
    kept = Index.open(tmp_path / "less").items["keep"].list.len().sum()
    assert 0 < kept < 112
    probe = of(said, "medcl probe")
    for told in ("pretrained", "random", "chance", "1 patient", "do not generalise to other"):
        assert told in probe
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    for told in ("no-series-uid", "truncated", "found again in another reconstruction"):
        assert told in page
    assert "No copy or near-copy does" in of(said, "medcl evaluate")
    page = (tmp_path / "study" / "report.html").read_text(encoding="utf-8")
    for told in (
        "Right, and sure",
        "integrated gradients",
        "No copy or near-copy does",
        "Intended use",
    ):
        assert told in page


@pytest.mark.slow
def test_the_page_on_segmentation_runs_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medcl.dense.probe.SETTINGS", {"epochs": 2, "validation": 0.0})
    said = follow(REPO / "docs" / "ct-segmentation.md", tmp_path, monkeypatch)
    steps = ["index", "pretrain", "finetune", "report", "probe", "predict", "predict", "export"]
    assert verbs(said) == steps
    assert "surface Dice at 2 mm" in of(said, "medcl finetune")
    assert "Pretraining used the test patients too" in of(said, "medcl finetune")
    assert "voxel-linear, pretrained: Dice" in of(said, "medcl probe")
    assert len(list((tmp_path / "masks").glob("*.nii.gz"))) == 1
    assert (tmp_path / "named" / "s0004" / "ct.nii.gz").is_file()
    assert (tmp_path / "nnunet" / "fold_1" / "checkpoint_final.pth").is_file()
    assert "Grey from -160 to 240 HU" in (tmp_path / "study" / "report.html").read_text()


@pytest.mark.slow
def test_the_demo_says_what_three_people_can_say(tmp_path: Path) -> None:
    tiny = ["trainer.steps=3", "monitor.samples=16", "encoder.base=4", "method.hidden=16"]
    command = ["demo", "--plugin", "ct", "--out", str(tmp_path / "demo")]
    done = CliRunner().invoke(
        app, [*command, *(w for one in tiny for w in ("-s", one))], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    for told in ("pretrained", "random", "chance", "40 samples of 1 patient", "each among 20"):
        assert told in done.output
    page = (tmp_path / "demo" / "report.html").read_text(encoding="utf-8")
    assert "found again in another reconstruction" in page
    assert "do not generalise to other patients" in page


def test_the_tutorial_names_real_findings_and_recipes() -> None:
    from medcl import recipe as recipes
    from medcl_ct.findings import FINDINGS

    text = PAGE.read_text(encoding="utf-8")
    for name in re.findall(r"`(ct/[\w-]+)`", text):
        assert name in recipes.available()
    for row in re.findall(r"^\| (`[a-z].*?) \|", text, re.M):
        for name in re.findall(r"`([\w-]+)`", row):
            assert name in FINDINGS, name


def test_the_sample_is_within_its_size_and_has_its_licences() -> None:
    from medcl_ct.plugin import plugin

    assert plugin.sample is not None
    files = [path for path in plugin.sample.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 3_200_000
    assert {"README.md", "LICENSE-chest.txt", "LICENSE-siemens-abdomen.txt"} <= {
        f.name for f in files
    }
