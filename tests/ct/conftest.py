"""Real CT to test on: a series that travels with the tests, and larger sets beside the checkout."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import pytest

from medcl.archive.index import Index, build
from medcl_ct.plugin import plugin

SAMPLE = Path(__file__).parents[2] / "plugins" / "medcl_ct" / "sample"


@pytest.fixture(scope="session")
def siemens() -> Path:
    """A folder with 8 slices of a real body CT: JPEG 2000, no SeriesInstanceUID, no PatientID."""
    return SAMPLE / "siemens"


@pytest.fixture(scope="session")
def unpacked(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of the shared CT in one archive of plain files."""
    root = tmp_path_factory.mktemp("ct")
    for path in sorted((shared_data / "ct").iterdir()):
        if path.name.endswith(".tar.xz"):
            with tarfile.open(path) as archive:
                archive.extractall(root, filter="data")
        elif path.is_dir():
            shutil.copytree(path, root / path.name)
        else:
            shutil.copy(path, root)
    return root


@pytest.fixture(scope="session")
def indexed(unpacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Index:
    """The index of all of it."""
    out = tmp_path_factory.mktemp("ct-index") / "idx"
    build(unpacked, out, plugin)
    return Index.open(out)
