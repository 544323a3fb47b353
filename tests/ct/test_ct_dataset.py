"""Samples of every kind from real volumes, their labels, and curated slices."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from medcl.archive.index import Index, build
from medcl.archive.store import Prepared, prepare
from medcl.curate.curate import curate
from medcl.errors import MedclError, UsageError
from medcl.plugin import Samples
from medcl_ct.dataset import AIR, dataset
from medcl_ct.pictures import pictures
from medcl_ct.plugin import plugin

SPEC: dict[str, Any] = {"spacing": (0.0, 3.0, 3.0)}


@pytest.fixture(scope="module")
def body(siemens: Path, tmp_path_factory: pytest.TempPathFactory) -> Index:
    out = tmp_path_factory.mktemp("body") / "idx"
    build(siemens, out, plugin)
    return Index.open(out)


@pytest.fixture(scope="module")
def ready(body: Index) -> Prepared:
    return prepare(body, plugin, SPEC)


@pytest.fixture(scope="module")
def everything(indexed: Index) -> Prepared:
    return prepare(indexed, plugin, SPEC)


def samples(made: Prepared, **settings: Any) -> Samples:
    return dataset(made.items, made.arrays, **settings)


def read(found: Samples) -> np.ndarray:
    return found.read(np.arange(len(found)))["x"]


def test_slices_are_what_the_store_holds(ready: Prepared) -> None:
    volume = ready.arrays(ready.items["id"][0])["hu0"]
    found = samples(ready, size=(64, 64))
    x = read(found)
    assert (x.shape, x.dtype) == ((8, 1, 64, 64), np.float32)
    y, left = (volume.shape[1] - 64) // 2, (volume.shape[2] - 64) // 2
    assert np.array_equal(x[:, 0], volume[:, y : y + 64, left : left + 64])
    assert found.ids[0].startswith(ready.items["id"][0])
    assert len(set(found.ids)) == 8
    assert len(samples(ready, size=(64, 64), every=3)) == 3


def test_small_volumes_are_padded_with_air(ready: Prepared) -> None:
    volume = ready.arrays(ready.items["id"][0])["hu0"]
    x = read(samples(ready, size=(400, 400)))
    assert (x == AIR).mean() > 0.5
    inside = x[0, 0][x[0, 0] > AIR]
    assert np.array_equal(np.sort(inside), np.sort(volume[0][volume[0] > AIR]))


def test_neighbours_are_channels(ready: Prepared) -> None:
    plain = read(samples(ready, size=(64, 64)))[:, 0]
    x = read(samples(ready, size=(64, 64), neighbours=1))
    assert x.shape == (8, 3, 64, 64)
    assert np.array_equal(x[3], plain[2:5])
    assert np.array_equal(x[0], plain[[0, 0, 1]])  # the edge is repeated
    assert np.array_equal(x[7], plain[[6, 7, 7]])


@pytest.mark.parametrize(("kind", "size"), [("crop", (4, 32, 32)), ("volume", (6, 64, 64))])
def test_boxes_lie_in_the_volume(ready: Prepared, kind: str, size: tuple[int, ...]) -> None:
    volume = ready.arrays(ready.items["id"][0])["hu0"]
    found = samples(ready, kind=kind, size=size, crops=5)
    x = read(found)
    assert x.shape == (5 if kind == "crop" else 1, 1, *size)
    for one, name in zip(x, found.ids, strict=True):
        first = [int(part) for part in name.rpartition(":")[2].split(".")]
        there = tuple(slice(f, f + s) for f, s in zip(first, size, strict=True))
        assert np.array_equal(one[0], volume[there])


def test_crops_are_the_same_under_a_seed(ready: Prepared) -> None:
    one, two, other = (
        samples(ready, kind="crop", size=(4, 32, 32), seed=seed).ids for seed in (1, 1, 2)
    )
    assert one == two != other


def test_stacks_spread_over_the_volume(ready: Prepared) -> None:
    volume = ready.arrays(ready.items["id"][0])["hu0"]
    x = read(samples(ready, kind="stack", size=(4, 64, 64)))
    y, left = (volume.shape[1] - 64) // 2, (volume.shape[2] - 64) // 2
    assert np.array_equal(x[0, 0], volume[[1, 3, 5, 7], y : y + 64, left : left + 64])


def test_reading_is_picklable_and_in_any_order(ready: Prepared) -> None:
    found = samples(ready, size=(32, 32))
    again = pickle.loads(pickle.dumps(found.read))
    positions = np.array([5, 0, 5, 2])
    assert np.array_equal(again(positions)["x"], read(found)[positions])


@pytest.mark.slow
def test_all_kinds_over_all_real_volumes(everything: Prepared) -> None:
    slices = samples(everything, size=(96, 96))
    assert len(slices) == sum(
        arrays[name].shape[0]
        for arrays in map(everything.arrays, everything.items["id"])
        for name in arrays
        if name.startswith("hu")
    )
    stacks = samples(everything, kind="stack", size=(8, 96, 96))
    assert len(stacks) == 7  # two parts of the head, two chests, body, abdomen, aorta: no slices
    assert np.isfinite(read(stacks)).all()
    single = everything.items.filter(pl.col("slices") == 1)
    assert not set(single["id"]) & set(stacks.items)
    assert set(single["id"]) <= set(slices.items)


def test_labels(everything: Prepared) -> None:
    found = samples(everything, size=(96, 96))
    region = found.labels["region"]
    aorta = everything.items.filter(pl.col("mask"))["id"][0]
    mine = np.array(found.items) == aorta
    assert set(region[~mine]) == {-1}
    assert set(region[mine]) == {0, 1}
    assert found.labels["age"].dtype == np.int64
    assert set(found.labels["sex"]) == {"", "F", "M"}
    assert all(len(values) == len(found) for values in found.labels.values())


def test_settings_that_make_no_sense(ready: Prepared) -> None:
    with pytest.raises(UsageError, match=r"\(Z, Y, X\)"):
        samples(ready, kind="crop", size=(4, 4))
    with pytest.raises(UsageError, match="at least 1"):
        samples(ready, every=0)
    with pytest.raises(MedclError, match="No volume is left"):
        dataset(ready.items.clear(), ready.arrays, kind="volume", size=(4, 4, 4))


# --- curation -------------------------------------------------------------------------------------


def test_curated_slices_are_the_kept_ones(body: Index, tmp_path: Path) -> None:
    whole = samples(prepare(body, plugin, SPEC), size=(64, 64))
    summary = curate(body, plugin, tmp_path / "new", strategy="every-n", distance=3, spec=SPEC)
    assert (summary.parts, summary.kept) == (8, 3)
    curated = samples(prepare(Index.open(tmp_path / "new"), plugin, SPEC), size=(64, 64))
    assert np.array_equal(read(curated), read(whole)[[0, 3, 6]])


def test_curated_slices_under_another_spacing(body: Index, tmp_path: Path) -> None:
    """What was kept is a height in mm, so that it is found among resampled slices too."""
    curate(body, plugin, tmp_path / "new", strategy="every-n", distance=4)
    finer = {"spacing": (1.0, 3.0, 3.0)}
    made = prepare(Index.open(tmp_path / "new"), plugin, finer)
    assert len(made.arrays(made.items["id"][0])["hu0"]) == 16
    assert len(samples(made, size=(64, 64))) == 2


def test_near_slices_have_near_hashes(everything: Prepared, indexed: Index, tmp_path: Path) -> None:
    """HASH-6 thins out fine volumes and leaves coarse ones."""
    curate(indexed, plugin, tmp_path / "new", spec=SPEC)
    found = Index.open(tmp_path / "new")
    share = {}
    for item, slices, keep in found.items["id", "slices", "keep"].rows():
        share[item] = (slices, slices if keep is None else len(keep))
    thin = found.items.filter(pl.col("spacing_mm") == 1.5)["id"][0]
    thick = found.items.filter(pl.col("kernel") == "B70f")["id"][0]
    assert share[thin][1] < 0.4 * share[thin][0]
    assert share[thick][1] > 0.5 * share[thick][0]


def test_pictures_have_a_fixed_window(ready: Prepared) -> None:
    places, small = pictures(ready.arrays(ready.items["id"][0]))
    assert (small.shape, small.dtype) == ((8, 64, 64), np.uint8)
    assert np.allclose(np.diff(places), 2.0)
    brighter = {
        name: values + 300 if name == "hu0" else values
        for name, values in ready.arrays(ready.items["id"][0]).items()
    }
    assert abs(pictures(brighter)[1].mean() - small.mean() - 300 * 255 / 2000) < 3


# --- MedMNIST files -------------------------------------------------------------------------------


def medmnist(path: Path, size: tuple[int, ...]) -> Path:
    """A synthetic file in the layout of MedMNIST v2."""
    random = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 40), ("val", 10), ("test", 20)):
        arrays[f"{part}_images"] = random.integers(0, 256, (count, *size), dtype=np.uint8)
        arrays[f"{part}_labels"] = (np.arange(count) % 11).reshape(-1, 1).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)
    return path


@pytest.mark.parametrize(
    ("name", "size", "kind"),
    [
        ("organsmnist.npz", (28, 28), "slice"),
        ("organsmnist_64.npz", (64, 64), "slice"),
        ("organmnist3d.npz", (28, 28, 28), "volume"),
        ("nodulemnist3d.npz", (28, 28, 28), "volume"),
    ],
)
def test_medmnist_files(tmp_path: Path, name: str, size: tuple[int, ...], kind: str) -> None:
    path = medmnist(tmp_path / "a" / name, size)
    build(tmp_path / "a", tmp_path / "idx", plugin)
    index = Index.open(tmp_path / "idx")
    assert set(index.items["part"]) == {"train", "val", "test"}
    made = prepare(index, plugin, {})
    found = dataset(made.items, made.arrays, kind=kind, size=size)
    assert len(found) == 70
    label = "nodule" if name.startswith("nodule") else "organ"
    part = dict(index.items["id", "part"].rows())
    raw = np.load(path)
    x, y = read(found)[:, 0], found.labels[label]
    parts = np.array([part[item] for item in found.items])
    for each in ("train", "val", "test"):
        mine = parts == each
        order = np.argsort(
            [index.locate(found.items[n]) for n in np.flatnonzero(mine)], kind="stable"
        )
        assert np.array_equal(y[mine][order], raw[f"{each}_labels"].ravel())
        low, high = (-160, 240) if label == "organ" else (-1350, 150)
        hu = low + raw[f"{each}_images"] * ((high - low) / 255)
        assert np.abs(x[mine][order] - hu).max() <= 0.5


def test_a_part_without_a_mask_takes_no_label_of_another() -> None:
    held: dict[str, dict[str, np.ndarray]] = {}
    for item, masked in {"a": (0, 1), "b": (1,), "c": (0,)}.items():
        held[item] = {f"hu{part}": np.zeros((2, 8, 8), np.int16) for part in (0, 1)}
        held[item] |= {f"mask{part}": np.full((2, 8, 8), part + 3, np.uint8) for part in masked}
    items = pl.DataFrame({"id": list(held), "patient": list(held)})
    found = dataset(items, held.__getitem__, size=(8, 8))  # type: ignore[arg-type]
    region = found.labels["region"].tolist()
    assert dict(zip(found.ids, region, strict=True)) == {
        f"{item}:{part}:{z}.0.0": part + 3 if f"mask{part}" in arrays else -1
        for item, arrays in held.items()
        for part in (0, 1)
        for z in (0, 1)
    }
