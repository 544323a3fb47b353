"""Layouts of public data sets, and the files that they are made of. All values are synthetic."""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from ct_synthetic import ct_slice
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels import pixel_array
from pydicom.uid import JPEGLosslessSV1, JPEGLSLossless
from typer.testing import CliRunner

from medcl import ingestion
from medcl.archive.index import Index, build
from medcl.archive.store import Prepared, prepare
from medcl.plugin import FileStat
from medcl_cli.main import app
from medcl_ct import codecs, layouts, structures
from medcl_ct.people import people
from medcl_ct.plugin import plugin
from medcl_ct.units import stem, units

AS_IT_IS = {"spacing": (0.0, 0.0, 0.0), "crop": "none", "clip": None}
AFFINE = np.diag([-1.0, -1.5, 2.0, 1.0])
SHAPE = (9, 8, 7)


def _twice(data: bytes) -> bytes:
    return gzip.compress(gzip.compress(data))


def values(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1000, 1000, SHAPE).astype(np.int16)


def mask(seed: int = 0, share: float = 0.3) -> np.ndarray:
    return (np.random.default_rng(seed).random(SHAPE) < share).astype(np.uint8)


def saved(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name.endswith((".mha", ".mhd")):
        image = sitk.GetImageFromArray(array.T)
        image.SetSpacing([1.0, 1.5, 2.0])
        sitk.WriteImage(image, str(path))
    else:
        nib.save(nib.Nifti1Image(array, affine), path)
    return path


def read(archive: Path, out: Path) -> tuple[Index, Prepared]:
    build(archive, out, plugin)
    index = Index.open(out)
    return index, prepare(index, plugin, AS_IT_IS)


LAYOUTS: dict[str, tuple[dict[str, tuple[str, ...]], set[str]]] = {
    # image → its masks; the patients
    "totalsegmentator": (
        {
            "s0001/ct.nii.gz": ("s0001/segmentations/liver.nii.gz",),
            "s0002/ct.nii.gz": ("s0002/segmentations/liver.nii.gz",),
        },
        {"s0001", "s0002"},
    ),
    "decathlon": (
        {
            "Task03/imagesTr/liver_1.nii.gz": ("Task03/labelsTr/liver_1.nii.gz",),
            "Task03/imagesTr/liver_10.nii.gz": ("Task03/labelsTr/liver_10.nii.gz",),
            "Task03/imagesTs/liver_2.nii.gz": (),
        },
        {"liver_1", "liver_10", "liver_2"},
    ),
    "nnunet": (
        {
            "D/imagesTr/KID_001_0000.nii.gz": ("D/labelsTr/KID_001.nii.gz",),
            "D/imagesTr/KID_002_0000.nii.gz": ("D/labelsTr/KID_002.nii.gz",),
            "D/imagesTs/KID_003_0000.nii.gz": ("D/labelsTs/KID_003.nii.gz",),
        },
        {"KID_001", "KID_002", "KID_003"},
    ),
    "luna16": (
        {
            f"subset{n}/1.3.6.1.4.1.14519.5.2.{n}.mhd": (
                f"seg-lungs-LUNA16/1.3.6.1.4.1.14519.5.2.{n}.mhd",
            )
            for n in range(3)
        },
        {f"1.3.6.1.4.1.14519.5.2.{n}" for n in range(3)},
    ),
    "kits": (
        {
            "case_00000/imaging.nii.gz": ("case_00000/segmentation.nii.gz",),
            "case_00001/imaging.nii.gz": ("case_00001/segmentation.nii.gz",),
        },
        {"case_00000", "case_00001"},
    ),
    "bids": (
        {"sub-01/ses-1/ct/sub-01_ct.nii.gz": ("sub-01/ses-1/ct/sub-01_dseg.nii.gz",)},
        {"sub-01"},
    ),
    "ct-rate": (
        {f"train_{p}/train_{p}_a/train_{p}_a_{r}.nii.gz": () for p in (1, 2) for r in (1, 2)},
        {"train_1", "train_2"},
    ),
    "lits, in batches": (
        {
            "Batch 1/volume-0.nii": ("Batch 1/segmentation-0.nii",),
            "Batch 2/volume-10.nii": ("Batch 2/segmentation-10.nii",),
        },
        {"volume-0", "volume-10"},
    ),
    "ct-org": (
        {
            f"OrganSegmentations/volume-{n}.nii.gz": (f"OrganSegmentations/labels-{n}.nii.gz",)
            for n in (1, 11)
        },
        {"volume-1", "volume-11"},
    ),
    "btcv": (
        {f"Training/img/img000{n}.nii.gz": (f"Training/label/label000{n}.nii.gz",) for n in (1, 2)},
        {"img0001", "img0002"},
    ),
    "amos, whose cases are numbered like channels": (
        {
            "imagesTr/amos_0001.nii.gz": ("labelsTr/amos_0001.nii.gz",),
            "imagesTr/amos_0004.nii.gz": ("labelsTr/amos_0004.nii.gz",),
            "imagesTs/amos_0006.nii.gz": (),
        },
        {"amos_0001", "amos_0004", "amos_0006"},
    ),
    "nnunet, cases numbered from 0000": (
        {f"imagesTr/lung_{n:04d}.nii.gz": (f"labelsTr/lung_{n:04d}.nii.gz",) for n in range(3)},
        {f"lung_{n:04d}" for n in range(3)},
    ),
    "flare": (
        {
            f"TrainingImg/train_00{n}_0000.nii.gz": (f"TrainingMask/train_00{n}.nii.gz",)
            for n in (0, 1)
        },
        {"train_000", "train_001"},
    ),
    "verse": (
        {
            f"rawdata/sub-verse5/sub-verse5_dir-{d}_ct.nii.gz": (
                f"derivatives/sub-verse5/sub-verse5_dir-{d}_seg-vert_msk.nii.gz",
            )
            for d in ("ax", "sag")
        },
        {"sub-verse5"},
    ),
    "bids with derivatives": (
        {
            f"sub-01/ses-{n}/ct/sub-01_ses-{n}_ct.nii.gz": (
                f"derivatives/by_hand/sub-01/ses-{n}/ct/sub-01_ses-{n}_desc-liver_mask.nii.gz",
            )
            for n in (1, 2)
        },
        {"sub-01"},
    ),
    "two sets of bids": (
        {f"{name}/sub-01/ct/sub-01_ct.nii.gz": () for name in ("one", "other")},
        {"one/sub-01", "other/sub-01"},
    ),
    "two sets of nnunet": (
        {f"D{n}/imagesTr/C_001_0000.nii.gz": (f"D{n}/labelsTr/C_001.nii.gz",) for n in (1, 2)},
        {"D1/C_001", "D2/C_001"},
    ),
    "autopet": (
        {
            f"PETCT_{who}/{when}/CTres.nii.gz": (f"PETCT_{who}/{when}/SEG.nii.gz",)
            for who, when in [
                ("0a1", "03-23-2003-NA"),
                ("0b2", "08-13-2005-NA"),
                ("0b2", "09-2006"),
            ]
        },
        {"PETCT_0a1", "PETCT_0b2"},
    ),
    "nnunet, cases with dates": (
        {
            f"imagesTr/P_{who}_0000.nii.gz": (f"labelsTr/P_{who}.nii.gz",)
            for who in ("a_2018-04-23", "a_2019-05-06", "b_2018-04-23")
        },
        {"P_a", "P_b"},
    ),
    "abdomenatlas": (
        {f"BDMAP_000{n}/ct.nii.gz": (f"BDMAP_000{n}/combined_labels.nii.gz",) for n in (1, 2)},
        {"BDMAP_0001", "BDMAP_0002"},
    ),
    "folders by what they hold": (
        {
            f"train-images/Rib{n}-image.nii.gz": (f"train-labels/Rib{n}-label.nii.gz",)
            for n in (1, 2)
        },
        {"Rib1", "Rib2"},
    ),
    "images a level deeper than masks": (
        {
            f"studies/CT-{n}/study_025{n}.nii.gz": (f"masks/study_025{n}_mask.nii.gz",)
            for n in (1, 2)
        },
        {"study_0251", "study_0252"},
    ),
    "one name in two folders": (
        {"a/scan1.nii.gz": (), "b/scan1.nii.gz": (), "b/scan2.nii.gz": ()},
        {"a/scan1", "b/scan1", "scan2"},
    ),
    "side by side": (
        {"a.nii.gz": ("a_seg.nii.gz",), "b_ct.nii.gz": ("b_label.nii.gz",)},
        {"a", "b"},
    ),
    "beside a folder of masks": (
        {"p1.nii.gz": ("masks/p1.nii.gz",), "p2.nii.gz": ()},
        {"p1", "p2"},
    ),
}


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_layouts_say_who_and_which_mask(tmp_path: Path, name: str) -> None:
    images, patients = LAYOUTS[name]
    for seed, (image, masks) in enumerate(images.items()):
        saved(tmp_path / "a" / image, values(seed))
        for path in masks:
            saved(tmp_path / "a" / path, mask(seed))
    index, made = read(tmp_path / "a", tmp_path / "idx")
    assert index.rejects.is_empty()
    assert made.rejects.is_empty()
    assert len(index.items) == len(images)
    assert index.items["patient"].n_unique() == len(patients)
    for item in index.items["id"]:
        key = index.locate(item)
        seed = list(images).index(key)
        arrays = made.arrays(item)
        assert np.array_equal(np.sort(arrays["hu0"], axis=None), np.sort(values(seed), axis=None))
        assert ("mask0" in arrays) == bool(images[key])
        if images[key]:  # the mask lies on the voxels that it was drawn on
            drawn = np.sort(np.array(arrays["hu0"])[np.array(arrays["mask0"]) > 0])
            assert np.array_equal(drawn, np.sort(values(seed)[mask(seed) > 0]))
    found = people([stem(path) for path in images])
    assert {who for who, _ in found.values()} == patients


@pytest.mark.parametrize("name", ["totalsegmentator", "decathlon", "nnunet", "bids", "luna16"])
@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "windows"])
def test_layouts_in_an_archive_as_macos_packs_it(tmp_path: Path, name: str, kind: str) -> None:
    """The Decathlon's tars hold a fork of each file, which is neither an image nor a mask.

    The folder of masks may be the first of a name: LUNA16's, and nnU-Net's without its data set's.
    Names may begin with ``./`` (tar's of a folder) or have backslashes (zip's of Windows).
    """
    images, patients = LAYOUTS[name]
    for seed, (image, masks) in enumerate(images.items()):
        for path, array in ((image, values(seed)), *((m, mask(seed)) for m in masks)):
            file = saved(tmp_path / "set" / path, array)
            (file.parent / f"._{file.name}").write_bytes(b"\0\5\x16\7" + bytes(200))
            (tmp_path / "set" / "__MACOSX").mkdir(exist_ok=True)
            (tmp_path / "set" / "__MACOSX" / f"._{file.name}").write_bytes(
                b"\0\5\x16\7" + bytes(200)
            )
    (tmp_path / "a").mkdir()
    if kind == "windows":
        with zipfile.ZipFile(tmp_path / "a" / "set.zip", "w") as packed:
            for file in (f for f in (tmp_path / "set").rglob("*") if f.is_file()):
                name = str(file.relative_to(tmp_path / "set")).replace("/", "\\")
                packed.writestr(zipfile.ZipInfo(name), file.read_bytes())
    else:
        form = {"zip": "zip", "tar": "tar", "tar.gz": "gztar"}[kind]
        shutil.make_archive(str(tmp_path / "a" / "set"), form, tmp_path / "set")
    index, made = read(tmp_path / "a", tmp_path / "idx")
    assert index.rejects.is_empty()
    assert made.rejects.is_empty()
    assert index.items["mask"].sum() == sum(bool(masks) for masks in images.values())
    assert len(index.items) == len(images)
    assert index.items["patient"].n_unique() == len(patients)


