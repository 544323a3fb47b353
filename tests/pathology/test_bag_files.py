"""Bags that other tools wrote, and benchmarks: read as they are, refused where they are broken."""

from __future__ import annotations

import h5py
import numpy as np
import polars as pl
import pytest
import torch

from medcl.archive.index import Index, build
from medcl.archive.store import prepare
from medcl.errors import UsageError
from medcl_pathology import bagfiles
from medcl_pathology.dataset import dataset
from medcl_pathology.plugin import plugin

WIDTH = 16


def features(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, WIDTH)).astype(np.float32)


def clam(path, x, coords):
    """As CLAM's extract_features_fp.py writes it (synthetic features)."""
    with h5py.File(path, "w") as file:
        shape = (None, *x.shape[1:])
        file.create_dataset("features", data=x, maxshape=shape, chunks=(1, x.shape[1]))
        made = file.create_dataset("coords", data=coords, maxshape=(None, 2), chunks=(1, 2))
        made.attrs["patch_size"], made.attrs["patch_level"] = 256, 0


def trident(path, x, coords):
    """As TRIDENT writes it (synthetic features)."""
    with h5py.File(path, "w") as file:
        file.create_dataset("features", data=x).attrs["encoder"] = "uni_v1"
        made = file.create_dataset("coords", data=coords)
        made.attrs.update({"patch_size": 256, "patch_size_level0": 512, "name": "a"})


def stamp(path, x, coords):
    """As STAMP 2 writes it: half precision, coordinates in µm (synthetic features)."""
    with h5py.File(path, "w") as file:
        file["coords"] = coords.astype(np.float32) * 0.5
        file["feats"] = x.astype(np.float16)
        file.attrs.update({"unit": "um", "tile_size_um": 256.0, "tile_size_px": 224})


@pytest.fixture
def opened(tmp_path, key_file):
    def made(root, **options):
        build(root, tmp_path / "idx", plugin, key_file=key_file, **options)
        index = Index.open(tmp_path / "idx")
        return index, prepare(index, plugin, {})

    return made


@pytest.mark.parametrize(("write", "tile"), [(clam, 256), (trident, 512), (stamp, 256)])
def test_the_layouts_of_other_tools(write, tile, tmp_path, opened):
    root = tmp_path / "bags"
    root.mkdir()
    coords = np.array([[0, 0], [512, 0], [0, 512]])
    write(root / "TCGA-AA-0001-01.h5", features(3), coords)
    write(root / "TCGA-AA-0002-01.h5", features(1, 1), coords[:1])  # a bag of one tile
    index, prepared = opened(root)
    assert prepared.rejects.is_empty()
    assert index.items["tile"].to_list() == [tile, tile]
    samples = dataset(prepared.items, prepared.arrays, kind="bag")
    order = np.argsort([index.locate(item) for item in samples.items])
    batch = samples.read(order)
    assert batch["x"].shape == (4, WIDTH)
    assert batch["x"].dtype == np.float32
    assert batch["bag"].tolist() == [0, 0, 0, 1]
    assert batch["x"][:3] == pytest.approx(features(3), abs=2e-3)
    unit = 0.5 if write is stamp else 1.0
    assert np.array_equal(batch["coords"][:3], coords * unit)
    assert index.items["patient"].n_unique() == 2


def test_tensors_and_arrays(tmp_path, opened):
    root = tmp_path / "bags"
    root.mkdir()
    torch.save(torch.from_numpy(features(2)), root / "a.pt")
    torch.save({"features": torch.from_numpy(features(3)), "other": "text"}, root / "b.pt")
    np.savez(root / "c.npz", feats=features(4), coords=np.zeros((4, 2)))
    with h5py.File(root / "d.h5", "w") as file:
        file["features"] = features(5)[None]
    index, prepared = opened(root)
    assert prepared.rejects.is_empty()
    counts = {index.locate(i): n for i, n in index.items.select("id", "instances").rows()}
    assert counts == {"a.pt": 2, "b.pt": 3, "c.npz": 4, "d.h5": 5}
    batch = dataset(prepared.items, prepared.arrays, kind="bag").read(np.arange(4))
    assert "coords" not in batch  # not all of them have some
    assert len(batch["x"]) == 14


def test_nan_features_never_reach_training(tmp_path, opened):
    root = tmp_path / "bags"
    root.mkdir()
    bad = features(5)
    bad[2, 3] = np.nan
    clam(root / "bad.h5", bad, np.zeros((5, 2)))
    clam(root / "good.h5", features(5), np.zeros((5, 2)))
    index, prepared = opened(root)
    (reject,) = prepared.rejects.to_dicts()
    assert index.locate(reject["id"]) == "bad.h5"
    assert reject["reason"].startswith("nan-features: 1 of its 5 instances")
    samples = dataset(prepared.items, prepared.arrays, kind="bag")
    assert len(samples) == 1


class Evil:
    def __reduce__(self):
        return (print, ("executed",))


