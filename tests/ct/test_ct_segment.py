"""Segmentation of CT: names of masks, patches, writing on the files' own grid, and end to end.

"Phantoms" are synthetic (`phantoms.py`); the one real mask, of an aorta, is an over-fit check.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import phantoms
import polars as pl
import pytest
import torch
from typer.testing import CliRunner

import medcl
from medcl import recipe as recipes
from medcl.archive.index import Index, build
from medcl.classifiers.unet import UNet
from medcl.dense import measure, train
from medcl.dense.fold import predict as probabilities
from medcl.dense.opened import DenseStudy
from medcl.dense.study import masked
from medcl.errors import MedclError, UsageError
from medcl.finetune.finetune import opened
from medcl.labels.outputs import Outputs
from medcl.plugin import Samples
from medcl.run import prepared, samples_of
from medcl_cli.main import app
from medcl_ct import mask_classes
from medcl_ct.encoders.resenc import resenc3d
from medcl_ct.mask_classes import Drawn
from medcl_ct.plugin import plugin
from medcl_ct.prepare import prepare
from medcl_ct.views import views
from medcl_ct.write_masks import write_masks

ENCODER: dict[str, Any] = {"name": "resenc3d", "widths": [8, 8, 16, 16], "blocks": [1, 1, 1, 1]}
SIZES = ["prepare.spacing=[2,2,2]", "dataset.size=[16,16,16]"]
PRETRAIN = [
    *SIZES,
    "dataset.crops=2",
    "views.size=[16]",
    f"encoder={json.dumps(ENCODER)}",
    "method.width=16",
    "trainer={steps: 2, batch_size: 4, workers: 0}",
    "monitor.samples=16",
]
FINETUNE = [
    "dataset.size=[16,16,16]",
    "classifier.deep_supervision=true",
    "finetune={epochs: 2, epoch_steps: 2, batch_size: 2, folds: 2, bootstraps: 100, tolerance: 2}",
]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms")
    phantoms.totalsegmentator(folder / "ts", 4)
    phantoms.decathlon(folder / "msd", 4)
    (folder / "key").write_text("phantoms have no secrets")
    return folder


def indexed(root: Path, out: Path) -> Path:
    build(root, out, plugin)
    return out


def whole(data: Path, **settings: Any) -> Samples:
    raw = {"dataset": {"kind": "whole", "size": [16, 16, 16], **settings}}
    base = {"name": "x", "plugin": "ct", "prepare": {"spacing": [2, 2, 2]}}
    recipe = recipes.parse({**base, **raw, "encoder": ENCODER, "classifier": {"name": "unet"}}, ())
    return samples_of(recipe, prepared(recipe, data))


@pytest.fixture(scope="module")
def study(archive: Path) -> Path:
    """From files to a study of masks, by the command line, with a SparK run in between."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDCL_KEY_FILE", str(archive / "key"))
        indexed(archive / "ts", archive / "idx")
        prepared(recipes.load("ct/spark-3d", PRETRAIN), archive / "idx")  # no worker processes
        medcl.pretrain("ct/spark-3d", archive / "idx", archive / "run", settings=PRETRAIN)
        arguments = [str(archive / "run"), "-r", "ct/segment", "--out", str(archive / "study")]
        settings = [part for setting in FINETUNE for part in ("-s", setting)]
        done = CliRunner().invoke(app, ["finetune", *arguments, *settings])
        assert done.exit_code == 0, done.output
        assert "Next: medcl report" in done.output
    return archive / "study"


@pytest.mark.slow
def test_the_study_compares_with_the_same_network_untrained(study: Path) -> None:
    opened_study = DenseStudy.open(study)
    result = opened_study.result
    assert result.classes == ["liver", "aorta"], "by the files' names, in TotalSegmentator's order"
    assert result.starts == ["pretrained", "untrained"]
    assert result.test_patients == result.test_images == 4
    cases = pl.read_parquet(study / "cases.parquet")
    assert len(cases) == 4 * 2 * 2, "images, classes, starts"
    mine = cases.filter((pl.col("start") == "pretrained") & (pl.col("class") == "liver"))
    figure = result.figures["pretrained"]["dice"]["liver"]
    assert figure.value == pytest.approx(mine["dice"].mean())
    assert figure.low is not None
    assert figure.low <= figure.value <= figure.high
    both = [
        cases.filter((pl.col("start") == s) & (pl.col("class") == "liver"))["dice"].mean()
        for s in result.starts
    ]
    assert result.difference["dice"]["liver"].value == pytest.approx(both[0] - both[1])
    for network in opened_study.networks:
        assert not opened_study.learnt_from(network) & set(_tested(network))
    assert "Pretraining used the test patients too, without masks." in result.notes