@pytest.mark.parametrize("name", ["totalsegmentator", "decathlon", "nnunet", "bids", "luna16"])
def test_the_command_needs_no_option_for_a_layout(tmp_path: Path, name: str) -> None:
    images, patients = LAYOUTS[name]
    for seed, (image, masks) in enumerate(images.items()):
        saved(tmp_path / "a" / image, values(seed))
        for path in masks:
            saved(tmp_path / "a" / path, mask(seed))
    command = ["index", str(tmp_path / "a"), "--plugin", "ct", "--out", str(tmp_path / "idx")]
    done = CliRunner().invoke(app, [*command, "--workers", "1"])
    assert done.exit_code == 0, done.output
    index = Index.open(tmp_path / "idx")
    assert index.rejects.is_empty()
    masked = {index.locate(item): mask for item, mask in index.items.select("id", "mask").rows()}
    assert masked == {image: bool(masks) for image, masks in images.items()}
    assert index.items["patient"].n_unique() == len(patients)


@given(
    st.sampled_from(["seg", "mask", "label", "labels", "segmentation", "GT", "msk", "roi"]),
    st.sampled_from("_-."),
    st.lists(  # a patient called Seg0 beside Aaa0 is a mask to anybody
        st.from_regex(r"[A-Z][a-z]{2}[0-9]{1,4}", fullmatch=True).filter(
            lambda case: case[:3] not in ("Seg", "Msk", "Roi", "Lab", "Gts")
        ),
        min_size=2,
        unique=True,
    ),
    st.sampled_from(["", "ct", "image", "img"]),
)
@settings(max_examples=200, deadline=None)
def test_words_for_masks_at_either_end(word: str, dash: str, cases: list[str], end: str) -> None:
    images = [f"d/{case}{dash + end if end else ''}" for case in cases]
    for masks in (
        [f"d/{case}{dash}{word}" for case in cases],
        [f"d/{word}{dash}{case}" for case in cases],
        [f"d/labelsTr/{case}" for case in cases],
        [f"d/{case}{dash}{word}{dash}1" for case in cases],
    ):
        assert all(map(layouts.is_mask, masks))
        assert not any(map(layouts.is_mask, images))
        owners = layouts.owners(images, masks)
        assert [owners[mask] for mask in masks] == [[image] for image in images]
    assert sorted(who for who, _ in people(images).values()) == sorted(cases)


