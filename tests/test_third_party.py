"""The core is modality-free: a plugin from another package does everything, medcl/ untouched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits


def medcl(env: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "medcl_cli.main", *arguments],
        env=env,
        capture_output=True,
        text=True,
    )


SEVERAL = """
import json, sys
from typer.testing import CliRunner
from medcl_cli.main import app

said = []
for words in json.load(sys.stdin):
    said.append(CliRunner().invoke(app, words, catch_exceptions=False))
    if said[-1].exit_code:
        sys.exit(said[-1].output)
json.dump([done.stdout for done in said], sys.stdout)
"""


def one_after_the_other(env: dict[str, str], *commands: list[str]) -> list[str]:
    """What each command said. They share a process, for torch and Lightning take long to load."""
    done = subprocess.run(
        [sys.executable, "-c", SEVERAL],
        input=json.dumps(commands),
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """scikit-learn's digits, dealt out to invented writers: the persons here are synthetic."""
    folder = tmp_path_factory.mktemp("synthetic_writers")
    images, classes = load_digits(return_X_y=True)
    rows = np.column_stack([classes, images]).astype(int)
    for writer in range(12):
        part = rows[writer * 60 : (writer + 1) * 60]
        np.savetxt(folder / f"writer_{writer:02d}.csv", part, fmt="%d", delimiter=",")
    (folder / "blank.csv").write_text("")
    (folder / "notes.txt").write_text("not ours")
    return folder


@pytest.mark.slow
def test_it_is_listed(third_party: dict[str, str]) -> None:
    done = medcl(third_party, "plugins", "--json")
    listed = {p["name"]: p for p in json.loads(done.stdout)}
    assert listed["toy"]["status"] == "ok"
    assert listed["toy"]["encoders"] == ["small"]


def test_its_recipes_are_found(third_party: dict[str, str]) -> None:
    assert "toy/digits" in medcl(third_party, "recipes").stdout


@pytest.mark.slow
def test_it_keeps_the_contract(third_party: dict[str, str], archive: Path) -> None:
    done = medcl(third_party, "plugins", "check", "toy", "--archive", str(archive), "--json")
    found = json.loads(done.stdout)
    assert (done.returncode, found["ok"], found["items"]) == (0, True, 3), done.stdout
    done = medcl(
        third_party, "plugins", "check", "toy", "--archive", str(archive), "-r", "toy/digits"
    )
    assert done.returncode == 0, done.stdout
    assert "0 do not, on 3 items with toy/digits" in done.stdout
    assert "writer_" not in done.stdout


@pytest.mark.slow
def test_a_new_one_keeps_it_as_it_is(
    third_party: dict[str, str], tmp_path: Path, install: Callable[[Path, Path], None]
) -> None:
    made = tmp_path / "mine"
    done = medcl(third_party, "plugins", "new", "skin-temp", "--out", str(made))
    assert done.returncode == 0, done.stderr
    assert "medcl plugins check skin-temp" in done.stdout
    install(made, tmp_path / "site")
    places = [str(tmp_path / "site"), third_party["PYTHONPATH"]]
    env = {**third_party, "PYTHONPATH": os.pathsep.join(places)}
    listed = json.loads(medcl(env, "plugins", "--json").stdout)
    assert {"toy", "skin-temp"} <= {p["name"] for p in listed if p["status"] == "ok"}
    done = medcl(env, "plugins", "check", "skin-temp")
    assert done.returncode == 0, done.stdout
    assert "0 do not, on 3 items with skin-temp/demo" in done.stdout


@pytest.mark.slow
def test_from_archive_to_report(third_party: dict[str, str], archive: Path, tmp_path: Path) -> None:
    idx, run = str(tmp_path / "idx"), str(tmp_path / "run")
    done = medcl(third_party, "index", str(archive), "--plugin", "toy", "--out", idx, "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["items"], summary["rejected"]) == (12, 1)

    _, embedded, probed, _ = one_after_the_other(
        third_party,
        ["pretrain", "digits", "--data", idx, "--out", run, "-s", "trainer.steps=60"],
        ["embed", run, "--out", str(tmp_path / "emb"), "--json"],
        ["probe", run, "--json"],
        ["report", run],
    )
    assert (tmp_path / "run" / "encoder.safetensors").is_file()
    assert json.loads(embedded)["samples"] == 720
    assert json.loads(probed)["task"] == "digit"
    assert "<html" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def test_the_core_names_no_plugin() -> None:
    core = Path(__file__).parent.parent / "medcl"
    for source in core.rglob("*.py"):
        for name in ("medcl_ct", "medcl_pathology", "medcl_biosignals", "medcl_cli"):
            lines = source.read_text(encoding="utf-8").splitlines()
            imports = [x for x in lines if x.strip().startswith(("import ", "from "))]
            assert not any(name in line for line in imports), f"{source} imports {name}"
