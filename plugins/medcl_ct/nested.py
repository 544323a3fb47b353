"""Volume files inside of zip and tar archives: unpacked one at a time, while needed."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from medcl.errors import MedclError
from medcl.io import scratch
from medcl.plugin import MEMBER, FileStat, Record, Reject, Unit
from medcl_ct import archives, volumes
from medcl_ct.affine_files import Volume, data_file
from medcl_ct.affine_files import open_volume as read_volume
from medcl_ct.units import PAIR, VOLUMES, stem, units

HEAD = 1024 * 1024
"""Bytes of a member in which its header lies."""


@dataclass(frozen=True)
class Head:
    """What a member's header says, or why it cannot be read.

    Attributes:
        volume: its values cannot be read.
        size: of the member, in bytes.
        data: the member of the same folder that holds the values, where the header names one.
    """

    volume: Volume | MedclError
    size: int
    data: str | None = None

    @classmethod
    def of(cls, member: archives.Member) -> Head:
        """Read it, while the archive stands there. No byte of it is kept: an archive may hold many.

        Of a member that holds values alone, its size is all that is noted.
        """
        if not member.name.lower().endswith(VOLUMES):
            return cls(MedclError("no-header: it holds values alone."), member.size)
        with scratch.temporary() as folder:
            copy = folder / f"head{_suffix(member.name)}"
            with member.open() as handle:
                copy.write_bytes(handle.read(HEAD))
            named = _plain(data_file(copy))
            for name in _values(copy.name, named):
                (folder / name).touch()  # readers of headers look whether it is there
            try:
                return cls(read_volume(copy), member.size, named)
            except MedclError as error:
                return cls(error, member.size, named)

    def open(self) -> Volume:
        """The volume, or its error."""
        if isinstance(self.volume, MedclError):
            raise self.volume
        return self.volume


def _plain(name: str | None) -> str | None:
    """The name of a file with values, if it lies beside its header."""
    return name if name and name != "LOCAL" and PurePosixPath(name).name == name else None


def _values(header: str, named: str | None) -> tuple[str, ...]:
    """Files of which one may hold the values of a header: what it names, or ``x.img`` of a pair."""
    if named is not None:
        return (named,)
    pair = header.lower().endswith(PAIR)
    return tuple(f"{stem(header)}{suffix}" for suffix in (".img", ".img.gz")) if pair else ()


def grouped(heads: Mapping[str, Head]) -> list[Unit]:
    """The volumes of an archive, each with its masks and values; members that are none left out."""
    files = [FileStat(name, head.size, 0) for name, head in heads.items()]
    return [u for u in units(files) if any(f.path.lower().endswith(VOLUMES) for f in u.files)]


def scan(path: str, heads: Mapping[str, Head], found: Iterable[Unit]) -> Iterator[Record | Reject]:
    """The volumes of an archive with their masks, as `medcl_ct.volumes.scan` finds them.

    Args:
        path: of the archive, below the root.
        heads: of its members that are volume files, or values of some, by name.
        found: see `grouped`.
    """
    for unit in found:
        names = [file.path for file in unit.files]
        size = sum(heads[name].size for name in names)
        lacking = [name for name in names if not _has_values(name, heads)]
        if lacking:
            reason = "The file with its values is not beside it in the archive."
            for name in lacking:
                shown = volumes.shown(f"{path}{MEMBER}{name}")
                yield Reject(shown, "missing-data", reason)
            continue
        own = _own(names, heads)
        files = [f"{path}{MEMBER}{name}" for name in own]
        yield from volumes.records(files, heads[names[0]].open, size)


def _has_values(name: str, heads: Mapping[str, Head]) -> bool:
    """Whether a header's values are there, in whichever of its files."""
    possible = _values(PurePosixPath(name).name, heads[name].data)
    folder = PurePosixPath(name).parent
    return not possible or any(str(folder / other) in heads for other in possible)


def _own(names: Sequence[str], heads: Mapping[str, Head]) -> list[str]:
    """Of a unit's members those with headers, and the values that these name."""
    own = {
        str(PurePosixPath(name).parent / other)
        for name in names
        for other in _values(PurePosixPath(name).name, heads[name].data)
    }
    return [name for name in names if name.lower().endswith(VOLUMES) or name in own]


def _suffix(name: str) -> str:
    return next(s for s in sorted(VOLUMES, key=len, reverse=True) if name.lower().endswith(s))


def open_volume(root: Path, file: str) -> Volume:
    """A volume's header and its values, from a folder or from an archive.

    Of an archive's member there is a copy in a temporary folder as long as its values can be read.

    Raises:
        MedclError: ``code: reason``, if it is no volume, or no longer in its archive.
    """
    path, _, name = file.partition(MEMBER)
    if not name:
        return read_volume(root / path)
    try:
        for member in archives.fetch(root / path, (name,)):
            return _unpacked(root / path, member)
    except archives.Refused as why:
        raise MedclError(f"{why.code}: {why.reason}") from None
    raise MedclError("missing-member: the volume is no longer in the archive.")


def _unpacked(path: Path, member: archives.Member) -> Volume:
    folder = TemporaryDirectory(prefix=scratch.PREFIX, dir=scratch.home())
    copy = Path(folder.name) / f"volume{_suffix(member.name)}"
    _write(member, copy)
    beside = {  # the member with the values → its name beside the copy
        str(PurePosixPath(member.name).parent / other): here
        for other, here in zip(
            _values(PurePosixPath(member.name).name, _plain(data_file(copy))),
            _values(copy.name, _plain(data_file(copy))),
            strict=True,
        )
    }
    for values in archives.fetch(path, beside) if beside else ():
        _write(values, Path(folder.name) / beside[values.name])
    volume = read_volume(copy)

    def data() -> Any:
        assert folder.name  # the folder lives as long as this function
        return volume.data()

    return replace(volume, data=data)


def _write(member: archives.Member, path: Path) -> None:
    with member.open() as packed, path.open("wb") as out:
        shutil.copyfileobj(packed, out)
