"""Pixels and geometry as scanners, exporters and mistakes write them: against GDCM, or by hand.

All slices here are synthetic.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from ct_synthetic import ct_series, ct_slice

from medcl.archive.index import Index, build
from medcl.archive.store import Prepared, prepare
from medcl_ct.plugin import plugin

AS_IT_IS: dict[str, Any] = {"spacing": (0.0, 0.0, 0.0), "crop": "none", "clip": None}
HEIGHTS = [0.0, 2.0, 4.0, 6.0]


def prepared(archive: Path, out: Path, **spec: Any) -> Prepared:
    build(archive, out, plugin)
    return prepare(Index.open(out), plugin, {**AS_IT_IS, **spec})


def only(made: Prepared) -> dict[str, np.ndarray]:
    assert len(made.items) == 1, made.rejects
    return dict(made.arrays(made.items["id"][0]))


def by_gdcm(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """The series as SimpleITK reads it: values (Z, Y, X), affine (z, y, x) → LPS mm."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    affine = np.eye(4)
    direction = np.array(image.GetDirection()).reshape(3, 3)
    affine[:3, :3] = (direction * np.array(image.GetSpacing()))[:, ::-1]
    affine[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image), affine


def stored(low: int, high: int, dtype: type, seed: int = 0) -> bytes:
    """Random numbers in one slice, with both bounds among them."""
    values = np.random.default_rng(seed).integers(low, high, (16, 16), endpoint=True)
    values.flat[:2] = low, high
    return values.astype(dtype).tobytes()


# --- how numbers are stored -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "tags",
    [
        pytest.param({"PixelData": stored(0, 4095, np.uint16)}, id="unsigned"),
        pytest.param(
            {
                "PixelData": stored(-1024, 3071, np.int16),
                "PixelRepresentation": 1,
                "RescaleIntercept": 0,
            },
            id="signed",
        ),
        pytest.param(
            {
                "PixelData": (
                    np.frombuffer(stored(-2048, 2047, np.int16), np.int16) & 0x0FFF
                ).tobytes(),
                "PixelRepresentation": 1,
                "BitsStored": 12,
                "HighBit": 11,
                "RescaleIntercept": 0,
            },
            id="signed, 12 bits, the sign not extended",
        ),
        pytest.param(
            {
                "PixelData": (
                    np.frombuffer(stored(0, 4095, np.uint16), np.uint16) | 0xA000
                ).tobytes(),
                "BitsStored": 12,
                "HighBit": 11,
            },
            id="an overlay in the unused bits",
        ),
        pytest.param(
            {
                "PixelData": stored(0, 255, np.uint8),
                "BitsAllocated": 8,
                "BitsStored": 8,
                "HighBit": 7,
                "RescaleSlope": 8,
            },
            id="8 bits",
        ),
        pytest.param(
            {
                "PixelData": stored(0, 4000, np.uint16),
                "RescaleSlope": "0.5",
                "RescaleIntercept": "-1000.5",
            },
            id="fractions",
        ),
    ],
)
def test_stored_numbers_are_gdcms(tmp_path: Path, tags: dict[str, Any]) -> None:
    folder = ct_series(tmp_path / "a", HEIGHTS, **tags)
    mine = only(prepared(tmp_path / "a", tmp_path / "idx", policy={"not-hu": "accept"}))
    values, affine = by_gdcm(folder)
    assert np.abs(mine["hu0"] - values).max() <= 0.5
    assert np.allclose(mine["affine0"], affine, atol=1e-6)


def test_monochrome1_is_how_it_is_shown_and_not_what_it_is(tmp_path: Path) -> None:
    """The modality rescale comes before the display (PS3.3 C.11.1); ITK inverts, and leaves HU."""
    ct_series(tmp_path / "a", HEIGHTS, PhotometricInterpretation="MONOCHROME1")
    mine = only(prepared(tmp_path / "a", tmp_path / "idx"))
    assert (mine["hu0"][:, 0, 0] == -1000).all()
    assert (mine["hu0"][:, 8, 8] == 0).all()


