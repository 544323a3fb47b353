"""Members of zip and tar archives, read where they lie.

An archive that names places outside of itself, or unpacks to far more than it weighs, is refused as
a whole: nobody packs a scanner's images like that.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from errno import EDQUOT, ENOSPC
from functools import lru_cache, partial
from io import SEEK_CUR, SEEK_END, SEEK_SET, BufferedReader, BytesIO, RawIOBase
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from medcl.io import scratch

_RATIO = 200  # real images pack to a half or a tenth, black ones to a fiftieth
_FREE = 64 * 1024 * 1024  # bytes that may come out of however small an archive
_MEMBERS = 2_000_000
_BUFFER = 1024 * 1024
_PACKED: tuple[tuple[bytes, Callable[..., Any]], ...] = (
    (b"\x1f\x8b", gzip.open),
    (b"BZh", bz2.open),
    (b"\xfd7zXZ", lzma.open),
)
_BROKEN = (
    *(tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error),
    *(EOFError, OSError, ValueError),
    *(RuntimeError, NotImplementedError),  # zipfile's, of a password and of a way to pack
)


class Refused(Exception):
    """Why an archive, or the rest of it, is not read: a code and a reason."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


@dataclass(frozen=True)
class Member:
    """A regular file in an archive. ``open`` gives it from its beginning, any number of times.

    ``crc`` is the checksum that a zip has of it.
    """

    name: str
    size: int
    open: Callable[[], BinaryIO]
    crc: int | None = None


def members(path: Path, limit: int | None = None) -> Iterator[Member]:
    """The regular files of an archive, one at a time; open each before going on to the next.

    Args:
        path: a zip or tar file, the latter plain or packed by gzip, bzip2 or xz.
        limit: how much of a tar's member is kept for opening; None keeps all.

    Raises:
        Refused: if a name climbs out, it unpacks without end, is encrypted, or broken.
    """
    with _told():
        reader = _zip(path) if _is_zip(path) else _tar(path, limit)
        for count, member in enumerate(reader):
            if count >= _MEMBERS:
                raise Refused("unsafe-archive", f"It holds more than {_MEMBERS:,} files.")
            yield member


def fetch(path: Path, wanted: Collection[str]) -> Iterator[Member]:
    """Members by name, in the order of the archive, without reading the others.

    In a run (`medcl.io.scratch`) a packed tar is unpacked once, for all who ask, and hashed on the
    way. Elsewhere, and where there is no room, it is read up to the last member that is asked for.

    Raises:
        Refused: as in `members`.
    """
    asked = {_plain_name(name): name for name in wanted}  # older indexes have names as packed
    for member in _fetched(path, set(asked)):
        yield replace(member, name=asked[member.name])


def _fetched(path: Path, wanted: set[str]) -> Iterator[Member]:
    with _told():
        if _is_zip(path):
            yield from _zip(path, wanted)
            return
        plain = path if _opener_of(path) is None else _unpacked(path)
        if plain is not None:
            yield from _at(plain, wanted)
            return
    for member in members(path):
        if member.name in wanted:
            yield member
            wanted.remove(member.name)
        if not wanted:
            return


def _is_zip(path: Path) -> bool:
    """By its first bytes: a zip's end is asked for only where its name says that it is one."""
    if _start_of(path).startswith(b"PK"):
        return True
    return path.name.lower().endswith(".zip") and zipfile.is_zipfile(path)


@contextmanager
def _told() -> Iterator[None]:
    """Say of a broken archive that it is."""
    try:
        yield
    except _BROKEN as error:
        kind = type(error).__name__
        raise Refused(
            "broken-archive", f"It cannot be unpacked ({kind}): fetch it again."
        ) from None


def _unpacked(path: Path) -> Path | None:
    """A packed tar as a plain one, made once a run; None where there is no place for it."""
    opener = _opener_of(path)
    assert opener is not None

    def make(out: Path) -> None:
        hashed = _Hashed(path)
        with BufferedReader(hashed, _BUFFER) as raw, out.open("wb") as plain:
            with opener(raw) as stream:
                counted = _Counted(stream, _RATIO * path.stat().st_size + _FREE)
                while chunk := counted.read(_BUFFER):
                    plain.write(chunk)
            while raw.read(_BUFFER):  # to the end, for the hash
                pass
        scratch.once(scratch.digest_name(path), lambda part: _write(part, hashed.digest()))

    try:
        return scratch.once(f"plain\0{scratch.digest_name(path)}", make)
    except OSError as error:
        if error.errno not in (ENOSPC, EDQUOT):
            raise
        return None


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _at(path: Path, wanted: Collection[str]) -> Iterator[Member]:
    """Members of a plain tar, each read where it lies."""
    status = path.stat()
    table = _table(path, status.st_size, status.st_mtime_ns)
    found = sorted((table[name], name) for name in set(wanted) if name in table)
    for (offset, size), name in found:
        yield Member(name, size, partial(_part, path, offset, size))


def _plain(path: Path) -> Iterator[Member]:
    """The members of a plain tar, each read where it lies: of a slice's header that alone."""
    with path.open("rb", buffering=0) as raw, tarfile.open(fileobj=raw, mode="r:") as archive:
        for info in archive:
            name = _check(info)
            if info.isreg():
                yield Member(name, info.size, partial(_part, path, info.offset_data, info.size))


