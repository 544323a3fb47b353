"""Prepared volumes against nibabel and SimpleITK, and what each policy does to a problem."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import polars as pl
import pydicom
import pytest
import SimpleITK as sitk
from ct_synthetic import ct_series, ct_slice
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import EnhancedCTImageStorage, ExplicitVRLittleEndian

from medcl.archive.index import Index, build
from medcl.archive.store import Prepared, prepare
from medcl.errors import UsageError
from medcl_ct.plugin import plugin
from medcl_ct.resample import Grid, over, uneven, weights

AS_IT_IS: dict[str, Any] = {"spacing": (0.0, 0.0, 0.0), "crop": "none", "clip": None}


def prepared(archive: Path, out: Path, **spec: Any) -> Prepared:
    build(archive, out, plugin)
    return prepare(Index.open(out), plugin, {**AS_IT_IS, **spec})


def only(made: Prepared) -> dict[str, np.ndarray]:
    assert len(made.items) == 1, made.rejects
    return dict(made.arrays(made.items["id"][0]))


def by_reference(image: sitk.Image) -> tuple[np.ndarray, np.ndarray]:
    """An image of SimpleITK as values (Z, Y, X) and affine (z, y, x) → LPS mm."""
    affine = np.eye(4)
    direction = np.array(image.GetDirection()).reshape(3, 3)
    affine[:3, :3] = (direction * np.array(image.GetSpacing()))[:, ::-1]
    affine[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image), affine


# --- against other readers ------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["b40f", "b70f"])
def test_a_dicom_series_as_simpleitk_reads_it(unpacked: Path, tmp_path: Path, kernel: str) -> None:
    folder = unpacked / "lung_a0002" / kernel
    mine = only(prepared(folder, tmp_path / "idx"))
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    values, affine = by_reference(reader.Execute())
    assert np.array_equal(mine["hu0"], values)
    assert np.allclose(mine["affine0"], affine, atol=1e-4)


def test_the_bundled_series_slice_by_slice(siemens: Path, tmp_path: Path) -> None:
    """JPEG 2000; GDCM needs UIDs for a series, so pydicom's own order and rescale are compared."""
    mine = only(prepared(siemens, tmp_path / "idx"))
    slices = sorted(
        (pydicom.dcmread(p) for p in siemens.iterdir()), key=lambda d: d.ImagePositionPatient[2]
    )
    for n, one in enumerate(slices):
        assert np.array_equal(mine["hu0"][n], one.pixel_array.astype(int) - 1024)
        place = mine["affine0"] @ [n, 0, 0, 1]
        assert np.allclose(place[:3], one.ImagePositionPatient, atol=1e-3)


@pytest.mark.parametrize("name", ["aorta_ct.nii.gz", "abdomen_ct.nii.gz"])
def test_a_nifti_as_nibabel_reads_it(shared_data: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "a").mkdir()
    shutil.copy(shared_data / "ct" / name, tmp_path / "a" / name)
    mine = only(prepared(tmp_path / "a", tmp_path / "idx"))
    image: Any = nib.as_closest_canonical(nib.load(shared_data / "ct" / name))  # R, A, S
    values = np.asarray(image.dataobj)[::-1, ::-1].transpose(2, 1, 0)  # to S, P, L
    assert np.abs(mine["hu0"] - values).max() <= 0.5
    to_ras = np.diag([-1, -1, 1, 1])
    for corner in ((0, 0, 0), tuple(n - 1 for n in values.shape)):
        z, y, x = corner
        voxel = [image.shape[0] - 1 - x, image.shape[1] - 1 - y, z, 1]
        expected = image.affine @ voxel
        assert np.allclose(to_ras @ mine["affine0"] @ [*corner, 1], expected, atol=1e-3)


@pytest.mark.slow
def test_a_nifti_and_the_dicom_it_was_made_of(unpacked: Path, tmp_path: Path) -> None:
    """SimpleITK writes the series as NIfTI and NRRD; all three give the same volume."""
    folder = unpacked / "lung_a0002" / "b40f"
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    dicom = only(prepared(folder, tmp_path / "dicom"))
    for name in ("x.nii.gz", "x.nrrd", "x.nhdr", "x.nii"):
        (tmp_path / name / "a").mkdir(parents=True)
        sitk.WriteImage(image, str(tmp_path / name / "a" / name))
        file = only(prepared(tmp_path / name / "a", tmp_path / name / "idx"))
        assert np.array_equal(file["hu0"], dicom["hu0"]), name
        assert np.allclose(file["affine0"], dicom["affine0"], atol=1e-3), name


