"""What scanners, anonymisers and data sets do, cut from public CT: voxel for voxel, or by name.

The archives are made by the scripts in ``../shared/cases/ct``. What each must give is worked out
here from the series that they were cut from, by pydicom and nibabel alone.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest

from medcl.archive.index import Index, build
from medcl.archive.store import Prepared, prepare
from medcl_ct.plugin import plugin

pytestmark = pytest.mark.shared_data

AS_IT_IS = {"spacing": (0.0, 0.0, 0.0), "crop": "none", "clip": None}
Volume = np.ndarray


@pytest.fixture(scope="session")
def series(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lung")
    with tarfile.open(shared_data / "ct" / "series_lung_a0002.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "lung_a0002" / "b40f"


def made(script: str, source: Path, out: Path, shared: Path) -> Path:
    path = shared.parent / "cases" / "ct" / script
    if not path.is_file():
        pytest.skip(f"needs {path}, which is not here")
    subprocess.run([sys.executable, str(path), str(source), str(out)], check=True)
    return out


@pytest.fixture(scope="session")
def dicom(shared_data: Path, series: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made("make_dicom_cases.py", series, tmp_path_factory.mktemp("cases"), shared_data)


@pytest.fixture(scope="session")
def files(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = shared_data / "ct" / "abdomen_ct.nii.gz"
    return made("make_volume_cases.py", source, tmp_path_factory.mktemp("cases"), shared_data)


@pytest.fixture(scope="session")
def chest(series: Path) -> Volume:
    """(30, 64, 64) HU, slices rising: every 8th pixel."""
    slices = [pydicom.dcmread(path) for path in series.iterdir()]
    slices.sort(key=lambda one: float(one.ImagePositionPatient[2]))
    hu = [one.pixel_array[::8, ::8] + float(one.RescaleIntercept) for one in slices]
    return np.stack(hu).astype(np.int16)


@pytest.fixture(scope="session")
def abdomen(shared_data: Path) -> Volume:
    """(Z, Y, X) HU, indices rising to the head, the back and the left."""
    raw = nib.load(shared_data / "ct" / "abdomen_ct.nii.gz")
    values = np.asarray(raw.dataobj)[::2, ::2, ::2]
    half = nib.Nifti1Image(values.astype(np.int16), raw.affine @ np.diag([2, 2, 2, 1]))
    ras = np.asarray(nib.as_closest_canonical(half).dataobj)
    return ras[::-1, ::-1].transpose(2, 1, 0)


def read(archive: Path, out: Path, **policy: str) -> tuple[Index, Prepared]:
    build(archive, out, plugin)
    index = Index.open(out)
    return index, prepare(index, plugin, {**AS_IT_IS, "policy": policy})


def volumes(made: Prepared) -> list[Volume]:
    return [np.array(made.arrays(item)["hu0"]) for item in made.items["id"]]


def same(found: list[Volume], expected: list[Volume]) -> None:
    """The same volumes, in any order of the volumes."""
    assert len(found) == len(expected)
    left = list(found)
    for volume in expected:
        which = [n for n, other in enumerate(left) if np.array_equal(other, volume)]
        assert which, "no volume is this one, voxel for voxel"
        del left[which[0]]


def halved(chest: Volume) -> Volume:
    """Every other slice stored at half the resolution of its values."""
    stored = chest.astype(np.int32) + 1024
    stored[1::2] = stored[1::2] // 2 * 2
    return (stored - 1024).astype(np.int16)


EXPECTED: dict[str, Callable[[Volume], list[Volume]]] = {
    **dict.fromkeys(
        (
            *("plain", "same_sop_uid", "instance_constant", "signed12_not_extended", "bits32"),
            *("overlay_in_high_bits", "monochrome1", "no_meta"),
        ),
        lambda v: [v],
    ),
    "two_acquisitions_half_step": lambda v: [v, v + 300],
    "three_phases_one_slice_lost": lambda v: [np.delete(v, 10, axis=0), v + 300, v + 600],
    "iop_jitter": lambda v: [v],
    "prone_iop": lambda v: [v[:, ::-1, ::-1]],
    "decubitus_iop": lambda v: [v[:, ::-1].transpose(0, 2, 1)],
    "non_square": lambda v: [v[:, :, ::2]],
    "rescale_per_slice": lambda v: [halved(v)],
    "one_coronal_in_axial": lambda v: [v[1:], v[0][::-1, None]],
}


@pytest.mark.slow
@pytest.mark.parametrize("case", sorted(EXPECTED))
def test_series(dicom: Path, chest: Volume, tmp_path: Path, case: str) -> None:
    """The right number of volumes, in the right order, voxel for voxel."""
    policy = {"gantry-tilt": "accept", "missing-slices": "accept"}
    _, made = read(dicom / case, tmp_path / "idx", **policy)
    assert made.rejects.is_empty()
    same(volumes(made), EXPECTED[case](chest))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "finding"),
    [
        ("iodine_mgml", "not-hu"),
        ("no_slope", "no-rescale"),
        ("signed_no_rescale", "no-rescale"),
    ],
)
def test_series_that_are_refused_by_name(
    dicom: Path, tmp_path: Path, case: str, finding: str
) -> None:
    index, made = read(dicom / case, tmp_path / "idx")
    assert index.items["findings"].to_list() == [[finding]]
    assert made.rejects["reason"][0].startswith(f"{finding}: ")


@pytest.mark.slow
def test_every_series_is_judged_here(dicom: Path) -> None:
    told = {"iodine_mgml", "no_slope", "signed_no_rescale", *EXPECTED}
    assert {path.name for path in dicom.iterdir()} <= told


@pytest.mark.parametrize(
    ("case", "findings"),
    [
        ("two_acquisitions_half_step", {"repeated-positions"}),
        ("three_phases_one_slice_lost", {"repeated-positions", "missing-slices"}),
        ("iop_jitter", {"gantry-tilt"}),
        ("same_sop_uid", {"repeated-uid"}),
        ("one_coronal_in_axial", {"mixed-series", "single-slice"}),
        ("plain", set()),
    ],
)
def test_what_is_said_of_series(dicom: Path, tmp_path: Path, case: str, findings: set) -> None:
    build(dicom / case, tmp_path / "idx", plugin)
    index = Index.open(tmp_path / "idx")
    assert set(index.items["findings"].explode().drop_nulls()) == findings
    assert index.rejects.is_empty()


# --- volume files --------------------------------------------------------------------------------


def by_nibabel(path: Path) -> Volume:
    raw = nib.as_closest_canonical(nib.load(path))
    return np.rint(np.asarray(raw.dataobj))[::-1, ::-1].transpose(2, 1, 0).astype(np.int16)


WHOLE = [
    *("ok", "mha", "mhd", "nrrd", "nhdr", "nrrd_ras", "nrrd_las", "nrrd_be", "slope_nan"),
    *("slope_zero", "metres", "qs"),
]


@pytest.mark.slow
@pytest.mark.parametrize("case", WHOLE)
def test_files(files: Path, abdomen: Volume, tmp_path: Path, case: str) -> None:
    _, made = read(files / case, tmp_path / "idx")
    assert made.rejects.is_empty()
    (found,) = volumes(made)
    assert np.array_equal(found, abdomen)


def test_a_file_of_bytes_with_a_scale(files: Path, tmp_path: Path) -> None:
    _, made = read(files / "slope", tmp_path / "idx")
    assert np.array_equal(volumes(made)[0], by_nibabel(files / "slope" / "slope.nii.gz"))


def test_what_is_no_number_is_air(files: Path, abdomen: Volume, tmp_path: Path) -> None:
    _, made = read(files / "nan", tmp_path / "idx")
    expected = np.where(abdomen < -1000, -1024, abdomen)
    assert np.array_equal(volumes(made)[0], expected)


def test_files_named_wrongly(files: Path, abdomen: Volume, tmp_path: Path) -> None:
    """A packed .nii is read, a resource fork of macOS is not looked at."""
    index, made = read(files / "odd", tmp_path / "idx")
    assert index.rejects.is_empty()
    same(volumes(made), [abdomen, abdomen])


@pytest.mark.parametrize(
    ("case", "finding"),
    [
        ("nocode", "no-affine"),
        ("nrrd_scanner", "no-affine"),
        ("unit", "not-hu"),
        ("zscore", "not-hu"),
    ],
)
def test_files_that_are_refused_by_name(
    files: Path, tmp_path: Path, case: str, finding: str
) -> None:
    _, made = read(files / case, tmp_path / "idx")
    assert made.rejects["reason"][0].startswith(f"{finding}: ")


@pytest.mark.parametrize("case", ["fourd", "rgb"])
def test_files_that_are_no_volume(files: Path, tmp_path: Path, case: str) -> None:
    build(files / case, tmp_path / "idx", plugin)
    assert Index.open(tmp_path / "idx").rejects["code"].to_list() == ["not-3d"]


@pytest.mark.parametrize(
    ("case", "finding"), [("metres", "converted-units"), ("qs", "two-origins")]
)
def test_what_is_said_of_files(files: Path, tmp_path: Path, case: str, finding: str) -> None:
    index, _ = read(files / case, tmp_path / "idx")
    assert set(index.items["findings"][0]) == {finding, "no-patient-id"}
    assert index.items["spacing_mm"][0] == pytest.approx(6.0, abs=1e-3)


@pytest.mark.parametrize(("layout", "label"), [("totalseg", 5), ("msd", 1)])
def test_layouts(files: Path, abdomen: Volume, tmp_path: Path, layout: str, label: int) -> None:
    """Three patients, three volumes, each with its masks, without an option."""
    index, made = read(files / layout, tmp_path / "idx")
    assert index.rejects.is_empty()
    assert len(index.items) == index.items["patient"].n_unique() == 3
    assert index.items["mask"].to_list() == [True] * 3
    same(volumes(made), [abdomen + k for k in range(3)])
    for item in made.items["id"]:
        mask = made.arrays(item)["mask0"]
        assert np.array_equal(mask, (abdomen > 100) * label)