@pytest.mark.parametrize(
    ("second", "left"),
    [
        ("s0007/instances/kidney_instance-1_annotation-1.nii.gz", "instances"),
        ("s0007/segmentations/liver.nii.gz", "s0007/segmentation"),
    ],
)
def test_a_map_of_labels_and_structures_are_not_mixed(
    tmp_path: Path, second: str, left: str
) -> None:
    saved(tmp_path / "a" / "s0007" / "ct.nii.gz", values())
    saved(tmp_path / "a" / "s0007" / "segmentation.nii.gz", mask(1) * 3)
    saved(tmp_path / "a" / second, mask(2))
    saved(tmp_path / "a" / second.replace("liver", "spleen"), mask(2, 0.0))
    index, made = read(tmp_path / "a", tmp_path / "idx")
    assert index.rejects["code"].to_list() == ["second-mask"]
    assert left in index.locate(index.rejects["id"][0])
    labels = set(np.unique(made.arrays(index.items["id"][0])["mask0"]))
    assert labels == ({0, 3} if left == "instances" else {0, 5})


def test_channels_of_one_case_share_its_mask_and_its_patient() -> None:
    """nnU-Net's channels, and BraTS's, which are words."""
    for end, mask_ in (("000{}", "labelsTr/C_00{}"), ("t{}", "imagesTr/C_00{}_seg")):
        images = [f"imagesTr/C_00{n}_{end.format(c)}" for n in (1, 2) for c in (0, 1)]
        images = [image.replace("_t0", "_flair") for image in images]
        masks = [mask_.format(n) for n in (1, 2)]
        owners = layouts.owners(images, masks)
        assert [set(owners[mask]) for mask in masks] == [set(images[:2]), set(images[2:])]
        assert [who for who, _ in people(images).values()] == ["C_001"] * 2 + ["C_002"] * 2