def _tested(network: Path) -> list[str]:
    return (
        pl.read_parquet(network / "split.parquet")
        .filter(pl.col("split") == "test")["patient"]
        .to_list()
    )


@pytest.mark.slow
def test_masks_are_predicted_on_the_grid_of_the_files(
    study: Path, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDCL_KEY_FILE", str(archive / "key"))
    new = phantoms.totalsegmentator(tmp_path / "new", 1, shape=(20, 30, 34))
    (new / "s0001").rename(new / "s0099")  # nobody of the study
    out = tmp_path / "masks"
    told = medcl.predict_masks(study, new, out, paths=True, workers=1)
    assert (told.images, told.files, dict(told.rejects)) == (1, 1, {})
    image, mask = nib.load(new / "s0099" / "ct.nii.gz"), nib.load(out / "s0099" / "ct.nii.gz")
    assert mask.shape == image.shape
    assert np.allclose(mask.affine, image.affine)
    table = pl.read_parquet(out / "volumes.parquet")
    values = np.asarray(mask.dataobj)
    assert table["voxels"].to_list() == [int((values == n).sum()) for n in (1, 2)]
    assert table["amount"].to_list() == [8.0 * n for n in table["voxels"]]  # mm³
    assert table["networks"].to_list() == [2, 2]
    again = medcl.predict_masks(study, archive / "ts" / "s0002", tmp_path / "own", workers=1)
    own = pl.read_parquet(again.out / "volumes.parquet")
    assert own["networks"].to_list() == [1, 1], "only the network that did not see the patient"
    assert "s0002" not in "".join(str(p) for p in again.out.rglob("*")), "named by its hash"
    with pytest.raises(UsageError, match="nifti or dicom-seg, not as 'png'"):
        medcl.predict_masks(study, new, tmp_path / "x", to="png", workers=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layout", "classes", "image"),
    [
        (phantoms.nnunet, ["liver", "aorta"], "imagesTr/organ_003_0000.nii.gz"),
        (
            phantoms.luna16,
            ["label 1", "label 2"],
            "subset0/1.3.6.1.4.1.14519.5.2.1.6279.6001.3.mhd",
        ),
    ],
)
def test_other_layouts_run_from_files_to_masks(
    tmp_path: Path, layout: Callable[..., Path], classes: list[str], image: str
) -> None:
    """By MAE this time: index, pretrain, fine-tune, predict; no option says who or which mask."""
    data = indexed(layout(tmp_path / "data", 4), tmp_path / "idx")
    index = Index.open(data)
    assert index.items["patient"].n_unique() == len(index.items) == 4
    assert index.items["mask"].all()
    assert index.rejects.is_empty()
    settings = [part for part in PRETRAIN if not part.startswith("method")]
    medcl.pretrain("ct/mae-unet-3d", data, tmp_path / "run", settings=settings)
    result = medcl.finetune(
        tmp_path / "run", tmp_path / "study", recipe="ct/segment", settings=FINETUNE
    )
    assert result.classes == classes
    assert result.test_patients == 4
    told = medcl.predict_masks(
        tmp_path / "study", tmp_path / "data" / image, tmp_path / "out", paths=True, workers=1
    )
    assert (told.images, dict(told.rejects)) == (1, {})
    (made,) = tmp_path.glob("out/**/*.nii.gz")
    assert nib.load(made).shape == (40, 32, 24)


@pytest.mark.slow
def test_the_report_shows_overlays_with_the_window(study: Path) -> None:
    done = CliRunner().invoke(app, ["report", str(study)])
    assert done.exit_code == 0, done.output
    page = (study / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 4, "one for each test image"
    assert "Grey from -160 to 240 HU (level 40, width 400)" in page
    assert "surface Dice at 2 mm" in page
    assert "s0001" not in page
    assert "</html>" in page


def test_the_same_call_trains_nothing_again_and_another_one_is_refused(
    study: Path, archive: Path
) -> None:
    models = {p: p.stat().st_mtime_ns for p in study.glob("networks/*/model.safetensors")}
    assert len(models) == 4
    first = DenseStudy.open(study).result
    again = medcl.finetune(archive / "run", study, recipe="ct/segment", settings=FINETUNE)
    assert again.figures == first.figures
    assert models == {p: p.stat().st_mtime_ns for p in study.glob("networks/*/model.safetensors")}
    with pytest.raises(UsageError, match="seed"):
        medcl.finetune(archive / "run", study, recipe="ct/segment", settings=[*FINETUNE, "seed=4"])


def test_dense_features_are_probed(study: Path, archive: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "medcl.dense.probe.SETTINGS", {"epochs": 1, "epoch_steps": 2, "validation": 0.0}
        )
        done = CliRunner().invoke(app, ["probe", str(archive / "run"), "--task", "segment"])
    assert done.exit_code == 0, done.output
    result = DenseStudy.open(archive / "run" / "probe-masks").result
    assert result.classifier == "voxel-linear"
    assert result.starts == ["pretrained", "untrained"]


def test_nnunet_loads_the_export(study: Path, tmp_path: Path) -> None:
    """Its trainer runs in an environment of its own, since it asks for other packages."""
    done = CliRunner().invoke(
        app, ["export", str(study), "--to", "nnunet", "--out", str(tmp_path / "nn")]
    )
    assert done.exit_code == 0, done.output
    plans = json.loads((tmp_path / "nn" / "plans.json").read_text())
    properties = plans["foreground_intensity_properties_per_channel"]["0"]
    assert (properties["percentile_00_5"], properties["percentile_99_5"]) == (-1000.0, 1000.0)
    state = torch.load(tmp_path / "nn" / "fold_1" / "checkpoint_final.pth", weights_only=True)
    assert (
        "decoder.encoder.stages.2.blocks.0.conv2.all_modules.1.weight" in state["network_weights"]
    )
    weights = DenseStudy.open(study).model(DenseStudy.open(study).networks[1]).state_dict()
    for ours, theirs in (("head", 2), ("coarse.0", 1)):  # it counts from the coarsest
        exported = state["network_weights"][f"decoder.seg_layers.{theirs}.weight"]
        assert torch.equal(exported, weights[f"decoder.{ours}.weight"])
    assert "decoder.seg_layers.0.weight" in state["network_weights"], "whose weight is 0: new"
    python = os.environ.get("MEDCL_NNUNET_PYTHON")
    if python is None:
        pytest.skip("MEDCL_NNUNET_PYTHON names no Python with nnunetv2")
    opened_study = DenseStudy.open(study)
    x = 600 * torch.randn(1, 1, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    np.save(tmp_path / "x.npy", x.numpy())
    with torch.inference_mode():
        scores = opened_study.model(opened_study.networks[0])(x).numpy()
    np.save(tmp_path / "y.npy", scores)
    script = Path(__file__).parent / "nnunet_script.py"
    files = [str(tmp_path / name) for name in ("nn", "x.npy", "y.npy")]
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    ran = subprocess.run(
        [python, str(script), *files], capture_output=True, text=True, env=clean, check=False
    )
    found = dict(
        line.split(maxsplit=1)
        for line in ran.stdout.splitlines()
        if line.startswith(("trainer ", "pre"))
    )
    assert float(found["trainer"]) < 1e-4, ran.stderr[-2000:]
    assert (found["pretrained"], found["predictor"]) == ("ok", "1")


def test_decathlon_masks_are_named_by_the_data_set(archive: Path, tmp_path: Path) -> None:
    data = indexed(archive / "msd", tmp_path / "idx")
    assert Index.open(data).items["mask"].to_list() == [True] * 4
    samples, without = masked(whole(data))
    assert samples.mask_classes == ("background", "liver", "aorta")
    assert (len(samples), without) == (4, 0)
    read = samples.read(np.array([0]))
    assert sorted(np.unique(read["mask"])) == [0, 1, 2]
    assert read["x"].shape[2:] == read["mask"].shape[1:]
    assert read["spacing"].tolist() == [[2.0, 2.0, 2.0]]
    only = whole(data, classes={"vessel": [2], "ignore": [1]})
    assert only.mask_classes == ("background", "vessel")
    assert sorted(np.unique(only.read(np.array([0]))["mask"])) == [-1, 0, 1]
    with pytest.raises(UsageError, match="come one by one"):
        samples.read(np.array([0, 1]))


def test_patches_are_drawn_by_seed_around_each_class(archive: Path, tmp_path: Path) -> None:
    data = indexed(archive / "msd", tmp_path / "idx")
    samples = whole(data, foreground=1.0)
    rows, seeds = np.zeros(40, np.int64), np.arange(40, dtype=np.uint64)
    assert samples.draw is not None
    drawn = samples.draw(rows, seeds)
    again = samples.draw(rows[::-1], seeds[::-1])
    assert np.array_equal(drawn["x"], again["x"][::-1])
    middle = drawn["mask"][:, 8, 8, 8]
    held = [(drawn["mask"] == n).any(axis=(1, 2, 3)) for n in (1, 2)]
    assert (held[0] | held[1]).all(), "each patch holds a class"
    assert 8 < (middle == 2).sum() < 32, "the aorta, forty times smaller, is drawn as often"
    volume = samples.read(np.array([0]))
    whole_x = volume["x"][0, 0]
    views_of = np.lib.stride_tricks.sliding_window_view(whole_x, (16, 16, 16))
    inside = drawn["mask"] >= 0
    assert inside.all(), "these volumes are larger than a patch"
    at = np.argwhere(views_of[:, :, :, 0, 0, 0] == drawn["x"][0, 0, 0, 0, 0])
    (place,) = [p for p in at if np.array_equal(views_of[tuple(p)], drawn["x"][0, 0])]
    box = tuple(slice(int(p), int(p) + 16) for p in place)
    assert np.array_equal(volume["mask"][0][box], drawn["mask"][0]), "mask and image fit"


def test_other_patches_reach_the_air_at_the_edges(archive: Path, tmp_path: Path) -> None:
    samples = whole(indexed(archive / "msd", tmp_path / "idx"), foreground=0.0)
    assert samples.draw is not None
    drawn = samples.draw(np.zeros(200, np.int64), np.arange(200, dtype=np.uint64))
    volume = samples.read(np.array([0]))["x"][0, 0]
    at_corner = (drawn["x"][:, 0, 0, 0, 0] == volume[0, 0, 0]).sum()
    uniform = 200 / np.prod([n - 15 for n in volume.shape])
    assert at_corner > 3 * uniform


def test_a_patch_larger_than_the_volume_is_unknown_outside(archive: Path, tmp_path: Path) -> None:
    samples = whole(indexed(archive / "msd", tmp_path / "idx"), size=[64, 16, 16])
    assert samples.draw is not None
    drawn = samples.draw(np.array([0]), np.array([3], np.uint64))
    depth = samples.read(np.array([0]))["x"].shape[2]
    known = (drawn["mask"][0] >= 0).any(axis=(1, 2))
    assert known.sum() == depth
    assert (drawn["x"][0, 0][~known] == -1024).all()


def test_masks_that_leave_a_class_out_are_refused() -> None:
    liver, both = Drawn({"liver": (1,)}, True), Drawn({"liver": (1,), "spleen": (2,)}, True)
    with pytest.raises(MedclError, match="1 of 3 masks do not draw 'spleen'"):
        mask_classes.classes([liver, both, both], None)
    kept = mask_classes.classes([liver, both, both], {"liver": (1,)})
    assert kept.names == ("background", "liver")
    with pytest.raises(MedclError, match="index them apart"):
        mask_classes.classes([liver, Drawn({"label 1": (1,)}, False)], None)
    with pytest.raises(UsageError, match="one class at most"):
        mask_classes.classes([both], {"a": (1,), "b": (1, 2)})
    with pytest.raises(UsageError, match="names no class"):
        mask_classes.classes([both], {"ignore": (1,)})


def test_one_name_has_other_values_in_other_masks() -> None:
    one, two = Drawn({"a": (200,), "b": (201,)}, True), Drawn({"b": (118,), "a": (119,)}, True)
    found = mask_classes.classes([one, two], None)
    a = found.names.index("a")
    assert (found.tables[0][200], found.tables[1][119]) == (a, a)
    assert found.tables[0][118] == 0


def test_a_file_of_one_patient_alone_names_no_class() -> None:
    items = [Drawn({"Mueller": (118,), "liver": (5,)}, True), Drawn({"tumour": (118,)}, True)]
    items += [Drawn({"tumour": (119,)}, True)]
    named = mask_classes.shared(items, ["p1", "p2", "p3"])
    assert [set(item.values) for item in named] == [{"label 118", "liver"}, {"tumour"}, {"tumour"}]
    assert set(mask_classes.shared(items[1:2], ["p2"])[0].values) == {"label 118"}


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"0": "background", "1": "liver"}, {"liver": (1,), "label 7": (7,)}),
        ({"background": 0, "liver": 1, "ignore": 7}, {"liver": (1,), "ignore": (7,)}),
        ("no mapping", {"label 1": (1,), "label 7": (7,)}),
        ({"liver": "one"}, {"label 1": (1,), "label 7": (7,)}),
    ],
)
def test_dataset_json_in_both_ways(tmp_path: Path, labels: Any, expected: Any) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
    files = [tmp_path / "imagesTr" / "a.nii.gz", tmp_path / "labelsTr" / "a.nii.gz"]
    assert mask_classes.drawn(files, [1, 7]).values == expected


