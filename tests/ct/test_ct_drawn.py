"""Masks in DICOM: SEG written by highdicom, RTSTRUCT by pydicom, on the slices they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from ct_synthetic import FRAME, ct_series
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage, generate_uid

from medcl.archive.index import Index, build
from medcl.archive.store import prepare
from medcl_ct import structures
from medcl_ct.plugin import plugin

AS_IT_IS = {"spacing": (0.0, 0.0, 0.0), "crop": "none"}
PLACES = [0.0, 2.0, 4.0, 6.0]


def slices(folder: Path) -> list[Dataset]:
    """The image's slices, sorted by place."""
    read = [pydicom.dcmread(path) for path in folder.glob("*.dcm")]
    return sorted(read, key=lambda one: one.ImagePositionPatient[2])


def seg(
    path: Path, images: list[Dataset], masks: np.ndarray, names: Sequence[str], kind: str = "BINARY"
) -> Path:
    """Write masks (N, R, C, S) as a DICOM SEG of these names."""
    for image in images:  # what every CT has, if only empty
        for name in ("PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate"):
            setattr(image, name, image.get(name, ""))
        image.StudyTime, image.ReferringPhysicianName = "", ""
    described = [
        hd.seg.SegmentDescription(
            number,
            name,
            codes.SCT.Organ,
            codes.SCT.Liver,
            hd.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for number, name in enumerate(names, start=1)
    ]
    written = hd.seg.Segmentation(
        images,
        masks,
        kind,
        described,
        generate_uid(),
        1,
        generate_uid(),
        1,
        "nobody",
        "synthetic",
        "1",
        "1",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    written.save_as(path)
    return path


def rtstruct(
    path: Path,
    images: list[Dataset],
    regions: dict[str, list[np.ndarray]],
    *,
    series: bool = True,
    kind: str = "CLOSED_PLANAR",
) -> Path:
    """Write contours (M, 3) by name."""
    out = Dataset()
    out.file_meta = FileMetaDataset()
    out.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    out.file_meta.MediaStorageSOPClassUID = out.SOPClassUID = RTStructureSetStorage
    out.file_meta.MediaStorageSOPInstanceUID = out.SOPInstanceUID = generate_uid()
    out.Modality, out.PatientID = "RTSTRUCT", images[0].PatientID
    out.StructureSetROISequence, out.ROIContourSequence = [], []
    for number, (name, contours) in enumerate(regions.items(), start=1):
        roi, region = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName = number, name
        region.ReferencedROINumber, region.ContourSequence = number, []
        for points in contours:
            one = Dataset()
            one.ContourGeometricType, one.NumberOfContourPoints = kind, len(points)
            one.ContourData = [f"{value:.4f}" for value in points.ravel()]
            region.ContourSequence.append(one)
        out.StructureSetROISequence.append(roi)
        out.ROIContourSequence.append(region)
    frame, study, one = Dataset(), Dataset(), Dataset()
    frame.FrameOfReferenceUID = images[0].FrameOfReferenceUID
    if series:
        one.SeriesInstanceUID = images[0].SeriesInstanceUID
        study.RTReferencedSeriesSequence = [one]
        frame.RTReferencedStudySequence = [study]
    out.ReferencedFrameOfReferenceSequence = [frame]
    path.parent.mkdir(parents=True, exist_ok=True)
    out.save_as(path, enforce_file_format=True)
    return path


def square(low: float, high: float, z: float) -> np.ndarray:
    """In mm."""
    corners = [(low, low), (high, low), (high, high), (low, high)]
    return np.array([(x, y, z) for x, y in corners])


def index(folder: Path, out: Path) -> Index:
    build(folder, out, plugin)
    return Index.open(out)


def masked(found: Index) -> np.ndarray:
    made = prepare(found, plugin, AS_IT_IS)
    assert made.rejects.is_empty(), made.rejects
    return np.asarray(made.arrays(made.items["id"][0])["mask0"])


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.integers(0, 99),
    st.booleans(),
    st.sampled_from([[1, 0, 0, 0, 1, 0], [-1, 0, 0, 0, -1, 0], [0, 1, 0, -1, 0, 0]]),
    st.sampled_from(["BINARY", "LABELMAP"]),
)
def test_a_seg_is_laid_voxel_for_voxel(
    tmp_path_factory: pytest.TempPathFactory, seed: int, packed: bool, facing: list[int], kind: str
) -> None:
    """As highdicom reads it back; in any orientation, and with frames that are left out."""
    root = tmp_path_factory.mktemp("seg")
    ct_series(root / "a" / "ct", PLACES, ImageOrientationPatient=facing)
    images = slices(root / "a" / "ct")
    noise = np.random.default_rng(seed)
    which = noise.integers(0, 3, (4, 16, 16)).astype(np.uint8)
    which[int(noise.integers(4))] = 0  # an empty frame
    masks = np.stack([which == 1, which == 2], axis=-1).astype(np.uint8)
    path = seg(root / "a" / "seg" / "x.dcm", images, masks, ["Liver", "Left kidney"], kind)
    if packed:
        import shutil

        shutil.make_archive(str(root / "b" / "x"), "zip", root / "a")
    found = index(root / ("b" if packed else "a"), root / "idx")
    assert found.items["mask"].to_list() == [True]
    mine = masked(found)
    read = hd.seg.segread(path).get_volume(combine_segments=True)
    by_highdicom = np.asarray(read.array)
    plain = np.select(
        [which == 1, which == 2], [structures.code("liver"), structures.code("kidney_left")], 0
    )
    upright = {(1, 0): plain, (-1, 0): plain[:, ::-1, ::-1]}.get((facing[0], facing[1]))
    if upright is None:  # rows run along y
        upright = np.flip(plain.transpose(0, 2, 1), axis=2)
    assert np.array_equal(mine, upright)
    assert np.count_nonzero(by_highdicom) == np.count_nonzero(mine)


def test_names_of_segments_stay_private(tmp_path: Path) -> None:
    ct_series(tmp_path / "a", PLACES)
    images = slices(tmp_path / "a")
    masks = np.zeros((4, 16, 16, 2), np.uint8)
    masks[1, 4:8, 4:8, 0], masks[2, 4:8, 4:8, 1] = 1, 1
    seg(tmp_path / "a" / "x.dcm", images, masks, ["Tumour of Mrs Miller", "Aorta"])
    found = index(tmp_path / "a", tmp_path / "idx")
    assert "mask-names" in found.items["findings"][0]
    values = np.unique(masked(found)).tolist()
    assert values == [0, structures.code("aorta"), structures.LAST + 1]
    public = [p for p in (tmp_path / "idx").rglob("*") if p.is_file() and "private" not in p.parts]
    assert not any(b"Miller" in p.read_bytes() for p in public)


@pytest.mark.parametrize("kind", ["CLOSED_PLANAR", "CLOSEDPLANAR_XOR"])
def test_contours_are_filled_with_their_holes(tmp_path: Path, kind: str) -> None:
    """Pixels of 1.5 mm: a square of 12 × 12 of them with a hole of 4 × 4, on two slices."""
    ct_series(tmp_path / "a", PLACES)
    images = slices(tmp_path / "a")
    regions = {
        "liver": [square(2.25, 20.25, z) for z in (2.0, 4.0)]
        + [square(8.25, 14.25, z) for z in (2.0, 4.0)]
    }
    rtstruct(tmp_path / "a" / "x.dcm", images, regions, kind=kind)
    expected = np.zeros((4, 16, 16), dtype=np.uint8)
    expected[1:3, 2:14, 2:14] = structures.code("liver")
    expected[1:3, 6:10, 6:10] = 0
    assert np.array_equal(masked(index(tmp_path / "a", tmp_path / "idx")), expected)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 999))
