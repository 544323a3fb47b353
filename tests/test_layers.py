"""Imports only run downwards, and the page that shows the layers shows them as they are."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parent.parent
LINT = Path(sys.executable).parent / "lint-imports"


def lint(root: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(str(root / part) for part in (".", "plugins", "cli"))
    return subprocess.run(
        [str(LINT), "--no-cache"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.skipif(not LINT.is_file(), reason="needs import-linter, of the extra dev")
@pytest.mark.parametrize(
    ("file", "planted", "said"),
    [
        ("medcl/finetune/loop.py", "from medcl.probe import probe", "medcl.finetune"),
        ("medcl/nn/ema.py", "from medcl.objectives import nt_xent", "medcl.nn"),
        ("medcl/predict/batch.py", "import medcl_ct.plugin", "medcl"),
    ],
)
def test_a_planted_import_is_found(tmp_path: Path, file: str, planted: str, said: str) -> None:
    for part in ("medcl", "plugins", "cli"):
        shutil.copytree(REPO / part, tmp_path / part)
    shutil.copy(REPO / "pyproject.toml", tmp_path)
    if file == "medcl/finetune/loop.py":  # once is enough: the layers hold as they are
        clean = lint(tmp_path)
        assert clean.returncode == 0, clean.stdout
    with (tmp_path / file).open("a") as handle:
        handle.write(f"\n{planted}  # planted\n")
    found = lint(tmp_path)
    assert found.returncode == 1
    assert f"{said}" in found.stdout
    assert "BROKEN" in found.stdout


def test_the_page_shows_the_layers() -> None:
    spec = importlib.util.spec_from_file_location("generate", REPO / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = module.ARCHITECTURE.read_text(encoding="utf-8")
    assert module.architecture(page) == page, "stale: run make docs"
