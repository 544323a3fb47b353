"""CT, MR and PET as kinds of their own; several volumes in one enhanced file. All synthetic."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
from ct_synthetic import FRAME, SERIES, STUDY, ct_series, ct_slice
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from medcl.archive.index import Index, build
from medcl.archive.store import Prepared, prepare
from medcl_ct import kinds, suv
from medcl_ct.plugin import plugin

AS_IT_IS: dict[str, Any] = {"spacing": (0.0, 0.0, 0.0), "crop": "none", "clip": None}
CT, MR, PET = (f"1.2.840.10008.5.1.4.1.1.{n}" for n in ("2", "4", "128"))
ENHANCED = {"ct": f"{CT}.1", "mr": f"{MR}.1", "pet": "1.2.840.10008.5.1.4.1.1.130"}


def index(folder: Path, out: Path) -> Index:
    build(folder, out, plugin)
    return Index.open(out)


def volumes(made: Prepared) -> list[np.ndarray]:
    return [np.asarray(made.arrays(item)["hu0"]) for item in made.items["id"]]


def mr_series(folder: Path, places: list[float], seed: int = 0, **tags: Any) -> list[np.ndarray]:
    """MR: no rescale, values of no unit. Returns what is stored."""
    noise = np.random.default_rng(seed)
    stored = []
    for n, z in enumerate(places):
        values = noise.integers(0, 1500, (16, 16)).astype(np.uint16)
        own = {"Modality": "MR", "SOPClassUID": MR, "RescaleSlope": None, "RescaleIntercept": None}
        own |= {"ConvolutionKernel": None, "InstanceNumber": n + 1, "PixelData": values.tobytes()}
        own |= {"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND"]}
        ct_slice(folder / f"{z:g}-{seed}.dcm", z, **{**own, **tags})
        stored.append(values)
    return stored


# --- a recipe takes its own kind -----------------------------------------------------------------


def test_a_recipe_takes_its_own_kind_alone(tmp_path: Path) -> None:
    ct_series(tmp_path / "a" / "one", [0, 2, 4])
    uids = {"SeriesInstanceUID": generate_uid(), "PatientID": "TWO"}
    stored = mr_series(tmp_path / "a" / "two", [0, 3, 6], **uids)
    found = index(tmp_path / "a", tmp_path / "idx")
    assert sorted(found.items["modality"]) == ["ct", "mr"]
    assert found.items.filter(found.items["modality"] == "mr")["findings"].to_list() == [[]]
    ct = prepare(found, plugin, AS_IT_IS)
    assert ct.items["modality"].to_list() == ["ct"]
    assert "prepare.modality=mr" in ct.rejects["reason"][0]
    mr = prepare(found, plugin, {**AS_IT_IS, "modality": "mr"})
    assert mr.items["modality"].to_list() == ["mr"]
    assert "prepare.modality=ct" in mr.rejects["reason"][0]
    values = np.stack(stored).astype(np.float64)
    low, high = np.percentile(values, [0.5, 99.5])
    expected = np.rint((values - low) * (2000 / (high - low)) - 1000)
    assert np.abs(volumes(mr)[0] - expected).max() <= 1


@settings(max_examples=25, deadline=None)
@given(st.floats(1e-3, 1e6), st.floats(-1e3, 1e3), st.integers(0, 99))
def test_grey_values_of_mr_do_not_depend_on_its_unit(
    factor: float, offset: float, seed: int
) -> None:
    """Percentiles are the same for every linear unit; a bright artefact moves them little."""
    from medcl_ct import grey
    from medcl_ct.pixels import Source

    values = np.random.default_rng(seed).gamma(2.0, 100.0, (4, 32, 32)).astype(np.float32)

    def source(of: np.ndarray) -> Source:
        where = np.array([[0.0, 0.0, z] for z in range(len(of))])
        facing = np.array([1.0, 0, 0, 0, 1, 0])
        each = [(n, one.astype(np.float32)) for n, one in enumerate(of)]
        return Source(where, facing, (1, 1), (32, 32), None, True, lambda: iter(each))

    def greys(of: np.ndarray) -> np.ndarray:
        slope, intercept = grey.scale("mr", source(of))
        return of * slope + intercept

    plain = greys(values)
    assert np.abs(np.percentile(plain, grey.PERCENTILES) - [-1000, 1000]).max() < 1
    assert np.abs(greys(values * factor + offset * factor) - plain).max() < 2 + abs(offset) * 1e-2
    bright = values.copy()
    bright[0, 0, 0] = 1e6
    assert np.abs(greys(bright)[1:] - plain[1:]).max() < 0.05 * np.ptp(plain)


def test_echoes_and_weightings_of_one_series_are_volumes_of_their_own(tmp_path: Path) -> None:
    places = [0.0, 3.0, 6.0]
    made = {}
    for n, (echo, b) in enumerate([(10, 0.0), (20, 0.0), (10, 800.0)]):
        stored = mr_series(tmp_path / "a", places, seed=n, EchoTime=echo, DiffusionBValue=b)
        made[n] = np.stack(stored)
    found = index(tmp_path / "a", tmp_path / "idx")
    assert found.items["slices"].to_list() == [3, 3, 3]
    assert found.items["findings"].to_list() == [["mixed-series"]] * 3
    got = volumes(prepare(found, plugin, {**AS_IT_IS, "modality": "mr"}))
    for stored in made.values():
        rank = stored.ravel().argsort(kind="stable")
        assert any((np.diff(one.ravel()[rank].astype(int)) >= 0).all() for one in got)


def test_slices_of_mr_that_are_taken_by_turns_are_one_volume(tmp_path: Path) -> None:
    """Every second slice first: by time and number these look like two passes of CT."""
    turns = [*range(0, 14, 2), *range(1, 14, 2)]
    for number, at in enumerate(turns):
        own = {"AcquisitionTime": f"1015{number:02d}", "InstanceNumber": number + 1}
        mr_series(tmp_path / "a", [4.0 * at], seed=at, **own)
    found = index(tmp_path / "a", tmp_path / "idx")
    assert found.items["slices"].to_list() == [14]
    assert found.items["findings"].to_list() == [[]]


def test_phase_images_are_refused_by_name(tmp_path: Path) -> None:
    mr_series(tmp_path / "a", [0, 3, 6], ImageType=["ORIGINAL", "PRIMARY", "P", "ND"])
    found = index(tmp_path / "a", tmp_path / "idx")
    assert found.items["findings"].to_list() == [["not-magnitude"]]
    assert prepare(found, plugin, {"modality": "mr"}).items.is_empty()


# --- PET -----------------------------------------------------------------------------------------


def tracer(**tags: Any) -> dict[str, Any]:
    """A PET's header: 70 kg, 350 MBq of F-18, an hour before the scan."""
    given = Dataset()
    given.RadionuclideTotalDose = 350e6
    given.RadionuclideHalfLife = 6586.2
    given.RadiopharmaceuticalStartTime = "090000"
    own: dict[str, Any] = {
        "Modality": "PT",
        "SOPClassUID": PET,
        "Units": "BQML",
        "DecayCorrection": "START",
        "PatientWeight": 70,
        "SeriesDate": "20200101",
        "SeriesTime": "100000",
        "AcquisitionDate": "20200101",
        "AcquisitionTime": "100130",
        "RadiopharmaceuticalInformationSequence": [given],
        "RescaleIntercept": 0,
        "ConvolutionKernel": None,
    }
    return {**own, **tags}


