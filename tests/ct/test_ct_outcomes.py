"""What became of an archive is said in the output, in the run's files and in the report alike."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from ct_synthetic import ct_series, ct_slice
from pydicom.uid import generate_uid
from typer.testing import CliRunner

from medcl import recipe as recipes
from medcl.archive import outcomes
from medcl.archive.index import Index, build
from medcl.archive.store import prepare
from medcl.engine.pretrain import pretrain
from medcl.report.report import write
from medcl_cli.main import app
from medcl_ct.plugin import plugin

SETTINGS = [
    "trainer.steps=1",
    "trainer.batch_size=2",
    "trainer.precision=32",
    "encoder={name: resnet2d, depth: 10, base: 4}",
    "dataset.size=[16, 16]",
    "views.size=[16, 16]",
    "monitor.every=100",
]


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Four good series, one with a gap, one not in HU, one in a black frame, a localiser, notes."""
    root = tmp_path / "a"
    random = np.random.default_rng(0)
    for n in range(4):
        uid = generate_uid()
        for z in range(4):
            stored = random.integers(0, 2000, (16, 16)).astype(np.uint16).tobytes()
            own = {"SeriesInstanceUID": uid, "PatientID": f"P{n}", "PixelData": stored}
            ct_slice(root / f"good{n}" / f"{z}", 2.0 * z, **own)
    gap = {"SeriesInstanceUID": generate_uid(), "PatientID": "P8"}
    ct_series(root / "gap", [0, 2, 4, 8, 10, 12], **gap)
    scout = {"SeriesInstanceUID": generate_uid(), "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}
    ct_series(root / "scout", [0], **scout)
    values = np.random.default_rng(0).uniform(0, 1, (16, 16, 8)).astype(np.float32)
    nib.save(nib.Nifti1Image(values, np.eye(4)), root / "scaled.nii.gz")
    framed = np.full((40, 40, 8), -1024, np.int16)
    framed[8:32, 8:32] = random.normal(0, 50, (24, 24, 8))
    nib.save(nib.Nifti1Image(framed, np.diag([2, 2, 2, 1])), root / "framed.nii.gz")
    (root / "notes.txt").write_text("not CT")
    (root / "Jane.Doe").mkdir()
    (root / "Jane.Doe" / "list.csv").write_text("not CT")
    return root


EXPECTED = {
    ("rejected", "localiser", 1),
    ("rejected", "not-hu", 1),
    ("split", "missing-slices", 1),
    ("accepted", "black-frame", 2),  # noticed when prepared; the gap's block of water is one too
    ("ignored", ".txt", 1),
    ("ignored", ".csv", 1),
}


def told(rows: list[dict]) -> set[tuple[str, str, int]]:
    return {(row["done"], row["name"], row["count"]) for row in rows}


@pytest.mark.slow
def test_one_table_everywhere(archive: Path, tmp_path: Path) -> None:
    build(archive, tmp_path / "idx", plugin)
    recipe = recipes.load("ct/simclr-2d", SETTINGS)
    run = pretrain(recipe, tmp_path / "idx", tmp_path / "run")
    rows = json.loads((run.path / "run.json").read_text())["outcomes"]
    assert told(rows) >= EXPECTED
    assert all(row["about"] for row in rows)
    page = write(run, tmp_path / "report.html").read_text("utf-8")
    assert "Nothing was rejected" not in page
    for done, name, _ in EXPECTED:
        assert f'<th scope="row">{done}</th><td>{name}</td>' in page
    command = ["prepare", "ct/simclr-2d", "--data", str(tmp_path / "idx"), "--workers", "1"]
    out = CliRunner().invoke(app, command, catch_exceptions=False).stdout
    for done, name, count in EXPECTED:
        assert f"{done}\t{name}\t{count}\t" in out
    command = ["pretrain", "ct/simclr-2d", "--data", str(tmp_path / "idx")]
    command += ["--out", str(run.path), *(part for s in SETTINGS for part in ("-s", s))]
    out = CliRunner().invoke(app, command, catch_exceptions=False).stdout
    for done, name, count in EXPECTED:
        assert f"{done}\t{name}\t{count}\t" in out


def test_what_is_done_follows_the_policy(archive: Path, tmp_path: Path) -> None:
    build(archive, tmp_path / "idx", plugin)
    index = Index.open(tmp_path / "idx")
    for policy, done in (("resample", "mended"), ("accept", "accepted"), ("reject", "rejected")):
        spec = {"policy": {"missing-slices": policy}}
        made = prepare(index, plugin, spec)
        rows = outcomes.table(index, plugin, spec, made)
        assert rows == outcomes.table(index, plugin, spec), "as the store knows it later"
        assert (done, "missing-slices", 1) in told([row.row() for row in rows])


def test_no_name_is_taken_for_a_suffix(tmp_path: Path) -> None:
    ct_series(tmp_path / "a" / "x", [0, 2, 4])
    for name in ("README", "scan.xlsx", "a.html"):
        (tmp_path / "a" / name).write_text("x")
    (tmp_path / "a" / ".Mueller").write_text("x")
    build(tmp_path / "a", tmp_path / "idx", plugin)
    assert set(Index.open(tmp_path / "idx").facts["ignored_suffixes"]) <= {".xlsx", ".html", "none"}
