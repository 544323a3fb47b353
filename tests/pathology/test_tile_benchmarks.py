"""Sets of tiles and bags: Kather's, the coloured files of MedMNIST, MIL sets and their heads."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

import medcl
from medcl import plugin as plugins
from medcl.archive.array_set import PARTS
from medcl.archive.index import Index, build
from medcl.benchmark import fitting
from medcl.benchmark.contract import FOLD, KEY, PATIENT
from medcl.benchmark.sources import Sources
from medcl.errors import UsageError
from medcl_pathology.benchmarks import medmnist, mil
from medcl_pathology.benchmarks.kather import CLASSES, CLASSES_2018, kather2016, kather2018
from medcl_pathology.plugin import plugin

COUNTS = {"train": 40, "val": 18, "test": 25}


def medmnist_file(folder: Path, name: str, suffix: str = "") -> dict[str, np.ndarray]:
    """A file of a set's form; each tile is as red as its number in the part."""
    random = np.random.default_rng(0)
    arrays = {}
    for part, count in COUNTS.items():
        images = np.zeros((count, 20, 20, 3), np.uint8)
        images[..., 0] = np.arange(count)[:, None, None]
        classes = len(medmnist.SETS[name].classes)
        arrays |= {
            f"{part}_images": images,
            f"{part}_labels": random.integers(0, classes, (count, 1)).astype(np.uint8),
        }
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / f"{name}{suffix}.npz", **arrays)
    return arrays


def tile(path: Path, value: int, side: int = 24) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(value).integers(0, 30, (side, side, 3))
    Image.fromarray((noise + value).astype(np.uint8)).save(path)


def kather_shaped(folder: Path) -> Path:
    """Two tiles of each class from each of five slides."""
    for n, name in enumerate(CLASSES):
        for slide in range(1, 6):
            for at in (1, 151):
                stem = f"1A_CRC-Prim-HE-{slide:02}_0.tif_Row_{at}_Col_{at}"
                tile(folder / f"{n + 1:02}_{name}" / f"{stem}.tif", 10 + 25 * n)
    return folder


def bags_file(path: Path, *, signs: bool = False) -> Path:
    """Thirty bags of two to five instances; those of positive bags are larger."""
    random = np.random.default_rng(0)
    y = np.arange(30) % 2
    bag = np.repeat(np.arange(30), random.integers(2, 6, 30))
    x = random.normal(0, 1, (len(bag), 6)).astype(np.float32)
    x[:, 0] += 4 * y[bag]
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, X=x, bag=bag, y=2 * y - 1 if signs else y)
    return path


def test_slides_are_on_one_side(tmp_path: Path) -> None:
    found = kather2016(kather_shaped(tmp_path / "unpacked" / "tiles"))
    assert "a subset, 80 of 5,000 tiles, of 5 slides" in found.about
    asked = fitting.asked(found, found.problems[0])
    assert len(asked.parts) == 5
    for part in asked.parts:
        assert not set(asked.patients[part.train]) & set(asked.patients[part.test])
    assert found.problems[0].target(found.table).y[:3].tolist() == [0, 0, 0]
    assert kather2016(tmp_path).archive == found.archive  # one folder above
    (tmp_path / "unpacked" / "tiles" / "03_COMPLEX" / "nameless.tif").write_bytes(b"")
    with pytest.raises(UsageError, match="1 tiles of .* lack the slide"):
        kather2016(tmp_path)
    shutil.rmtree(tmp_path / "unpacked" / "tiles" / "03_COMPLEX")
    with pytest.raises(UsageError, match="holds no tile in 03_COMPLEX"):
        kather2016(tmp_path)


