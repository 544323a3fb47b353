"""NIfTI and NRRD files inside of zip and tar archives: unpacked one at a time, while needed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from medcl.errors import MedclError
from medcl.io import scratch
from medcl.plugin import MEMBER, FileStat, Record, Reject
from medcl_ct import archives, volumes
from medcl_ct.affine_files import Volume
from medcl_ct.affine_files import open_volume as read_volume
from medcl_ct.units import APART, DATA, VOLUMES, units

HEAD = 1024 * 1024
"""Bytes of a member in which its header lies."""


@dataclass(frozen=True)
class Head:
    """What a member's header says, or why it cannot be read, and how large the member is."""

    volume: Volume | MedclError
    size: int

    @classmethod
    def of(cls, member: archives.Member) -> Head:
        """Read it, while the archive stands there. No byte of it is kept: an archive may hold many.

        Its values cannot be read from what is returned.
        """
        with scratch.temporary() as folder:
            copy = folder / f"head{_suffix(member.name)}"
            with member.open() as handle:
                copy.write_bytes(handle.read(HEAD))
            try:
                return cls(read_volume(copy), member.size)
            except MedclError as error:
                return cls(error, member.size)

    def open(self) -> Volume:
        """The volume, or its error."""
        if isinstance(self.volume, MedclError):
            raise self.volume
        return self.volume


def scan(path: str, heads: Mapping[str, Head]) -> Iterator[Record | Reject]:
    """The volumes of an archive with their masks, as `medcl_ct.volumes.scan` finds them.

    Args:
        path: of the archive, below the root.
        heads: of its members that are volume files, by name.
    """
    for unit in units([FileStat(name, head.size, 0) for name, head in heads.items()]):
        names = [file.path for file in unit.files]
        files = [f"{path}{MEMBER}{name}" for name in names]
        detached = [name.lower().endswith((*APART, *DATA)) for name in names]
        if any(detached):
            reason = "A header and its data apart, inside of an archive: unpack it."
            yield from (Reject(volumes.shown(file), "nested-archive", reason) for file in files)
            continue
        size = sum(heads[name].size for name in names)
        yield from volumes.records(files, heads[names[0]].open, size)


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
            return _unpacked(member)
    except archives.Refused as why:
        raise MedclError(f"{why.code}: {why.reason}") from None
    raise MedclError("missing-member: the volume is no longer in the archive.")


def _unpacked(member: archives.Member) -> Volume:
    folder = TemporaryDirectory(prefix=scratch.PREFIX, dir=scratch.home())
    copy = Path(folder.name) / f"volume{_suffix(member.name)}"
    with member.open() as packed, copy.open("wb") as out:
        shutil.copyfileobj(packed, out)
    volume = read_volume(copy)

    def data() -> Any:
        assert folder.name  # the folder lives as long as this function
        return volume.data()

    return replace(volume, data=data)
