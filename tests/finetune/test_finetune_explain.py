"""What instances counted for: tables and drawings of test bags, through the command line.

The instances are real (MUSK 1); where they lie on a slide is synthetic.
"""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from medcl.finetune.explain import unit
from medcl.plugin import Samples
from medcl_cli.main import app


@pytest.fixture
def archive(musk: tuple[Samples, np.ndarray], tmp_path: Path) -> Path:
    """Twenty bags as CLAM and TRIDENT write them, and their labels."""
    samples, y = musk
    folder = tmp_path / "archive"
    folder.mkdir()
    rows = [*np.flatnonzero(y == 1)[:10], *np.flatnonzero(y == 0)[:10]]
    for row in rows:
        x = samples.read(np.array([row]))["x"]
        coords = np.stack([np.arange(len(x)) % 3, np.arange(len(x)) // 3], 1) * 512
        with h5py.File(folder / f"slide{row:02}.h5", "w") as file:
            file["features"], file["coords"] = x, coords
            file["coords"].attrs["patch_size_level0"] = 512
    lines = [f"slide{row:02},{'musk / yes' if y[row] else 'no'}" for row in rows]
    (tmp_path / "labels.csv").write_text("key,grade\n" + "\n".join(lines) + "\n")
    return folder


@pytest.mark.slow
def test_test_bags_are_tabled_drawn_and_shown(archive: Path, tmp_path: Path) -> None:
    run = CliRunner().invoke
    indexed = run(
        app, ["index", str(archive), "--plugin", "pathology", "--out", str(tmp_path / "idx")]
    )
    assert indexed.exit_code == 0, indexed.output
    out = tmp_path / "study"
    asked = ["finetune", str(tmp_path / "idx"), "-r", "pathology/abmil", "--out", str(out)]
    asked += ["--labels", str(tmp_path / "labels.csv"), "--folds", "2", "--explain", "1"]
    done = run(app, [*asked, "-s", "finetune.epochs=2", "-s", "finetune.bootstraps=100"])
    assert done.exit_code == 0, done.output
    assert "Explained: 2 bags" in done.output
    folders = sorted((out / "explained").iterdir())
    assert len(folders) == 2, "one of each class"
    for folder in folders:
        frame = pl.read_parquet(folder / "instances.parquet")
        assert frame.columns[:4] == ["id", "instance", "x", "y"]
        assert set(frame["id"]) == {folder.name}
        assert frame["x"].max() <= 1024
        assert list(folder.glob("*/heatmap.png"))
        (drawn,) = folder.glob("*/heatmap.geojson")
        assert "all classes" in drawn.read_text()  # attention is of no one class
    assert run(app, ["report", str(out)]).exit_code == 0
    page = (out / "report.html").read_text()
    assert "What instances counted for" in page
    maps = len(list(out.glob("explained/*/*/*.png")))
    assert maps == 2 * len(list(out.glob("explained/*/*/heatmap.png")))  # ranks and raw scores
    assert page.count("raw scores, with their scale; predicted ") == maps  # caption and alt text
    assert "ROC and precision-recall curves" in page
    assert "20 slides (2-fold" in page
    assert "of the test slides" in page
    words = " ".join(page.split())
    assert "at or above the threshold of each training's validation patients" in words.replace(
        "&#39;", "'"
    )
    assert "test samples" not in words
    examples = page.count('alt="Sample that is')  # right and wrong, with what instances counted
    assert examples > 0
    assert page.count("data:image/png;base64") == maps + examples


def test_scores_are_shown_by_rank() -> None:
    assert unit(np.array([1e-9, 3e-9, 3e-9, 9e-9])).tolist() == [0, 0.5, 0.5, 1]
    assert unit(np.array([0.2])).tolist() == [0]
