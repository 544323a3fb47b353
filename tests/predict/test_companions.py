"""A file that is read with others: predict FILE takes them, and only what the file is part of."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from medcl.archive.index import Index, build
from medcl.archive.store import prepare
from medcl.errors import MedclError
from medcl.plugin import get
from medcl.predict.batch import predict
from medcl.run import Run

sys.path.append(str(Path(__file__).parents[1] / "probe"))
from bare_run import bare_run, indexed

FS, SECONDS = 100, 20
PREPARE = {"fs": 50.0, "band": [0.5, 20.0], "leads": ["II|*"]}


def wave(seed: int, seconds: int = SECONDS) -> np.ndarray:
    t = np.arange(FS * seconds) / FS
    rng = np.random.default_rng(seed)
    beats = np.exp(-0.5 * (((t * 1.2) % 1 - 0.5) / 0.02) ** 2)
    return np.round(1000 * (beats + 0.02 * rng.standard_normal(len(t)))).astype("<i2")


def header(path: Path, dat: str, samples: int, offset: int = 0) -> None:
    where = f"16+{offset}" if offset else "16"
    path.write_text(f"{path.stem} 1 {FS} {samples}\n{dat} {where} 1000(0)/mV 16 0 0 0 0 II\n")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("companions")
    archive = folder / "archive"
    archive.mkdir()
    for n in range(4):
        wave(n).tofile(archive / f"r{n}.dat")
        header(archive / f"r{n}.hea", f"r{n}.dat", FS * SECONDS)
    new = folder / "new"
    new.mkdir()
    two = wave(8, 2 * SECONDS)
    two.tofile(new / "both.dat")  # two records, one after the other, in one file
    header(new / "first.hea", "both.dat", FS * SECONDS)
    header(new / "second.hea", "both.dat", FS * SECONDS, offset=2 * FS * SECONDS)
    multi = folder / "multi"
    multi.mkdir()
    for n, name in enumerate(("part_a", "part_b")):
        wave(20 + n).tofile(multi / f"{name}.dat")
        header(multi / f"{name}.hea", f"{name}.dat", FS * SECONDS)
    (multi / "night.hea").write_text(
        f"night/2 1 {FS} {2 * FS * SECONDS}\npart_a {FS * SECONDS}\npart_b {FS * SECONDS}\n"
    )
    wave(30).tofile(multi / "other.dat")
    header(multi / "other.hea", "other.dat", FS * SECONDS)
    return folder


@pytest.fixture(scope="module")
def run(home: Path) -> Run:
    index = indexed(home / "archive", "biosignals", home / "idx")
    raw = {
        "plugin": "biosignals",
        "prepare": PREPARE,
        "dataset": {"kind": "window", "seconds": 5.0, "stride": 5.0, "quality": 0.0},
        "encoder": {"name": "resnet1d", "widths": [8, 8], "blocks": 1},
    }
    return bare_run(raw, index, home / "run")


def windows(run: Run, record: Path, out: Path, **more: bool) -> pl.DataFrame:
    made = predict(run, [record], out / "p.parquet", key_file=run.path.parent / "key", **more)
    assert made.records == 1
    assert made.rejects == {}
    return pl.read_parquet(out / "p.parquet")


@pytest.mark.parametrize("name", ["first.hea", "second.hea", "second"])
def test_a_header_on_a_shared_file_is_its_own_recording(
    run: Run, home: Path, tmp_path: Path, name: str
) -> None:
    table = windows(run, home / "new" / name, tmp_path, paths=True)
    assert len(table) == 4
    assert set(table["record"]) == {name.removesuffix(".hea")}


def test_each_header_is_indexed_and_prepared_by_its_own_bytes(home: Path, tmp_path: Path) -> None:
    build(home / "new", tmp_path / "idx", get("biosignals"), workers=1)
    index = Index.open(tmp_path / "idx")
    assert len(index.items) == 2
    assert len(index.rejects) == 0
    assert not index.items["findings"].list.contains("shared-signal-file").any()
    made = prepare(index, get("biosignals"), PREPARE)
    x = {index.locate(i): np.asarray(made.arrays(i)["x"], float) for i in index.items["id"]}
    assert x["first"].shape == x["second"].shape
    assert not np.allclose(x["first"], x["second"])


def test_records_that_overlap_in_their_file_have_a_finding(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    wave(1).tofile(archive / "x.dat")
    header(archive / "x.hea", "x.dat", FS * SECONDS)
    header(archive / "again.hea", "x.dat", FS * SECONDS)
    header(archive / "late.hea", "x.dat", FS * 5, offset=2 * FS * 15)
    build(archive, tmp_path / "idx", get("biosignals"), workers=1)
    index = Index.open(tmp_path / "idx")
    found = {
        index.locate(i): "shared-signal-file" in f
        for i, f in index.items.select("id", "findings").iter_rows()
    }
    assert found == {"x": True, "again": True, "late": True}
    assert len(index.rejects) == 0


def test_a_master_header_takes_its_segments(run: Run, home: Path, tmp_path: Path) -> None:
    table = windows(run, home / "multi" / "night.hea", tmp_path, paths=True)
    assert set(table["record"]) == {"night"}
    assert len(table) in (7, 8)  # windows over the seam may count as one recording's
    alone = windows(run, home / "multi" / "other.hea", tmp_path, paths=True)
    assert set(alone["record"]) == {"other"}


def test_segments_on_one_file_stand_for_themselves_too(tmp_path: Path, run: Run) -> None:
    """Each header is its own recording, said to share its samples; of predict, only that."""
    archive = tmp_path / "archive"
    archive.mkdir()
    wave(1).tofile(archive / "m.dat")
    for part in ("m_1", "m_2"):
        header(archive / f"{part}.hea", "m.dat", FS * SECONDS)
    rows = f"m_1 {FS * SECONDS}\nm_2 {FS * SECONDS}\n"
    (archive / "m.hea").write_text(f"m/2 1 {FS} {2 * FS * SECONDS}\n{rows}")
    build(archive, tmp_path / "idx", get("biosignals"), workers=1)
    index = Index.open(tmp_path / "idx")
    assert {index.locate(i) for i in index.items["id"]} == {"m", "m_1", "m_2"}
    assert index.items["findings"].list.contains("shared-signal-file").all()
    assert len(index.rejects) == 0
    for name in ("m", "m_1", "m.hea"):
        table = windows(run, archive / name, tmp_path, paths=True)
        assert set(table["record"]) == {name.removesuffix(".hea")}


def test_a_lacking_signal_file_is_one_reject(run: Run, tmp_path: Path) -> None:
    header(tmp_path / "lost.hea", "gone.dat", 100)
    with pytest.raises(MedclError, match="None of the recordings can be used"):
        predict(run, [tmp_path / "lost.hea"], tmp_path / "p.parquet")


@pytest.mark.parametrize("write", ["mhd", "pair"])
def test_an_image_and_its_voxels(tmp_path: Path, write: str) -> None:
    """Both have the same stem."""
    import nibabel as nib

    from medcl.ingestion import _files

    voxels = np.zeros((8, 8, 4), np.int16)
    if write == "mhd":
        (tmp_path / "scan.raw").write_bytes(voxels.tobytes())
        (tmp_path / "scan.mhd").write_text(
            "ObjectType = Image\nNDims = 3\nDimSize = 8 8 4\nElementSpacing = 1 1 2\n"
            "ElementType = MET_SHORT\nElementDataFile = scan.raw\n"
        )
        wanted, given = {"scan.mhd", "scan.raw"}, "scan.mhd"
    else:
        nib.save(nib.Nifti1Pair(voxels, np.eye(4)), tmp_path / "scan.img")
        wanted, given = {"scan.hdr", "scan.img"}, "scan.hdr"
    files, _ = _files(get("ct"), tmp_path / given, {})
    assert wanted <= {path.name for path in files}


def test_a_slide_takes_its_folder(tmp_path: Path) -> None:
    from medcl.ingestion import _files

    (tmp_path / "slide").mkdir()
    for name in ("Slidedat.ini", "Data0000.dat"):
        (tmp_path / "slide" / name).write_bytes(b"0")
    (tmp_path / "slide.mrxs").write_bytes(b"0")
    files, _ = _files(get("pathology"), tmp_path / "slide.mrxs", {})
    names = {path.relative_to(tmp_path).as_posix() for path in files}
    assert names == {"slide.mrxs", "slide/Slidedat.ini", "slide/Data0000.dat"}