def test_what_is_no_bag_is_said(tmp_path, opened, capsys):
    root = tmp_path / "bags"
    root.mkdir()
    torch.save(Evil(), root / "evil.pt")
    (root / "text.h5").write_text("no")
    with h5py.File(root / "coords.h5", "w") as file:
        file["coords"] = np.zeros((3, 2))
    with h5py.File(root / "flat.h5", "w") as file:
        file["features"] = np.zeros(3)
    np.savez(root / "other.npz", images=np.zeros((2, 2)))
    (root / "notes.csv").write_text("name,age\na,3\n")
    (root / "broken.data").write_text("a,b,c\n")
    (root / "empty.csv").write_text("bag,y,f1\n")
    np.savez(root / "empty.npz", X=np.zeros((0, 8)), bag=np.zeros(0), y=np.zeros(0))
    np.savez(root / "objects.npz", features=np.array([{}, 1], dtype=object))
    clam(root / "good.h5", features(2), np.zeros((2, 2)))
    index, _ = opened(root)
    assert index.items.height == 1
    codes = {index.locate(row["id"]): row["code"] for row in index.rejects.to_dicts()}
    assert codes == {
        "evil.pt": "unreadable",
        "text.h5": "unreadable",
        "coords.h5": "no-features",
        "flat.h5": "no-features",
        "other.npz": "no-features",
        "broken.data": "no-features",
        "empty.csv": "no-features",
        "empty.npz": "no-features",
        "objects.npz": "no-features",
    }
    assert "executed" not in capsys.readouterr().out


def test_bags_of_two_encoders_do_not_mix(tmp_path, opened):
    root = tmp_path / "bags"
    root.mkdir()
    clam(root / "a.h5", features(2), np.zeros((2, 2)))
    clam(root / "b.h5", features(2)[:, :4], np.zeros((2, 2)))
    _, prepared = opened(root)
    with pytest.raises(UsageError, match="differ in width \\(4, 16\\)"):
        dataset(prepared.items, prepared.arrays, kind="bag")


def test_a_table_of_bags(tmp_path, opened):
    root = tmp_path / "bags"
    root.mkdir()
    (root / "bags.csv").write_text("bag,y,f1,f2\nb1,0,1,2\nb1,0,3,4\nb2,1,5,6\n")
    _, prepared = opened(root)
    samples = dataset(prepared.items, prepared.arrays, kind="bag")
    assert sorted(samples.labels["y"].tolist()) == [0, 1]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_table_of_bags_as_a_spreadsheet_writes_it(delimiter, encoding, end, tmp_path, opened):
    root = tmp_path / "bags"
    root.mkdir()
    rows = [["Bag", "Instance", "Y", "f1", "f2"], ["b1", "1", "no", "1.5", "2"],
            ["b1", "2", "no", "3.5", "4"], ["b2", "1", "yes", "5.5", "6"]]  # fmt: skip
    if delimiter != ",":
        rows = [[cell.replace(".", ",") for cell in row] for row in rows]
    text = end.join(delimiter.join(row) for row in rows) + end
    (root / "bags.csv").write_bytes(text.encode(encoding))
    items = opened(root)[0].items.sort("label.y")
    assert items["label.y"].to_list() == ["no", "yes"]
    assert items["instances"].to_list() == [2, 1]
    assert bagfiles.load(root / "bags.csv", "b1").features.tolist() == [[1.5, 2.0], [3.5, 4.0]]


def test_a_class_for_each_instance_is_not_taken_for_the_bags(tmp_path, opened):
    root = tmp_path / "bags"
    root.mkdir()
    (root / "bags.csv").write_text("bag,y,f1\nb1,0,1\nb1,1,3\nb2,1,5\n")
    np.savez(root / "b.npz", X=np.ones((3, 2)), bag=np.array([0, 0, 1]), y=np.array([0, 1, 1]))
    index, _ = opened(root)
    assert index.items.is_empty()
    assert set(index.rejects["code"]) == {"bad-label"}


def test_classes_of_bags_may_be_words(tmp_path, opened):
    root = tmp_path / "bags"
    root.mkdir()
    (root / "bags.csv").write_text("bag,y,f1,f2\nb1,benign,1,2\nb1,benign,3,4\nb2,tumour,5,6\n")
    np.savez(
        root / "bags.npz", X=np.ones((2, 2)), bag=np.arange(2), y=np.array(["benign", "tumour"])
    )
    _, prepared = opened(root)
    samples = dataset(prepared.items, prepared.arrays, kind="bag")
    assert sorted(samples.labels["y"].tolist()) == ["benign", "benign", "tumour", "tumour"]


@pytest.mark.shared_data
def test_musk_elephant_and_fox_are_whole(shared_data, tmp_path, key_file):
    """92 bags of 476 instances, 200 of 1391 and 200 of 1320, each bag with its class."""
    build(shared_data / "mil", tmp_path / "idx", plugin, key_file=key_file)
    index = Index.open(tmp_path / "idx")
    assert index.rejects.is_empty()
    keys = pl.Series([index.locate(item) for item in index.items["id"]])
    items = index.items.with_columns(file=keys.str.split("#").list.first())
    items = items.filter(pl.col("file").is_in(["elephant.npz", "fox.npz", "musk1.data"]))
    totals = items.group_by("file").agg(
        pl.len(), pl.col("instances").sum(), pl.col("features").first(), pl.col("label.y").sum()
    )
    assert set(totals.rows()) >= {
        ("elephant.npz", 200, 1391, 230, 100),
        ("fox.npz", 200, 1320, 230, 100),
        ("musk1.data", 92, 476, 166, 47),
    }
    assert items["patient"].n_unique() == 492
    prepared = prepare(index, plugin, {})
    musk = items.filter(pl.col("file") == "musk1.data")
    samples = dataset(musk, prepared.arrays, kind="bag")
    batch = samples.read(np.arange(92))
    assert batch["x"].shape == (476, 166)
    lines = (shared_data / "mil" / "musk1.data").read_text().split()
    wanted = np.array([[float(v) for v in line.split(",")[2:-1]] for line in lines])
    assert np.array_equal(np.sort(batch["x"], axis=0), np.sort(wanted, axis=0))