def test_the_sets_of_2018_are_fitted_on_one_and_judged_on_the_other(tmp_path: Path) -> None:
    for part, count in (("NCT-CRC-HE-100K", 3), ("CRC-VAL-HE-7K", 2)):
        for n, name in enumerate(CLASSES_2018):
            for at in range(count):
                tile(tmp_path / part / name / f"{name}-TCGA-AAAAA{at}.tif", 20 * n)
    found = kather2018(tmp_path)
    assert (found.fitted, found.judged) == ((1,), (2,))
    assert found.table.group_by(FOLD).len().sort(FOLD)["len"].to_list() == [27, 18]
    assert found.table.filter(pl.col(FOLD) == 2)["tissue"].unique().sort().to_list() == sorted(
        CLASSES_2018
    )
    build(found.archive, tmp_path.parent / "index", plugin, reader=found.reader)
    assert set(Index.open(tmp_path.parent / "index").paths["key"]) == set(found.table[KEY])
    shutil.rmtree(tmp_path / "NCT-CRC-HE-100K")
    with pytest.raises(UsageError, match="holds no NCT-CRC-HE-100K"):
        kather2018(tmp_path)


def test_the_tiles_at_hand_are_opened_as_they_lie(shared_data: Path) -> None:
    found = kather2016(shared_data / "wsi")
    assert "a subset, 24 of 5,000 tiles, of" in found.about
    assert found.table.group_by("tissue").len()["len"].to_list() == [3] * 8
    assert all(who.startswith("CRC-Prim-HE-") for who in found.table[PATIENT])


@pytest.mark.slow
def test_a_board_of_tiles(tmp_path: Path) -> None:
    kather_shaped(tmp_path / "set")
    made = medcl.benchmark(
        "kather2016", tmp_path / "set", tmp_path / "board", fractions=[1.0], resamples=20
    )
    by = {f.row: f for f in made.figures}
    assert by["handcrafted"].own.value == pytest.approx(1.0)  # brightness tells the classes
    assert "untrained encoder + handcrafted" in by


@pytest.mark.parametrize("name", sorted(medmnist.SETS))
@pytest.mark.parametrize("suffix", ["", "_128"])
def test_every_row_is_of_its_own_tile(tmp_path: Path, name: str, suffix: str) -> None:
    raw = medmnist_file(tmp_path / "set", name, suffix)
    found = getattr(medmnist, name)(tmp_path / "set")
    assert (found.fitted, found.judged) == ((1,), (3,))
    labels = np.concatenate([raw[f"{part}_labels"].ravel() for part in PARTS])
    np.testing.assert_array_equal(found.problems[0].target(found.table).y, labels)
    build(tmp_path / "set", tmp_path / "index", plugin)
    items = Index.open(tmp_path / "index").items
    assert set(items["part"]) == set(PARTS)
    assert items["findings"].to_list() == [["no-patient-id", "unscaled-tile"]] * len(items)
    sources = Sources(found, tmp_path / "index", tmp_path, {})
    samples, rows = sources.samples(sources.own)
    assert sorted(rows) == list(range(83))
    x = samples.read(np.arange(83))["x"]
    assert x.shape == (83, 3, 20, 20)
    number = np.concatenate([np.arange(count) for count in COUNTS.values()])[rows]
    np.testing.assert_allclose(x[:, 0].mean(axis=(1, 2)), number / 255, atol=1e-6)
    np.testing.assert_array_equal(samples.labels[name.removesuffix("mnist")], labels[rows])


def test_a_coloured_file_of_another_shape_is_a_reject(tmp_path: Path) -> None:
    for name, shape in (("pathmnist", (20, 8, 8)), ("bloodmnist_64", (20, 8, 8, 4))):
        parts = {f"{part}_images": np.zeros(shape, np.uint8) for part in PARTS}
        parts |= {f"{part}_labels": np.zeros((20, 1), np.uint8) for part in PARTS}
        (tmp_path / "set").mkdir(exist_ok=True)
        np.savez(tmp_path / "set" / f"{name}.npz", **parts)
    medmnist_file(tmp_path / "set", "retinamnist")
    assert build(tmp_path / "set", tmp_path / "index", plugin).items == 3 + 2 + 2
    codes = Index.open(tmp_path / "index").rejects["code"].to_list()
    assert codes == ["not-a-benchmark"] * 2


