"""From files to series: what is joined, what is told apart, and what is said about it."""

from __future__ import annotations

import random
import shutil
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pydicom
import pytest
from ct_synthetic import ct_series, ct_slice
from pydicom.uid import generate_uid
from typer.testing import CliRunner

from medcl.archive.index import Index, build
from medcl.labels import table as label_tables
from medcl.plugin import MEMBER, FileStat
from medcl_cli.main import app
from medcl_ct import words
from medcl_ct.findings import FINDINGS
from medcl_ct.plugin import plugin
from medcl_ct.units import units


def index(archive: Path, out: Path) -> Index:
    build(archive, out, plugin)
    return Index.open(out)


def only(found: Index) -> dict:
    assert len(found.items) == 1, found.items
    return found.items.to_dicts()[0]


# --- real series ----------------------------------------------------------------------------------


def heights(found: Index, item: str) -> list[float]:
    paths = [found.archive / file for file in found.files(item)]
    return [
        float(pydicom.dcmread(p, stop_before_pixels=True).ImagePositionPatient[2]) for p in paths
    ]


def test_bundled_series_without_uids_is_one_volume(siemens: Path, tmp_path: Path) -> None:
    found = index(siemens, tmp_path / "idx")
    item = only(found)
    assert item["slices"] == 8
    assert set(item["findings"]) == {"no-series-uid", "no-patient-id"}
    z = heights(found, item["id"])
    assert z == sorted(z)
    assert (item["manufacturer"], item["kernel"], item["spacing_mm"]) == ("siemens", "Br38f", 2.0)


@pytest.mark.slow
def test_siemens_series_is_one_volume_of_20_in_order(indexed: Index) -> None:
    item = indexed.items.filter(pl.col("manufacturer") == "siemens", pl.col("slices") == 20)
    assert len(item) == 1
    assert set(item["findings"][0]) == {"no-series-uid", "no-patient-id"}
    z = heights(indexed, item["id"][0])
    assert len(z) == 20
    assert np.allclose(np.diff(z), 2.0)


@pytest.mark.slow
def test_tilted_head_with_two_thicknesses_is_named(indexed: Index) -> None:
    item = indexed.items.filter(pl.col("model") == "HiSpeed Dual").to_dicts()[0]
    assert item["slices"] == 28
    assert set(item["findings"]) == {"gantry-tilt", "non-uniform-spacing", "mixed-thickness"}
    assert all(FINDINGS[name].severity == "serious" for name in item["findings"])


@pytest.mark.slow
def test_two_kernels_of_one_scan_are_the_same_anatomy(indexed: Index) -> None:
    chest = indexed.items.filter(pl.col("slices") == 30)
    assert sorted(chest["kernel"]) == ["B40f", "B70f"]
    assert chest["group"].n_unique() == 1
    assert chest["group"][0].startswith("g_")
    assert chest["patient"].n_unique() == 1
    others = indexed.items.filter(pl.col("slices") != 30)["group"]
    assert chest["group"][0] not in others.to_list()


def test_one_slice_series_are_reported_and_not_stacked(indexed: Index) -> None:
    single = indexed.items.filter(pl.col("findings").list.contains("single-slice"))
    assert len(single) == 20
    assert single["patient"].n_unique() == 10
    assert set(single["slices"]) == {1}


def test_values_that_cannot_be_hu_are_noticed(indexed: Index) -> None:
    bad = indexed.items.filter(pl.col("findings").list.contains("not-hu"))
    assert [indexed.locate(item) for item in bad["id"]] == ["head_avm_ct.nii.gz"]


def test_every_file_is_accounted_for(indexed: Index) -> None:
    dicom = {str(p.relative_to(indexed.archive)) for p in indexed.archive.rglob("*.dcm")}
    used = {file for item in indexed.items["id"] for file in indexed.files(item)}
    rejected = {indexed.locate(item) for item in indexed.rejects["id"]}
    assert dicom <= used | rejected


