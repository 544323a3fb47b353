"""The folder that medcl is called in may be anybody's: nothing in it is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", [["-m", "medcl_cli.main"], ["-c", "import medcl_cli as c; c.start()"]]
)
def test_a_plugin_in_the_current_folder_is_not_loaded(tmp_path: Path, command: list[str]) -> None:
    if command[0] == "-c":
        command = ["-P", *command]  # as the installed command: no folder of the caller on the path
    (tmp_path / "evil.py").write_text("open('loaded', 'w'); plugin = None\n")
    info = tmp_path / "evil-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: evil\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[medcl.plugins]\nevil = evil:plugin\n")
    done = subprocess.run(
        [sys.executable, *command, "plugins"],
        cwd=tmp_path,
        env=os.environ,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "evil" not in done.stdout
    assert not (tmp_path / "loaded").exists()
