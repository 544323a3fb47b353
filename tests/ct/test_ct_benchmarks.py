"""The grey sets of MedMNIST: on synthetic files of their shapes, names and labels."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import medcl
from medcl import plugin as plugins
from medcl.archive.array_set import PARTS
from medcl.archive.index import Index, build
from medcl.benchmark.contract import AT, FOLD
from medcl.benchmark.sources import Sources
from medcl.errors import UsageError
from medcl_ct.benchmark import CHEST, _task
from medcl_ct.benchmarks import medmnist
from medcl_ct.plugin import plugin

COUNTS = {"train": 40, "val": 18, "test": 25}
TOLD = plugins.get("ct").benchmarks


def file_of(folder: Path, name: str, side: int = 28, suffix: str = "") -> Path:
    """A file of a set's form; each image is of the brightness of its number in the part."""
    of = medmnist.SETS[name]
    random = np.random.default_rng(0)
    size = (side,) * (3 if name.endswith("3d") else 2)
    arrays = {}
    for part, count in COUNTS.items():
        labels = random.integers(0, len(of.classes), (count, 1))
        if of.kind == "multilabel":
            labels = random.integers(0, 2, (count, len(of.classes)))
        images = np.zeros((count, *size)) + np.arange(count).reshape(-1, *[1] * len(size))
        arrays |= {f"{part}_images": images.astype(np.uint8), f"{part}_labels": labels}
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / f"{name}{suffix}.npz", **arrays)
    return folder / f"{name}{suffix}.npz"


def test_the_fourteen_are_announced() -> None:
    assert set(TOLD) == set(medmnist.SETS)
    assert len(TOLD) == 14
    assert sum(name.endswith("3d") for name in TOLD) == 6
    for name in TOLD:
        assert getattr(medmnist, name).args == (name,)
        assert _task(f"{name}_64.npz")[1] == (3 if name.endswith("3d") else 2)


@pytest.mark.parametrize("name", sorted(medmnist.SETS))
def test_each_is_fitted_and_judged_on_its_official_parts(tmp_path: Path, name: str) -> None:
    path = file_of(tmp_path, name, side=8)
    file_of(tmp_path, "octmnist" if name != "octmnist" else "breastmnist", side=8)  # another beside
    found = getattr(medmnist, name)(tmp_path)
    assert (found.fitted, found.judged, found.files) == ((1,), (3,), (path.name,))
    assert found.table[FOLD].to_list() == [1] * 40 + [2] * 18 + [3] * 25
    assert f"a subset of {medmnist.SETS[name].images:,} images" in found.about
    (problem,) = found.problems
    assert problem.shown == "accuracy"
    assert problem.kind == medmnist.SETS[name].kind
    raw = np.concatenate([np.load(path)[f"{part}_labels"] for part in PARTS])
    y = problem.target(found.table).y
    np.testing.assert_array_equal(y.reshape(raw.shape), raw)
    assert found.table[AT].to_list()[15:18] == [15, 0, 1]


@pytest.mark.parametrize("name", ["chestmnist", "breastmnist", "synapsemnist3d", "organmnist3d"])
@pytest.mark.parametrize("suffix", ["", "_64"])
def test_every_row_is_of_its_own_image(tmp_path: Path, name: str, suffix: str) -> None:
    path = file_of(tmp_path / "set", name, side=12, suffix=suffix)
    found = getattr(medmnist, name)(tmp_path / "set")
    build(tmp_path / "set", tmp_path / "index", plugin)
    sources = Sources(found, tmp_path / "index", tmp_path, {})
    samples, rows = sources.samples(sources.own)
    assert sorted(rows) == list(range(83))
    x = samples.read(np.arange(83))["x"]
    assert x.shape[1:] == (1, *(12,) * (3 if name.endswith("3d") else 2))
    number = np.concatenate([np.arange(count) for count in COUNTS.values()])[rows]
    means = x.reshape(83, -1).mean(axis=1)
    np.testing.assert_allclose(means, -160 + number * (400 / 255), atol=0.51)
    raw = np.concatenate([np.load(path)[f"{part}_labels"] for part in PARTS])
    columns = [f"chest.{finding}" for finding in CHEST]
    columns = columns if name == "chestmnist" else [next(iter(samples.labels))]
    told = np.stack([samples.labels[column] for column in columns], axis=1)
    np.testing.assert_array_equal(told, raw[rows])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["breastmnist", "vesselmnist3d"])