def test_people_of_one_name_in_two_sets_are_noticed() -> None:
    keys = ["one/sub-01/sub-01_ct", "other/sub-01/sub-01_ct", "other/sub-02/sub-02_ct"]
    found = people(keys)
    assert [found[key][1] for key in keys] == [("patient-in-folders",)] * 2 + [()]
    assert len({who for who, _ in found.values()}) == 3


def test_structures_of_one_patient_are_one_map_of_labels(tmp_path: Path) -> None:
    saved(tmp_path / "a" / "s0007" / "ct.nii.gz", values())
    names = ("spleen", "heart", "rib_left_1", "sternum")
    for n, name in enumerate(names):
        drawn = (values() % 5 == n).astype(np.uint8)
        saved(tmp_path / "a" / "s0007" / "segmentations" / f"{name}.nii.gz", drawn)
    index, made = read(tmp_path / "a", tmp_path / "idx")
    assert index.items["findings"].to_list() == [["patient-from-layout"]]
    arrays = made.arrays(index.items["id"][0])
    hu, labels = np.array(arrays["hu0"]), np.array(arrays["mask0"])
    for n, name in enumerate(names):
        assert np.array_equal(labels == structures.code(name), hu % 5 == n)
    assert (labels[hu % 5 == 4] == 0).all()