@pytest.mark.slow
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0), (2, 1, 0)])
@pytest.mark.parametrize("flips", [(), (0,), (2,), (0, 1, 2)])
def test_any_orientation_comes_upright(
    shared_data: Path, tmp_path: Path, order: tuple[int, ...], flips: tuple[int, ...]
) -> None:
    """A volume stored along other axes is the same volume."""
    image: Any = nib.load(shared_data / "ct" / "aorta_ct.nii.gz")
    values = np.asarray(image.dataobj)[::3, ::4, ::4]
    affine = image.affine @ np.diag([3, 4, 4, 1])
    turned = np.flip(values.transpose(order), flips)
    moved = affine[:, [*order, 3]].copy()
    for axis in flips:
        moved[:3, 3] += moved[:3, axis] * (turned.shape[axis] - 1)
        moved[:3, axis] *= -1
    found = []
    for name, data, matrix in (("one", values, affine), ("two", turned, moved)):
        (tmp_path / name).mkdir()
        nib.save(nib.Nifti1Image(data, matrix), tmp_path / name / "x.nii.gz")
        found.append(only(prepared(tmp_path / name, tmp_path / f"{name}-idx")))
    assert np.array_equal(found[0]["hu0"], found[1]["hu0"])
    assert np.allclose(found[0]["affine0"], found[1]["affine0"], atol=1e-3)


def test_resampled_as_simpleitk_interpolates(shared_data: Path, tmp_path: Path) -> None:
    """Enlarged (no anti-aliasing takes part), it is linear interpolation on the grid it names."""
    name = "abdomen_ct.nii.gz"
    (tmp_path / "a").mkdir()
    shutil.copy(shared_data / "ct" / name, tmp_path / "a" / name)
    mine = only(prepared(tmp_path / "a", tmp_path / "idx", spacing=(2.0, 1.5, 1.5)))
    image = sitk.ReadImage(str(shared_data / "ct" / name), sitk.sitkFloat32)
    z, y, x = mine["hu0"].shape
    resampler = sitk.ResampleImageFilter()
    resampler.SetInterpolator(sitk.sitkLinear)
    resampler.SetSize([x, y, z])
    resampler.SetOutputSpacing([1.5, 1.5, 2.0])
    resampler.SetOutputOrigin(mine["affine0"][:3, 3].tolist())
    resampler.SetOutputDirection([1, 0, 0, 0, 1, 0, 0, 0, 1])
    expected = sitk.GetArrayFromImage(resampler.Execute(image))
    inner = (slice(2, -2),) * 3
    assert np.abs(mine["hu0"][inner] - expected[inner]).max() <= 2  # rounded twice


def test_shrinking_averages(shared_data: Path, tmp_path: Path) -> None:
    """Noise falls as an average's does; picking every fourth voxel would keep it."""
    rng = np.random.default_rng(0)
    noise = rng.normal(-500, 100, (64, 64, 64)).astype(np.int16)  # synthetic
    (tmp_path / "a").mkdir()
    nib.save(nib.Nifti1Image(noise, np.eye(4)), tmp_path / "a" / "x.nii.gz")
    mine = only(prepared(tmp_path / "a", tmp_path / "idx", spacing=(4.0, 4.0, 4.0)))
    assert mine["hu0"].shape == (16, 16, 16)
    assert abs(mine["hu0"].mean() + 500) < 2
    assert mine["hu0"].std() < 20


# --- problems and policies ------------------------------------------------------------------------


@pytest.fixture(scope="session")
def head(unpacked: Path) -> Path:
    return unpacked / "ge"