def test_overlapping_regions_ask_for_the_classes(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"whole": [1, 2], "core": 2}}))
    files = [tmp_path / "imagesTr" / "a.nii.gz", tmp_path / "labelsTr" / "a.nii.gz"]
    with pytest.raises(UsageError, match=r"dataset\.classes"):
        mask_classes.drawn(files, [1, 2])


def test_views_move_image_and_mask_alike() -> None:
    settings = {"rotate": 1.0, "rotate_degrees": 40.0, "tilt_degrees": 20.0, "flip": 1.0}
    quiet = dict.fromkeys(("window", "gamma", "noise", "blur", "sharpen", "kernel"), 0.0)
    axes = ("head-foot", "front-back", "left-right")
    module = views(crop_share=(0.6, 1.0), flip_axes=axes, **settings, **quiet)
    mask = torch.zeros(3, 24, 24, 24, dtype=torch.int64)
    mask[:, 3:12, 6:18, 4:11] = 1
    x = mask[:, None].float() * 1000
    moved, target = module.together(x, mask, torch.Generator().manual_seed(0))
    assert ((moved[:, 0] > 500) == (target == 1)).float().mean() > 0.98
    assert (target != mask).any()
    with pytest.raises(UsageError, match="must be 'volume'"):
        views(slices="consistent").together(x, mask)


