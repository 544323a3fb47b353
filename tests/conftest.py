"""Shared between test folders: where real data lie, and a toy plugin installed as a third party."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the suite runs one process per core

# Processes of tests are forked from one that has loaded these: they take longer than the tests.
multiprocessing.set_forkserver_preload(["medcl.engine.pretrain", "sklearn.datasets"])

REPO = Path(__file__).parent.parent
SHARED = REPO.parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The larger real data sets beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the larger real data sets in {SHARED}, which are not here")
    return SHARED


@pytest.fixture(scope="session")
def install() -> Callable[[Path, Path], None]:
    """Install a package into a folder of its own: (source, target)."""

    def run(source: Path, target: Path) -> None:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        pip += ["--no-build-isolation", "--disable-pip-version-check"]
        subprocess.run([*pip, "--target", str(target), str(source)], check=True)

    return run


@pytest.fixture(scope="session")
def third_party(
    tmp_path_factory: pytest.TempPathFactory, install: Callable[[Path, Path], None]
) -> dict[str, str]:
    """An environment in which the toy plugin is installed, from its own package, elsewhere."""
    target = tmp_path_factory.mktemp("site")
    install(REPO / "tests" / "toy_plugin", target)
    places = [str(target), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(places), "COLUMNS": "200"}