@pytest.mark.slow
def test_archives_give_the_same_series(indexed: Index, shared_data: Path, tmp_path: Path) -> None:
    """From the tar files as they come, without unpacking."""
    packed = index(shared_data / "ct", tmp_path / "idx")
    columns = ["slices", "kernel", "spacing_mm", "findings"]
    order = [*columns[:3], pl.col("findings").list.join(" ")]  # series may differ in these alone
    plain = indexed.items.select(columns).sort(order)
    assert packed.items.select(columns).sort(order).equals(plain)
    chest = packed.items.filter(pl.col("slices") == 30)["id"][0]
    assert all(MEMBER in file for file in packed.files(chest))


def test_what_is_written_names_nobody(indexed: Index) -> None:
    """No raw id, name, date or UID of the real headers is outside of the private folder."""
    secrets = set()
    for path in indexed.archive.rglob("*.dcm"):
        header = pydicom.dcmread(path, stop_before_pixels=True)
        for element in header.iterall():
            if element.VR in ("PN", "DA", "UI") or element.keyword == "PatientID":
                secrets |= {str(element.value)}
    secrets = {s for s in secrets if len(s) > 5 and not s.startswith("1.2.840.10008.")}
    assert len(secrets) > 200
    written = b"".join(f.read_bytes() for f in indexed.path.iterdir() if f.is_file())
    for frame in (indexed.items, indexed.rejects):
        written += frame.write_ndjson().encode()
    assert [s for s in secrets if s.encode() in written] == []


# --- what no real series at hand shows -----------------------------------------------------------


def test_order_comes_from_positions_not_numbers(tmp_path: Path) -> None:
    """Synthetic: instance numbers against the anatomy, or none."""
    for n, z in enumerate([4.0, 0.0, 2.0, 6.0]):
        ct_slice(tmp_path / "a" / f"{n}", z, InstanceNumber=[9, 3, None, 1][n])
    found = index(tmp_path / "a", tmp_path / "idx")
    assert heights(found, only(found)["id"]) == [0.0, 2.0, 4.0, 6.0]


def test_slices_of_a_series_in_many_folders(tmp_path: Path) -> None:
    for n in range(6):
        ct_slice(tmp_path / "a" / f"dir{n}" / "IM0", 2.0 * n)
    found = index(tmp_path / "a", tmp_path / "idx")
    assert only(found)["slices"] == 6
    assert only(found)["findings"] == []


@pytest.mark.parametrize(
    ("places", "name"),
    [
        ([0, 2, 4, 8, 10], "missing-slices"),
        ([0, 2, 4, 7.1, 9.1], "non-uniform-spacing"),
        ([0, 2, 4.1, 6, 8], "uneven-spacing"),
    ],
)
def test_spacing(tmp_path: Path, places: list[float], name: str) -> None:
    found = index(ct_series(tmp_path / "a", places), tmp_path / "idx")
    assert only(found)["findings"] == [name]


@pytest.mark.parametrize(
    ("tags", "name"),
    [
        ({"RescaleSlope": None}, "no-rescale"),
        ({"RescaleSlope": 0}, "no-rescale"),
        ({"RescaleType": "OD"}, "not-hu"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "IODINE"]}, "not-hu"),
        ({"ImageType": ["ORIGINAL", "SECONDARY", "AXIAL", "Z_EFF"]}, "not-hu"),
        ({"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 1100}, "padding-like-tissue"),
        ({"PixelSpacing": [0.0015, 0.0015]}, "odd-spacing"),
        ({"PixelSpacing": [0.75e2, 0.75e2], "Rows": 8, "Columns": 8}, "odd-spacing"),
        ({"ImageType": ["DERIVED", "SECONDARY", "MPR"]}, "reformatted"),
        ({"ImageType": ["DERIVED", "SECONDARY", "MIP"]}, "projection"),
        ({"ImageType": ["DERIVED", "PRIMARY"]}, "derived"),
        ({"BurnedInAnnotation": "YES"}, "burned-in"),
        ({"LossyImageCompression": "01"}, "lossy"),
        ({"PatientID": "ANONYMOUS"}, "no-patient-id"),
        ({"ImagePositionPatient": None}, "no-position"),
        ({"SeriesInstanceUID": None}, "no-series-uid"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0.866, -0.5]}, "gantry-tilt"),
    ],
)
def test_each_problem_has_its_name(tmp_path: Path, tags: dict, name: str) -> None:
    found = index(ct_series(tmp_path / "a", [0, 2, 4], **tags), tmp_path / "idx")
    assert only(found)["findings"] == [name]