def test_the_tilted_head_is_split_and_straightened(head: Path, tmp_path: Path) -> None:
    mine = only(prepared(head, tmp_path / "idx"))
    assert [mine[f"hu{n}"].shape[0] for n in (0, 1)] == [14, 14]
    steps = [np.linalg.norm(mine[f"affine{n}"][:3, :3], axis=0) for n in (0, 1)]
    assert np.allclose([s[0] for s in steps], [4.0, 7.0], atol=0.01)
    for n in (0, 1):
        axes = mine[f"affine{n}"][:3, :3] / steps[n]
        assert np.allclose(axes.T @ axes, np.eye(3), atol=1e-3)  # no shear is left
    # Every stored pixel is where its own header says it is.
    first = pydicom.dcmread(head / "05.dcm.dcm")
    row, column = 250, 200
    place = np.array(first.ImagePositionPatient, dtype=float)
    place += column * first.PixelSpacing[1] * np.array(first.ImageOrientationPatient[:3])
    place += row * first.PixelSpacing[0] * np.array(first.ImageOrientationPatient[3:])
    voxel = np.linalg.solve(mine["affine0"], [*place, 1])[:3]
    at = np.rint(voxel).astype(int)
    assert abs(voxel[0] - at[0]) < 0.02
    near = mine["hu0"][at[0], at[1] - 1 : at[1] + 2, at[2] - 1 : at[2] + 2]
    stored = first.pixel_array[row - 1 : row + 2, column - 1 : column + 2]
    assert near.min() - 5 <= np.median(stored) <= near.max() + 5


def test_the_tilted_head_as_it_was_scanned(head: Path, tmp_path: Path) -> None:
    """Accepting everything is possible, and then nothing is resampled."""
    accept = dict.fromkeys(("gantry-tilt", "non-uniform-spacing", "mixed-thickness"), "accept")
    mine = only(prepared(head, tmp_path / "idx", policy=accept))
    stored = pydicom.dcmread(head / "01.dcm.dcm").pixel_array
    inside = stored > -1500  # its padding
    assert np.array_equal(mine["hu0"][0][inside], stored[inside])
    assert mine["hu0"].shape[0] == 28


def test_the_tilted_head_on_one_even_grid(head: Path, tmp_path: Path) -> None:
    policy = {"non-uniform-spacing": "resample", "mixed-thickness": "accept"}
    mine = only(prepared(head, tmp_path / "idx", policy=policy, spacing=(4.0, 1.0, 1.0)))
    assert "hu1" not in mine
    assert abs(mine["hu0"].shape[0] * 4.0 - (13 * 4.0 + 1.08 + 13 * 7.0 + 4.0)) < 5


@pytest.mark.parametrize("name", ["gantry-tilt", "non-uniform-spacing", "mixed-thickness"])
def test_the_tilted_head_is_refused_by_name(head: Path, tmp_path: Path, name: str) -> None:
    made = prepared(head, tmp_path / "idx", policy={name: "reject"})
    (reason,) = made.rejects["reason"]
    assert reason.startswith(f"{name}: this series ")
    assert f"prepare.policy.{name}=" in reason


@pytest.mark.slow
def test_values_that_are_no_hu_are_refused(indexed: Index) -> None:
    made = prepare(indexed, plugin, {"spacing": (4.0, 4.0, 4.0)})
    (bad,) = made.rejects["id"]
    assert indexed.locate(bad) == "head_avm_ct.nii.gz"
    assert made.rejects["reason"][0].startswith("not-hu: ")
    accepted = prepare(
        indexed, plugin, {"spacing": (4.0, 4.0, 4.0), "policy": {"not-hu": "accept"}}
    )
    assert accepted.rejects.is_empty()


def test_no_hu_is_noticed_in_the_values_too(tmp_path: Path) -> None:
    """Numbers that could be HU by their type, and are not (synthetic)."""
    (tmp_path / "a").mkdir()
    nib.save(nib.Nifti1Image(np.full((8, 8, 8), 40, np.int16), np.eye(4)), tmp_path / "a" / "x.nii")
    made = prepared(tmp_path / "a", tmp_path / "idx")
    assert made.rejects["reason"][0].startswith("not-hu: ")