@pytest.mark.parametrize(("slope", "bound"), [(20, 32767), (-20, -32768)])
def test_what_16_bits_cannot_hold_stops_at_their_ends(
    tmp_path: Path, slope: int, bound: int
) -> None:
    """Nothing wraps round: 4,095 · 20 is the highest value, not a low one."""
    ct_series(tmp_path / "a", HEIGHTS, PixelData=stored(0, 4095, np.uint16), RescaleSlope=slope)
    mine = only(prepared(tmp_path / "a", tmp_path / "idx", policy={"not-hu": "accept"}))
    assert mine["hu0"][0].flat[1] == bound
    raw = np.frombuffer(stored(0, 4095, np.uint16), np.uint16).astype(float).reshape(16, 16)
    exact = raw * slope - 1024
    assert np.array_equal(mine["hu0"][0], np.clip(exact, -32768, 32767))


@pytest.mark.parametrize(
    ("pixels", "signed", "padding"),
    [
        pytest.param(np.int16, 1, -2000, id="as it should be"),
        pytest.param(np.int16, 1, 63536, id="named without its sign"),
        pytest.param(np.uint16, 0, -2000, id="named with a sign"),
    ],
)
def test_padding_is_found_whatever_its_sign(
    tmp_path: Path, pixels: type, signed: int, padding: int
) -> None:
    values = np.full((16, 16), 50, dtype=np.int64)
    values[:3] = -2000
    ct_series(
        tmp_path / "a",
        HEIGHTS,
        PixelData=values.astype(pixels).tobytes(),
        PixelRepresentation=signed,
        RescaleIntercept=0,
    )
    for path in (tmp_path / "a").iterdir():  # pydicom would not write such a header
        _patch_padding(path, padding)
    mine = only(prepared(tmp_path / "a", tmp_path / "idx", policy={"not-hu": "accept"}))
    assert (mine["hu0"][:, :3] == -1024).all()
    assert (mine["hu0"][:, 3:] == 50).all()


def _patch_padding(path: Path, value: int) -> None:
    """Insert PixelPaddingValue as the number is, signed or not, before the rescale tags."""
    data = path.read_bytes()
    at = data.index(b"\x28\x00\x52\x10DS")
    kind = b"SS" if value < 0 else b"US"
    number = int(value).to_bytes(2, "little", signed=value < 0)
    element = b"\x28\x00\x20\x01" + kind + b"\x02\x00" + number
    path.write_bytes(data[:at] + element + data[at:])


@pytest.mark.parametrize(
    "tags",
    [{"PixelPaddingValue": ""}, {"RescaleType": ""}, {"WindowCenter": "", "WindowWidth": ""}],
)
def test_empty_elements_mean_nothing(tmp_path: Path, tags: dict[str, Any]) -> None:
    ct_series(tmp_path / "a", HEIGHTS, **tags)
    mine = only(prepared(tmp_path / "a", tmp_path / "idx"))
    assert sorted(np.unique(mine["hu0"]).tolist()) == [-1000, 0]


# --- where it lies --------------------------------------------------------------------------------

TURN = np.deg2rad(6.0)
FRAMES = {
    "feet first, prone": [-1, 0, 0, 0, 1, 0],
    "upside down": [-1, 0, 0, 0, -1, 0],
    "a little oblique": [np.cos(TURN), np.sin(TURN), 0, -np.sin(TURN), np.cos(TURN), 0],
    "coronal": [1, 0, 0, 0, 0, -1],
    "sagittal": [0, 1, 0, 0, 0, -1],
}


