"""Real recordings to test on: the bundled sample, and the larger archive where it is at hand."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from public_sets import ptbxl_shaped
from safetensors.torch import save_file

from medcl import recipe as recipes
from medcl.plugin import FileStat, Record, Reject
from medcl.private import write_recipe
from medcl.run import Run, build_encoder
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


TWELVE = ("I|*", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run as `medcl.pretrain` leaves it, with random weights."""
    out = tmp_path_factory.mktemp("runs") / "tiny"
    recipe = recipes.parse(
        {
            "name": "tiny",
            "plugin": "biosignals",
            "prepare": {"fs": 100.0, "leads": list(TWELVE)},
            "dataset": {"seconds": 5.0, "stride": 5.0},
            "encoder": {"name": "resnet1d", "widths": [8, 8], "blocks": 1, "kernel": 3},
            "method": {"name": "simclr"},
        }
    )
    out.mkdir()
    write_recipe(out, recipe)
    state = build_encoder(recipe, 3).state_dict()
    save_file({k: v.contiguous() for k, v in state.items()}, out / "encoder.safetensors")
    facts = {
        "finished": True,
        "recipe": "tiny",
        "seed": 3,
        "command": "medcl pretrain tiny --data /home/someone/idx --out /home/someone/run",
        "outcomes": [{"name": "of an archive"}],
    }
    (out / "run.json").write_text(json.dumps(facts))
    people = pl.DataFrame({"patient": ["p_0", "p_1"], "split": ["train", "test"]})
    people.write_parquet(out / "split.parquet")
    return Run.open(out)


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings of twelve leads; of patients of even number with an infarction."""
    return ptbxl_shaped(tmp_path_factory.mktemp("ptbxl"), count=24)
