"""Forms in which CT comes beside plain DICOM: HTJ2K, volumes in archives, masks and contours."""

from __future__ import annotations

import shutil
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import pydicom
import pytest
from ct_synthetic import ct_series, ct_slice
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from typer.testing import CliRunner

from medcl.archive.index import Index, build
from medcl.archive.store import prepare
from medcl.plugin import FileStat, Unit
from medcl_cli.main import app
from medcl_ct.dataset import dataset
from medcl_ct.findings import FINDINGS
from medcl_ct.plugin import plugin
from medcl_ct.scan import scan

SPEC = {"spacing": (0.0, 0.0, 0.0), "crop": "none"}


def index(archive: Path, out: Path) -> Index:
    build(archive, out, plugin)
    return Index.open(out)


def arrays(archive: Path, out: Path, **spec: object) -> dict[str, np.ndarray]:
    """Of the only item of an archive."""
    made = prepare(index(archive, out), plugin, {**SPEC, **spec})
    assert made.rejects.is_empty(), made.rejects["reason"].to_list()
    assert len(made.items) == 1
    return {name: np.array(values) for name, values in made.arrays(made.items["id"][0]).items()}


# --- High-Throughput JPEG 2000 --------------------------------------------------------------------


def test_htj2k_is_decoded(siemens: Path, tmp_path: Path) -> None:
    """The bundled series, recoded without loss by another library, gives the same values."""
    imagecodecs = pytest.importorskip("imagecodecs")
    (tmp_path / "a").mkdir()
    for path in sorted(siemens.glob("*.dcm"))[:3]:
        slice_ = pydicom.dcmread(path)
        code = bytes(imagecodecs.htj2k_encode(slice_.pixel_array, reversible=True))
        assert b"\xff\x50" in code[:200], "no CAP marker: not the high-throughput coder"
        slice_.PixelData = encapsulate([code])
        slice_["PixelData"].is_undefined_length = True
        slice_.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.201"
        slice_.save_as(tmp_path / "a" / path.name)
        (tmp_path / "b").mkdir(exist_ok=True)
        (tmp_path / "b" / path.name).write_bytes(path.read_bytes())
    recoded = arrays(tmp_path / "a", tmp_path / "idx-a")
    assert recoded["hu0"].shape[0] == 3
    assert np.array_equal(recoded["hu0"], arrays(tmp_path / "b", tmp_path / "idx-b")["hu0"])


# --- volumes in archives --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def volume(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a part of a real volume and its mask."""
    folder = tmp_path_factory.mktemp("volume") / "sub-01"
    folder.mkdir()
    for name in ("aorta_ct", "aorta_seg"):
        image = nib.load(shared_data / "ct" / f"{name}.nii.gz")
        nib.save(image.slicer[20:90, 20:115, 130:164], folder / f"{name}.nii.gz")
    return folder


def packed(folder: Path, path: Path) -> Path:
    path.parent.mkdir()
    files = sorted(folder.iterdir())
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for file in files:
                archive.write(file, f"{folder.name}/{file.name}")
    else:
        with tarfile.open(path, "w:xz") as archive:
            for file in files:
                archive.add(file, f"{folder.name}/{file.name}")
    return path


@pytest.mark.parametrize("name", ["scans.zip", "scans.tar.xz"])
def test_volumes_in_archives_are_as_in_folders(volume: Path, tmp_path: Path, name: str) -> None:
    packed(volume, tmp_path / "a" / name)
    found = index(tmp_path / "a", tmp_path / "idx")
    plain = index(volume.parent, tmp_path / "plain")
    columns = [c for c in plain.items.columns if c not in ("id", "patient", "fingerprint")]
    assert found.items.select(columns).equals(plain.items.select(columns))
    assert found.items["mask"].to_list() == [True]
    assert found.locate(found.items["id"][0]) == f"{name}/sub-01/aorta_ct.nii.gz"
    inside = arrays(tmp_path / "a", tmp_path / "idx")
    outside = arrays(volume.parent, tmp_path / "plain")
    assert set(inside) == {"hu0", "affine0", "mask0", "drawn0"} == set(outside)
    for part, values in outside.items():
        assert np.array_equal(inside[part], values), part
    assert inside["mask0"].any()


def test_what_an_archive_holds_may_be_broken(volume: Path, tmp_path: Path) -> None:
    whole = (volume / "aorta_ct.nii.gz").read_bytes()
    (tmp_path / "a").mkdir()
    with zipfile.ZipFile(tmp_path / "a" / "b.zip", "w") as archive:
        archive.writestr("none.nii.gz", b"this is no volume")
        archive.writestr("lost_seg.nii.gz", whole)
        archive.writestr("apart.nhdr", b"NRRD0004\n")
        archive.writestr("cut.nii.gz", whole[: len(whole) // 2])
    found = index(tmp_path / "a", tmp_path / "idx")
    assert sorted(found.rejects["code"]) == ["mask-alone", "unreadable", "unreadable"]
    made = prepare(found, plugin, SPEC)  # the header of the cut one is whole
    assert len(found.items) == 1
    assert len(made.rejects) == 1
    assert not list(Path(found.path).rglob("medcl-*"))


def test_an_archive_of_many_volumes_is_indexed_in_little_memory(tmp_path: Path) -> None:
    """Synthetic: noise, which does not pack."""
    path = tmp_path / "many.zip"
    values = np.random.default_rng(0).integers(-1000, 1000, (64, 64, 150), dtype=np.int16)
    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "one.nii")
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(24):
            archive.write(tmp_path / "one.nii", f"sub-{number:02}.nii")
    unit = Unit(path.name, (FileStat(path.name, path.stat().st_size, 0),))
    list(scan(tmp_path, unit))  # what is imported on the way is no memory of the archive's
    tracemalloc.start()
    found = list(scan(tmp_path, unit))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found) == 24
    assert most < 12e6, "a megabyte of each was kept"


