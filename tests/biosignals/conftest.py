"""Real recordings to test on: the bundled sample, and the larger archive where it is at hand."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from medcl.plugin import FileStat, Record, Reject
from medcl_biosignals.plugin import plugin
from medcl_biosignals.prepare import prepare

LEADS = ("MLII|II|I|V5|*", "V1|V2|V4|V5|*")

Scan = Callable[[Path], list[Record | Reject]]


def scan_all(root: Path) -> list[Record | Reject]:
    """Every row that indexing a folder would give."""
    files = [
        FileStat(path.relative_to(root).as_posix(), path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(root.rglob("*"))
        if path.is_file()
    ]
    return [row for unit in plugin.units(files) for row in plugin.scan(root, unit)]


@pytest.fixture(scope="session")
def scan() -> Scan:
    return scan_all


@pytest.fixture(scope="session")
def sample() -> Path:
    assert plugin.sample is not None
    return plugin.sample


@pytest.fixture(scope="session")
def ecg(shared_data: Path) -> Path:
    return shared_data / "ecg"


@pytest.fixture
def copy(sample: Path, tmp_path: Path) -> Callable[..., Path]:
    """A folder of its own with some of the sample's records, to break."""

    def make(*names: str) -> Path:
        for name in names:
            for file in sample.glob(f"{name}.*"):
                shutil.copy(file, tmp_path / file.name)
        return tmp_path

    return make


@pytest.fixture(scope="session")
def prepared(sample: Path) -> tuple[pl.DataFrame, dict[str, dict[str, np.ndarray]]]:
    """Three records of the sample, as the index and the store would give them."""
    rows, store = [], {}
    for row in scan_all(sample):
        assert isinstance(row, Record)
        if row.key in ("101", "114", "208"):
            store[row.key] = prepare(sample, row.files, row.fields, fs=100.0, leads=LEADS)
            labels = {f"label.{name}": value for name, value in row.labels.items()}
            rows.append({"id": row.key, "patient": f"key-of-{row.patient}", **labels})
    return pl.DataFrame(rows), store