def test_a_board_of_images_resumes(tmp_path: Path, name: str) -> None:
    file_of(tmp_path / "set", name, side=8)
    asked = {"fractions": (1.0,), "resamples": 20}
    made = medcl.benchmark(name, tmp_path / "set", tmp_path / "board", **asked)
    assert [f.row for f in made.figures] == ["untrained encoder"]  # CT has nothing hand-crafted
    assert made.figures[0].patients == 40
    assert made.figures[0].own.value is not None
    page = (tmp_path / "board" / "benchmark.html").read_text()
    assert "class: accuracy" in page
    assert "Macro AUROC" in page
    again = medcl.benchmark(name, tmp_path / "set", tmp_path / "board", **asked)
    assert again.figures == made.figures


def test_what_is_assumed_of_grey_values_is_a_finding(tmp_path: Path) -> None:
    for name in ("organamnist", "fracturemnist3d", "pneumoniamnist"):
        file_of(tmp_path / "set", name, side=8)
    build(tmp_path / "set", tmp_path / "index", plugin)
    items = Index.open(tmp_path / "index").items
    said = dict(items.group_by("task").agg(pl.col("findings").first()).iter_rows())
    assert said == {"organ": [], "fracture": ["guessed-window"], "pneumonia": ["grey-not-hu"]}


@pytest.mark.parametrize(
    ("name", "images", "labels", "code"),
    [
        ("octmnist", np.zeros((20, 8, 8, 3), np.uint8), np.zeros((20, 1)), "not-a-benchmark"),
        ("organmnist3d", np.zeros((20, 8, 8), np.uint8), np.zeros((20, 1)), "not-a-benchmark"),
        ("octmnist", np.zeros((20, 8, 8), np.float32), np.zeros((20, 1)), "not-a-benchmark"),
        ("octmnist", np.zeros((20, 8, 8), np.uint8), np.zeros((19, 1)), "not-a-benchmark"),
        ("pathmnist", np.zeros((20, 8, 8, 3), np.uint8), np.zeros((20, 1)), "not-ct"),
    ],
)
def test_another_shape_or_type_is_a_reject(
    tmp_path: Path, name: str, images: np.ndarray, labels: np.ndarray, code: str
) -> None:
    file_of(tmp_path / "set", "breastmnist", side=8)  # costs the rest nothing
    parts = {
        f"{part}_{kind}": a
        for part in PARTS
        for kind, a in (("images", images), ("labels", labels))
    }
    np.savez(tmp_path / "set" / f"{name}.npz", **parts)
    summary = build(tmp_path / "set", tmp_path / "index", plugin)
    assert Index.open(tmp_path / "index").rejects["code"].to_list() == [code]
    assert summary.items == 3 + 2 + 2


def test_a_set_that_is_cut_off_absent_or_meant_twice(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no octmnist\.npz: download"):
        medmnist.octmnist(tmp_path)
    path = file_of(tmp_path, "octmnist", side=8)
    file_of(tmp_path, "octmnist", side=8, suffix="_64")
    with pytest.raises(UsageError, match=r"octmnist\.npz, octmnist_64\.npz: give a folder"):
        medmnist.octmnist(tmp_path)
    (tmp_path / "octmnist_64.npz").unlink()
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UsageError, match=r"octmnist\.npz: unreadable"):
        medmnist.octmnist(tmp_path)
    held = dict(np.load(file_of(tmp_path, "octmnist", side=8)))
    np.savez(path, **held | {"test_labels": np.full((25, 1), 4)})
    with pytest.raises(UsageError, match="has the label 4, above 3"):
        medmnist.octmnist(tmp_path)
    np.savez(path, **held | {"test_labels": np.full((25, 1), 0.5)})
    with pytest.raises(UsageError, match="no codes of classes"):
        medmnist.octmnist(tmp_path)


def test_more_is_claimed_than_there_is(tmp_path: Path) -> None:
    path = file_of(tmp_path / "set", "octmnist", side=8)
    claimed = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        claimed, {"descr": "|u1", "fortran_order": False, "shape": (2_000_000, 28, 28)}
    )
    held = dict(np.load(path))
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in held.items():
            with archive.open(f"{name}.npy", "w") as handle:
                if name == "train_images":
                    handle.write(claimed.getvalue() + b"\0" * 100)
                else:
                    np.lib.format.write_array(handle, array)
    with pytest.raises(UsageError, match="cut off"):
        medmnist.octmnist(tmp_path / "set")
    build(tmp_path / "set", tmp_path / "index", plugin)
    assert Index.open(tmp_path / "index").rejects["code"].to_list() == ["unreadable"]