def test_pet_is_in_suv(tmp_path: Path) -> None:
    """By the formula, worked out by hand; the slope differs from slice to slice."""
    stored = [np.random.default_rng(n).integers(0, 2000, (16, 16)) for n in range(3)]
    slopes = [2.5, 5.0, 10.0]
    for n, (values, slope) in enumerate(zip(stored, slopes, strict=True)):
        own = tracer(RescaleSlope=slope, PixelData=values.astype(np.uint16).tobytes())
        ct_slice(tmp_path / "a" / f"{n}", 4.0 * n, InstanceNumber=n, **own)
    found = index(tmp_path / "a", tmp_path / "idx")
    assert found.items["modality"].to_list() == ["pet"]
    assert found.items["findings"].to_list() == [[]]
    (mine,) = volumes(prepare(found, plugin, {**AS_IT_IS, "modality": "pet"}))
    left = 350e6 * 2.0 ** (-3600 / 6586.2)
    expected = [v * s * 70_000 / left * 100 - 1000 for v, s in zip(stored, slopes, strict=True)]
    assert np.abs(mine - np.rint(expected)).max() <= 1


@pytest.mark.parametrize(
    ("tags", "factor"),
    [
        ({"Units": "GML"}, 1.0),
        ({"Units": "GML", "SUVType": "LBM"}, None),
        ({"Units": "CNTS"}, None),
        ({"DecayCorrection": "ADMIN"}, 70_000 / 350e6),
        ({"DecayCorrection": "NONE"}, None),
        ({"PatientWeight": None}, None),
        ({"PatientWeight": 70_000}, None),  # in grams
        ({"SeriesTime": "120000"}, None),  # of a later reconstruction
        ({"RadiopharmaceuticalInformationSequence": None}, None),
        ({"SeriesTime": "080000", "AcquisitionTime": "080000"}, None),  # a day after the dose
    ],
)
def test_what_suv_needs(tmp_path: Path, tags: dict[str, Any], factor: float | None) -> None:
    path = ct_slice(tmp_path / "x", 0.0, **tracer(**tags))
    found = suv.factor(pydicom.dcmread(path))
    if "SeriesTime" in tags and tags["SeriesTime"] == "080000":
        assert found == pytest.approx(70_000 / (350e6 * 2 ** (-23 * 3600 / 6586.2)))
        return
    assert found == (None if factor is None else pytest.approx(factor))


