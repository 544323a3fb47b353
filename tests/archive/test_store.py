from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_plugin import plugin, recording

from medcl.archive import container
from medcl.archive.entries import entry_key
from medcl.archive.index import Index, build
from medcl.archive.store import Prepared, Store, prepare
from medcl.errors import MedclError, UsageError

HERE = str(Path(__file__).parent)

# --- names ---------------------------------------------------------------------------------------

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
specs = st.dictionaries(st.text(), values, max_size=4)


def shuffled(value: Any) -> Any:
    """The same with every mapping's order turned round."""
    if isinstance(value, dict):
        return {key: shuffled(part) for key, part in reversed(value.items())}
    return [shuffled(part) for part in value] if isinstance(value, list) else value


@given(specs)
def test_the_order_of_settings_does_not_matter(spec: dict[str, Any]) -> None:
    assert entry_key("f", "p", spec) == entry_key("f", "p", shuffled(spec))


@given(specs, specs)
def test_other_settings_have_another_name(one: dict[str, Any], two: dict[str, Any]) -> None:
    if one != two:
        assert entry_key("f", "p", one) != entry_key("f", "p", two)


@given(specs, st.text(), values, values)
def test_any_changed_value_gives_another_name(
    spec: dict[str, Any], name: str, before: Any, after: Any
) -> None:
    if before != after:
        keys = [entry_key("f", "p", {**spec, name: value}) for value in (before, after)]
        assert keys[0] != keys[1]


def test_source_and_plugin_are_in_the_name() -> None:
    keys = {entry_key(f, p, {"a": 1}) for f in ("f", "g") for p in ("p", "q")}
    assert len(keys) == 4
    assert entry_key("f", "p", {"a": (1, 2)}) == entry_key("f", "p", {"a": [1, 2]})
    assert entry_key("f", "p", {"a": True}) != entry_key("f", "p", {"a": 1})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1: 2}, {1, 2}, b"x", Path("x")])
def test_a_setting_that_cannot_be_named(value: object) -> None:
    with pytest.raises(UsageError, match=r"'prepare\.a\.b\[0\]' = "):
        entry_key("f", "p", {"a": {"b": [value]}})


# --- entries -------------------------------------------------------------------------------------