ORIENTATIONS = [("L", "P", "S"), ("R", "A", "S"), ("S", "L", "A"), ("P", "I", "R")]


@pytest.mark.parametrize("axes", ORIENTATIONS)
@pytest.mark.parametrize("crop", ["none", "body"])
def test_a_written_mask_lies_voxel_for_voxel_on_its_image(
    tmp_path: Path, axes: tuple[str, ...], crop: Any
) -> None:
    """What prepare read as a mask, written back, is the file's mask; SimpleITK agrees."""
    import SimpleITK as sitk

    hu, labels = phantoms.phantom(3, shape=(20, 26, 22))
    phantoms.save(tmp_path / "a_ct.nii.gz", hu, (2.5, 0.9, 1.1))
    phantoms.save(tmp_path / "a_seg.nii.gz", labels, (2.5, 0.9, 1.1))
    turn = nib.orientations.axcodes2ornt(axes)
    for name in ("a_ct.nii.gz", "a_seg.nii.gz"):
        image = nib.load(tmp_path / name)
        ornt = nib.orientations.ornt_transform(nib.io_orientation(image.affine), turn)
        nib.save(image.as_reoriented(ornt), tmp_path / name)
    held = prepare(
        tmp_path, ["a_ct.nii.gz", "a_seg.nii.gz"], {}, spacing=(0.0, 0.0, 0.0), crop=crop
    )
    files = [tmp_path / "a_ct.nii.gz"]
    mask = np.asarray(held["mask0"])
    (path,) = write_masks(files, held, {"i:0": mask}, ("b", "x", "y"), tmp_path / "o", "nifti")
    truth, got = nib.load(tmp_path / "a_seg.nii.gz"), nib.load(path)
    assert np.array_equal(np.asarray(got.dataobj), np.asarray(truth.dataobj))
    one, two = sitk.ReadImage(str(path)), sitk.ReadImage(str(tmp_path / "a_seg.nii.gz"))
    assert np.allclose(one.GetDirection(), two.GetDirection())
    assert np.allclose(one.GetOrigin(), two.GetOrigin(), atol=1e-4)
    assert np.allclose(one.GetSpacing(), two.GetSpacing())


