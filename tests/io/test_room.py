"""A full disk is told from other errors, and one sentence says path, need and room."""

from __future__ import annotations

import errno
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from medcl.io import atomic, room
from medcl.io.pmap import pmap


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        OSError(errno.EFBIG, "File too large"),
        RuntimeError("Can't write (error message = 'No space left on device')"),  # HDF5
        OSError("12288 requested and 8160 written"),  # NumPy
        ValueError("No space left on device (os error 28)"),  # libraries in Rust
    ],
)
def test_a_full_disk_is_known_by_number_or_text(error: Exception) -> None:
    assert room.is_full(error)
    wrapped = ValueError("cannot write")
    wrapped.__cause__ = error
    assert room.is_full(wrapped)


@pytest.mark.parametrize("error", [OSError(errno.EACCES, "no"), ValueError("file too large")])
def test_what_an_archive_may_say_is_none(error: Exception) -> None:
    assert not room.is_full(error)


@pytest.fixture
def limit() -> Iterator[None]:
    """Files of at most 10,000 bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def written(path: Path, by: str) -> None:
    """40,000 bytes."""
    rows = np.random.default_rng(0).random(5000)
    with atomic.replacing(path) as temporary:
        if by == "plain":
            temporary.write_bytes(bytes(40_000))
        elif by == "numpy":
            with temporary.open("wb") as file:
                np.save(file, rows)
        else:
            pl.DataFrame({"x": rows}).write_parquet(temporary)


@pytest.mark.usefixtures("limit")
@pytest.mark.parametrize("by", ["plain", "numpy", "polars"])
def test_what_was_there_stays(tmp_path: Path, by: str) -> None:
    path = tmp_path / "x"
    path.write_text("before")
    with pytest.raises(room.NoRoomError, match="No room to write .*x: it needs .* free") as told:
        written(path, by)
    assert "\n" not in str(told.value)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def full(item: int) -> int:
    if item == 2:
        raise OSError(errno.ENOSPC, "No space left on device", "/somewhere/file")
    return item


def test_it_ends_the_work_and_is_no_fault_of_the_item() -> None:
    with pytest.raises(room.NoRoomError, match="No room to write /somewhere/file"):
        list(pmap(full, [1, 2, 3]))


def test_what_killed_processes_left_is_swept_and_what_is_in_use_stays(tmp_path: Path) -> None:
    dead = tmp_path / f".a.{atomic._HERE}-{2**22 + 1}-0123abcd.tmp"  # above the largest number
    mine = tmp_path / f".b.{atomic._HERE}-{os.getpid()}-0123abcd.tmp"
    far = tmp_path / ".c.ffffff-1-0123abcd.tmp"
    old = tmp_path / ".d.ffffff-1-0123abcd.new"
    other = tmp_path / ".e.tmp"
    for path in (dead, mine, far, other):
        path.write_text("x")
    old.mkdir()
    os.utime(old, (time.time() - 2 * 24 * 3600,) * 2)
    atomic.write_text(tmp_path / "a", "done")
    assert set(tmp_path.iterdir()) == {mine, far, other, tmp_path / "a"}
