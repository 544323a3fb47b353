"""The whole way on real ECGs, through the command line, as a user would go it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from medcl_cli.main import app

REPO = Path(__file__).parent.parent
SAMPLE = REPO / "plugins" / "medcl_biosignals" / "sample"
SMALL = ["-s", "trainer.steps=12", "-s", "trainer.batch_size=64", "-s", "trainer.log_every=1"]
SMALL += ["-s", "trainer.checkpoint_every=3", "-s", "monitor.every=6", "-s", "monitor.samples=128"]
SMALL += ["-s", "probe.bootstraps=100", "-s", "probe.fractions=[1.0]"]


def start(cwd: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "medcl_cli.main", *arguments],
        cwd=cwd,
        env={**os.environ, "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def medcl(cwd: Path, *arguments: str) -> str:
    process = start(cwd, *arguments)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five real records under invented (synthetic) patient names, and two wrecks."""
    folder = tmp_path_factory.mktemp("work")
    for record, name in zip(("101", "106", "203", "208", "223"), NAMES, strict=True):
        (folder / "archive" / name).mkdir(parents=True)
        for ending in ("hea", "dat", "atr"):
            text = folder / "archive" / name / f"{name}.{ending}"
            shutil.copy(SAMPLE / f"{record}.{ending}", text)
        header = folder / "archive" / name / f"{name}.hea"
        header.write_text(header.read_text().replace(record, name) + f"# {name} born 1950-01-01\n")
    line = "Nightingale_Anna.dat 16 200/Nakamura 16 0 0 0 0 II"  # no such file
    lost = f"lost_Meyerhold 1 360 100\n{line}\n"
    (folder / "archive" / "lost_Meyerhold.hea").write_text(lost)
    header = folder / "archive" / NAMES[0] / f"{NAMES[0]}.hea"
    header.write_text(_renamed(header.read_text()))
    (folder / "archive" / "Quackenbush.hea").write_bytes(b"")
    return folder


def _renamed(header: str) -> str:
    """The first signal in the unit "Okonkwo", the second called "Pemberton"."""
    lines = header.splitlines()
    first = lines[1].split(" ")
    first[2] = "200/Okonkwo"
    second = lines[2].split(" ")[:8]
    return (
        "\n".join([lines[0], " ".join(first), " ".join([*second, "Pemberton"]), *lines[3:]]) + "\n"
    )


NAMES = ("Abernathy", "Bloomquist", "Castellano", "Drummond", "Eisenhower")
HEADER_NAMES = ("Nightingale", "Nakamura", "Okonkwo", "Pemberton")
SECRETS = (*NAMES, "Meyerhold", "Quackenbush", *HEADER_NAMES, "1950")


@pytest.fixture(scope="module")
def finished(named: Path) -> Path:
    """index → pretrain → embed → probe → report."""
    medcl(named, "index", "archive", "--plugin", "biosignals", "--out", "idx")
    medcl(named, "pretrain", "biosignals/demo", "--data", "idx", "--out", "run", *SMALL)
    with contextlib.chdir(named):  # the others in this process, which has loaded torch
        for words in (["embed", "run", "--out", "embeddings"], ["probe", "run"], ["report", "run"]):
            done = CliRunner().invoke(app, words, catch_exceptions=False)
            assert done.exit_code == 0, done.output
    return named


def test_every_step_leaves_what_it_promises(finished: Path) -> None:
    items = pl.read_parquet(finished / "idx" / "items.parquet")
    assert items.height == 5
    rejects = pl.read_parquet(finished / "idx" / "rejects.parquet")
    assert sorted(rejects["code"]) == ["empty-header", "missing-signal"]
    assert items.filter(pl.col("units") == "other,mV")["leads"].to_list() == ["MLII,other"]
    probe = json.loads((finished / "run" / "probe" / "probe.json").read_text())
    compared = {score["representation"] for score in probe["scores"]}
    assert {"pretrained", "random", "handcrafted"} <= compared
    page = (finished / "run" / "report.html").read_text(encoding="utf-8")
    assert not re.findall(r'(?:src|href)="https?://', page)


def test_no_name_leaves_the_private_folder(finished: Path) -> None:
    """Everything written, searched for every name, raw and inside Parquet columns."""
    private = finished / "idx" / "private"
    searched = 0
    for path in finished.rglob("*"):
        if not path.is_file() or private in path.parents or (finished / "archive") in path.parents:
            continue
        searched += 1
        content = path.read_bytes()
        if path.suffix == ".parquet":
            content += pl.read_parquet(path).write_ndjson().encode()
        for secret in SECRETS[:-1]:
            assert secret.encode() not in content, f"{secret} in {path.relative_to(finished)}"
            assert secret not in path.name
    assert searched > 15
    assert any(b"Abernathy" in p.read_bytes() for p in private.rglob("*") if p.is_file())


def test_standard_output_names_nobody(named: Path) -> None:
    out = medcl(named, "index", "archive", "--plugin", "biosignals", "--out", "idx_again")
    assert not [secret for secret in SECRETS if secret in out]
    told = medcl(
        named, "index", "archive", "--plugin", "biosignals", "--out", "idx_again", "--paths"
    )
    assert "Quackenbush" in told


def test_kill_9_while_pretraining_then_the_same_command(finished: Path) -> None:
    """The resumed run ends with the same weights and the same curve as the undisturbed one."""
    arguments = ["pretrain", "biosignals/demo", "--data", "idx", "--out", "killed", *SMALL]
    process = start(finished, *arguments)
    checkpoints = finished / "killed" / "checkpoints"
    deadline = time.monotonic() + 120
    while not list(checkpoints.glob("*.ckpt")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (finished / "killed" / "encoder.safetensors").exists(), "killed before it finished"
    medcl(finished, *arguments)
    for name in ("encoder.safetensors", "metrics.csv", "split.parquet"):
        undisturbed, resumed = finished / "run" / name, finished / "killed" / name
        assert undisturbed.read_bytes() == resumed.read_bytes(), name


def test_another_recipe_in_the_same_folder_is_refused(finished: Path) -> None:
    process = start(
        finished,
        "pretrain",
        "biosignals/demo",
        "--data",
        "idx",
        "--out",
        "run",
        *SMALL,
        "-s",
        "seed=7",
    )
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "seed" in err