@pytest.mark.parametrize("frame", FRAMES)
def test_every_frame_comes_upright_and_keeps_its_place(tmp_path: Path, frame: str) -> None:
    """Every stored pixel of a volume of oblong pixels lies where its header says."""
    orientation = np.array(FRAMES[frame], dtype=float)
    across, down = orientation[:3], orientation[3:]
    along = np.cross(across, down)
    random, where = np.random.default_rng(0), {}
    for n in range(5):
        values = random.integers(0, 4096, (12, 20)).astype(np.uint16)
        first = np.array([10.0, -20.0, 300.0]) + 3.0 * n * along
        ct_slice(
            tmp_path / "a" / f"{n}.dcm",
            0.0,
            (12, 20),
            InstanceNumber=5 - n,
            ImagePositionPatient=[round(float(v), 6) for v in first],
            ImageOrientationPatient=[round(float(v), 8) for v in orientation],
            PixelSpacing=[0.7, 1.1],
            PixelData=values.tobytes(),
        )
        for row, column in [(0, 0), (11, 0), (3, 17)]:
            place = first + column * 1.1 * across + row * 0.7 * down
            where[tuple(place)] = int(values[row, column]) - 1024
    mine = only(prepared(tmp_path / "a", tmp_path / "idx"))
    assert sorted(mine["hu0"].shape) == [5, 12, 20]
    columns = mine["affine0"][:3, :3]
    for axis, toward in enumerate((2, 1, 0)):  # z up, y back, x left
        assert columns[toward, axis] > 0
        assert abs(columns[:, axis]).argmax() == toward
    for place, value in where.items():
        at = np.linalg.solve(mine["affine0"], [*place, 1.0])[:3]
        assert np.abs(at - np.rint(at)).max() < 1e-3
        assert mine["hu0"][tuple(np.rint(at).astype(int))] == value


def test_shrinking_is_anti_aliased_along_each_axis(tmp_path: Path) -> None:
    """Stripes finer than the new grid become their mean, along whichever axis they run."""
    (tmp_path / "a").mkdir()
    for axis in range(3):
        line = np.where(np.arange(48) % 2, 400, -600).reshape(-1, *(1,) * (2 - axis))
        stripes = np.broadcast_to(line, (48, 48, 48)).astype(np.int16)
        folder = tmp_path / f"a{axis}"
        folder.mkdir()
        nib.save(nib.Nifti1Image(stripes, np.diag([0.8, 0.8, 0.8, 1])), folder / "x.nii.gz")
        spec = {"spacing": (4.0, 4.0, 4.0), "policy": {"not-hu": "accept"}}
        hu = only(prepared(folder, tmp_path / f"i{axis}", **spec))["hu0"]
        assert np.abs(hu[1:-1, 1:-1, 1:-1].astype(int) + 100).max() <= 40, axis


# --- files with affines ---------------------------------------------------------------------------


def test_what_is_no_number_in_a_nifti_is_air(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    values = np.full((16, 16, 8), -900.0, dtype=np.float32)
    values[4:12, 4:12] = 50.0
    clean = values.copy()
    values[0, 0, 0], values[2, 2, 3], values[3, 3, 3] = np.nan, np.inf, -np.inf
    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "a" / "x.nii.gz")
    mine = only(prepared(tmp_path / "a", tmp_path / "idx", spacing=(0.0, 2.0, 2.0)))
    (tmp_path / "b").mkdir()
    clean[~np.isfinite(values)] = -1024
    nib.save(nib.Nifti1Image(clean, np.eye(4)), tmp_path / "b" / "x.nii.gz")
    expected = only(prepared(tmp_path / "b", tmp_path / "idx2", spacing=(0.0, 2.0, 2.0)))
    assert np.array_equal(mine["hu0"], expected["hu0"])


def test_values_without_a_low_one_are_noticed_beside_what_is_no_number(tmp_path: Path) -> None:
    """NaN is lower than nothing: it does not hide that a volume is not in HU."""
    (tmp_path / "a").mkdir()
    values = np.random.default_rng(0).uniform(0, 500, (16, 16, 8)).astype(np.float32)
    values[0, 0] = np.nan
    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "a" / "x.nii.gz")
    made = prepared(tmp_path / "a", tmp_path / "idx")
    assert len(made.items) == 0
    assert "not-hu" in made.rejects["reason"][0]


def test_slices_that_are_no_rectangles_are_refused(tmp_path: Path) -> None:
    """An affine whose rows and columns are not at a right angle has no pixel grid to keep."""
    (tmp_path / "a").mkdir()
    affine = np.eye(4)
    affine[0, 1] = 0.3
    values = np.full((16, 16, 8), -900, dtype=np.int16)
    nib.save(nib.Nifti1Image(values, affine), tmp_path / "a" / "x.nii.gz")
    made = prepared(tmp_path / "a", tmp_path / "idx")
    assert len(made.items) == 0
    assert "sheared" in made.rejects["reason"][0]