def test_pet_without_suv_is_scaled_by_percentiles_and_says_so(tmp_path: Path) -> None:
    for n in range(3):
        values = np.random.default_rng(n).integers(0, 2000, (16, 16)).astype(np.uint16).tobytes()
        ct_slice(tmp_path / "a" / f"{n}", 4.0 * n, PixelData=values, **tracer(PatientWeight=None))
    found = index(tmp_path / "a", tmp_path / "idx")
    assert found.items["findings"].to_list() == [["no-suv"]]
    (mine,) = volumes(prepare(found, plugin, {**AS_IT_IS, "modality": "pet"}))
    assert np.percentile(mine, [0.5, 99.5]) == pytest.approx([-1000, 1000], abs=5)


# --- volume files --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("sub-01/anat/sub-01_T1w", "mr"),
        ("sub-01/anat/sub-01_acq-x_FLAIR", "mr"),
        ("sub-01/pet/sub-01_trc-FDG_pet", "pet"),
        ("PETCT_1/SUV", "pet"),
        ("PETCT_1/CTres", "ct"),
        ("s0001/ct", "ct"),
        ("BraTS_001/BraTS_001_t1ce", "mr"),
        ("imagesTr/liver_1", None),
        ("patient_ct_pet", None),
    ],
)
def test_what_a_name_says(name: str, kind: str | None) -> None:
    assert kinds.named(name) == kind


def nifti(path: Path, low: float, high: float, seed: int = 0) -> Path:
    values = np.random.default_rng(seed).uniform(low, high, (12, 12, 8)).astype(np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, np.diag([-2.0, -2.0, 3.0, 1.0])), path)
    return path


