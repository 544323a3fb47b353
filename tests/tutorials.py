"""Following a tutorial: the commands of its shell blocks, as they stand there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from medcl_cli.main import app

REPO = Path(__file__).parent.parent


def commands(page: Path) -> list[str]:
    """Its shell blocks' lines, in order."""
    blocks = re.findall(r"^```sh\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.M)
    return [line for block in blocks for line in block.splitlines()]


def follow(page: Path, folder: Path, patch: pytest.MonkeyPatch) -> dict[str, str]:
    """Run all of a page's commands in a folder; returns what each said.

    medcl runs in this process, for its imports are slow; all else in a shell. The index's key is
    fixed, so that who is tested is the same at every run.
    """
    patch.chdir(folder)
    (folder / "key").write_text("the bundled samples are public: this key hides nothing")
    patch.setenv("MEDCL_KEY_FILE", str(folder / "key"))
    patch.setenv("MEDCL", str(REPO))
    return {line: _run(line) for line in commands(page)}


def _run(line: str) -> str:
    if line.startswith("medcl "):
        done = CliRunner().invoke(app, shlex.split(line)[1:], catch_exceptions=False)
        assert done.exit_code == 0, f"{line}: {done.output}"
        return done.output
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", line],
        check=True,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
    )
    return done.stdout


def verbs(said: dict[str, str]) -> list[str]:
    """Which verbs were run, in order."""
    return [line.split()[1] for line in said if line.startswith("medcl ")]


def of(said: dict[str, str], start: str) -> str:
    """What the first command that starts like this said."""
    return next(text for line, text in said.items() if line.startswith(start))