def test_masks_by_unknown_names_are_noticed(tmp_path: Path) -> None:
    saved(tmp_path / "a" / "s0007" / "ct.nii.gz", values())
    for name in ("my_lesion", "liver"):
        saved(tmp_path / "a" / "s0007" / "segmentations" / f"{name}.nii.gz", mask())
    index, made = read(tmp_path / "a", tmp_path / "idx")
    assert "mask-names" in index.items["findings"][0]
    labels = made.arrays(index.items["id"][0])["mask0"]
    assert set(np.unique(labels)) == {0, 5}  # both cover the same voxels: the first by name holds


@pytest.mark.parametrize(
    "paths",
    [
        ["labelsTr/liver_1.nii.gz", "imagesTr/liver_2.nii.gz"],
        ["masks/liver.nii.gz", "p1.nii.gz", "p2.nii.gz"],
        ["a/x.nii.gz", "b/x.nii.gz", "seg/x.nii.gz"],
    ],
)
def test_a_mask_whose_image_is_not_certain_is_no_item(tmp_path: Path, paths: list[str]) -> None:
    for path in paths:
        saved(tmp_path / "a" / path, values())
    index, _ = read(tmp_path / "a", tmp_path / "idx")
    assert index.rejects["code"].to_list() == ["mask-alone"]
    assert len(index.items) == len(paths) - 1


@given(
    st.lists(
        st.from_regex(r"[a-z]{1,6}(_[0-9]{1,3})?", fullmatch=True).filter(
            lambda name: not layouts.is_mask(name)
        ),
        min_size=1,
        max_size=8,
        unique=True,
    ),
    st.randoms(),
)
@settings(max_examples=100, deadline=None)
def test_units_of_a_layout_do_not_depend_on_order(names: list[str], random: object) -> None:
    files = [f"d/imagesTr/{name}_0000.nii.gz" for name in names]
    files += [f"d/labelsTr/{name}.nii.gz" for name in names]
    random.shuffle(files)  # type: ignore[attr-defined]
    found = {u.key: {f.path for f in u.files} for u in units([FileStat(f, 1, 1) for f in files])}
    assert found == {
        f"d/imagesTr/{name}_0000.nii.gz": {
            f"d/imagesTr/{name}_0000.nii.gz",
            f"d/labelsTr/{name}.nii.gz",
        }
        for name in names
    }


# --- formats -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["x.mha", "x.mhd", "x.nii", "x.nii.gz", "x.hdr", "x.hdr.gz", "packed.nii", "plain.nii.gz"],
)
@pytest.mark.parametrize("kind", [np.int16, np.float32, np.uint16])
def test_formats_hold_the_same(tmp_path: Path, name: str, kind: type) -> None:
    array = values().astype(kind) if kind is not np.uint16 else (values() + 1000).astype(kind)
    folder = tmp_path / "a"
    folder.mkdir()
    if name.startswith("x.hdr"):
        suffix = name.removeprefix("x.hdr")
        nib.save(nib.Nifti1Pair(array, AFFINE), folder / f"x.img{suffix}")
        assert (folder / name).is_file()
    elif name == "packed.nii":
        saved(folder / "x.nii.gz", array).rename(folder / name)
    elif name == "plain.nii.gz":
        saved(folder / "x.nii", array).rename(folder / name)
    else:
        saved(folder / name, array)
    build(folder, tmp_path / "idx", plugin)
    index = Index.open(tmp_path / "idx")
    spec = {**AS_IT_IS, "policy": {"not-hu": "accept", "no-affine": "accept"}}
    made = prepare(index, plugin, spec)
    assert index.rejects.is_empty()
    arrays = made.arrays(made.items["id"][0])
    assert np.array_equal(np.array(arrays["hu0"]), array.transpose(2, 1, 0).astype(np.int16))
    steps = np.linalg.norm(arrays["affine0"][:3, :3], axis=0)
    assert np.allclose(steps, [2.0, 1.5, 1.0])