def test_a_sheared_nifti_is_a_tilted_gantry(tmp_path: Path) -> None:
    """Slices that drift along their rows, as a tilted scan does that was written as it is."""
    (tmp_path / "a").mkdir()
    affine = np.diag([1.0, 1.0, 3.0, 1.0])
    affine[1, 2] = 1.0  # each slice lies 1 mm further along the second axis
    values = np.full((24, 24, 10), -900, dtype=np.int16)
    values[12, 12] = 500  # a line that is straight in the file, and slanted in space
    nib.save(nib.Nifti1Image(values, affine), tmp_path / "a" / "x.nii.gz")
    build(tmp_path / "a", tmp_path / "idx", plugin)
    index = Index.open(tmp_path / "idx")
    assert "gantry-tilt" in index.items["findings"][0]
    spec = {**AS_IT_IS, "policy": {"gantry-tilt": "resample"}}
    mine = only(prepare(index, plugin, spec))
    hu, axes = mine["hu0"], mine["affine0"][:3, :3]
    assert np.allclose(axes.T @ axes, np.diag(np.diag(axes.T @ axes)), atol=1e-6)
    brightest = np.array([np.unravel_index(one.argmax(), one.shape) for one in hu])
    assert (np.abs(np.diff(brightest[:, 0])) == 1).all()  # it does slant
    assert (np.diff(brightest[:, 1]) == 0).all()


# --- padding and blanks ---------------------------------------------------------------------------


@pytest.mark.parametrize("signed", [True, False])
def test_padding_that_tissue_has_too_is_cut_at_the_border_only(
    tmp_path: Path, signed: bool
) -> None:
    """PixelPaddingValue 0 where 0 is water: the corner was not scanned, the middle was."""
    values = np.full((16, 16), -1000, dtype=np.int64)
    values[:3, :3] = 0
    values[4:12, 4:12] = 40
    values[7:9, 7:9] = 0
    kind, offset = (np.int16, 0) if signed else (np.uint16, 1024)
    ct_series(
        tmp_path / "a",
        HEIGHTS,
        PixelData=(values + offset).astype(kind).tobytes(),
        PixelRepresentation=int(signed),
        RescaleIntercept=-offset,
    )
    for path in (tmp_path / "a").iterdir():
        _patch_padding(path, offset)
    build(tmp_path / "a", tmp_path / "idx", plugin)
    assert Index.open(tmp_path / "idx").items["findings"].to_list() == [["padding-like-tissue"]]
    hu = only(prepared(tmp_path / "a", tmp_path / "idx"))["hu0"]
    assert (hu[:, :3, :3] == -1024).all()
    assert (hu[:, 7:9, 7:9] == 0).all()


@pytest.mark.parametrize(("value", "name"), [(0, "blank"), (1064, "not-hu")])
def test_a_blank_volume_is_refused_by_name(tmp_path: Path, value: int, name: str) -> None:
    ct_series(tmp_path / "a", HEIGHTS, PixelData=np.full((16, 16), value, np.uint16).tobytes())
    made = prepared(tmp_path / "a", tmp_path / "idx")
    assert made.rejects["reason"][0].startswith(f"{name}: ")


def test_one_bright_pixel_is_blank_too(tmp_path: Path) -> None:
    stored = np.zeros((40, 40), np.uint16)
    stored[3, 4] = 2000
    ct_series(tmp_path / "a", HEIGHTS, shape=(40, 40), PixelData=stored.tobytes())
    assert prepared(tmp_path / "a", tmp_path / "idx").rejects["reason"][0].startswith("blank: ")


def test_slices_whose_pixels_were_lost_are_noticed(tmp_path: Path) -> None:
    ct_series(tmp_path / "a", HEIGHTS)
    lost = np.zeros((16, 16), np.uint16).tobytes()
    ct_slice(tmp_path / "a" / "lost", HEIGHTS[-1] + HEIGHTS[1] - HEIGHTS[0], PixelData=lost)
    made = prepared(tmp_path / "a", tmp_path / "idx")
    assert "blank-slices" in made.items["findings"][0]