def test_a_resampled_mask_returns_to_the_files_grid(tmp_path: Path) -> None:
    hu, labels = phantoms.phantom(3, shape=(20, 26, 22))
    phantoms.save(tmp_path / "a_ct.nii.gz", hu, (3.0, 1.0, 1.0))
    phantoms.save(tmp_path / "a_seg.nii.gz", labels, (3.0, 1.0, 1.0))
    held = prepare(tmp_path, ["a_ct.nii.gz", "a_seg.nii.gz"], {}, spacing=(1.0, 1.0, 1.0))
    files = [tmp_path / "a_ct.nii.gz"]
    mask = np.asarray(held["mask0"])
    (path,) = write_masks(files, held, {"i:0": mask}, ("b", "x", "y"), tmp_path / "o", "nifti")
    got = np.asarray(nib.load(path).dataobj).T
    figures = measure.measured(got, labels.astype(np.int64), 3, (3, 1, 1), 1.0)
    assert min(figures["dice"]) > 0.999


def _series(folder: Path, **tags: Any) -> list[str]:
    from ct_synthetic import ct_series

    ct_series(folder, [3.0 * n for n in range(6)], shape=(16, 20), **tags)
    return sorted(str(p.relative_to(folder)) for p in folder.glob("*.dcm"))


def _ordered(root: Path) -> list[str]:
    """The files of a synthetic series by height."""
    import pydicom

    names = _series(root)
    height = {n: float(pydicom.dcmread(root / n).ImagePositionPatient[2]) for n in names}
    return sorted(names, key=height.__getitem__)