def test_a_volume_that_does_not_say_what_it_is(tmp_path: Path) -> None:
    """Told by its range of values, or taken for what is asked for, with a finding."""
    nifti(tmp_path / "a" / "hu.nii.gz", -1000, 1000)
    nifti(tmp_path / "a" / "grey.nii.gz", 0, 900, seed=1)
    found = index(tmp_path / "a", tmp_path / "idx")
    names = {found.locate(item): item for item in found.items["id"]}
    ct = prepare(found, plugin, AS_IT_IS)
    assert ct.items["id"].to_list() == [names["hu.nii.gz"]]
    assert "not in HU" in ct.rejects["reason"][0]
    assert ct.findings == {"modality-assumed": 1}
    mr = prepare(found, plugin, {**AS_IT_IS, "modality": "mr"})
    assert mr.items["id"].to_list() == [names["grey.nii.gz"]]
    assert "like-hu" in mr.rejects["reason"][0]


def test_a_data_set_says_what_its_images_are(tmp_path: Path) -> None:
    nifti(tmp_path / "a" / "imagesTr" / "prostate_00.nii.gz", 0, 900)
    said = tmp_path / "a" / "dataset.json"
    said.write_text(json.dumps({"modality": {"0": "MRI"}}))
    found = index(tmp_path / "a", tmp_path / "idx")
    assert found.items["modality"].to_list() == ["mr"]
    assert "modality-from-name" in found.items["findings"][0]
    said.write_text("[" * 100_000)
    assert index(tmp_path / "a", tmp_path / "idx2").items["modality"].to_list() == [None]


# --- enhanced files ------------------------------------------------------------------------------


def enhanced(path: Path, kind: str, frames: list[dict[str, Any]]) -> Path:
    """Each frame: ``z``, ``values`` (16, 16), and of functional groups {sequence: {tag: value}}."""
    out = Dataset()
    out.file_meta = FileMetaDataset()
    out.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    out.SOPClassUID = out.file_meta.MediaStorageSOPClassUID = ENHANCED[kind]
    out.SOPInstanceUID = out.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    out.Modality = {"ct": "CT", "mr": "MR", "pet": "PT"}[kind]
    out.PatientID, out.StudyInstanceUID, out.SeriesInstanceUID = "SYNTHETIC-1", STUDY, SERIES
    out.FrameOfReferenceUID, out.ImageType = FRAME, ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    out.Rows = out.Columns = 16
    out.SamplesPerPixel, out.PhotometricInterpretation = 1, "MONOCHROME2"
    out.BitsAllocated, out.BitsStored, out.HighBit, out.PixelRepresentation = 16, 16, 15, 0
    out.NumberOfFrames = len(frames)
    shared = Dataset()
    shared.PixelMeasuresSequence = [Dataset()]
    shared.PixelMeasuresSequence[0].PixelSpacing = [1.5, 1.5]
    shared.PixelMeasuresSequence[0].SliceThickness = 2
    if kind == "ct":
        shared.PixelValueTransformationSequence = [Dataset()]
        shared.PixelValueTransformationSequence[0].RescaleSlope = 1
        shared.PixelValueTransformationSequence[0].RescaleIntercept = -1024
    out.SharedFunctionalGroupsSequence = [shared]
    out.PerFrameFunctionalGroupsSequence = []
    for frame in frames:
        one = Dataset()
        groups = {
            "PlanePositionSequence": {"ImagePositionPatient": [0, 0, frame["z"]]},
            "PlaneOrientationSequence": {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]},
            **frame.get("groups", {}),
        }
        for sequence, tags in groups.items():
            inside = Dataset()
            for name, value in tags.items():
                setattr(inside, name, value)
            setattr(one, sequence, [inside])
        out.PerFrameFunctionalGroupsSequence.append(one)
    out.PixelData = b"".join(f["values"].astype(np.uint16).tobytes() for f in frames)
    path.parent.mkdir(parents=True, exist_ok=True)
    out.save_as(path, enforce_file_format=True)
    return path