def test_contours_agree_with_a_winding_count(seed: int) -> None:
    """A random star against the angle that it turns round each pixel."""
    from medcl_ct.drawn import Grid, _inside

    noise = np.random.default_rng(seed)
    angle = np.sort(noise.uniform(0, 2 * np.pi, 12))
    radius = noise.uniform(4, 15, 12)
    star = np.stack([20 + radius * np.cos(angle), 20 + radius * np.sin(angle)], axis=1)
    grid = Grid(np.zeros((1, 3)), np.array([1.0, 0, 0, 0, 1, 0]), (1.25, 0.8), (32, 48))
    mine = _inside(np.column_stack([star, np.zeros(12)]), grid)
    y, x = np.mgrid[:32, :48]
    to = star[:, None, None] - np.stack([x * 0.8, y * 1.25], axis=-1)
    turn = np.arctan2(to[..., 1], to[..., 0])
    step = np.diff(np.concatenate([turn, turn[:1]]), axis=0)
    winding = np.abs(((step + np.pi) % (2 * np.pi) - np.pi).sum(axis=0)) > np.pi
    assert np.array_equal(mine, winding)


def test_contours_on_every_second_slice_are_a_finding(tmp_path: Path) -> None:
    ct_series(tmp_path / "a", [2.0 * n for n in range(8)])
    images = slices(tmp_path / "a")
    regions = {"liver": [square(2.25, 20.25, z) for z in (2.0, 6.0, 10.0)]}
    rtstruct(tmp_path / "a" / "x.dcm", images, regions)
    made = prepare(index(tmp_path / "a", tmp_path / "idx"), plugin, AS_IT_IS)
    assert made.findings["sparse-contours"] == 1


