"""What counts as the same: two kernels of a scan at one height; images beside volumes."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor, nn

from medcl import recipe as recipes
from medcl.archive.index import Index
from medcl.archive.store import Prepared, prepare
from medcl.engine.data import PARTNER, Batches, select
from medcl.engine.pretrain import pretrain
from medcl.errors import UsageError
from medcl.methods.contract import State
from medcl.methods.moco import MoCoV2
from medcl.methods.simclr import SimCLR
from medcl.nn.ema import Momentum
from medcl.report.report import write
from medcl.report.samples import examples
from medcl.run import Run
from medcl_ct.dataset import dataset
from medcl_ct.plugin import plugin

SPEC = {"spacing": (0.0, 6.0, 6.0)}


@pytest.fixture(scope="module")
def ready(indexed: Index) -> Prepared:
    return prepare(indexed, plugin, SPEC)


@pytest.fixture(scope="module")
def chest(ready: Prepared) -> pl.DataFrame:
    """One scan, reconstructed with a soft and with a sharp kernel."""
    found = ready.items.filter(pl.col("slices") == 30)
    assert len(found) == 2
    return found


def everybody(items: pl.DataFrame) -> dict[str, str]:
    return dict.fromkeys(items["patient"], "train")


# --- positives ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_partner_is_the_other_kernel_at_the_same_height(
    ready: Prepared, chest: pl.DataFrame
) -> None:
    samples = dataset(chest, ready.arrays, size=(48, 48))
    selection = select(samples, everybody(chest))
    batches = Batches(selection, batch_size=20, seed=0, pairs=True)
    assert samples.locations is not None
    height, item = samples.locations[:, 0], np.array(samples.items)
    drawn = 0
    for number in range(3 * batches.per_epoch):
        _, batch = batches[number]
        anchor, partner = batch["index"].numpy(), batch[PARTNER + "index"].numpy()
        assert (item[anchor] != item[partner]).all()
        assert np.abs(height[anchor] - height[partner]).max() < 0.1
        assert (batch["x"] != batch[PARTNER + "x"]).flatten(1).any(dim=1).all()  # another kernel
        drawn += len(anchor)
    assert drawn == 180


def test_elsewhere_a_partner_is_the_slice_beside(ready: Prepared) -> None:
    samples = dataset(ready.items, ready.arrays, size=(48, 48))
    selection = select(samples, everybody(ready.items))
    partners = selection.partners
    assert partners is not None
    assert samples.locations is not None
    height, item = samples.locations[:, 0], np.array(samples.items)
    for anchor, found in enumerate(partners):
        mine = found[found >= 0]
        assert (selection.patients[mine] == selection.patients[anchor]).all()
        assert (np.abs(height[mine] - height[anchor]) <= 10).all()
        assert anchor not in mine
    single = ready.items.filter(pl.col("slices") == 1)["id"].to_list()
    assert (partners[np.isin(item, single)] == -1).all()  # two scans of a person share no space
    body = ready.items.filter(pl.col("slices") == 20)["id"][0]
    mine = np.flatnonzero(item == body)
    middle = mine[np.argsort(height[mine])[10]]
    others = partners[middle][partners[middle] >= 0]
    assert sorted(np.abs(height[others] - height[middle]).round(3)) == [2.0, 2.0]


def test_reach_and_patient_are_settings(ready: Prepared, chest: pl.DataFrame) -> None:
    one = chest[:1]  # slices 8 mm apart
    near = select(dataset(one, ready.arrays, size=(48, 48), reach=7.0), everybody(one))
    assert near.partners is not None
    assert near.partners.size == 0 or (near.partners == -1).all()
    loose = select(dataset(one, ready.arrays, size=(48, 48), positives="patient"), everybody(one))
    assert loose.partners is None


def test_crops_are_paired_by_where_they_lie_in_space(ready: Prepared, chest: pl.DataFrame) -> None:
    settings = {"kind": "crop", "size": (4, 16, 16), "crops": 6, "reach": 60.0}
    samples = dataset(chest, ready.arrays, **settings)  # type: ignore[arg-type]
    partners = select(samples, everybody(chest)).partners
    assert partners is not None
    assert (partners >= 0).any()
    assert samples.locations is not None
    assert samples.locations.shape == (12, 3)
    for anchor, found in enumerate(partners):
        for other in found[found >= 0]:
            assert np.linalg.norm(samples.locations[anchor] - samples.locations[other]) <= 60


class Lookup(nn.Module):
    """Embeds what is handed to it: the test decides who looks like whom."""

    width = 4

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :4]


def contrast(method: nn.Module, sharp: Tensor, patient: Tensor) -> float:
    """The loss of a soft and a sharp slice and two strangers, after a step that fills queues."""
    soft, stranger, other = torch.eye(4)[:3]
    views = torch.stack([soft, sharp, stranger, other])
    batch = {"patient": patient}
    with torch.no_grad():
        for _ in range(3):
            loss = method.step([views, views], batch, State(0, 2))["loss"]  # type: ignore[operator]
    return float(loss)


@pytest.mark.parametrize("build", [SimCLR, MoCoV2])
def test_two_kernels_are_never_each_others_negatives(
    ready: Prepared, chest: pl.DataFrame, build: type[nn.Module]
) -> None:
    """However alike they look, the loss does not push them apart; strangers it does."""
    others = ready.items.filter(~pl.col("patient").is_in(chest["patient"].to_list()))
    some = pl.concat([chest, others.filter(pl.col("slices") > 1)])
    samples = dataset(some, ready.arrays, size=(16, 16))
    selection = select(samples, everybody(some))
    item = np.array(samples.items)
    soft, sharp = (int(selection.patients[item == i][0]) for i in chest["id"])
    strangers = np.unique(selection.patients[~np.isin(item, chest["id"].to_list())])[:2]
    real = torch.tensor([soft, sharp, *strangers.tolist()])

    torch.manual_seed(0)
    method = build(Lookup(), **({"queue": 8, "out": 4} if build is MoCoV2 else {}))
    method.projector = nn.Identity()
    if build is MoCoV2:
        method.target = Momentum(nn.Sequential(Lookup(), nn.Identity()))
    alike, apart = torch.eye(4)[0], torch.eye(4)[3]
    assert contrast(method, alike, real) == pytest.approx(contrast(method, apart, real))
    wrong = torch.arange(4)  # as if they were two people
    assert contrast(method, alike, wrong) > contrast(method, apart, wrong) + 0.01


def test_simclr_trains_on_such_pairs(indexed: Index, tmp_path: Path) -> None:
    overrides = [
        *("method.positives=patient", "method.hidden=16", "prepare.spacing=[0, 6, 6]"),
        *("dataset.size=[48, 48]", "views.size=[32]", "encoder.depth=10", "encoder.base=4"),
        *("trainer.steps=3", "trainer.batch_size=16", "trainer.workers=0", "monitor.samples=16"),
        *("trainer.precision=32", "trainer.log_every=1", "split.test=0.1"),
    ]
    run = pretrain(recipes.load("ct/simclr-2d", overrides), indexed.path, tmp_path / "run")
    assert pl.read_csv(run.path / "metrics.csv")["loss"].is_finite().all()


# --- images and volumes in one batch --------------------------------------------------------------


def test_images_come_along_with_depth_one(ready: Prepared) -> None:
    volumes = dataset(ready.items, ready.arrays, kind="stack", size=(6, 48, 48))
    assert "depth" not in volumes.read(np.arange(2))
    both = dataset(ready.items, ready.arrays, kind="stack", size=(6, 48, 48), images=True)
    assert (len(volumes), len(both)) == (7, 27)
    batch = both.read(np.arange(27))
    single = ready.items.filter(pl.col("slices") == 1)["id"].to_list()
    image = np.isin(both.items, single)
    assert image.sum() == 20
    assert (batch["depth"][image] == 1).all()
    assert (batch["depth"][~image] == 6).all()
    x = batch["x"][image]
    assert (x == x[:, :, :1]).all()  # nothing but the slice itself
    flat = dataset(ready.items, ready.arrays, size=(48, 48))
    place = flat.items.index(np.array(both.items)[image][0])
    assert np.array_equal(x[0, 0, 0], flat.read(np.array([place]))["x"][0, 0])


def test_a_policy_keeps_them_out(indexed: Index) -> None:
    made = prepare(indexed, plugin, {**SPEC, "policy": {"single-slice": "reject"}})
    both = dataset(made.items, made.arrays, kind="stack", size=(6, 48, 48), images=True)
    assert len(both) == 7


def test_an_image_that_curation_took_out_stays_out(ready: Prepared) -> None:
    keep = [[] if n == 1 else None for n in ready.items["slices"]]
    less = ready.items.with_columns(pl.Series("keep", keep, dtype=pl.List(pl.Float64)))
    both = dataset(less, ready.arrays, kind="stack", size=(6, 48, 48), images=True)
    assert len(both) == 7


def test_images_go_with_stacks_alone(ready: Prepared) -> None:
    with pytest.raises(UsageError, match="kind stack alone"):
        dataset(ready.items, ready.arrays, size=(8, 8), images=True)


@pytest.fixture(scope="module")
def joint(indexed: Index, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A small run on images and volumes."""
    folder = tmp_path_factory.mktemp("mixed")
    overrides = [
        *("prepare.spacing=[0, 6, 6]", "dataset.size=[6, 48, 48]", "dataset.images=true"),
        *("views.size=[32]", "encoder.depth=10", "encoder.base=4", "encoder.width=32"),
        *("encoder.layers=1", "encoder.heads=4", "encoder.hidden=32", "method.hidden=32"),
        *("method.out=16", "method.prototypes=8", "method.volume_prototypes=4"),
        *("method.volume_queue=8", "method.frozen=0", "method.slices_first=0.0"),
        *("trainer.steps=6", "trainer.batch_size=8", "trainer.precision=32", "monitor.samples=16"),
        *("trainer.log_every=1", "split.test=0.1"),
    ]
    return pretrain(recipes.load("ct/joint-2d3d", overrides), indexed.path, folder / "run")


def test_joint_trains_on_both_in_one_run(joint: Run) -> None:
    curves = pl.read_csv(joint.path / "metrics.csv")
    for part in ("intra", "inter", "mask"):
        assert curves[part].drop_nulls().is_finite().all()
        assert curves[part].drop_nulls().len() > 1


def width_of(picture: object) -> int:
    """Of a PNG in a data URI, from its header."""
    assert isinstance(picture, str)
    data = base64.b64decode(picture.partition(",")[2])
    assert data.startswith(b"\x89PNG")
    return int.from_bytes(data[16:20], "big")


@pytest.mark.slow
def test_the_report_shows_what_slices_attend_to(
    joint: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A column more than without a trained encoder: the attention over slices."""
    picture = examples(joint)
    page = write(joint, tmp_path / "report.html").read_text(encoding="utf-8")
    assert str(picture) in page
    monkeypatch.setattr("medcl.report.samples._encoder", lambda run: None)
    assert width_of(picture) * 3 == width_of(examples(joint)) * 4