def test_a_volume_that_is_gone_from_its_archive(volume: Path, tmp_path: Path) -> None:
    path = packed(volume, tmp_path / "a" / "scans.zip")
    found = index(tmp_path / "a", tmp_path / "idx")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("other.txt", "nothing")
    made = prepare(found, plugin, SPEC)
    assert len(made.rejects) == 1


# --- masks and contours ---------------------------------------------------------------------------


def test_masks_in_nrrd_label_regions(volume: Path, tmp_path: Path) -> None:
    """The same volume and mask as NRRD: the same region labels, slice by slice."""
    (tmp_path / "a").mkdir()
    for name in ("ct", "seg"):
        image = nib.load(volume / f"aorta_{name}.nii.gz")
        affine = np.diag([-1.0, -1, 1, 1]) @ image.affine
        header = {
            "space": "left-posterior-superior",
            "space directions": affine[:3, :3].T,
            "space origin": affine[:3, 3],
        }
        kind = np.uint8 if name == "seg" else np.int16
        values = np.asarray(image.dataobj).astype(kind)
        nrrd.write(str(tmp_path / "a" / f"aorta_{name}.nrrd"), values, header)
    regions = []
    for archive, out in ((tmp_path / "a", "idx-nrrd"), (volume.parent, "idx-nifti")):
        made = prepare(index(archive, tmp_path / out), plugin, SPEC)
        regions.append(dataset(made.items, made.arrays, size=(96, 96)).labels["region"])
    assert set(regions[0]) == {0, 1}
    assert np.array_equal(*regions)


def test_a_mask_on_another_grid_is_refused(volume: Path, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name, part in (("aorta_ct", slice(0, 20)), ("aorta_seg", slice(1, 21))):
        image = nib.load(volume / f"{name}.nii.gz")
        nib.save(image.slicer[:, :, part], tmp_path / "a" / f"{name}.nii.gz")
    made = prepare(index(tmp_path / "a", tmp_path / "idx"), plugin, SPEC)
    assert made.rejects["code"].to_list() == ["unprepared"]
    assert "does not lie on the grid" in made.rejects["reason"][0]


@pytest.mark.parametrize("kind", ["SEG", "RTSTRUCT"])
def test_masks_of_another_series_cost_no_image(tmp_path: Path, kind: str) -> None:
    """A real structure set from pydicom, whose CT is not here; a SEG without any segment."""
    ct_series(tmp_path / "a", [0, 2, 4])
    if kind == "RTSTRUCT":
        drawn = Path(str(get_testdata_file("rtstruct.dcm"))).read_bytes()
    else:  # synthetic: nothing but what tells its kind
        ct_slice(
            tmp_path / "seg",
            6,
            Modality="SEG",
            SOPClassUID="1.2.840.10008.5.1.4.1.1.66.4",
            NumberOfFrames=2,
        )
        drawn = (tmp_path / "seg").read_bytes()
    (tmp_path / "a" / "drawn.dcm").write_bytes(drawn)
    found = index(tmp_path / "a", tmp_path / "idx")
    assert found.items["mask"].to_list() == [False]
    expected = {"SEG": "no-masks", "RTSTRUCT": "mask-alone"}[kind]
    assert found.rejects["code"].to_list() == [expected]


# --- what the index says --------------------------------------------------------------------------


def test_many_rejects_are_counted_and_findings_told(siemens: Path, tmp_path: Path) -> None:
    """An export of a million files must not print a hundred thousand lines."""
    shutil.copytree(siemens, tmp_path / "a")
    for number in range(60):
        (tmp_path / "a" / f"note{number:02d}").write_bytes(b"this is no DICOM file" * 20)
    command = ["index", str(tmp_path / "a"), "--plugin", "ct", "--out", str(tmp_path / "idx")]
    done = CliRunner().invoke(app, [*command, "--workers", "1"], catch_exceptions=False)
    lines = done.stdout.splitlines()
    assert any(line.startswith("not-dicom\t60\t") for line in lines)
    (finding,) = (line for line in lines if line.startswith("no-series-uid\t1\taccepted\t"))
    assert FINDINGS["no-series-uid"].about in finding
    assert len(lines) < 30
    told = CliRunner().invoke(app, [*command, "--workers", "1", "--paths"], catch_exceptions=False)
    assert sum("note" in line for line in told.stdout.splitlines()) == 60
