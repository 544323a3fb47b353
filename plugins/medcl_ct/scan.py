"""The files of one unit → slices, by stack, or finished items; or the reason why not.

A slice's series is complete only when the whole archive was read, so what is yielded here are
pieces of stacks, which `medcl_ct.series.assemble` joins. Volume files and multi-frame images are
whole.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

from medcl.archive.walk import hidden
from medcl.plugin import MEMBER, Record, Reject, Unit
from medcl_ct import (
    archives,
    benchmark,
    directory,
    drawn,
    enhanced,
    header,
    nested,
    suv,
    tags,
    volumes,
)
from medcl_ct.header import Read, Stack
from medcl_ct.kinds import ENHANCED
from medcl_ct.units import ARCHIVES, BENCHMARK, DATA, VOLUMES, foreign

_PACKED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"PK\x03\x04": "zip",
    b"7z\xbc\xaf": "7z",
    b"Rar!": "rar",
}


def scan(root: Path, unit: Unit) -> Iterator[Record | Reject]:
    """Read the headers of a unit; pixels are not decoded."""
    first = unit.files[0].path
    name = first.lower()
    if name.endswith(ARCHIVES):
        yield from _pieces(_archive(root, first))
    elif name.endswith(BENCHMARK):
        yield from benchmark.scan(root, first)
    elif any(file.path.lower().endswith(VOLUMES) for file in unit.files):
        yield from volumes.scan(root, [file.path for file in unit.files])
    else:
        yield from _pieces(_files(root, unit))


def _pieces(found: Iterable[Read | Record | Reject]) -> Iterator[Record | Reject]:
    """Slices of one stack become one record; everything else is passed on."""
    stacks: dict[tuple[Stack, str | None, tuple[str, ...]], list[Read]] = {}
    for item in found:
        if isinstance(item, Read):
            stacks.setdefault((item.stack, item.site, item.findings), []).append(item)
        else:
            yield item
    for (stack, site, findings), reads in stacks.items():
        slices = [read.slice for read in reads]
        yield Record(
            f"{slices[0].file.replace(MEMBER, '!')}#piece",
            tuple(piece.file for piece in slices),
            stack.patient,
            site,
            header.fields(reads[0].tags),
            header.labels(reads[0].tags),
            findings,
            header.to_json(stack, slices),
        )


def _files(root: Path, unit: Unit) -> Iterator[Read | Record | Reject]:
    for file in unit.files:
        folder = posixpath.dirname(file.path) or "."
        if file.size == 0:
            yield Reject(file.path, "empty", "The file is empty.")
        elif _is_dicomdir(posixpath.basename(file.path)):
            yield directory.check(root, file.path)
        else:
            yield from _one(file.path, folder, tags.open_path(root / file.path), file.size)


def _archive(root: Path, path: str) -> Iterator[Read | Record | Reject]:
    """The members of an archive. Where it turns out unsafe, nothing of it is used."""
    found: list[Read | Record | Reject] = []
    heads: dict[str, nested.Head] = {}
    unsure: dict[str, list[Read | Record | Reject]] = {}  # ``x.img``: values of a volume, or DICOM
    try:
        for member in archives.members(root / path, limit=tags.HEADER_LIMIT):
            name = member.name.lower()
            place = PurePosixPath(path, member.name)
            if any(map(hidden, PurePosixPath(member.name).parts)):
                continue  # as in a folder: macOS packs a fork ``._x.nii.gz`` beside every file
            if name.endswith((*ARCHIVES, BENCHMARK)):
                reason = "An archive inside an archive: unpack the outer one."
                found.append(Reject(f"{path}!{member.name}", "nested-archive", reason))
                continue
            if name.endswith((*VOLUMES, *DATA)):
                heads[member.name] = nested.Head.of(member)
            if not (name.endswith(VOLUMES) or foreign(name) or _is_dicomdir(place.name)):
                file = f"{path}{MEMBER}{member.name}"
                made = _one(file, str(place.parent), member.open, member.size, member.crc)
                (unsure.setdefault(member.name, []) if name.endswith(DATA) else found).extend(made)
    except archives.Refused as why:
        yield Reject(path, why.code, why.reason)
        return
    yield from found
    whole = nested.grouped(heads)
    taken = {file.path for unit in whole for file in unit.files}
    for name, slices in unsure.items():
        if name not in taken:
            yield from slices
    yield from nested.scan(path, heads, whole)


def _is_dicomdir(name: str) -> bool:
    return name.upper().startswith("DICOMDIR")


def _one(
    file: str, folder: str, open_file: tags.Opener, size: int, crc: int | None = None
) -> Iterator[Read | Record | Reject]:
    """One file, wherever it lies. Whatever is wrong with it costs nothing else.

    Args:
        file: its path, and its name in an archive.
        folder: where it lies.
        open_file: opens it.
        size: in bytes.
        crc: of all of it, where the archive knows; the middle of a packed file is far away.
    """
    key = file.replace(MEMBER, "!")
    try:
        if crc is None:
            first = tags.PACKED_READ if MEMBER in file else tags.FIRST_READ
            read, end, pixels = tags.read_with_pixels(open_file, size, first=first)
        else:
            read, end, _ = tags.read_with_pixels(
                open_file, size, sampled=False, first=tags.PACKED_READ
            )
            pixels = crc
    except tags.NotDicom:
        with open_file() as handle:
            start = handle.read(8)
        by = next((name for magic, name in _PACKED.items() if start.startswith(magic)), None)
        if by is not None:
            yield Reject(key, "compressed", f"A file packed by {by}: unpack it first.")
        else:
            yield Reject(key, "not-dicom", "It is no DICOM file, or has no tag of an image.")
        return
    except Exception as error:
        yield Reject(key, "unreadable", f"Its header cannot be read ({type(error).__name__}).")
        return
    if read.get("SOPClassUID") in ENHANCED:
        yield from enhanced.records(file, folder, read, open_file)
        return
    if drawn.is_drawn(read):
        yield drawn.record(file, read, open_file)
        return
    left = size - end if end else None
    found = header.interpret(read, file, folder, left, pixels, size)
    if isinstance(found, Reject):
        yield Reject(key, found.code, found.reason)
    elif found.stack.modality == "pet" and suv.of(open_file) is None:
        yield replace(found, findings=(*found.findings, "no-suv"))
    else:
        yield found