def test_dicom_seg_is_read_back_slice_by_slice(tmp_path: Path) -> None:
    hd = pytest.importorskip("highdicom")
    import pydicom

    files = _ordered(tmp_path)
    held = prepare(tmp_path, files, {}, spacing=(0.0, 0.0, 0.0), crop="none")
    random = np.random.default_rng(0)
    mask = random.integers(0, 3, held["hu0"].shape).astype(np.uint8)
    paths = [tmp_path / name for name in files]
    names = ("background", "liver", "label 7")
    (path,) = write_masks(paths, held, {"i:0": mask}, names, tmp_path / "o", "dicom-seg")
    seg = hd.seg.segread(path)
    sources = [pydicom.dcmread(p) for p in paths]
    assert [seg.get_segment_description(n).segment_label for n in (1, 2)] == list(names[1:])
    assert seg.PatientID == sources[0].PatientID
    read = seg.get_pixels_by_source_instance(
        [s.SOPInstanceUID for s in sources], combine_segments=True
    )
    assert np.array_equal(read, mask), "z rises with the slices, rows and columns as they are"
    (nifti,) = write_masks(paths, held, {"i:0": mask}, names, tmp_path / "o", "nifti")
    image = nib.load(nifti)
    assert np.array_equal(np.asarray(image.dataobj).T, mask)
    corner = image.affine @ [2, 1, 3, 1]
    position = sources[3].ImagePositionPatient
    expected = [-(position[0] + 2 * 1.5), -(position[1] + 1.5), position[2]]
    assert np.allclose(corner[:3], expected)