@pytest.mark.parametrize(
    ("tags", "code"),
    [
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localiser"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 TOP"]}, "localiser"),
        (
            {
                "SeriesDescription": "Scout a.p.",
                "ImageOrientationPatient": [1, 0, 0, 0, 0, -1],
            },
            "localiser",
        ),
        ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "screenshot"),
        ({"ImageType": ["DERIVED", "SECONDARY", "OTHER", "CT_SOM5 PROT"]}, "screenshot"),
        ({"ImageType": ["DERIVED", "SECONDARY", "DOSE_INFO"]}, "screenshot"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "secondary-capture"),
        ({"Modality": "US", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.6.1"}, "not-ct"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.67"}, "not-an-image"),
        ({"Rows": None}, "no-pixels"),
        ({"SamplesPerPixel": 3}, "colour"),
        ({"PixelSpacing": None}, "no-spacing"),
        ({"PixelSpacing": [0, 0]}, "no-spacing"),
        ({"NumberOfFrames": 2}, "multi-frame-plain"),
        ({"PixelData": b"\0" * 100}, "truncated"),
    ],
)
def test_each_reject_has_its_code(tmp_path: Path, tags: dict, code: str) -> None:
    ct_series(tmp_path / "a", [0, 2, 4], SeriesInstanceUID=generate_uid())
    ct_slice(tmp_path / "a" / "bad.dcm", 6, **tags)
    found = index(tmp_path / "a", tmp_path / "idx")
    assert only(found)["slices"] == 3
    assert found.rejects["code"].to_list() == [code]