KEY = "ab" + "0" * 38
ARRAYS = {
    "x": np.arange(12, dtype=np.float32).reshape(3, 4),
    "empty": np.zeros((0, 4)),
    "scalar": np.array(3),
    "text": np.array(["a", "bc"]),
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_round_trip(store: Store) -> None:
    assert not store.has(KEY)
    store.put(KEY, ARRAYS, {"plugin": "p"})
    assert store.has(KEY)
    back = store.arrays(KEY)
    assert set(back) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert back[name].dtype == array.dtype
        np.testing.assert_array_equal(back[name], array)
    with pytest.raises(ValueError, match="read-only"):
        back["x"][0] = 1
    assert store.meta(KEY)["plugin"] == "p"
    assert [p for p in store.path.rglob("*") if p.is_file()] == [Path(store.file(KEY))]


def test_a_view_is_stored_as_it_looks(store: Store) -> None:
    store.put(KEY, {"x": ARRAYS["x"].T[::-1, ::2]}, {})
    np.testing.assert_array_equal(store.arrays(KEY)["x"], ARRAYS["x"].T[::-1, ::2])


def test_what_cannot_be_stored(store: Store) -> None:
    for name, array in (("../x", np.zeros(1)), ("", np.zeros(1)), ("x", np.array([{}]))):
        with pytest.raises(MedclError, match="cannot be stored"):
            store.put(KEY, {name: array}, {})
    with pytest.raises(MedclError, match="no array"):
        store.put(KEY, {}, {})
    assert not store.has(KEY)
    assert [p for p in store.path.rglob("*") if p.is_file()] == []


def damage(store: Store, key: str, how: str) -> None:
    file = Path(store.file(key))
    if how == "truncated":
        os.truncate(file, file.stat().st_size - 1)
    elif how == "longer":
        file.write_bytes(file.read_bytes() + b"\0")
    elif how == "empty":
        os.truncate(file, 0)
    elif how == "no header":
        os.truncate(file, 6)
    elif how == "half a header":
        os.truncate(file, 200)
    elif how == "of another item":
        store.put("cd" + key[2:], {"x": np.zeros(2)}, {})
        os.replace(store.file("cd" + key[2:]), file)


HOWS = ("truncated", "longer", "empty", "no header", "half a header", "of another item")


@pytest.mark.parametrize("how", HOWS)
def test_a_damaged_entry_is_noticed_and_replaced(store: Store, how: str) -> None:
    store.put(KEY, ARRAYS, {})
    damage(store, KEY, how)
    assert store.state(KEY) == "damaged"
    with pytest.raises(
        MedclError, match=rf"{KEY}.* (is damaged|holds another entry).*prepared anew"
    ):
        store.arrays(KEY)
    store.put(KEY, ARRAYS, {})
    assert store.has(KEY)
    np.testing.assert_array_equal(store.arrays(KEY)["x"], ARRAYS["x"])


def test_an_absent_entry(store: Store) -> None:
    assert store.state(KEY) == "absent"
    with pytest.raises(FileNotFoundError):
        store.arrays(KEY)


def test_two_writers_of_one_entry(store: Store) -> None:
    code = (
        "import sys, numpy as np; from pathlib import Path; from medcl.archive.store import Store\n"
        "for _ in range(150):\n"
        "    Store(Path(sys.argv[1])).put(sys.argv[2], {'x': np.arange(2000)}, {})\n"
        "    assert (Store(Path(sys.argv[1])).arrays(sys.argv[2])['x'] == np.arange(2000)).all()\n"
    )
    runs = [subprocess.Popen([sys.executable, "-c", code, str(store.path), KEY]) for _ in range(2)]
    assert [run.wait() for run in runs] == [0, 0]
    assert [str(p) for p in (store.path / "ab").iterdir()] == [store.file(KEY)]


# --- prepare -------------------------------------------------------------------------------------


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    for n in range(8):
        recording(tmp_path / "a", f"r{n}", f"person_{n}", numbers=[n, n + 1])
    recording(tmp_path / "a", "Doe_Jane", "Doe_Jane", numbers=["Jane", "Doe"])
    return tmp_path / "a"


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    log = tmp_path / "calls.log"
    log.touch()
    monkeypatch.setenv("SYNTHETIC_LOG", str(log))
    return log


def indexed(archive: Path) -> Index:
    build(archive, archive.parent / "idx", plugin)
    return Index.open(archive.parent / "idx")


def count(calls: Path) -> int:
    lines = len(calls.read_text().splitlines())
    calls.write_text("")
    return lines


def values_of(index: Index, prepared: Prepared) -> dict[str, list[float]]:
    return {
        index.locate(item): prepared.arrays(item)["x"].tolist() for item in prepared.items["id"]
    }


@pytest.mark.parametrize("workers", [1, 2])
def test_prepare(archive: Path, calls: Path, workers: int) -> None:
    index = indexed(archive)
    count(calls)
    prepared = prepare(index, plugin, {"scale": 2.0}, workers=workers)
    assert count(calls) == 9
    assert values_of(index, prepared) == {f"r{n}.rec": [2 * n, 2 * n + 2] for n in range(8)}
    ((item, code, reason),) = prepared.rejects.rows()
    assert (index.locate(item), code) == ("Doe_Jane.rec", "unprepared")
    assert reason.startswith("It could not be read (ValueError, ")
    assert "Jane" not in reason
    assert prepared.left_out() == f"1 of 9 items was left out: {reason}"
    (line,) = (index.path / "private/prepare.jsonl").read_text().splitlines()
    assert json.loads(line)["id"] == item
    assert "could not convert string to float: 'Jane'" in json.loads(line)["detail"]
    assert "Jane" not in Store(index.path / "store").refused.read_text()

    again = prepare(index, plugin, {"scale": 2.0}, workers=workers)
    assert count(calls) == 0
    assert again.items.equals(prepared.items)
    assert again.rejects.equals(prepared.rejects)
    prepare(index, plugin, {"scale": 2.0}, retry=True)
    assert count(calls) == 1

    there = pickle.loads(pickle.dumps(prepared.arrays))
    np.testing.assert_array_equal(
        there(prepared.items["id"][0])["x"], prepared.arrays(prepared.items["id"][0])["x"]
    )
    with pytest.raises(MedclError, match="not among the prepared"):
        prepared.arrays(item)


def test_the_store_tells_where_an_entry_comes_from(archive: Path) -> None:
    import hashlib

    index = indexed(archive)
    prepare(index, plugin, {})
    row = {index.locate(r["id"]): r for r in index.items.to_dicts()}["r3.rec"]
    key = entry_key(row["fingerprint"], "synthetic", {"scale": 1.0, "names": ["x"]})
    meta = Store(index.path / "store").meta(key)
    digest = hashlib.sha256((archive / "r3.rec").read_bytes()).digest()
    assert meta["content"] == hashlib.sha256(digest).hexdigest()
    assert meta["spec"] == {"scale": 1.0, "names": ["x"]}
    assert meta["fingerprint"] == row["fingerprint"]
    assert (meta["format"], meta["preparation"]) == (2, 1)
    assert Store(index.path / "store").arrays(key).shapes() == {"x": (2,)}
    assert str(archive) not in json.dumps(meta)


@pytest.mark.parametrize("spec", [{"scale": 3.0}, {"names": ("x", "y")}])
def test_a_changed_setting_never_takes_old_arrays(
    archive: Path, calls: Path, spec: dict[str, Any]
) -> None:
    index = indexed(archive)
    old = prepare(index, plugin, {})
    count(calls)
    new = prepare(index, plugin, spec)
    assert count(calls) == 9
    scale = spec.get("scale", 1.0)
    assert values_of(index, new)["r3.rec"] == [3 * scale, 4 * scale]
    assert values_of(index, old)["r3.rec"] == [3, 4]
    prepare(index, plugin, {"scale": 1.0})  # the default, written out
    prepare(index, plugin, {"scale": 1})
    assert count(calls) == 0


def test_a_changed_file_never_takes_old_arrays(archive: Path, calls: Path) -> None:
    prepare(indexed(archive), plugin, {})
    recording(archive, "r3", "person_3", numbers=[8, 9])  # as many bytes as before
    os.utime(archive / "r3.rec", ns=(5, 5))
    recording(archive, "Doe_Jane", "Doe_Jane", numbers=[1, 2])  # mended
    index = indexed(archive)
    count(calls)
    prepared = prepare(index, plugin, {})
    assert count(calls) == 2
    assert values_of(index, prepared)["r3.rec"] == [8, 9]
    assert values_of(index, prepared)["Doe_Jane.rec"] == [1, 2]
    assert len(prepared.rejects) == 0


def test_a_file_that_changed_after_indexing_is_not_taken(archive: Path) -> None:
    index = indexed(archive)
    recording(archive, "r3", "person_3", numbers=[8, 9, 10])
    (archive / "r4.rec").unlink()
    prepared = prepare(index, plugin, {})
    codes = {index.locate(item): code for item, code, _ in prepared.rejects.rows()}
    assert codes == {"r3.rec": "changed", "r4.rec": "away", "Doe_Jane.rec": "unprepared"}
    index = indexed(archive)
    assert values_of(index, prepare(index, plugin, {}))["r3.rec"] == [8, 9, 10]


@pytest.mark.parametrize("how", HOWS)
def test_a_damaged_entry_is_prepared_again(archive: Path, calls: Path, how: str) -> None:
    index = indexed(archive)
    prepare(index, plugin, {})
    count(calls)
    key = next((index.path / "store").glob("*/*.safetensors")).stem
    damage(Store(index.path / "store"), key, how)
    with pytest.warns(UserWarning, match="1 is damaged: prepared anew"):
        prepared = prepare(index, plugin, {})
    assert prepared.anew == {"damaged": 1}
    assert count(calls) == 1
    assert len(values_of(index, prepared)) == 8


@pytest.mark.slow
def test_what_a_plugin_may_do_wrong(archive: Path) -> None:
    recording(archive, "objects", "p", numbers=["objects"])
    recording(archive, "exits", "p", numbers=["exit"])
    index = indexed(archive)
    prepared = prepare(index, plugin, {}, workers=2)
    codes = {index.locate(item): code for item, code, _ in prepared.rejects.rows()}
    assert codes == {
        "objects.rec": "bad-arrays",
        "exits.rec": "crashed",
        "Doe_Jane.rec": "unprepared",
    }
    assert len(prepared.items) == 8


def test_a_full_disk_ends_the_run_and_rejects_nobody(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = indexed(archive)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(container, "write", full)
        with pytest.raises(MedclError, match="No room to write .*it needs .* are free") as caught:
            prepare(index, plugin, {})
    assert "could not be read" not in str(caught.value)
    assert len(prepare(index, plugin, {}).items) == 8


def test_bad_requests(archive: Path) -> None:
    index = indexed(archive)
    with pytest.raises(UsageError, match=r"Unknown key 'prepare\.scael'"):
        prepare(index, plugin, {"scael": 2})
    with pytest.raises(UsageError, match="not 'other'"):
        prepare(index, replace(plugin, name="other"), {})


KILLED = """
from pathlib import Path
import sys, time
from medcl.archive import container
from medcl.archive.index import Index
from medcl.archive.store import prepare
from synthetic_plugin import plugin
write = container.write
def slow(*args, **kwargs):
    time.sleep(0.02)
    total = write(*args, **kwargs)
    time.sleep(0.02)
    return total
container.write = slow
prepare(Index.open(Path(sys.argv[1])), plugin, {"names": ("x", "y", "z")})
"""


@pytest.mark.slow
def test_killed_while_preparing(archive: Path, calls: Path) -> None:
    index = indexed(archive)
    count(calls)
    store = index.path / "store"
    env = {**os.environ, "PYTHONPATH": HERE}
    for kills in range(1, 4):
        run = subprocess.Popen([sys.executable, "-c", KILLED, str(index.path)], env=env)
        while len(list(store.glob("*/*.safetensors"))) < 2 * kills and run.poll() is None:
            time.sleep(0.002)
        run.send_signal(signal.SIGKILL)
        run.wait()
    spec = {"names": ("x", "y", "z")}
    prepared = prepare(index, plugin, spec)
    assert count(calls) <= 9 + 3  # each kill costs one at most
    assert len(values_of(index, prepared)) == 8
    assert values_of(index, prepare(index, plugin, spec)) == values_of(index, prepared)
    assert count(calls) == 0