def test_a_seg_without_identity_or_of_a_nifti_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    import pydicom

    files = _ordered(tmp_path)
    for name in files:
        dataset = pydicom.dcmread(tmp_path / name)
        del dataset.FrameOfReferenceUID
        dataset.save_as(tmp_path / name)
    held = prepare(tmp_path, files, {}, spacing=(0.0, 0.0, 0.0), crop="none")
    mask = np.zeros(held["hu0"].shape, np.uint8)
    paths = [tmp_path / name for name in files]
    with pytest.raises(MedclError, match="no FrameOfReferenceUID"):
        write_masks(paths, held, {"i:0": mask}, ("b", "x"), tmp_path / "o", "dicom-seg")
    phantoms.save(tmp_path / "a_ct.nii.gz", phantoms.phantom(0)[0])
    held = prepare(tmp_path, ["a_ct.nii.gz"], {}, spacing=(0.0, 0.0, 0.0))
    mask = np.zeros(held["hu0"].shape, np.uint8)
    with pytest.raises(MedclError, match="no-series"):
        write_masks(
            [tmp_path / "a_ct.nii.gz"], held, {"i:0": mask}, ("b", "x"), tmp_path / "o", "dicom-seg"
        )


@pytest.mark.slow
@pytest.mark.shared_data
def test_one_real_mask_can_be_learnt_by_heart(shared_data: Path, tmp_path: Path) -> None:
    """The aorta of one patient, trained and measured on itself: an over-fit check, no result."""
    (tmp_path / "archive").mkdir()
    for name in ("aorta_ct.nii.gz", "aorta_seg.nii.gz"):
        shutil.copy(shared_data / "ct" / name, tmp_path / "archive" / name)
    data = indexed(tmp_path / "archive", tmp_path / "idx")
    recipe = recipes.load(
        "ct/segment", ["prepare.spacing=[6,6,6]", "dataset.size=[16,32,32]", "dataset.foreground=1"]
    )
    samples, _ = masked(samples_of(recipe, prepared(recipe, data)))
    assert samples.mask_classes == ("background", "label 1")
    rows = np.array([0])
    settings = recipes.Finetune(epochs=1, epoch_steps=60, batch_size=2, validation=0.0)
    fitted = train.fit(
        lambda example: UNet(
            resenc3d(widths=(8, 16, 32), blocks=(1, 1, 1), window=(150.0, 700.0)),
            example,
            Outputs("multiclass", samples.mask_classes),
        ),
        samples,
        rows,
        rows[:0],
        settings,
        recipes.Optimizer(lr=1e-2),
        seed=0,
        device=torch.device("cpu"),
        checkpoint=tmp_path / "c.ckpt",
    )
    image = samples.read(rows)
    predicted = probabilities(fitted.model, image, (16, 32, 32), 0.5, torch.device("cpu")).argmax(0)
    dice = measure.measured(predicted, image["mask"][0], 2, (6, 6, 6), 6.0)["dice"][0]
    print(f"over-fit: Dice {dice:.3f} on the volume that was trained on")
    assert dice > 0.6


def test_opened_takes_the_dataset_of_a_recipe_of_masks(archive: Path, study: Path) -> None:
    source = opened(archive / "run", "ct/segment", FINETUNE)
    assert source.recipe.dataset["kind"] == "whole"
    assert source.recipe.encoder is not None
    assert source.recipe.encoder.arguments["widths"] == (8, 8, 16, 16), "of the run"
    assert source.recipe.prepare["spacing"] == (2.0, 2.0, 2.0), "of the run"


@pytest.mark.long
@pytest.mark.slow
def test_phantoms_are_segmented_as_by_a_plain_monai_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The short form of benchmarks/ct_segment.py: the same patients, patches, steps and network."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    import ct_segment

    (tmp_path / "key").write_text("phantoms have no secrets: who is tested is always the same")
    monkeypatch.setenv("MEDCL_KEY_FILE", str(tmp_path / "key"))
    torch.manual_seed(0)
    means = ct_segment.compare(12, 250, 1, tmp_path)
    ours, plain = (np.array(means[name]) for name in ("medcl", "monai"))
    print(ours, plain)
    assert min(ours.mean(), plain.mean()) > 0.8
    spread = max(ours.std(), plain.std(), 0.03)
    assert abs(ours.mean() - plain.mean()) < 2 * spread, "within the spread over trainings"