@pytest.mark.parametrize("kind", ["zip", "tar", "gztar"])
@pytest.mark.parametrize("name", ["x.mhd", "y.mhd", "x.hdr", "x.hdr.gz", "x.nhdr"])
def test_headers_and_values_apart_in_an_archive(tmp_path: Path, name: str, kind: str) -> None:
    """Beside a DICOM that is named like the values of a volume, and a header that lacks its own."""
    folder = tmp_path / "set" / "deep"
    folder.mkdir(parents=True)
    if name.startswith("x.hdr"):
        end = name.removeprefix("x.hdr")
        nib.save(nib.Nifti1Pair(values(), AFFINE), folder / f"x.img{end}")
    elif name == "x.nhdr":
        sitk.WriteImage(sitk.GetImageFromArray(values().T), str(folder / name))
    else:
        saved(folder / name, values())
    if name == "y.mhd":
        (folder / "y.raw").rename(folder / "values.raw")
        (folder / name).write_text((folder / name).read_text().replace("y.raw", "values.raw"))
    for n in range(3):
        ct_slice(tmp_path / "set" / "dicom" / f"{n}.img", 2.0 * n, InstanceNumber=n + 1)
    saved(tmp_path / "set" / "lost" / "z.mhd", values(1))
    (tmp_path / "set" / "lost" / "z.raw").unlink()
    (tmp_path / "a").mkdir()
    shutil.make_archive(str(tmp_path / "a" / "set"), kind, tmp_path / "set")
    build(tmp_path / "a", tmp_path / "idx", plugin)
    index = Index.open(tmp_path / "idx")
    assert index.rejects["code"].to_list() == ["missing-data"]
    assert sorted(index.items["slices"]) == [3, SHAPE[2]]
    policy = {"not-hu": "accept", "no-affine": "accept"}
    made = prepare(index, plugin, {**AS_IT_IS, "policy": policy})
    assert made.rejects.is_empty()
    mine = index.items.filter(index.items["source"] != "dicom")["id"][0]
    assert np.array_equal(np.array(made.arrays(mine)["hu0"]), values().transpose(2, 1, 0))


def test_headers_that_name_data_of_another_stem(tmp_path: Path) -> None:
    """Each goes with its own alone; so `medcl predict` finds it too."""
    for seed, name in enumerate("xy"):
        path = saved(tmp_path / "a" / f"{name}.mhd", values(seed))
        path.with_suffix(".raw").rename(path.with_name(f"{name}_values.raw"))
        path.write_text(path.read_text().replace(f"{name}.raw", f"{name}_values.raw"))
    build(tmp_path / "a", tmp_path / "idx", plugin)
    index = Index.open(tmp_path / "idx")
    assert sorted(index.files(item) for item in index.items["id"]) == [
        (f"{name}.mhd", f"{name}_values.raw") for name in "xy"
    ]
    assert index.rejects.is_empty()
    with ingestion.read_once(plugin, [tmp_path / "a" / "y.mhd"]) as alone:
        assert [alone.files(item) for item in alone.items["id"]] == [("y.mhd", "y_values.raw")]


@pytest.mark.parametrize(
    ("suffix", "pack", "name"),
    [(".bz2", bz2.compress, "bzip2"), (".xz", lzma.compress, "xz"), (".gz.gz", _twice, "gzip")],
)
def test_what_is_packed_in_another_way_says_so(
    tmp_path: Path, suffix: str, pack: Callable[[bytes], bytes], name: str
) -> None:
    path = saved(tmp_path / "a" / "x.nii", values())
    path.with_name(f"x.nii{suffix}").write_bytes(pack(path.read_bytes()))
    path.unlink()
    build(tmp_path / "a", tmp_path / "idx", plugin)
    rejects = Index.open(tmp_path / "idx").rejects
    assert rejects["code"].to_list() == ["compressed"]
    assert name in rejects["reason"][0]


