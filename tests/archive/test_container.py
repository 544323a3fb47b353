"""The file of an entry: what goes in comes out, in any reader, and no byte of it changes unseen."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors import safe_open

from medcl.archive import container
from medcl.archive.checked import CheckedArray, Damaged
from medcl.archive.container import OtherFormat, read, write
from medcl.errors import MedclError

quick = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
dtypes = (
    hnp.boolean_dtypes()
    | hnp.integer_dtypes()
    | hnp.unsigned_integer_dtypes()
    | hnp.floating_dtypes()
    | hnp.complex_number_dtypes()
    | hnp.byte_string_dtypes()
    | hnp.unicode_string_dtypes()
    | hnp.datetime64_dtypes()
)
shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
arrays = hnp.arrays(dtypes, shapes)
names = st.text("abcXYZ019_.-", min_size=1, max_size=8)


@quick
@given(st.dictionaries(names, arrays, max_size=5), st.sampled_from([0, 1 << 20]))
def test_what_goes_in_comes_out(tmp_path: Path, given: dict[str, Any], small: int) -> None:
    """Read as a whole or memory-mapped; and safetensors reads what it has types for."""
    file = tmp_path / "x.safetensors"
    assert write(file, given, {"plugin": "p", "spec": {"a": [1, "ü"]}}) == file.stat().st_size
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(container, "SMALL", small)
        back = read(str(file))
        assert back.meta["spec"] == {"a": [1, "ü"]}
        assert set(back) == set(given)
        for name, array in given.items():
            assert back[name].dtype == array.dtype
            assert back[name].shape == back.shapes()[name] == array.shape
            np.testing.assert_array_equal(back[name], array)
    with safe_open(file, "np") as other:
        for name, array in given.items():
            there = other.get_tensor(name)
            if array.dtype.str.lstrip("<|") in container._TYPES:
                np.testing.assert_array_equal(there, array)
            else:
                assert there.tobytes() == array.tobytes()


def test_structured_arrays_come_back(tmp_path: Path) -> None:
    dtype = np.dtype([("name", "S3"), ("at", "<f8", (2,)), ("in", [("a", "<i2"), ("b", ">u4")])])
    array = np.zeros(4, dtype)
    array["at"], array["in"]["b"], array["name"] = 1.5, 7, b"ab"
    write(tmp_path / "x", {"x": array}, {})
    back = read(str(tmp_path / "x"))["x"]
    assert back.dtype == dtype
    assert (back == array).all()


def test_the_same_arrays_give_the_same_bytes(tmp_path: Path) -> None:
    given = {"x": np.arange(9), "a": np.ones(3, dtype=bool)}
    write(tmp_path / "1", given, {"k": 1})
    write(tmp_path / "2", dict(reversed(given.items())), {"k": 1})
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_another_format_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (1, 99):
        with monkeypatch.context() as patch:
            patch.setattr(container, "FORMAT", number)
            write(tmp_path / f"{number}", {"x": np.zeros(2)}, {})
    with pytest.raises(OtherFormat, match=r"format 1\..*prepared anew"):
        read(str(tmp_path / "1"))
    with pytest.raises(MedclError, match="format 99.* up to 2: update medcl"):
        read(str(tmp_path / "99"))


# --- flipped bytes -------------------------------------------------------------------------------

SMALL = {
    "x": np.arange(3000, dtype=np.float16).reshape(3, 1000),
    "kinds": np.array([b"ECG", b""]),
    "fs": np.array([100.0]),
    "none": np.zeros((0, 2)),
}


@pytest.mark.slow
@pytest.mark.parametrize("length", [1, 8])
def test_any_flipped_bit_of_a_small_file_is_an_error(tmp_path: Path, length: int) -> None:
    file = tmp_path / "x"
    write(file, SMALL, {"plugin": "p"})
    whole = file.read_bytes()
    start = len(whole) - sum(a.nbytes for a in SMALL.values())
    places = [*range(start), *range(start, len(whole), 97), len(whole) - 1]
    for place in places:
        for bit in range(8) if place < start else (place % 8,):
            flipped = bytearray(whole)
            flipped[place] ^= 1 << bit
            file.write_bytes(flipped)
            with pytest.raises(Damaged, match="is damaged"):
                read(str(file))
    file.write_bytes(whole[:-length])
    with pytest.raises(Damaged):
        read(str(file))


BOX = np.random.default_rng(0).integers(-1000, 1000, (9, 240, 330), dtype=np.int16)  # 1.4 MB
LARGE = {"hu": BOX, "affine": np.eye(4), "mask": (BOX > 0).astype(np.int16)}


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("large") / "x"
    write(file, LARGE, {})
    return file


cuts = hnp.basic_indices(BOX.shape, allow_newaxis=True, allow_ellipsis=True)


@quick
@given(cut=cuts | st.lists(st.integers(-9, 8), min_size=1, max_size=3), data=st.data())
def test_a_cut_of_a_large_array_is_right_or_an_error(
    large: Path, tmp_path: Path, cut: Any, data: st.DataObject
) -> None:
    """Whatever is cut out: an array in which the flipped byte shows is never given."""
    array = read(str(large))["hu"]
    assert isinstance(array, CheckedArray)
    np.testing.assert_array_equal(array[cut], BOX[cut])
    whole = bytearray(large.read_bytes())
    start = whole.index(BOX.tobytes()[:64])
    touched = np.arange(BOX.size).reshape(BOX.shape)[cut].ravel()
    within = st.sampled_from(touched[:: max(1, len(touched) // 50)].tolist() or [0])
    element = data.draw(within | st.integers(0, BOX.size - 1))
    whole[start + 2 * element + data.draw(st.integers(0, 1))] ^= 1 << data.draw(st.integers(0, 7))
    file = tmp_path / "x"
    file.write_bytes(whole)
    try:
        got = np.array(read(str(file))["hu"][cut])
    except Damaged:
        assert not file.exists()  # put aside, so that it is made anew
        return
    assert element not in touched
    np.testing.assert_array_equal(got, BOX[cut])


WAYS = {
    "asarray": np.asarray,
    "sum": lambda x: x.sum(),
    "np.sum": np.sum,
    "plus": lambda x: x + 1,
    "minus": lambda x: 1 - x,
    "compare": lambda x: x > 5,
    "ufunc": np.abs,
    "stack": lambda x: np.stack([x, x]),
    "concatenate": lambda x: np.concatenate([x, x]),
    "astype": lambda x: x.astype(np.float32),
    "tolist": lambda x: x.tolist(),
    "iterate": list,
    "mask": lambda x: x[np.ones(x.shape, dtype=bool)],
    "two lists": lambda x: x[[0, 8], [1, 239]],
    "rows": lambda x: x[np.arange(9)],
    "reshape": lambda x: x.reshape(-1)[-1],
    "transpose": lambda x: x.T[-1, -1],
    "flat": lambda x: x.flat[x.size - 1],
    "windows": lambda x: np.lib.stride_tricks.sliding_window_view(x, 3, axis=0),
    "pickle": lambda x: pickle.loads(pickle.dumps(x)),
    "bytes": lambda x: x.tobytes(),
}


@pytest.mark.parametrize("way", WAYS)
def test_no_way_leads_past_the_checks(large: Path, tmp_path: Path, way: str) -> None:
    right = WAYS[way](read(str(large))["hu"])
    np.testing.assert_array_equal(right, WAYS[way](BOX))
    whole = bytearray(large.read_bytes())
    whole[whole.index(BOX.tobytes()[:64]) + BOX.nbytes - 1] ^= 4  # the last voxel
    (tmp_path / "x").write_bytes(whole)
    with pytest.raises(Damaged):
        WAYS[way](read(str(tmp_path / "x"))["hu"])


def test_a_flip_elsewhere_costs_nothing(large: Path, tmp_path: Path) -> None:
    """Blocks are checked when they are touched, not before: reading stays lazy."""
    whole = bytearray(large.read_bytes())
    whole[-1] ^= 4  # the last byte of the mask
    (tmp_path / "x").write_bytes(whole)
    entry = read(str(tmp_path / "x"))
    assert entry.shapes()["mask"] == entry["mask"].shape == BOX.shape
    assert entry.blocks is not None
    assert not entry.blocks.done.any()
    np.testing.assert_array_equal(entry["affine"], np.eye(4))
    assert entry.blocks.done.sum() == 1
    np.testing.assert_array_equal(entry["hu"][3:5, 10:20], BOX[3:5, 10:20])
    assert entry.blocks.done.sum() <= 4
    np.testing.assert_array_equal(entry["hu"], BOX)
    with pytest.raises(Damaged):
        np.asarray(entry["mask"])


def test_a_large_array_looks_like_one(large: Path) -> None:
    array = read(str(large))["hu"]
    assert (array.shape, array.dtype, array.ndim, len(array)) == (BOX.shape, BOX.dtype, 3, 9)
    assert array[2, 3, 4] == BOX[2, 3, 4]
    assert isinstance(array[2], np.ndarray)
    with pytest.raises(ValueError, match="read-only"):
        array[2][0] = 1
    with pytest.raises(TypeError):
        array[2] = 1  # type: ignore[index]
    with pytest.raises(IndexError):
        array[9]
    with pytest.raises(IndexError):
        array[[9]]