def _check(info: tarfile.TarInfo) -> str:
    """The name of a tar's member, see `_plain_name`; its link must not climb out either."""
    if info.issym() or info.islnk():
        _plain_name(info.linkname)
    return _plain_name(info.name)


@lru_cache(maxsize=2)
def _table(path: Path, size: int, mtime_ns: int) -> dict[str, tuple[int, int]]:
    """Where the regular files of a plain tar lie, and how long they are; of two the first."""
    del size, mtime_ns  # who asks again after a change asks for another table
    found: dict[str, tuple[int, int]] = {}
    with path.open("rb", buffering=0) as raw, tarfile.open(fileobj=raw, mode="r:") as archive:
        for info in archive:
            if info.isreg():
                found.setdefault(_plain_name(info.name), (info.offset_data, info.size))
    return found


@lru_cache(maxsize=2)
def _directory(path: Path, size: int, mtime_ns: int) -> zipfile.ZipFile:
    """An opened zip: its directory of many thousand members is read once by a process."""
    del size, mtime_ns
    return zipfile.ZipFile(path.open("rb", buffering=0))


def _plain_name(name: str) -> str:
    """A member's name as a path: ``./a`` of a tar and ``a\\b`` of a zip of Windows are none.

    Raises:
        Refused: if it climbs out.
    """
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in name[:2] or "\0" in name:
        raise Refused("unsafe-archive", "A name in it leads out of its own folder: refused whole.")
    return str(path)


def _bomb() -> Refused:
    return Refused(
        "unsafe-archive",
        f"It unpacks to over {_RATIO} times its own size: refused, unpack it first.",
    )


def _zip(path: Path, wanted: Collection[str] | None = None) -> Iterator[Member]:
    status = path.stat()
    archive = _directory(path, status.st_size, status.st_mtime_ns)
    infos = [info for info in archive.infolist() if not info.is_dir()]
    names = [_plain_name(info.filename) for info in infos]
    if sum(info.file_size for info in infos) > _RATIO * status.st_size + _FREE:
        raise _bomb()
    if any(info.flag_bits & 1 for info in infos):
        raise Refused("encrypted", "It is encrypted: unpack it with its password first.")
    for name, info in zip(names, infos, strict=True):
        if wanted is not None and name not in wanted:
            continue

        def open_member(info: zipfile.ZipInfo = info) -> BinaryIO:
            return cast(BinaryIO, archive.open(info))

        yield Member(name, info.file_size, open_member, info.CRC)


def _opener_of(path: Path) -> Callable[..., BinaryIO] | None:
    """What unpacks a packed tar, by its first bytes; None for a plain one."""
    start = _start_of(path)
    return next((opener for magic, opener in _PACKED if start.startswith(magic)), None)


def _start_of(path: Path) -> bytes:
    with path.open("rb", buffering=0) as handle:
        return handle.read(6) or b""


def _tar(path: Path, limit: int | None) -> Iterator[Member]:
    opener = _opener_of(path)
    if opener is None:
        yield from _plain(path)
        return
    allowed = _RATIO * path.stat().st_size + _FREE
    with opener(path, "rb") as raw:
        counted = _Counted(raw, allowed)
        with tarfile.open(fileobj=cast(BinaryIO, counted), mode="r|") as archive:
            for info in archive:
                name = _check(info)
                if not info.isreg():
                    continue
                content = archive.extractfile(info)
                data = b"" if content is None else content.read(-1 if limit is None else limit)
                yield Member(name, info.size, _opener(data))


def _opener(data: bytes) -> Callable[[], BinaryIO]:
    return lambda: BytesIO(data)


def _part(path: Path, offset: int, size: int) -> BinaryIO:
    return cast(BinaryIO, _Part(path, offset, size))


class _Part(RawIOBase):
    """A part of a file, as a file."""

    def __init__(self, path: Path, offset: int, size: int) -> None:
        self._raw, self._offset, self._size, self._at = (
            path.open("rb", buffering=0),
            offset,
            size,
            0,
        )
        self._raw.seek(offset)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = max(0, self._size - self._at)
        count = self._raw.readinto(memoryview(buffer)[:left]) or 0
        self._at += count
        return count

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        start = {SEEK_SET: 0, SEEK_CUR: self._at, SEEK_END: self._size}[whence]
        self._at = max(0, start + offset)
        self._raw.seek(self._offset + self._at)
        return self._at

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Hashed(RawIOBase):
    """A file that is hashed as it is read."""

    def __init__(self, path: Path) -> None:
        self._raw, self._hash = path.open("rb", buffering=0), hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._raw.readinto(buffer) or 0
        self._hash.update(memoryview(buffer)[:count])
        return count

    def digest(self) -> bytes:
        return self._hash.digest()

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Counted(RawIOBase):
    """A stream that ends in `Refused` once more came out of it than can be right."""

    def __init__(self, raw: BinaryIO, allowed: int) -> None:
        self._raw, self._left = raw, allowed

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._raw.read(min(size, self._left + 1) if size >= 0 else self._left + 1)
        self._left -= len(data)
        if self._left < 0:
            raise _bomb()
        return data