def test_bags_are_named_as_their_files(tmp_path: Path) -> None:
    bags_file(tmp_path / "fox.npz")
    bags_file(tmp_path / "tiger.npz", signs=True)
    for name in ("fox", "tiger"):
        found = getattr(mil, name)(tmp_path)
        assert "a subset of its 200 bags, 30 bags" in found.about
        assert found.problems[0].target(found.table).y.tolist()[:4] == [0, 1, 0, 1]
        assert found.table[FOLD].n_unique() == 10
        assert found.table[KEY][0] == f"{name}.npz#0"
    (tmp_path / "clean1.data").write_text("a,1,0.5,1.\na,2,0.1,1.\nb,1,0.2,0.\n")
    with pytest.raises(UsageError, match="2 people are too few for 10 folds"):
        mil.musk1(tmp_path)
    lines = [f"b{n},{m},0.{n},{n % 2}." for n in range(20) for m in range(2)]
    (tmp_path / "clean1.data").write_text("\n".join(lines))
    assert mil.musk1(tmp_path).table.sort(KEY)["bag"].to_list()[:3] == [0, 1, 0]  # b0, b1, b10
    with pytest.raises(UsageError, match=r"holds none of musk2\.data"):
        mil.musk2(tmp_path)
    x = np.ones((4, 2), np.float32)
    np.savez(tmp_path / "elephant.npz", X=x, bag=np.arange(4), y=[0, 1, 2, 3])
    with pytest.raises(UsageError, match="whether it is positive"):
        mil.elephant(tmp_path)


def test_the_real_sets_are_whole(shared_data: Path) -> None:
    counts = {"musk1": (92, 47), "musk2": (102, 39), "elephant": (200, 100), "fox": (200, 100)}
    for name, (bags, positive) in counts.items():
        found = getattr(mil, name)(shared_data / "mil")
        assert (len(found.table), int(found.table["bag"].sum())) == (bags, positive)
        assert found.about.startswith(f"{name}, {bags} bags of")


@pytest.mark.slow
def test_heads_are_trained_on_the_bags_of_the_other_folds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bags_file(tmp_path / "set" / "fox.npz")
    bags_file(tmp_path / "set" / "tiger.npz")  # not indexed for it
    quick = ("finetune.epochs=40", "optimizer.lr=0.02")
    monkeypatch.setitem(mil.SETTINGS, "fox", quick)
    asked = {"heads": ["mean", "max"], "resamples": 50}
    made = medcl.benchmark("fox", tmp_path / "set", tmp_path / "board", **asked)
    by = {f.row: f for f in made.figures}
    assert list(by) == ["mean", "max"]
    assert by["max"].fraction == 1.0
    assert by["max"].patients == 27
    assert by["max"].auroc.value is not None
    assert by["max"].auroc.value > 0.9
    assert len(Index.open(tmp_path / "board" / "index").items) == 30
    page = (tmp_path / "board" / "benchmark.html").read_text()
    assert "Each head is trained whole" in page
    rows = (tmp_path / "board" / "rows.csv").read_text()
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / "board" / "scores").rglob("*.npy")}
    assert (
        medcl.benchmark("fox", tmp_path / "set", tmp_path / "board", **asked).figures
        == made.figures
    )
    assert (tmp_path / "board" / "rows.csv").read_text() == rows
    assert {
        p: p.stat().st_mtime_ns for p in (tmp_path / "board" / "scores").rglob("*.npy")
    } == times


def test_heads_are_recipes_that_hold() -> None:
    from medcl.recipe import given

    every = [*mil.HEADS.values(), *mil.SETTINGS.values()]
    assert all(given("pathology/musk", settings).plugin == "pathology" for settings in every)
    assert {"musk1", "kather2016", "retinamnist"} <= set(plugins.get("pathology").benchmarks)
