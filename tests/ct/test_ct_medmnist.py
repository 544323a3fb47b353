"""The published benchmarks in one command, on synthetic files of MedMNIST's layout."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from medcl.errors import UsageError
from medcl_cli.main import app

COUNTS = {"train": 96, "val": 16, "test": 48}


def benchmark(path: Path, size: tuple[int, ...], classes: int) -> dict[str, np.ndarray]:
    """Synthetic: each class is a bright box elsewhere, in noise."""
    random = np.random.default_rng(0)
    arrays = {}
    for part, count in COUNTS.items():
        labels = random.integers(0, classes, count)
        images = random.integers(0, 60, (count, *size))
        for image, label in zip(images, labels, strict=True):
            at = 2 + 6 * (int(label) % 4)
            image[..., at : at + 4, 2 + 6 * (int(label) // 4) :][..., :4] = 220
        arrays[f"{part}_images"] = images.astype(np.uint8)
        arrays[f"{part}_labels"] = labels.reshape(-1, 1).astype(np.uint8)
    path.parent.mkdir()
    np.savez_compressed(path, **arrays)
    return arrays


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "classes"),
    [("organsmnist", (28, 28), 11), ("nodulemnist3d", (28, 28, 28), 2)],
)
def test_one_command_and_the_official_split(
    tmp_path: Path, name: str, size: tuple[int, ...], classes: int
) -> None:
    arrays = benchmark(tmp_path / "a" / f"{name}.npz", size, classes)
    tiny = ["encoder.depth=10", "encoder.base=4", "method.hidden=16", "method.out=8"]
    tiny += ["trainer.steps=2", "trainer.batch_size=16", "trainer.workers=0", "monitor.samples=32"]
    tiny += ["probe.bootstraps=100", "probe.fractions=[1.0]"]
    command = ["demo", "--archive", str(tmp_path / "a"), "--recipe", f"ct/{name}"]
    command += ["--out", str(tmp_path / "out"), "--json", *(w for s in tiny for w in ("-s", s))]
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)["probe"]
    assert result["train"]["samples"] == COUNTS["train"]
    assert result["test"]["samples"] == COUNTS["test"]
    predicted = pl.read_parquet(tmp_path / "out" / "run" / "probe" / "predictions.parquet")
    found = predicted["truth"].cast(pl.String).value_counts()["count"].to_list()
    assert sorted(found) == sorted(np.unique(arrays["test_labels"], return_counts=True)[1])
    assert (tmp_path / "out" / "report.html").is_file()
    assert not (tmp_path / "out" / "public.key").exists()


def test_an_archive_needs_its_recipe(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="go together"):
        CliRunner().invoke(app, ["demo", "--archive", str(tmp_path)], catch_exceptions=False)
