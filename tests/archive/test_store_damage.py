"""Bytes that change in the store, through preparing and reading; and stores of before."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from synthetic_plugin import plugin, recording

from medcl.archive import refused, stored
from medcl.archive.container import SMALL
from medcl.archive.entries import Store, entry_key
from medcl.archive.index import Index, build
from medcl.archive.store import Prepared, StoredArrays, prepare
from medcl.errors import IntegrityWarning, MedclError

LONG = 400_000  # numbers of a recording whose entry is memory-mapped
SPEC = {"names": ("x", "y")}


@pytest.fixture
def index(tmp_path: Path) -> Index:
    for n in range(4):
        recording(tmp_path / "a", f"r{n}", f"person_{n}", numbers=range(n, n + 300))
    recording(tmp_path / "a", "long", "person_l", numbers=range(LONG))
    recording(tmp_path / "a", "Doe", "Doe", numbers=["Jane"])
    build(tmp_path / "a", tmp_path / "idx", plugin)
    return Index.open(tmp_path / "idx")


def entries(index: Index) -> dict[str, Path]:
    """Name of the recording → the file of its entry."""
    store = Store(index.path / "store")
    return {
        index.locate(row["id"]).removesuffix(".rec"): Path(
            store.file(entry_key(row["fingerprint"], "synthetic", {"scale": 1.0, **SPEC}))
        )
        for row in index.items.iter_rows(named=True)
    }


def values(index: Index, prepared: Prepared) -> dict[str, bytes]:
    return {
        index.locate(item): b"".join(
            np.asarray(prepared.arrays(item)[name]).tobytes() for name in ("x", "y")
        )
        for item in prepared.items["id"]
    }


def quiet(index: Index) -> Prepared:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return prepare(index, plugin, SPEC)


def places(file: Path) -> list[int]:
    """Ten: in the length, in the header, and over the data."""
    size = file.stat().st_size
    head = 8 + int.from_bytes(file.read_bytes()[:8], "little")
    return [0, 9, 40, 100, head - 70, *np.linspace(head, size - 1, 5).astype(int).tolist()]


def flip(file: Path, place: int) -> None:
    with file.open("r+b") as handle:
        handle.seek(place)
        (byte,) = handle.read(1)
        handle.seek(place)
        handle.write(bytes([byte ^ 0x10]))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["r0", "r3"])
def test_a_flipped_byte_of_a_small_entry_is_made_anew(index: Index, name: str) -> None:
    right = values(index, quiet(index))
    file = entries(index)[name]
    for place in places(file):
        flip(file, place)
        with pytest.warns(IntegrityWarning, match="1 is damaged: prepared anew"):
            prepared = prepare(index, plugin, SPEC)
        assert prepared.anew == {"damaged": 1}
        assert values(index, prepared) == right
        assert values(index, quiet(index)) == right


@pytest.mark.slow
def test_a_flipped_byte_of_a_large_entry_is_an_error_and_then_made_anew(index: Index) -> None:
    right = values(index, quiet(index))
    file = entries(index)["long"]
    assert file.stat().st_size > SMALL
    named = 0
    for place in places(file):
        flip(file, place)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            prepared = prepare(index, plugin, SPEC)
        if not said:  # its header is whole: found where the data are read
            with pytest.raises(MedclError, match=rf"{file.name} is damaged.*prepared anew"):
                values(index, prepared)
            named += 1
            with pytest.warns(IntegrityWarning, match="1 is damaged: prepared anew"):
                prepared = prepare(index, plugin, SPEC)
        assert prepared.anew == {"damaged": 1}
        assert values(index, prepared) == right
    assert named == 5
    assert sorted(p.suffix for p in file.parent.iterdir() if p.stem == file.stem) == [file.suffix]


def test_an_entry_that_is_only_read_is_a_clear_error(index: Index) -> None:
    """Damaged after it was prepared: where it is read, with the names of the item and the file."""
    prepared = quiet(index)
    files = entries(index)
    ids = {index.locate(item).removesuffix(".rec"): item for item in prepared.items["id"]}
    flip(files["r1"], places(files["r1"])[-1])
    with pytest.raises(MedclError, match=rf"item {ids['r1']} .*{files['r1'].name} is damaged"):
        prepared.arrays(ids["r1"])
    files["r2"].unlink()
    with pytest.raises(MedclError, match=rf"item {ids['r2']} is missing .*prepared anew"):
        prepared.arrays(ids["r2"])
    assert prepared.arrays(ids["r3"])["x"][0] == 3


def test_entries_that_were_exchanged_are_noticed(index: Index) -> None:
    right = values(index, quiet(index))
    files = entries(index)
    one, two = files["r0"].read_bytes(), files["r1"].read_bytes()
    files["r0"].write_bytes(two)
    files["r1"].write_bytes(one)
    with pytest.warns(IntegrityWarning, match="2 are damaged"):
        prepared = prepare(index, plugin, SPEC)
    assert values(index, prepared) == right


# --- stores of before ----------------------------------------------------------------------------


def of_before(file: Path, arrays: dict[str, np.ndarray]) -> Path:
    """The folder that was an entry of format 1."""
    folder = file.with_suffix("")
    folder.mkdir(parents=True)
    described = {}
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
        size = (folder / f"{name}.npy").stat().st_size
        described[name] = {"shape": list(array.shape), "dtype": array.dtype.str, "bytes": size}
    (folder / "meta.json").write_text(json.dumps({"plugin": "synthetic", "arrays": described}))
    return folder


def test_a_store_of_before_is_noticed_and_made_anew(index: Index) -> None:
    right = values(index, quiet(index))
    for file in entries(index).values():
        if file.exists():
            file.unlink()
            of_before(file, {"x": np.full(300, -1.0), "y": np.zeros(300)})
    with pytest.warns(IntegrityWarning, match="5 are of another version of medcl: prepared anew"):
        prepared = prepare(index, plugin, SPEC)
    assert prepared.anew == {"other format": 5}
    assert values(index, prepared) == right
    assert list((index.path / "store").rglob("*.npy")) == []
    quiet(index)


# --- rejects -------------------------------------------------------------------------------------


def test_rejects_lie_in_one_file(index: Index) -> None:
    first = quiet(index)
    file = Store(index.path / "store").refused
    assert len(refused.read(file)) == 1
    assert quiet(index).rejects.equals(first.rejects)
    flip(file, file.stat().st_size - 5)
    assert refused.read(file) == {}
    assert quiet(index).rejects.equals(first.rejects)  # tried again
    assert len(refused.read(file)) == 1


def test_a_mended_reject_does_not_come_back(index: Index) -> None:
    quiet(index)
    store = Store(index.path / "store")
    key = entries(index)["Doe"].stem
    refused.add(store.refused, entries(index)["r0"].stem, "unprepared", "no memory")
    entries(index)["r0"].unlink()
    assert len(quiet(index).rejects) == 2
    again = prepare(index, plugin, SPEC, retry=True)
    assert len(again.rejects) == 1
    entries(index)["r0"].unlink()
    assert len(quiet(index).rejects) == 1
    assert refused.read(store.refused).keys() == {key}


def test_a_torn_line_costs_itself_alone(tmp_path: Path) -> None:
    file = tmp_path / "rejects.jsonl"
    for n in range(3):
        refused.add(file, f"k{n}", "c", f"reason {n} é\n")
    os.truncate(file, file.stat().st_size - 3)
    refused.add(file, "k3", "c", "r")
    refused.add(file, "k0", None, "")
    assert refused.read(file) == {"k1": ("c", "reason 1 é\n"), "k3": ("c", "r")}
    refused.rewrite(file, {"k3": ("c", "r")})
    assert refused.read(file) == {"k3": ("c", "r")}
    assert refused.read(tmp_path / "none") == {}


def test_several_processes_may_reject_at_once(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from medcl.archive import refused\n"
        "for n in range(200):\n"
        "    refused.add(Path(sys.argv[1]), f'{sys.argv[2]}{n}', 'c', 'r' * 100)\n"
    )
    file = tmp_path / "rejects.jsonl"
    runs = [subprocess.Popen([sys.executable, "-c", code, str(file), name]) for name in "ab"]
    assert [run.wait() for run in runs] == [0, 0]
    assert len(refused.read(file)) == 400


# --- StoredArrays --------------------------------------------------------------------------------


def put_many(store: Store, count: int) -> tuple[list[str], list[str]]:
    ids = [f"i_{n * 7919 % count:05d}" for n in range(count)]  # in no order
    keys = [entry_key(item, "p", {}) for item in ids]
    for item, key in zip(ids, keys, strict=True):
        store.put(key, {"x": np.full(50, int(item[2:]))}, {})
    return ids, keys


@pytest.mark.parametrize("inline", [0, 1000])
def test_arrays_in_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inline: int
) -> None:
    monkeypatch.setattr(stored, "_INLINE", inline)
    store = Store(tmp_path / "store")
    ids, keys = put_many(store, 50)
    arrays = StoredArrays.of(store.path, ids, keys)
    packed = pickle.dumps(arrays)
    assert (store.path / stored.TABLES).is_dir() == (inline == 0)
    for there in (arrays, pickle.loads(packed), pickle.loads(pickle.dumps(pickle.loads(packed)))):
        assert len(there) == 50
        assert [int(there(item)["x"][0]) for item in ids] == [int(item[2:]) for item in ids]
        found = there.positions(ids)
        assert [int(there.at(n)["x"][0]) for n in found] == [int(item[2:]) for item in ids]
        for unknown in ("i_99999", "", "a" * 300):
            with pytest.raises(MedclError, match="not among the prepared"):
                there(unknown)
            with pytest.raises(MedclError, match=f"'{unknown}' is not among the prepared"):
                there.positions(["i_00003", unknown])
    if inline == 0:
        (table,) = (store.path / stored.TABLES).iterdir()
        flip(table, table.stat().st_size - 3)
        with pytest.raises(MedclError, match="is damaged"):
            pickle.loads(packed)
        again = pickle.loads(pickle.dumps(StoredArrays.of(store.path, ids, keys)))
        assert int(again(ids[3])["x"][0]) == int(ids[3][2:])


def test_nothing_of_no_item(tmp_path: Path) -> None:
    arrays = StoredArrays.of(tmp_path, [], [])
    assert len(arrays) == len(arrays.positions([])) == 0
    with pytest.raises(MedclError, match="not among the prepared"):
        arrays("i")


def test_what_a_loader_is_sent_of_a_million_items_is_small(tmp_path: Path) -> None:
    ids = pl.Series(range(1_000_000)).cast(pl.String).str.zfill(20)
    arrays = StoredArrays.of(tmp_path, ids.to_list(), ids.str.zfill(40).to_list())
    assert len(pickle.dumps(arrays)) < 1000
    assert pickle.loads(pickle.dumps(arrays)).positions(ids[[3, 999_999]]).tolist() == [3, 999_999]


def test_few_are_open_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "_HELD_AT_ONCE", 10 * (stored._OVERHEAD + 1000))
    store = Store(tmp_path / "store")
    ids, keys = put_many(store, 100)
    arrays = StoredArrays.of(store.path, ids, keys)
    files = len(os.listdir("/proc/self/fd"))
    for item in ids * 2:
        arrays(item)
    assert 5 <= len(arrays._open) <= 10
    assert len(os.listdir("/proc/self/fd")) == files, "small entries leave no file open"


def test_large_entries_are_mapped_and_checked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "_MAPPED_AT_ONCE", 2)
    store = Store(tmp_path / "store")
    ids = [f"i{n}" for n in range(4)]
    keys = [entry_key(item, "p", {}) for item in ids]
    for n, key in enumerate(keys):
        store.put(key, {"x": np.full(SMALL, n, dtype=np.uint16)}, {})
    arrays = StoredArrays.of(store.path, ids, keys)
    for _ in range(2):
        for n, item in enumerate(ids):
            x: Any = arrays(item)["x"]
            assert x[5] == n
    assert len(arrays._mapped) == 2
    entry: Any = arrays(ids[0])
    assert entry.blocks.done.sum() == 1, "what was checked before it was closed"