@pytest.mark.parametrize(
    "tags",
    [{"KVP": 140}, {"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "MONO", "50_KEV"]}],
)
def test_energies_are_told_apart(tmp_path: Path, tags: dict) -> None:
    ct_series(tmp_path / "a" / "one", [0, 2, 4], KVP=80)
    ct_series(tmp_path / "a" / "other", [1, 3, 5], **{"KVP": 80, **tags})
    found = index(tmp_path / "a", tmp_path / "idx")
    assert found.items["slices"].to_list() == [3, 3]
    assert all("mixed-series" in findings for findings in found.items["findings"])


def test_one_series_uid_of_two_patients_is_two_items(tmp_path: Path) -> None:
    for patient in "AB":
        ct_series(tmp_path / "a" / patient, [0, 2, 4, 6], PatientID=patient)
        ct_slice(tmp_path / "a" / f"{patient}.dcm", 8.0, PatientID=patient)
    found = index(tmp_path / "a", tmp_path / "idx")
    assert found.items["slices"].to_list() == [5, 5]
    assert found.items["patient"].n_unique() == 2
    assert found.items["findings"].to_list() == [["shared-series"]] * 2
    assert found.rejects.is_empty()


def test_one_id_of_two_sexes_is_a_finding(tmp_path: Path) -> None:
    for sex in ("F", "M", "O", None):
        uid = generate_uid()
        ct_series(tmp_path / "a" / str(sex), [0, 2], PatientSex=sex, SeriesInstanceUID=uid)
    assert (
        index(tmp_path / "a", tmp_path / "idx").items["findings"].to_list() == [["two-sexes"]] * 4
    )
    ct_series(tmp_path / "b", [0, 2], PatientSex="F")
    assert only(index(tmp_path / "b", tmp_path / "one"))["findings"] == []


def test_what_is_mixed_in_a_series_is_told_apart(tmp_path: Path) -> None:
    ct_series(tmp_path / "a" / "soft", [0, 2, 4])
    ct_series(tmp_path / "a" / "bone", [0, 2, 4], ConvolutionKernel="B70f")
    ct_series(tmp_path / "a" / "small", [0, 2, 4], shape=(12, 12))
    found = index(tmp_path / "a", tmp_path / "idx")
    assert found.items["slices"].to_list() == [3, 3, 3]
    assert found.items["findings"].to_list() == [["mixed-series"]] * 3
    assert found.items["group"].n_unique() == 1


def test_phases_become_items_of_their_own(tmp_path: Path) -> None:
    ct_series(tmp_path / "a" / "one", [0, 2, 4], AcquisitionNumber=1)
    ct_series(tmp_path / "a" / "two", [0, 2, 4], AcquisitionNumber=2)
    found = index(tmp_path / "a", tmp_path / "idx")
    assert found.items["slices"].to_list() == [3, 3]
    assert found.items["findings"].to_list() == [["repeated-positions"]] * 2
    for item in found.items["id"]:
        assert len({Path(file).parent for file in found.files(item)}) == 1
    assert found.items["group"].n_unique() == 1


def test_gates_without_acquisition_numbers(tmp_path: Path) -> None:
    ct_series(tmp_path / "a" / "one", [0, 2, 4])
    ct_series(tmp_path / "a" / "two", [0, 2, 4])
    found = index(tmp_path / "a", tmp_path / "idx")
    assert found.items["slices"].to_list() == [3, 3]


def test_copies_are_left_out(tmp_path: Path) -> None:
    ct_series(tmp_path / "a" / "one", [0, 2, 4])
    shutil.copytree(tmp_path / "a" / "one", tmp_path / "a" / "copy")
    found = index(tmp_path / "a", tmp_path / "idx")
    assert only(found)["slices"] == 3
    assert only(found)["findings"] == ["duplicate-slices"]
    assert found.rejects["code"].to_list() == ["duplicate-slice"] * 3


def test_patients_without_uids_in_one_folder_stay_apart(tmp_path: Path) -> None:
    for patient in ("A", "B"):
        for z in (0, 2, 4):
            ct_slice(tmp_path / "a" / f"{patient}{z}", z, PatientID=patient, SeriesInstanceUID=None)
    found = index(tmp_path / "a", tmp_path / "idx")
    assert found.items["slices"].to_list() == [3, 3]
    assert found.items["patient"].n_unique() == 2


def test_parts_of_the_body_in_one_frame_of_reference(tmp_path: Path) -> None:
    """Head and legs of one scan are not the same anatomy; an overlapping second pass is."""
    heads = {"SeriesInstanceUID": generate_uid()}
    ct_series(tmp_path / "a" / "head", [100.0 + 2 * n for n in range(9)], **heads)
    again = {"SeriesInstanceUID": generate_uid()}
    ct_series(tmp_path / "a" / "again", [102.0 + 2 * n for n in range(9)], **again)
    legs = {"SeriesInstanceUID": generate_uid()}
    ct_series(tmp_path / "a" / "legs", [-500.0 + 2 * n for n in range(9)], **legs)
    found = index(tmp_path / "a", tmp_path / "idx")
    by_folder = {found.locate(i).split("/")[0]: g for i, g in found.items[["id", "group"]].rows()}
    assert by_folder["head"] == by_folder["again"] != by_folder["legs"]


def test_labels_by_series_folder_or_patient(tmp_path: Path) -> None:
    uid = generate_uid()
    ct_series(tmp_path / "a" / "p1" / "s1", [0, 2, 4], SeriesInstanceUID=uid)
    for key in (uid, "p1/s1", "s1", "SYNTHETIC-1"):
        table = tmp_path / "labels.csv"
        table.write_text(f"key,organ\n{key},liver\n")
        out = tmp_path / f"idx-{key.replace('/', '-')}"
        build(tmp_path / "a", out, plugin, table=table)
        assert Index.open(out).items["label.organ"].to_list() == ["liver"], key


def test_a_label_of_a_series_reaches_all_that_it_was_split_into(tmp_path: Path) -> None:
    uid = generate_uid()
    for name, kernel in (("soft", "B30f"), ("bone", "B70f")):
        slices = tmp_path / "a" / name
        ct_series(slices, [0, 2, 4], SeriesInstanceUID=uid, ConvolutionKernel=kernel)
    table = tmp_path / "labels.csv"
    table.write_text(f"key,organ\n{uid},liver\n")
    build(tmp_path / "a", tmp_path / "idx", plugin, table=table)
    found = Index.open(tmp_path / "idx")
    assert found.items["label.organ"].to_list() == ["liver", "liver"]
    joined = label_tables.read(table, found)
    assert [row["organ"] for row in joined.rows.values()] == ["liver", "liver"]
    assert not joined.notes


def test_patients_from_folders(tmp_path: Path) -> None:
    ct_series(tmp_path / "a" / "site1" / "p1" / "s1", [0, 2, 4])
    build(
        tmp_path / "a",
        tmp_path / "idx",
        plugin,
        patient_from=r"^(?P<site>[^/]+)/(?P<patient>[^/]+)/",
    )
    assert Index.open(tmp_path / "idx").items["site"].null_count() == 0


def test_zip_members_are_slices(tmp_path: Path) -> None:
    ct_series(tmp_path / "plain", [0, 2, 4])
    (tmp_path / "a").mkdir()
    with zipfile.ZipFile(tmp_path / "a" / "study.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in (tmp_path / "plain").iterdir():
            archive.write(path, f"deep/{path.name}")
        archive.writestr("readme.txt", "not a slice")
    found = index(tmp_path / "a", tmp_path / "idx")
    assert only(found)["slices"] == 3
    assert found.rejects.is_empty()


@pytest.mark.slow
def test_two_thousand_slices(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    ct_slice(folder / "0", 0.0)
    template = pydicom.dcmread(folder / "0")
    order = list(range(2000))
    random.Random(0).shuffle(order)
    for n in order:
        template.ImagePositionPatient = [0, 0, 0.5 * n]
        template.SOPInstanceUID = f"1.2.3.{n}"
        template.save_as(folder / f"{n}")
    found = index(folder, tmp_path / "idx")
    assert only(found)["slices"] == 2000
    assert only(found)["findings"] == []
    assert heights(found, only(found)["id"])[:3] == [0.0, 0.5, 1.0]


# --- units ----------------------------------------------------------------------------------------


def test_a_new_file_changes_one_unit() -> None:
    names = [f"s/{n:05d}" for n in range(0, 2000, 2)]
    before = {u.files for u in units([FileStat(name, 1, 1) for name in names])}
    after = {u.files for u in units([FileStat(name, 1, 1) for name in sorted([*names, "s/00501"])])}
    assert len(before) > 8
    assert len(before - after) == 1
    assert max(len(files) for files in before) <= 512


def test_volumes_go_with_their_masks_and_data() -> None:
    names = ["a/x_ct.nii.gz", "a/x_seg.nii.gz", "a/y.nii", "a/z.nhdr", "a/z.raw", "a/lost_seg.nii"]
    found = {u.key: {f.path for f in u.files} for u in units([FileStat(n, 1, 1) for n in names])}
    assert found == {
        "a/x_ct.nii.gz": {"a/x_ct.nii.gz", "a/x_seg.nii.gz"},
        "a/y.nii": {"a/y.nii"},
        "a/z.nhdr": {"a/z.nhdr", "a/z.raw"},
        "a/lost_seg.nii": {"a/lost_seg.nii"},
    }


# --- words of headers -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *("B30f", "Br38f", "Qr40d", "H31s", "STANDARD", "BONEPLUS", "HD LUNG", "FC51", "FC08-H"),
        *("YC", "B", "B_SHARP_C", "I30f\\3"),
    ],
)
def test_kernels_are_known_by_their_makers_names(name: str) -> None:
    assert words.kernel(name) == name.split("\\")[0]


@pytest.mark.parametrize(
    "typed", ["Mueller", "Anna", "J Smith", "B30f Mueller", "19850412", "Dr B"]
)
def test_what_a_person_typed_never_leaves_the_header(typed: str) -> None:
    assert words.kernel(typed) == "other"
    assert words.model(typed, "ge") is None
    assert words.model(f"LightSpeed {typed}", "ge") is None


@pytest.mark.parametrize("typed", ["30", "123", "B123", "b30F", "standard "])
def test_a_kernel_is_never_passed_on_as_it_was_typed(typed: str) -> None:
    expected = {"b30F": "B30f", "standard ": "STANDARD"}.get(typed, "other")
    assert words.kernel(typed) == expected


def test_unknown_kernels_of_one_series_stay_apart(tmp_path: Path) -> None:
    """Both are "other" in the index, and not one volume."""
    for name in ("mine", "yours"):
        ct_series(tmp_path / "a" / name, [0, 2, 4], ConvolutionKernel=name)
    found = index(tmp_path / "a", tmp_path / "idx")
    assert found.items["slices"].to_list() == [3, 3]
    assert found.items["kernel"].to_list() == ["other", "other"]


@pytest.mark.parametrize(
    ("tags", "code"),
    [
        ({"ImageType": ["DERIVED", "PRIMARY", "TOMOSYNTHESIS"]}, "tomosynthesis"),
        ({"shape": (16, 2500)}, "not-a-slice"),
        ({"PixelSpacing": [80, 80]}, "not-a-slice"),
    ],
)
def test_what_is_stored_as_ct_and_is_no_slice(tmp_path: Path, tags: dict, code: str) -> None:
    ct_slice(tmp_path / "a" / "x", 0, **tags)
    found = index(tmp_path / "a", tmp_path / "idx")
    assert (len(found.items), found.rejects["code"].to_list()) == (0, [code])


# --- who is who -----------------------------------------------------------------------------------


def test_two_spellings_of_one_patient_are_told_and_merged_by_an_option_only(tmp_path: Path) -> None:
    for name, patient in (("x", "PAT 007"), ("y", "pat7"), ("z", "PAT 8")):
        own = {"SeriesInstanceUID": generate_uid(), "PatientID": patient}
        ct_series(tmp_path / "a" / name, [0, 2, 4], **own)
    summary = build(tmp_path / "a", tmp_path / "idx", plugin)
    found = Index.open(tmp_path / "idx")
    assert found.items["patient"].n_unique() == 3
    told = found.items["findings"].list.contains("patient-spellings")
    assert told.sum() == 2
    assert any(
        "2 patients may be 1" in note and "--merge-spellings" in note for note in summary.notes
    )
    build(tmp_path / "a", tmp_path / "merged", plugin, merge_spellings=True)
    merged = Index.open(tmp_path / "merged")
    assert merged.items["patient"].n_unique() == 2
    assert not merged.items["findings"].list.contains("patient-spellings").any()


def test_a_command_says_what_to_type(tmp_path: Path) -> None:
    for name in ("s1", "s2", "s3"):
        own = {"SeriesInstanceUID": generate_uid(), "PatientID": "CT"}
        ct_series(tmp_path / "a" / name, [0, 2, 4], **own)
    command = ["index", str(tmp_path / "a"), "--plugin", "ct", "--out", str(tmp_path / "idx")]
    out = CliRunner().invoke(app, [*command, "--workers", "1"], catch_exceptions=False).stdout
    assert "3 items have a patient whose id is a word" in out
    assert "--patient-from '^(?P<patient>[^/]+)/'" in out