_TOLD: dict[str, Any] = {
    "temporal index": lambda p, n: {"FrameContentSequence": {"TemporalPositionIndex": p + 1}},
    "stack": lambda p, n: {"FrameContentSequence": {"StackID": str(p + 1)}},
    "acquisition": lambda p, n: {"FrameContentSequence": {"FrameAcquisitionNumber": p + 1}},
    "cardiac phase": lambda p, n: {
        "CardiacSynchronizationSequence": {"NominalPercentageOfCardiacPhase": 10.0 * p}
    },
    "kernel": lambda p, n: {"CTReconstructionSequence": {"ConvolutionKernel": f"B{p + 3}0f"}},
    "order of frames": lambda p, n: {},
}


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from(sorted(_TOLD)),
    st.integers(1, 3),
    st.sampled_from([0.0, 0.5]),
    st.booleans(),
    st.integers(0, 99),
)
def test_volumes_of_an_enhanced_file_are_told_apart(
    tmp_path_factory: pytest.TempPathFactory,
    told: str,
    several: int,
    shift: float,
    lost: bool,
    seed: int,
) -> None:
    """Voxel for voxel, whatever the order of frames where something names the volumes."""
    noise = np.random.default_rng(seed)
    frames, expected = [], []
    for p in range(several):
        stack = []
        for n in range(8):
            if lost and p == 0 and n == 7:
                continue
            values = noise.integers(0, 3000, (16, 16))
            z = 2.0 * n + 2.0 * shift * p
            frames.append({"z": z, "values": values, "groups": _TOLD[told](p, n)})
            stack.append(values - 1024)
        expected.append(np.stack(stack))
    if told != "order of frames":
        frames = {
            0: frames,
            1: frames[::-1],
            2: sorted(frames, key=lambda frame: frame["z"]),  # volumes by turns
        }[seed % 3]
    root = tmp_path_factory.mktemp("enhanced")
    enhanced(root / "a" / "x.dcm", "ct", frames)
    found = index(root / "a", root / "idx")
    assert found.rejects.is_empty(), found.rejects["reason"].to_list()
    made = prepare(found, plugin, AS_IT_IS)
    assert made.rejects.is_empty(), made.rejects["reason"].to_list()
    got = volumes(made)
    assert len(got) == several
    for one in expected:
        assert sum(np.array_equal(one, other) for other in got) == 1
    assert found.items["id"].n_unique() == several


def test_an_enhanced_mr_with_two_echoes(tmp_path: Path) -> None:
    frames = [
        {
            "z": 3.0 * n,
            "values": np.random.default_rng(10 * e + n).integers(0, 900, (16, 16)),
            "groups": {"MREchoSequence": {"EffectiveEchoTime": 10.0 + e}},
        }
        for n in range(4)
        for e in range(2)
    ]
    enhanced(tmp_path / "a" / "x.dcm", "mr", frames)
    found = index(tmp_path / "a", tmp_path / "idx")
    assert found.items["modality"].to_list() == ["mr", "mr"]
    assert found.items["findings"].to_list() == [["mixed-series", "multi-frame"]] * 2
    assert len(prepare(found, plugin, {**AS_IT_IS, "modality": "mr"}).items) == 2


def test_a_header_that_claims_frames_it_has_not(tmp_path: Path) -> None:
    frames = [{"z": 2.0 * n, "values": np.zeros((16, 16))} for n in range(3)]
    path = enhanced(tmp_path / "a" / "x.dcm", "ct", frames)
    dataset = pydicom.dcmread(path)
    dataset.NumberOfFrames = 1_000_000_000
    dataset.save_as(path)
    found = index(tmp_path / "a", tmp_path / "idx")
    assert found.items.is_empty()
    assert found.rejects["code"].to_list() in (["no-geometry"], ["truncated"])