def test_a_mask_that_nothing_names_is_no_mr(tmp_path: Path) -> None:
    """Of CT it is told by its lack of air (``not-hu``)."""
    saved(tmp_path / "a" / "p1_T1w.nii.gz", values() + 1000)
    saved(tmp_path / "a" / "p1_T1w_lesion.nii.gz", mask())
    build(tmp_path / "a", tmp_path / "idx", plugin)
    index = Index.open(tmp_path / "idx")
    made = prepare(index, plugin, {"spacing": (0.0, 0.0, 0.0), "modality": "mr"})
    assert [index.locate(item) for item in made.items["id"]] == ["p1_T1w.nii.gz"]
    assert made.rejects["reason"][0].startswith("like-mask: ")


def test_a_metaimage_that_points_elsewhere_is_refused(tmp_path: Path) -> None:
    saved(tmp_path / "a" / "x.mhd", values())
    secret = tmp_path / "secret.raw"
    (tmp_path / "a" / "x.raw").rename(secret)
    text = (tmp_path / "a" / "x.mhd").read_text()
    (tmp_path / "a" / "x.mhd").write_text(text.replace("x.raw", str(secret)))
    build(tmp_path / "a", tmp_path / "idx", plugin)
    assert Index.open(tmp_path / "idx").rejects["code"].to_list() == ["missing-data"]


@pytest.mark.parametrize(("unit", "scale"), [("meter", 1000.0), ("micron", 0.001), ("mm", 1.0)])
def test_units_of_length(tmp_path: Path, unit: str, scale: float) -> None:
    image = nib.Nifti1Image(values(), np.diag([*(np.diag(AFFINE)[:3] / scale), 1.0]))
    image.header.set_xyzt_units(unit)
    (tmp_path / "a").mkdir()
    nib.save(image, tmp_path / "a" / "x.nii.gz")
    index, made = read(tmp_path / "a", tmp_path / "idx")
    assert index.items["spacing_mm"][0] == pytest.approx(2.0, rel=1e-5)
    assert ("converted-units" in index.items["findings"][0]) == (unit != "mm")
    steps = np.linalg.norm(made.arrays(index.items["id"][0])["affine0"][:3, :3], axis=0)
    assert np.allclose(steps, [2.0, 1.5, 1.0], rtol=1e-5)


def test_a_unit_that_is_not_said(tmp_path: Path) -> None:
    image = nib.Nifti1Image(values(), np.diag([0.001, 0.001, 0.002, 1.0]))
    image.header.set_xyzt_units("mm")
    (tmp_path / "a").mkdir()
    nib.save(image, tmp_path / "a" / "x.nii.gz")
    _, made = read(tmp_path / "a", tmp_path / "idx")
    assert made.rejects["reason"][0].startswith("odd-spacing: ")


@pytest.mark.parametrize(
    ("other", "finding"),
    [
        (np.diag([1.0, -1.5, 2.0, 1.0]), "qform-sform"),
        (np.diag([-1.0, -1.5, 2.5, 1.0]), "qform-sform"),
        (AFFINE + np.array([[0, 0, 0, 50.0]] * 3 + [[0] * 4]), "two-origins"),
        (AFFINE + 1e-5 * np.eye(4, k=3), None),
    ],
)
def test_two_forms_that_disagree(tmp_path: Path, other: np.ndarray, finding: str | None) -> None:
    image = nib.Nifti1Image(values(), AFFINE)
    image.set_sform(AFFINE, 1)
    image.set_qform(other, 1)
    (tmp_path / "a").mkdir()
    nib.save(image, tmp_path / "a" / "x.nii.gz")
    index, made = read(tmp_path / "a", tmp_path / "idx")
    found = set(index.items["findings"][0]) - {"no-patient-id"}
    assert found == ({finding} if finding else set())
    assert len(made.rejects) == (finding == "qform-sform")


# --- codecs --------------------------------------------------------------------------------------


def noise(bits: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**bits, (40, 24)).astype(np.uint16)


