"""Shared between test folders: where real data lie, and a toy plugin installed as a third party."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the suite runs one process per core

# On a slow or busy machine an example may take long, and nothing is wrong: no deadlines.
settings.register_profile("medcl", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("medcl")

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
def third_party(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which the toy plugin is installed, from its own package, elsewhere."""
    target = tmp_path_factory.mktemp("site")
    source = REPO / "tests" / "toy_plugin"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run(
        [*pip, "--disable-pip-version-check", "--target", str(target), str(source)], check=True
    )
    return {**os.environ, "PYTHONPATH": str(target), "COLUMNS": "200"}