def test_a_mask_without_its_image_is_told(tmp_path: Path) -> None:
    ct_series(tmp_path / "a", PLACES)
    ct_series(tmp_path / "b", PLACES, SeriesInstanceUID=generate_uid(), PatientID="OTHER")
    masks = np.ones((4, 16, 16, 1), np.uint8)
    seg(tmp_path / "a" / "x.dcm", slices(tmp_path / "b"), masks, ["Liver"])
    found = index(tmp_path / "a", tmp_path / "idx")
    assert found.items["mask"].to_list() == [False]
    assert found.rejects["code"].to_list() == ["mask-alone"]


def test_contours_that_name_no_series_go_by_their_frame(tmp_path: Path) -> None:
    ct_series(tmp_path / "a" / "one", PLACES)
    uids = {"SeriesInstanceUID": generate_uid(), "FrameOfReferenceUID": generate_uid()}
    ct_series(tmp_path / "a" / "two", PLACES, **uids)
    images = slices(tmp_path / "a" / "one")
    assert images[0].FrameOfReferenceUID == FRAME
    rtstruct(tmp_path / "a" / "x.dcm", images, {"liver": [square(2, 20, 2.0)]}, series=False)
    found = index(tmp_path / "a", tmp_path / "idx")
    with_mask = found.items.filter(found.items["mask"])
    assert with_mask["findings"].to_list() == [["mask-by-frame"]]
    more = {"SeriesInstanceUID": generate_uid(), "ConvolutionKernel": "B70f"}
    ct_series(tmp_path / "a" / "three", PLACES, **more)
    found = index(tmp_path / "a", tmp_path / "idx2")
    assert found.rejects["code"].to_list() == ["mask-alone"], "two images share the frame"


def test_of_several_passes_the_one_that_is_named_has_the_mask(tmp_path: Path) -> None:
    ct_series(tmp_path / "a" / "1", PLACES, AcquisitionNumber=1)
    ct_series(tmp_path / "a" / "2", PLACES, AcquisitionNumber=2)
    masks = np.ones((4, 16, 16, 1), np.uint8)
    seg(tmp_path / "a" / "x.dcm", slices(tmp_path / "a" / "2"), masks, ["Liver"])
    found = index(tmp_path / "a", tmp_path / "idx")
    assert sorted(found.items["mask"]) == [False, True]
    (item,) = found.items.filter(found.items["mask"])["id"]
    assert sum("/2/" in f"/{file}" or file.startswith("2/") for file in found.files(item)) == 4


def test_a_mask_beside_its_image_is_refused(tmp_path: Path) -> None:
    """The series that it names lies elsewhere: of another scan under one UID."""
    ct_series(tmp_path / "a", PLACES)
    away = [200.0 + z for z in PLACES]
    ct_series(tmp_path / "b", away)
    masks = np.ones((4, 16, 16, 1), np.uint8)
    images = slices(tmp_path / "b")
    seg(tmp_path / "a" / "x.dcm", images, masks, ["Liver"])
    made = prepare(index(tmp_path / "a", tmp_path / "idx"), plugin, AS_IT_IS)
    assert "mask-misfit" in made.rejects["reason"][0]