def recoded(folder: Path, syntax: str, stored: np.ndarray, code: bytes) -> None:
    for n in range(3):
        path = ct_slice(folder / f"{n}.dcm", 2.0 * n, stored.shape, PixelData=stored.tobytes())
        one = dcmread(path)
        one.PixelData = encapsulate([code])
        one["PixelData"].is_undefined_length = True
        one.file_meta.TransferSyntaxUID = syntax
        one.save_as(path)


@pytest.mark.slow
@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("predictor", [1, 2, 3, 4, 5, 6, 7])
def test_jpeg_lossless_is_decoded_to_the_bit(tmp_path: Path, bits: int, predictor: int) -> None:
    stored = noise(bits)
    code = imagecodecs.jpeg8_encode(stored, lossless=True, bitspersample=16, predictor=predictor)
    assert np.array_equal(imagecodecs.jpegsof3_decode(code), stored), "another decoder agrees"
    recoded(tmp_path / "a", JPEGLosslessSV1, stored, bytes(code))
    build(tmp_path / "a", tmp_path / "idx", plugin)
    made = prepare(Index.open(tmp_path / "idx"), plugin, AS_IT_IS)
    expected = np.clip(stored.astype(np.int64) - 1024, -32768, 32767)
    assert np.array_equal(made.arrays(made.items["id"][0])["hu0"][1], expected)


def test_jpeg_ls_is_decoded_to_the_bit(tmp_path: Path) -> None:
    stored = noise(12)
    recoded(tmp_path / "a", JPEGLSLossless, stored, bytes(imagecodecs.jpegls_encode(stored)))
    build(tmp_path / "a", tmp_path / "idx", plugin)
    made = prepare(Index.open(tmp_path / "idx"), plugin, AS_IT_IS)
    hu = made.arrays(made.items["id"][0])["hu0"][1]
    assert np.array_equal(hu, stored.astype(np.int16) - 1024)


@pytest.mark.parametrize(
    "name",
    ["JPEGLSNearLossless_16.dcm", "JPEGLSNearLossless_08.dcm", "MR_small_jpeg_ls_lossless.dcm"],
)
def test_both_decoders_of_jpeg_ls_give_the_same(name: str) -> None:
    """pydicom's own test files, by pyjpegls and by imagecodecs."""
    pytest.importorskip("jpeg_ls")
    codecs.register()
    one = dcmread(str(get_testdata_file(name)))
    ours = pixel_array(one, decoding_plugin="imagecodecs")
    assert np.array_equal(ours, pixel_array(one, decoding_plugin="pyjpegls"))


def test_a_codec_that_lacks_is_a_finding_of_the_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = noise(12)
    recoded(tmp_path / "a", JPEGLSLossless, stored, bytes(imagecodecs.jpegls_encode(stored)))
    monkeypatch.setattr(codecs, "missing", lambda syntax: True)
    build(tmp_path / "a", tmp_path / "idx", plugin)
    assert Index.open(tmp_path / "idx").items["findings"].to_list() == [["missing-codec"]]


@pytest.mark.parametrize("order", ["implicit", "explicit"])
def test_files_without_meta_header(tmp_path: Path, order: str) -> None:
    for n in range(3):
        one = dcmread(ct_slice(tmp_path / "with" / f"{n}", 2.0 * n))
        bare = Dataset()
        bare.update({element.tag: element for element in one})
        (tmp_path / "a").mkdir(exist_ok=True)
        bare.save_as(
            tmp_path / "a" / f"{n}",
            implicit_vr=order == "implicit",
            little_endian=True,
            enforce_file_format=False,
        )
    _, made = read(tmp_path / "a", tmp_path / "idx")
    _, expected = read(tmp_path / "with", tmp_path / "idx2")
    hu = [m.arrays(m.items["id"][0])["hu0"] for m in (made, expected)]
    assert np.array_equal(hu[0], hu[1])


def test_gzip_of_dicom_still_says_what_to_do(tmp_path: Path) -> None:
    path = ct_slice(tmp_path / "x", 0.0)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.dcm.gz").write_bytes(gzip.compress(path.read_bytes()))
    build(tmp_path / "a", tmp_path / "idx", plugin)
    assert Index.open(tmp_path / "idx").rejects["code"].to_list() == ["compressed"]
