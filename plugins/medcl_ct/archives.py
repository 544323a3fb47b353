"""Members of zip and tar archives, read without unpacking anything to the disk.

An archive that names places outside of itself, or unpacks to far more than it weighs, is refused as
a whole: nobody packs a scanner's images like that.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO, RawIOBase
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

_RATIO = 200  # real images pack to a half or a tenth, black ones to a fiftieth
_FREE = 64 * 1024 * 1024  # bytes that may come out of however small an archive
_MEMBERS = 2_000_000
_BROKEN = (
    *(tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error),
    *(EOFError, OSError, ValueError, RuntimeError, NotImplementedError),
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
    reader = _zip(path) if zipfile.is_zipfile(path) else _tar(path, limit)
    try:
        for count, member in enumerate(reader):
            if count >= _MEMBERS:
                raise Refused("unsafe-archive", f"It holds more than {_MEMBERS:,} files.")
            yield member
    except _BROKEN as error:
        kind = type(error).__name__
        raise Refused(
            "broken-archive", f"It cannot be unpacked ({kind}): fetch it again."
        ) from None


def _check_name(name: str) -> None:
    parts = PurePosixPath(name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or ":" in name[:2] or "\0" in name:
        raise Refused("unsafe-archive", "A name in it leads out of its own folder: refused whole.")


def _bomb() -> Refused:
    return Refused(
        "unsafe-archive",
        f"It unpacks to over {_RATIO} times its own size: refused, unpack it first.",
    )


def _zip(path: Path) -> Iterator[Member]:
    allowed = _RATIO * path.stat().st_size + _FREE
    with zipfile.ZipFile(path) as archive:
        infos = [info for info in archive.infolist() if not info.is_dir()]
        for info in infos:
            _check_name(info.filename)
        if sum(info.file_size for info in infos) > allowed:
            raise _bomb()
        if any(info.flag_bits & 1 for info in infos):
            raise Refused("encrypted", "It is encrypted: unpack it with its password first.")
        for info in infos:

            def open_member(info: zipfile.ZipInfo = info) -> BinaryIO:
                return cast(BinaryIO, archive.open(info))

            yield Member(info.filename, info.file_size, open_member, info.CRC)


def _tar(path: Path, limit: int | None) -> Iterator[Member]:
    with path.open("rb") as handle:
        start = handle.read(6)
    opener: Callable[..., BinaryIO] = Path.open
    for magic, candidate in (
        (b"\x1f\x8b", gzip.open),
        (b"BZh", bz2.open),
        (b"\xfd7zXZ", lzma.open),
    ):
        if start.startswith(magic):
            opener = cast(Callable[..., BinaryIO], candidate)
    allowed = _RATIO * path.stat().st_size + _FREE
    with opener(path, "rb") as raw:
        counted = _Counted(raw, allowed)
        with tarfile.open(fileobj=cast(BinaryIO, counted), mode="r|") as archive:
            for info in archive:
                _check_name(info.name)
                if info.issym() or info.islnk():
                    _check_name(info.linkname)
                if not info.isreg():
                    continue
                content = archive.extractfile(info)
                data = b"" if content is None else content.read(-1 if limit is None else limit)
                yield Member(info.name, info.size, _opener(data))


def _opener(data: bytes) -> Callable[[], BinaryIO]:
    return lambda: BytesIO(data)


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
