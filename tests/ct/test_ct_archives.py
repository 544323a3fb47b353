"""Zip and tar archives cost about what they weigh, however many series are in them."""

from __future__ import annotations

import builtins
import io
import tarfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ct_synthetic import ct_slice
from pydicom.uid import generate_uid

from medcl.archive.index import Index, build
from medcl.archive.store import Prepared, prepare
from medcl.io import scratch
from medcl_ct import archives
from medcl_ct.plugin import plugin

SERIES, SLICES = 24, 10
SPEC = {"spacing": (0.0, 0.0, 0.0), "crop": "none"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 series of 10 slices: noise, which packs as badly as CT."""
    return noise(tmp_path_factory.mktemp("plain") / "a", SERIES, 96)


def noise(root: Path, series: int, size: int) -> Path:
    random = np.random.default_rng(0)
    for s in range(series):
        uid = generate_uid()
        for n in range(SLICES):
            stored = random.integers(0, 2000, (size, size)).astype(np.uint16).tobytes()
            own = {"SeriesInstanceUID": uid, "PatientID": f"P{s}", "PixelData": stored}
            ct_slice(root / f"s{s:02d}" / f"{n}.dcm", 2.0 * n, (size, size), **own)
    return root


def packed(folder: Path, path: Path, mixed: bool = False) -> Path:
    files = sorted(folder.rglob("*.dcm"))
    if mixed:  # slices of all series in turn
        files.sort(key=lambda file: (file.name, file.parent.name))
    path.parent.mkdir(parents=True)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in files:
                archive.write(file, str(file.relative_to(folder)))
    else:
        with tarfile.open(path, "w" if path.suffix == ".tar" else f"w:{path.suffix[1:]}") as tar:
            for file in files:
                tar.add(file, str(file.relative_to(folder)))
    return path


class _Counting(io.RawIOBase):
    """A file that counts what is read of it."""

    def __init__(self, raw: Any, count: list[int]) -> None:
        self._raw, self._count = raw, count
        self.name = raw.name

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._raw.seek(offset, whence))

    def tell(self) -> int:
        return int(self._raw.tell())

    def fileno(self) -> int:
        return int(self._raw.fileno())

    def readinto(self, buffer: Any) -> int:
        count = int(self._raw.readinto(buffer))
        self._count[0] += count
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


@contextmanager
def counted(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many bytes of one file are read, by whatever opens it in this process."""
    count, opened = [0], io.open

    def counting(file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **more: Any) -> Any:
        is_it = not isinstance(file, int) and Path(str(file)) == path and "b" in mode
        if not is_it:
            return opened(file, mode, buffering, *rest, **more)
        raw = _Counting(opened(file, mode, 0), count)
        return raw if buffering == 0 else io.BufferedReader(raw)

    with monkeypatch.context() as patch:
        patch.setattr(io, "open", counting)
        patch.setattr(builtins, "open", counting)
        patch.setattr(tarfile, "bltn_open", counting)
        yield count


def read(archive: Path, out: Path, workers: int = 1) -> tuple[Index, Prepared]:
    build(archive, out, plugin)
    index = Index.open(out)
    return index, prepare(index, plugin, SPEC, workers=workers)


@pytest.mark.slow
@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("name", ["x.zip", "x.tar.gz", "x.tar.xz", "x.tar"])
def test_an_archive_is_read_three_times_at_most(
    folder: Path, tmp_path: Path, name: str, mixed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the file to prepared arrays, all of indexing, hashing and decoding."""
    path = packed(folder, tmp_path / "a" / name, mixed)
    with counted(path, monkeypatch) as count:
        index, made = read(path.parent, tmp_path / "idx")
    assert len(made.items) == SERIES
    assert path.stat().st_size < count[0] <= 3 * path.stat().st_size
    assert not list((index.path / "private").glob("*scratch-*")), "what was unpacked is gone"


@pytest.mark.slow
@pytest.mark.parametrize("size", [130, 144, 256])
@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz", "x.zip"])
def test_slices_too_large_to_keep_cost_no_more(
    tmp_path: Path, name: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 33, 41 and 131 KB: just above, and far above, what is kept from its first reading."""
    path = packed(noise(tmp_path / "plain", 3, size), tmp_path / "a" / name, mixed=True)
    with counted(path, monkeypatch) as count:
        _, made = read(path.parent, tmp_path / "idx")
    assert len(made.items) == 3
    assert count[0] <= 3 * path.stat().st_size


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_what_comes_out_of_archives_is_what_comes_out_of_folders(
    folder: Path, tmp_path: Path, workers: int
) -> None:
    plain, of_plain = read(folder, tmp_path / "plain")
    path = packed(folder, tmp_path / "a" / "x.tar.gz", mixed=True)
    index, made = read(path.parent, tmp_path / "idx", workers)

    def by_series(found: Index, from_: Prepared) -> dict[str, bytes]:
        return {
            found.locate(i).split("#")[1]: from_.arrays(i)["hu0"].tobytes()
            for i in found.items["id"]
        }

    assert by_series(index, made) == by_series(plain, of_plain)
    hashes = {archives.scratch.digest(path)}
    assert len(hashes) == 1


@pytest.mark.slow
def test_a_tar_is_prepared_in_three_times_the_folders_time(folder: Path, tmp_path: Path) -> None:
    path = packed(folder, tmp_path / "a" / "x.tar.gz", mixed=True)
    seconds = []
    for archive in (folder, path.parent):
        build(archive, tmp_path / f"idx{len(seconds)}", plugin)
        index = Index.open(tmp_path / f"idx{len(seconds)}")
        start = time.perf_counter()
        prepare(index, plugin, SPEC)
        seconds.append(time.perf_counter() - start)
    assert seconds[1] < 3 * seconds[0]


@pytest.mark.slow
def test_without_room_an_archive_is_still_read(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = packed(folder, tmp_path / "a" / "x.tar.gz")

    def full(name: str, make: object) -> None:
        raise OSError(archives.ENOSPC, "No space left on device")

    build(path.parent, tmp_path / "idx", plugin)
    monkeypatch.setattr(archives.scratch, "once", full)
    monkeypatch.setattr("medcl.archive.store.scratch.digest", lambda path: b"")
    made = prepare(Index.open(tmp_path / "idx"), plugin, SPEC)
    assert len(made.items) == SERIES


def test_scratch_is_made_once_and_goes(tmp_path: Path) -> None:
    made = []
    with scratch.new(tmp_path) as folder:
        scratch.use(folder)
        for _ in range(2):
            path = scratch.once("x", lambda out: (made.append(1), out.write_text("x"))[1] and None)
            assert path is not None
            assert path.read_text() == "x"
        assert folder.stat().st_mode & 0o077 == 0
    assert made == [1]
    assert not folder.exists()
    assert scratch.folder() is None
    assert scratch.once("x", lambda out: None) is None