def test_a_gap_splits_or_is_bridged(tmp_path: Path) -> None:
    folder = ct_series(tmp_path / "a", [0, 2, 4, 8, 10])
    mine = only(prepared(folder, tmp_path / "one"))
    assert [mine["hu0"].shape[0], mine["hu1"].shape[0]] == [3, 2]
    assert mine["affine1"][2, 3] == 8.0
    bridged = only(prepared(folder, tmp_path / "two", policy={"missing-slices": "resample"}))
    assert bridged["hu0"].shape[0] == 6


def test_rescale_belongs_to_the_slice(tmp_path: Path) -> None:
    ct_slice(tmp_path / "a" / "1", 0, RescaleIntercept=-1024)
    ct_slice(tmp_path / "a" / "2", 2, RescaleIntercept=-1000, RescaleSlope=2)
    mine = only(prepared(tmp_path / "a", tmp_path / "idx"))
    assert mine["hu0"][:, 0, 0].tolist() == [-1000, -952]


def test_padding_is_air_and_proves_nothing(tmp_path: Path) -> None:
    """Padding far below air must not pass for air: these values are no HU (synthetic)."""
    stored = np.full((16, 16), 3000, np.int16)
    stored[:4] = -2000
    tags = {"PixelData": stored.tobytes(), "PixelRepresentation": 1, "PixelPaddingValue": -2000}
    folder = ct_series(tmp_path / "a", [0, 2, 4], RescaleIntercept=0, **tags)
    made = prepared(folder, tmp_path / "one")
    assert made.rejects["reason"][0].startswith("not-hu: ")
    mine = only(prepared(folder, tmp_path / "two", policy={"not-hu": "accept"}))
    assert set(np.unique(mine["hu0"])) == {-1024, 3000}


def test_unknown_findings_and_policies_are_refused(siemens: Path, tmp_path: Path) -> None:
    """At once, not once an item: it is the recipe that is wrong."""
    with pytest.raises(UsageError, match="Did you mean 'gantry-tilt'"):
        prepared(siemens, tmp_path / "idx", policy={"gantry-tlit": "reject"})
    with pytest.raises(UsageError, match="it can be reject, accept"):
        prepared(siemens, tmp_path / "idx", policy={"not-hu": "split"})
    with pytest.raises(UsageError, match=r"policy"):
        prepared(siemens, tmp_path / "idx", policy={"gantry-tilt": "ignore"})


# --- other forms ----------------------------------------------------------------------------------


def enhanced(path: Path, places: list[float]) -> Path:
    """A synthetic Enhanced CT: real frames would be welcome here."""
    single = pydicom.dcmread(ct_slice(path.with_suffix(".tmp"), 0.0))
    path.with_suffix(".tmp").unlink()
    dataset = Dataset()
    dataset.update(single)
    dataset.file_meta = single.file_meta
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    dataset.NumberOfFrames = len(places)
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        delattr(dataset, name)
    for name in ("RescaleSlope", "RescaleIntercept", "SliceThickness"):
        delattr(dataset, name)
    frame = single.pixel_array
    dataset.PixelData = b"".join((frame + int(z)).astype(np.uint16).tobytes() for z in places)
    shared, measures, plane, transform = Dataset(), Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [1.5, 1.5], 2
    plane.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    transform.RescaleSlope, transform.RescaleIntercept, transform.RescaleType = 1, -1024, "HU"
    shared.PixelMeasuresSequence = Sequence([measures])
    shared.PlaneOrientationSequence = Sequence([plane])
    shared.PixelValueTransformationSequence = Sequence([transform])
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    frames = []
    for z in places:
        one, position = Dataset(), Dataset()
        position.ImagePositionPatient = [0, 0, z]
        one.PlanePositionSequence = Sequence([position])
        frames.append(one)
    dataset.PerFrameFunctionalGroupsSequence = Sequence(frames)
    dataset.save_as(path, enforce_file_format=True)
    return path


