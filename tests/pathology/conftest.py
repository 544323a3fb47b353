"""Real pathology to test on: a small slide that travels with the tests, and larger sets."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from medcl.archive.index import Index, build
from medcl.archive.store import Prepared, prepare
from medcl_pathology.plugin import plugin

DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="session")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fixed key, so that ids and splits are the same every time."""
    path = tmp_path_factory.mktemp("key") / "key"
    path.write_text("0123456789abcdef0123456789abcdef")
    return path


@pytest.fixture(scope="session")
def cmu() -> Path:
    """A real slide: Aperio SVS, 2220×2967, 0.499 µm, one level."""
    return DATA / "cmu-1-small-region.svs"


@pytest.fixture(scope="session")
def cmu_index(cmu: Path, key_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Index:
    """The index of that slide alone."""
    root = tmp_path_factory.mktemp("cmu")
    (root / "slides").mkdir()
    shutil.copy(cmu, root / "slides")
    build(root / "slides", root / "idx", plugin, key_file=key_file)
    return Index.open(root / "idx")


@pytest.fixture(scope="session")
def cmu_prepared(cmu_index: Index) -> Prepared:
    """Its tiles of 128 pixels at 0.5 µm."""
    return prepare(cmu_index, plugin, {"size": 128})


@pytest.fixture
def index(tmp_path, key_file):
    """Index a folder, with a fixed key."""

    def made(root, **options):
        build(root, tmp_path / "idx", plugin, key_file=key_file, **options)
        return Index.open(tmp_path / "idx")

    return made
