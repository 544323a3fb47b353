"""Recordings in archives: .gz, .xz and .bz2 of one file, .zip of several, or of an Empatica E4.

What lies in them is unpacked into a temporary folder of its owner's, and read as if it lay there.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import posixpath
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np

from medcl.io import scratch
from medcl_biosignals.persons import person as person_by_folder
from medcl_biosignals.readers.apple_export import FORMAT as APPLE
from medcl_biosignals.readers.contract import (
    BadSignal,
    Flaw,
    Heading,
    Reader,
    Recording,
    Settings,
    Span,
    bounds,
)
from medcl_biosignals.readers.preamble import E4_SIGNALS, preamble, sensor

SUFFIXES = (".gz", ".xz", ".bz2", ".zip")
_MOST_BYTES = 8 << 30
_BLOCK = 1 << 20
_HEAD_BYTES = 1 << 14
_INNER = "#"


def headings(path: Path, settings: Settings) -> Iterator[Heading | Flaw]:
    """The recordings of every file in it that is one."""
    from medcl_biosignals.readers.choose import JSON, TEXT, is_recorders

    if path.suffix.lower() != ".zip":
        if PurePosixPath(path.stem.lower()).suffix in (TEXT, JSON):
            with _alone(path, most=_HEAD_BYTES) as beginning:
                if not is_recorders(beginning):
                    return
        with _alone(path) as file:
            yield from _reader(file).headings(file, settings)
        return
    with _opened(path) as archive:
        members = _members(archive)
        if _is_e4(members):
            yield _e4_heading(archive, members, settings)
            return
        if not members:
            raise BadSignal("not-a-signal", "an archive without a file that could be a recording")
        found: list[Heading | Flaw] = []
        for member in members:
            with _unpacked(archive, member) as file:
                found += _of_member(file, member, settings, many=len(members) > 1)
        yield from _of_one(path.stem, found)


def read(path: Path, part: str, settings: Settings, span: Span | None = None) -> Recording:
    """The samples of one of them."""
    if path.suffix.lower() != ".zip":
        with _alone(path) as file:
            return _reader(file).read(file, part, settings, span)
    with _opened(path) as archive:
        members = _members(archive)
        if _is_e4(members):
            return _e4(archive, members, settings, span)
        member, _, inner = part.partition(_INNER)
        member = member or (members[0] if members else "")
        if member not in members:
            raise BadSignal("changed", "the part that was indexed is no longer in the file")
        with _unpacked(archive, member) as file:
            return _reader(file).read(file, inner, settings, span)


def _of_member(
    file: Path, member: str, settings: Settings, *, many: bool
) -> Iterator[Heading | Flaw]:
    from medcl_biosignals.readers.choose import is_recorders

    outer = member if many else ""
    if not is_recorders(file):
        return
    try:
        for found in _reader(file).headings(file, settings):
            part = f"{outer}{_INNER}{found.part}" if found.part else outer
            if isinstance(found, Flaw):
                yield replace(found, part=part)
                continue
            who = person_by_folder(PurePosixPath(member).parent) or found.subject
            session = found.session
            if session is not None:
                session = posixpath.normpath(PurePosixPath(member).parent / session)
            yield replace(found, part=part, subject=who, session=session)
    except BadSignal as error:
        yield Flaw(outer, error.code, str(error))


def _of_one(archive: str, found: list[Heading | Flaw]) -> Iterator[Heading | Flaw]:
    """Sessions within one archive are none of another's; an export of Apple Health is of one
    person."""
    apple = next((h for h in found if isinstance(h, Heading) and h.format == APPLE), None)
    named = {h.subject for h in found if isinstance(h, Heading) and h.subject is not None}
    for each in found:
        if isinstance(each, Heading):
            if apple is not None:
                who = next(iter(named)) if len(named) == 1 else each.subject
                each = replace(each, subject=who, session=archive)
            elif each.session is not None:
                each = replace(each, session=posixpath.normpath(f"{archive}/{each.session}"))
        yield each


def _reader(path: Path) -> Reader:
    from medcl_biosignals.readers.choose import reader

    return reader(path)


@contextmanager
def _alone(path: Path, *, most: int | None = None) -> Iterator[Path]:
    """The file in a .gz, .xz or .bz2, or its first ``most`` bytes, under its name without that
    suffix."""
    openers: dict[str, Any] = {
        ".gz": gzip.open,
        ".xz": lzma.open,
        ".bz2": bz2.open,
    }
    with scratch.temporary() as folder:
        file = folder / path.stem
        try:
            with openers[path.suffix.lower()](path, "rb") as packed, file.open("wb") as out:
                _copied(packed if most is None else io.BytesIO(packed.read(most)), out)
        except (OSError, EOFError, lzma.LZMAError) as error:
            raise _damaged(error) from None
        yield file


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    # zipfile's: NotImplementedError for a way to pack that it lacks, RuntimeError for a password
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise _damaged(error) from None


@contextmanager
def _unpacked(archive: zipfile.ZipFile, member: str) -> Iterator[Path]:
    """A member in the folders that it lies in there, within a temporary one."""
    parts = [part for part in PurePosixPath(member).parts if part not in ("/", "..")]
    with scratch.temporary() as folder:
        file = folder.joinpath(*parts)
        file.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(member) as packed, file.open("wb") as out:
            _copied(packed, out)
        yield file


def _copied(packed: IO[bytes], out: IO[bytes]) -> None:
    held = 0
    while block := packed.read(_BLOCK):
        held += len(block)
        if held > _MOST_BYTES:
            raise BadSignal("too-large", f"over {_MOST_BYTES >> 30} GB when unpacked: not read")
        out.write(block)


def _damaged(error: Exception) -> BadSignal:
    return BadSignal(
        "bad-signal", f"the archive is cut off, locked or damaged ({type(error).__name__})"
    )


def _members(archive: zipfile.ZipFile) -> list[str]:
    """The files that could be recordings by their names; without a suffix, by their first bytes."""
    from medcl_biosignals.readers.choose import is_bare, is_dicom, is_read

    names = [info.filename for info in archive.infolist() if not info.is_dir()]
    seen = [n for n in names if not PurePosixPath(n).name.startswith((".", "~"))]
    seen = [n for n in seen if is_read(n) and not n.lower().endswith((".hea", ".zip"))]
    bare = {n for n in seen if is_bare(n) and not is_dicom(zipfile.Path(archive, n))}
    return sorted(n for n in seen if "__MACOSX" not in n and n not in bare)


# --- Empatica E4: one recording in a file a sensor ------------------------------------------------


def _is_e4(members: list[str]) -> bool:
    held = {PurePosixPath(member).stem.upper() for member in members if member.endswith(".csv")}
    return len(held & set(E4_SIGNALS)) > 1


def _e4(
    archive: zipfile.ZipFile, members: list[str], settings: Settings, span: Span | None
) -> Recording:
    """All of its sensors, each at its own rate, from the start of the first on."""
    parts: list[tuple[float, Recording]] = []
    for member in members:
        if sensor(PurePosixPath(member).stem)[0] not in E4_SIGNALS:
            continue  # moments of presses, intervals between beats
        with _unpacked(archive, member) as file:
            with file.open(encoding="utf-8", errors="replace") as lines:
                began = preamble([next(lines, "") for _ in range(3)], file.stem).start
            if began is not None:
                parts.append((began, _reader(file).read(file, "", settings, None)))
    if not parts:
        raise BadSignal("no-samples", "the files of the device hold no sample")
    zero = min(began for began, _ in parts)
    channels, samples = [], []
    for began, recording in parts:
        for channel, row in zip(recording.channels, recording.samples, strict=True):
            late = np.full(round((began - zero) * channel.fs), np.nan, dtype=row.dtype)
            whole = np.concatenate([late, row])
            first, last = bounds(span, channel.fs, len(whole))
            channels.append(channel)
            samples.append(whole[first:last])
    return Recording(tuple(channels), samples)


def _e4_heading(archive: zipfile.ZipFile, members: list[str], settings: Settings) -> Heading:
    held = _e4(archive, members, settings, None)
    seconds = max(
        len(row) / channel.fs for channel, row in zip(held.channels, held.samples, strict=True)
    )
    fs = max(channel.fs for channel in held.channels)
    return Heading("", "Empatica E4", held.channels, fs, seconds)
