"""A released encoder: made from a run, opened by name, of use without an index of one's own."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import medcl
from medcl import released
from medcl.embeddings.embeddings import Embeddings
from medcl.errors import MedclError, UsageError
from medcl.export import release
from medcl.run import Run
from medcl_biosignals.plugin import plugin
from medcl_cli.main import app

CARD = {
    "about": "A test's encoder.",
    "data": [
        {
            "name": "PTB-XL",
            "citation": "Wagner 2020",
            "licence": "CC BY 4.0",
            "patients": 18,
            "recordings": 36,
        }
    ],
    "licence": "Apache-2.0",
    "limits": ["Random weights."],
}


@pytest.fixture(scope="module")
def folder(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("released")
    release(run, place / "ecg-test", CARD)
    return place


@pytest.fixture
def known(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    shipped = replace(plugin, released=folder)
    monkeypatch.setattr("medcl.plugin.discover", lambda: {"biosignals": shipped})


@pytest.mark.usefixtures("known")
def test_it_is_opened_by_its_name_and_equals_the_run(run: Run) -> None:
    x = torch.randn(2, 12, 500, generator=torch.Generator().manual_seed(0))
    for encoder in (medcl.load_encoder("ecg-test"), Run.open(Path("ecg-test")).encoder()):
        # Weights are stored in half precision.
        torch.testing.assert_close(encoder(x), run.encoder()(x), rtol=2e-3, atol=2e-3)
        assert all(p.dtype == torch.float32 for p in encoder.parameters())
    (card,) = medcl.encoders()
    assert card.parameters == sum(p.numel() for p in run.encoder().parameters())
    assert card.width == 8
    assert "leads I|*, II, III" in card.input
    assert released.verified(released.folders()["ecg-test"])


def test_it_holds_nothing_of_the_archive_or_the_machine(folder: Path) -> None:
    names = {path.name for path in (folder / "ecg-test").iterdir()}
    assert names == {
        "README.md", "card.json", "encoder.safetensors", "manifest.json", "recipe.yaml",
        "run.json", "split.parquet",
    }  # fmt: skip
    for path in (folder / "ecg-test").iterdir():
        content = path.read_bytes()
        assert b"someone" not in content
        assert b"of an archive" not in content
    card = (folder / "ecg-test" / "README.md").read_text()
    assert "CC BY 4.0" in card
    assert "leads I\\|*, II" in card


@pytest.mark.usefixtures("known")
def test_files_are_embedded_without_an_index(archive: Path, tmp_path: Path) -> None:
    files = sorted((archive / "records100" / "00000").glob("*.hea"))[:3]
    words = ["embed", "ecg-test", *map(str, files), "--out", str(tmp_path / "z"), "--paths"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    made = Embeddings.load(tmp_path / "z")
    assert made.x.shape == (6, 8)
    assert sorted(set(made.labels["record"])) == [path.stem for path in files]
    whole = medcl.embed("ecg-test", files[0], paths=True)
    np.testing.assert_allclose(whole.x, made.x[made.labels["record"] == files[0].stem], atol=1e-6)


@pytest.mark.slow
@pytest.mark.usefixtures("known")
def test_a_classifier_is_trained_on_a_folder_of_files(archive: Path, tmp_path: Path) -> None:
    with (tmp_path / "l.csv").open("w", newline="") as handle:
        write = csv.writer(handle)
        write.writerow(("filename", "patient", "mi"))
        for n in range(1, 25):
            patient = (n + 1) // 2
            write.writerow((f"00000/{n:05d}_lr", patient, int(patient % 2 == 0)))
    result = medcl.finetune(
        "ecg-test",
        tmp_path / "study",
        data=archive / "records100",
        labels=tmp_path / "l.csv",
        settings={"classifier": {"name": "linear"}, "finetune.epochs": 2},
    )
    assert result.test.patients == 4
    assert result.label == "mi"


@pytest.mark.usefixtures("known")
def test_without_data_it_says_what_to_give() -> None:
    with pytest.raises(UsageError, match="is a released encoder, without the data"):
        medcl.embed("ecg-test")


@pytest.mark.usefixtures("known")
def test_the_list_and_the_card_are_printed() -> None:
    listed = CliRunner().invoke(app, ["encoders"])
    assert "ecg-test" in listed.output
    assert "PTB-XL (CC BY 4.0)" in listed.output
    assert "Random weights." in CliRunner().invoke(app, ["encoders", "ecg-test"]).output
    assert json.loads(CliRunner().invoke(app, ["encoders", "--json"]).output)[0]["width"] == 8


def test_an_incomplete_card_is_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="lacks licence"):
        release(run, tmp_path / "x", {**CARD, "licence": ""})
    bare = {**CARD["data"][0], "patients": None}  # type: ignore[index]
    with pytest.raises(UsageError, match="'PTB-XL' lacks patients"):
        release(run, tmp_path / "x", {**CARD, "data": [bare]})
    assert not (tmp_path / "x").exists()


def test_a_set_whose_people_are_not_public_says_so(run: Run, tmp_path: Path) -> None:
    unknown = {**CARD["data"][0], "patients": "unknown", "recordings": 2000}  # type: ignore[index]
    release(run, tmp_path / "x", {**CARD, "data": [unknown]})
    assert "| PTB-XL | unknown | 2,000 |" in (tmp_path / "x" / "README.md").read_text()


def test_damage_is_noticed(run: Run, tmp_path: Path) -> None:
    release(run, tmp_path / "x", CARD)
    path = tmp_path / "x" / "encoder.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(MedclError, match="damaged"):
        medcl.load_encoder(tmp_path / "x")


def test_figures_of_a_board_are_in_the_card(run: Run, tmp_path: Path) -> None:
    interval = {"value": 0.9, "low": 0.8, "high": 0.95, "undefined": 0}
    rows = ["handcrafted", "untrained tiny", "tiny", "tiny + handcrafted", "another"]
    board = {
        "benchmark": "ptbxl",
        "problems": [{"name": "superclass", "metric": "macro AUROC"}],
        "figures": [
            {"problem": "superclass", "row": row, "fraction": 1.0, "own": interval} for row in rows
        ],
    }
    (tmp_path / "benchmark.json").write_text(json.dumps(board))
    card = release(run, tmp_path / "ecg-x", CARD, [tmp_path])
    assert [f["row"] for f in card.figures] == [
        "handcrafted", "untrained ecg-x", "ecg-x", "ecg-x + handcrafted",
    ]  # fmt: skip
    board["figures"] = board["figures"][:1]
    (tmp_path / "benchmark.json").write_text(json.dumps(board))
    with pytest.raises(UsageError, match="has no row of tiny"):
        release(run, tmp_path / "ecg-y", CARD, [tmp_path])