def test_an_enhanced_ct_is_a_volume(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    enhanced(tmp_path / "a" / "x.dcm", [4.0, 0.0, 2.0])
    build(tmp_path / "a", tmp_path / "idx", plugin)
    index = Index.open(tmp_path / "idx")
    assert index.items["findings"].to_list() == [["multi-frame"]]
    mine = only(prepare(index, plugin, AS_IT_IS))
    assert mine["hu0"][:, 0, 0].tolist() == [-1000, -998, -996]
    assert mine["affine0"][2].tolist() == [2.0, 0.0, 0.0, 0.0]


def test_an_enhanced_ct_of_two_passes_is_two_items(tmp_path: Path) -> None:
    """Nothing but the order of its frames tells them apart."""
    (tmp_path / "a").mkdir()
    enhanced(tmp_path / "a" / "x.dcm", [0.0, 2.0, 4.0, 0.0, 2.0, 4.0])
    build(tmp_path / "a", tmp_path / "idx", plugin)
    index = Index.open(tmp_path / "idx")
    assert index.items["slices"].to_list() == [3, 3]
    assert index.items["findings"].to_list() == [["multi-frame", "repeated-positions"]] * 2


@pytest.mark.slow
def test_archives_give_the_same_arrays(unpacked: Path, shared_data: Path, tmp_path: Path) -> None:
    """A series read from tar.xz and from plain files."""
    (tmp_path / "a").mkdir()
    packed = shared_data / "ct" / "series_ge_head.tar.xz"
    shutil.copy(packed, tmp_path / "a" / packed.name)
    one = only(prepared(tmp_path / "a", tmp_path / "one"))
    two = only(prepared(unpacked / "ge", tmp_path / "two"))
    assert one.keys() == two.keys()
    assert all(np.array_equal(one[name], two[name]) for name in one)


@pytest.mark.slow
def test_a_mask_lies_on_its_image(indexed: Index) -> None:
    made = prepare(indexed, plugin, {"spacing": (4.0, 4.0, 4.0), "policy": {"not-hu": "accept"}})
    item = made.items.filter(pl.col("mask"))["id"][0]
    arrays = made.arrays(item)
    assert arrays["mask0"].shape == arrays["hu0"].shape
    assert set(np.unique(arrays["mask0"])) == {0, 1}
    inside = arrays["hu0"][arrays["mask0"] == 1]
    assert 100 < np.median(inside) < 500  # contrast in the aorta
    volume = (arrays["mask0"] == 1).sum() * 4.0**3
    seg: Any = nib.load(indexed.archive / "aorta_seg.nii.gz")
    assert abs(volume / (np.asarray(seg.dataobj).sum() * 1.5**3) - 1) < 0.05


def test_the_body_is_kept_and_the_table_cut(unpacked: Path, tmp_path: Path) -> None:
    folder = unpacked / "lung_a0002" / "b40f"
    whole = only(prepared(folder, tmp_path / "idx"))
    cropped = only(prepared(folder, tmp_path / "idx", crop="body", air="cut"))
    assert cropped["hu0"].shape[0] == whole["hu0"].shape[0]
    assert cropped["hu0"].size < 0.9 * whole["hu0"].size
    soft = (whole["hu0"] > -100) & (whole["hu0"] < 200)
    kept = (cropped["hu0"] > -100) & (cropped["hu0"] < 200)
    assert 0.93 < kept.sum() / soft.sum() <= 1
    shift = np.rint(np.linalg.solve(whole["affine0"], cropped["affine0"][:, 3])[:3]).astype(int)
    there = tuple(slice(s, s + n) for s, n in zip(shift, cropped["hu0"].shape, strict=True))
    same = cropped["hu0"] == whole["hu0"][there]
    assert same[cropped["hu0"] > -1024].all()


MEMORY = """
import resource, sys
from pathlib import Path
import pydicom
from medcl_ct.prepare import prepare
files = sorted(p.name for p in Path(sys.argv[1]).iterdir())
made = prepare(Path(sys.argv[1]), files, {}, spacing=(0.0, 0.0, 0.0), crop="body")
print(made["hu0"].shape[0], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
      sum(int(l.split()[1]) for l in open("/proc/self/smaps_rollup") if l.startswith("Anonymous")))
"""


@pytest.mark.long
@pytest.mark.slow
def test_two_thousand_slices_in_little_memory(tmp_path: Path) -> None:
    """2,000 slices of 512 × 512 (1 GB as int16): what the process itself holds stays small."""
    tags = {"ImagePositionPatient": ["0", "0", "1000.0"]}
    data = ct_slice(tmp_path / "one", 0.0, shape=(512, 512), **tags).read_bytes()
    folder = tmp_path / "a"
    folder.mkdir()
    assert data.count(b"0\\0\\1000.0") == 1
    for n in range(2000):  # the same pixels at another height
        place = f"0\\0\\{1000 + 0.5 * n:.1f}".encode()
        (folder / f"{n:04d}").write_bytes(data.replace(b"0\\0\\1000.0", place))
    run = subprocess.run(
        [sys.executable, "-c", MEMORY, str(folder)], capture_output=True, text=True, check=True
    )
    shutil.rmtree(folder)
    slices, _, anonymous = map(int, run.stdout.split())
    assert slices == 2000
    assert anonymous < 400_000  # kB; the rest of the resident pages belong to a file


# --- grids ----------------------------------------------------------------------------------------


def test_grids_keep_the_outer_edges() -> None:
    even = over(0.0, 99.0, 1.0, 4.0)  # 100 mm in 25 cells
    assert (even.count, even.first - 2, even.places[-1] + 2) == (25, -0.5, 99.5)
    odd = over(0.0, 99.0, 1.0, 3.0)  # 33 cells cover 99 of 100 mm, about the same middle
    assert (odd.count, odd.first - 1.5, odd.places[-1] + 1.5) == (33, 0.0, 99.0)


def test_weights_are_means_and_keep_lines() -> None:
    source = Grid(3.0, 0.7, 50)
    for step in (0.35, 0.7, 1.0, 2.1):
        target = over(source.places[0], source.places[-1], 0.7, step)
        matrix = weights(source, target)
        assert np.allclose(matrix.sum(axis=1), 1)
        inner = slice(3, -3)
        assert np.allclose((matrix @ source.places)[inner], target.places[inner], atol=0.02 * step)


def test_uneven_places_are_interpolated() -> None:
    places = np.array([0.0, 4.0, 8.0, 9.0, 16.0, 23.0])
    target = Grid(0.0, 1.0, 24)
    assert np.allclose(uneven(places, target) @ places, target.places)


# --- frames ---------------------------------------------------------------------------------------


def framed(low: int, frame: int, seed: int = 0) -> np.ndarray:
    """A box of noisy tissue in a frame of one value: (Z, Y, X)."""
    hu = np.full((12, 40, 40), frame, dtype=np.int16)
    noise = np.random.default_rng(seed).normal(40, 30, (12, 24, 24))
    hu[:, low : low + 24, 8:32] = noise
    return hu


@pytest.mark.parametrize("value", [-1024, 0, -3000])
@pytest.mark.parametrize("low", [0, 8, 16])
def test_a_crop_in_a_black_frame_is_noticed(tmp_path: Path, value: int, low: int) -> None:
    """Whatever is black; what would pass for body is air by then."""
    hu = framed(low, value)
    hu[0, low + 2, 10] = -1000  # not in HU otherwise
    image = nib.Nifti1Image(hu.transpose(2, 1, 0)[::-1, ::-1], np.diag([2.0, 2.0, 3.0, 1.0]))
    (tmp_path / "a").mkdir()
    nib.save(image, tmp_path / "a" / "scan_ct.nii.gz")
    build(tmp_path / "a", tmp_path / "idx", plugin)
    made = prepare(Index.open(tmp_path / "idx"), plugin, AS_IT_IS)
    assert made.findings == {"black-frame": 1}
    mine = only(made)["hu0"]
    box = np.zeros(mine.shape, dtype=bool)
    box[:, low : low + 24, 8:32] = True
    assert set(np.unique(mine[~box])) == {-1024 if value == 0 else value}
    assert np.array_equal(mine[box], np.clip(hu, -1024, 3071)[box])
    refused = prepare(
        Index.open(tmp_path / "idx"), plugin, {**AS_IT_IS, "policy": {"black-frame": "reject"}}
    )
    assert refused.items.is_empty()


def test_air_around_a_patient_is_no_frame() -> None:
    """Clipped to one value, as many archives are: the body ends before it does."""
    from medcl_ct import frame

    z, y, x = np.mgrid[:10, :64, :64]
    body = (y - 32) ** 2 + (x - 32) ** 2 < 20**2
    hu = np.where(body, 40 + (x + y + z) % 7, -1024).astype(np.int16)
    assert frame.inside(hu) is None
