"""`medcl demo`, as a newcomer runs it, with fewer steps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from medcl_cli.main import app

SHORT = ["-s", "trainer.steps=6", "-s", "trainer.batch_size=64", "-s", "monitor.samples=128"]
SHORT += ["-s", "probe.bootstraps=100", "-s", "probe.fractions=[1.0]", "--no-released"]


def demo(folder: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "medcl_cli.main", "demo", "--out", "demo", *SHORT],
        cwd=folder,
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.slow
def test_the_demo_ends_with_the_comparison_and_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = demo(tmp_path)
    lines = done.stdout.splitlines()
    compared = {line.split("\t")[0] for line in lines if "\tlinear\t" in line}
    assert {"pretrained", "random", "handcrafted"} <= compared
    report = Path(lines[-1].removeprefix("Report: "))
    assert report == (tmp_path / "demo" / "report.html").resolve()
    assert "<html" in report.read_text(encoding="utf-8")
    for step in ("index", "pretrain", "embed", "probe", "report"):
        assert f"{step}: " in done.stderr, "people see what is happening"

    monkeypatch.chdir(tmp_path)  # in this process, which has loaded torch
    done_again = CliRunner().invoke(app, ["demo", "--out", "demo", *SHORT, "--json"])
    assert done_again.exit_code == 0, done_again.output
    again = json.loads(done_again.stdout)
    assert again["seconds"]["pretrain"] < 20, "done work is skipped"
    assert again["probe"]["test"]["patients"] == 7


@pytest.mark.long
def test_the_released_encoder_is_a_gain_on_people_it_has_not_seen(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        app, ["demo", "--out", str(tmp_path), *SHORT[:-1], "--released", "--json"]
    )
    assert done.exit_code == 0, done.output
    (figure,) = (
        f
        for f in json.loads(done.stdout)["released"]["figures"]
        if f["row"] == "ecg-small + handcrafted"
    )
    assert figure["patients"] == 24
    assert figure["against"]["handcrafted"]["low"] > 0
