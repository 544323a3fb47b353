"""Whether identifying values of an archive can be found in what medcl, or anybody, made of it.

The values are the files' and folders' names, the patients and sites that the plugins read, and the
identifying fields of headers (`medcl.audit.headers`): names, numbers, dates, unique identifiers.
Each is searched for in every file of the output as it is, in UTF-16 and UTF-32, escaped as in JSON,
HTML and addresses, hexadecimal, base64, as its usual unkeyed hashes, and a date or time in its
usual spellings. Parquet tables are read; zip, gzip, bzip2, xz, zlib and base64 within the files are
unpacked first.

The private folders of an index, a run and a study hold such values by design (`medcl.private`):
they are left out, and counted. A keyed pseudonym cannot be found so; that is its purpose.
"""

from __future__ import annotations

import base64
import binascii
import bz2
import gzip
import hashlib
import html.entities
import io
import json
import lzma
import re
import unicodedata
import urllib.parse
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from medcl.archive.scanning import scan_unit
from medcl.archive.walk import walk
from medcl.audit import headers
from medcl.errors import UsageError
from medcl.io.atomic import PRIVATE
from medcl.io.progress import track
from medcl.plugin import MEMBER, FileStat, Plugin

SHORTEST = 4
"""Bytes of a value: shorter ones are found anywhere by chance, and are counted instead."""
_WHOLE = 8
"""Shorter values, and numbers, count only as whole words."""
_MOST = 1 << 28
"""Bytes of a file, or of what is unpacked from it, that are looked into at once."""
_DEPTH = 3
_HASHES = ("md5", "sha1", "sha256", "sha512")
_WIDE = {
    "utf-16-le": "UTF-16",
    "utf-16-be": "UTF-16",
    "utf-32-le": "UTF-32",  # texts of NumPy
    "utf-32-be": "UTF-32",
}
_PREFIX = 16
"""Hexadecimal digits of a hash that are enough to recognise it: hashes are often cut off."""
_ZLIB = re.compile(rb"\x78[\x01\x5e\x9c\xda]")
_BASE64 = re.compile(rb"[A-Za-z0-9+/]{40,}={0,2}")
_STREAMS: dict[bytes, tuple[Callable[[Any], Any], str]] = {
    b"\x1f\x8b": (gzip.open, "gzip"),
    b"BZh": (bz2.open, "bzip2"),
    b"\xfd7zXZ\0": (lzma.open, "xz"),
}
_DATE = re.compile(r"(\d{4})[-/.]?(\d\d)[-/.]?(\d\d)")
_DATES = (
    *("%Y%m%d", "%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%d.%m.%Y", "%d/%m/%Y", "%d-%m-%Y", "%m/%d/%Y"),
    *("%m-%d-%Y", "%d.%m.%y", "%d/%m/%y", "%m/%d/%y"),
    *("%d-%b-%Y", "%d %b %Y", "%b %d, %Y", "%d %B %Y", "%d. %B %Y", "%B %d, %Y"),
)
_TIME = re.compile(r"(\d\d):?(\d\d):?(\d\d)(?:\.\d+)?")


@dataclass(frozen=True)
class Leak:
    """Identifying values that were found in a file.

    Attributes:
        file: relative to what was searched.
        kind: of value: "patient", "file name", a header's field.
        how: "as it is", "hexadecimal", "sha256" …, and what it was unpacked from.
        values: how many different ones; they themselves are never shown.
    """

    file: str
    kind: str
    how: str
    values: int


@dataclass(frozen=True)
class Searched:
    """The outcome of a search.

    Attributes:
        values: how many identifying values were searched for, by kind.
        short: values of fewer than `SHORTEST` characters, which cannot be searched for.
        files: that were searched.
        private: files of private folders, which were not.
        large: files that were searched as they are, but not unpacked.
        leaks: what was found.
    """

    values: Mapping[str, int]
    short: int
    files: int
    private: int
    large: int
    leaks: tuple[Leak, ...] = field(default_factory=tuple)


def search(
    out: Path, archive: Path, plugins: Iterable[Plugin], values: Sequence[str] = ()
) -> Searched:
    """Search ``out`` for identifying values of ``archive``.

    Args:
        out: a file or folder: an index, a run, a study, predictions, or all of them.
        archive: the recordings; they are only read.
        plugins: what reads them. Files of other modalities count with their names only.
        values: further ones, such as names from a hospital's list.

    Raises:
        UsageError: if either does not exist, or nothing identifying is known of the archive.
    """
    if not out.exists():
        raise UsageError(f"{out} does not exist. Give an index, run, study or table to search.")
    known: dict[str, str] = dict.fromkeys(values, "given")
    for kind, value in identifying(archive, plugins):
        known.setdefault(value.strip(), kind)
    short = [value for value in known if len(_utf8(value)) < SHORTEST]
    known = {value: kind for value, kind in known.items() if len(_utf8(value)) >= SHORTEST}
    if not known:
        raise UsageError(f"Nothing in {archive} can be searched for: all values are too short.")
    patterns = _Patterns(known)
    leaks: Counter[tuple[str, str, str]] = Counter()
    private = large = searched = 0
    files = sorted(p for p in out.rglob("*") if p.is_file()) if out.is_dir() else [out]
    for path in track(files, "Searching", len(files)):
        relative = path.relative_to(out) if out.is_dir() else Path(path.name)
        if PRIVATE in relative.parts[:-1]:
            private += 1
            continue
        searched += 1
        found: set[tuple[str, str, str]] = set(patterns.names(str(relative)))
        size = path.stat().st_size
        large += size > _MOST
        for unpacked, content in _contents(path, size):
            found |= {(kind, value, how + unpacked) for kind, value, how in patterns.find(content)}
        leaks.update((str(relative), kind, how) for kind, _, how in found)
    return Searched(
        dict(sorted(Counter(known.values()).items())),
        len(short),
        searched,
        private,
        large,
        tuple(Leak(*where, count) for where, count in sorted(leaks.items())),
    )


# --- what identifies ------------------------------------------------------------------------------


def identifying(archive: Path, plugins: Iterable[Plugin]) -> Iterator[tuple[str, str]]:
    """(kind, value) of every identifying value of an archive; values may repeat.

    Raises:
        UsageError: if the archive is missing or empty.
    """
    archive = archive.resolve()
    walked = walk(archive)
    yield "archive", str(archive)
    for file in track(walked.files, "Reading headers"):
        yield from _names(file)
        for kind, value in headers.identifying(archive / file.path):
            yield from _spellings(kind, value)
    for plugin in plugins:
        for unit in track(list(plugin.units(walked.files)), f"Reading as {plugin.name}"):
            for record in scan_unit(plugin.scan, archive, unit).records:
                for kind in ("patient", "site", "group"):
                    if value := getattr(record, kind):
                        yield kind, str(value)


def _names(file: FileStat) -> Iterator[tuple[str, str]]:
    for part in file.path.split(MEMBER):
        path = PurePosixPath(part)
        yield from (("folder name", folder) for folder in path.parent.parts)
        yield "file name", path.name
        yield "file name", path.name.partition(".")[0]


def _spellings(kind: str, value: str) -> Iterator[tuple[str, str]]:
    """A value, the parts of a name, and other spellings of a date, a time or both."""
    yield kind, value
    if "^" in value:  # a name in DICOM
        yield from ((kind, part) for part in value.split("^"))
    date, rest = _DATE.match(value), value
    if date is not None:
        y, m, d = date.groups()
        try:
            day = datetime(int(y), int(m), int(d), tzinfo=UTC)
        except ValueError:
            return
        for form in _DATES:
            written = day.strftime(form)
            yield kind, written
            if "%y" not in form:  # 3.7.61 may be a version
                yield kind, re.sub(r"\b0", "", written)  # 3.7.1961, July 3, 1961
        rest = value[date.end() :].lstrip(" T_")
    time = _TIME.fullmatch(rest)
    if time is None:
        return
    hour, minute, second = (int(part) for part in time.groups())
    if date is None:
        if second:  # full minutes are found by chance
            yield kind, f"{hour:02}:{minute:02}:{second:02}"
    elif hour < 24 and minute < 60 and second < 60:
        both = day.replace(hour=hour, minute=minute, second=second)
        for form in ("%Y%m%d%H%M%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S"):
            yield kind, both.strftime(form)
        yield kind, f"{both.timestamp():.0f}"


# --- searching ------------------------------------------------------------------------------------


class _Patterns:
    """All ways of writing all values, searched for at once."""

    def __init__(self, known: Mapping[str, str]) -> None:
        try:
            from ahocorasick_rs import BytesAhoCorasick
        except ImportError:
            raise UsageError(
                "medcl audit-phi needs ahocorasick-rs: pip install 'medcl[audit]'"
            ) from None
        # Letters of either case for what may be retyped; exactly for base64 and bytes of hashes.
        self._loose: dict[bytes, tuple[str, str, str]] = {}
        self._exact: dict[bytes, tuple[str, str, str]] = {}
        for value, kind in known.items():
            for how, pattern in _loose(value):
                self._loose.setdefault(pattern.lower(), (kind, value, how))
            for how, pattern in _exact(value):
                self._exact.setdefault(pattern, (kind, value, how))
        self._search = [
            (list(patterns), patterns, BytesAhoCorasick(list(patterns)))
            for patterns in (self._loose, self._exact)
        ]

    def find(self, content: bytes) -> set[tuple[str, str, str]]:
        """(kind, value, how) of what the content holds."""
        found = set()
        for lower, (listed, patterns, automaton) in zip((True, False), self._search, strict=True):
            text = content.lower() if lower else content
            hits = automaton.find_matches_as_indexes(text, overlapping=True)
            for number, start, end in hits:
                kind, value, how = patterns[listed[number]]
                if (kind, value, how) not in found and _counts(value, how, text, start, end):
                    found.add((kind, value, how))
        return found

    def names(self, path: str) -> set[tuple[str, str, str]]:
        """The same of the name of a file."""
        text = path.encode("utf-8", "surrogateescape")
        return {(kind, value, f"{how}, in its name") for kind, value, how in self.find(text)}


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _loose(value: str) -> Iterator[tuple[str, bytes]]:
    for text in _written(value):
        yield "as it is", _utf8(text)
        with suppress(UnicodeEncodeError):
            yield "as it is", text.encode("latin-1")
        for encoding, how in _WIDE.items():
            wide = text.encode(encoding, "surrogatepass")
            if len(wide) > SHORTEST:  # two letters of Chinese are found anywhere by chance
                yield how, wide
        for escaped in _escaped(text) - {text}:
            yield "escaped", _utf8(escaped)
    yield "hexadecimal", _utf8(value).hex().encode()
    for name in _HASHES:
        for text in {value, value.lower(), value.upper()}:
            digest = hashlib.new(name, _utf8(text), usedforsecurity=False)
            yield name, digest.hexdigest()[:_PREFIX].encode()


def _written(value: str) -> set[str]:
    """A value as it is; one with other letters than ASCII's composed or not, in both cases."""
    if value.isascii():
        return {value}
    composed = {value, *(unicodedata.normalize(form, value) for form in ("NFC", "NFD"))}
    return {case for text in composed for case in (text, text.lower(), text.upper())}


def _escaped(text: str) -> set[str]:
    """A text as JSON, HTML, XML and addresses of the web have it."""
    names = html.entities.codepoint2name
    return {
        json.dumps(text)[1:-1],
        html.escape(text),
        text.encode("ascii", "xmlcharrefreplace").decode(),
        "".join(f"&{names[ord(c)]};" if ord(c) in names else c for c in text),
        urllib.parse.quote(text, errors="surrogateescape"),
        urllib.parse.quote_plus(text, errors="surrogateescape"),
    }


def _exact(value: str) -> Iterator[tuple[str, bytes]]:
    text = _utf8(value)
    for offset in range(3):
        coded = base64.b64encode(bytes(offset) + text)
        certain = coded[(0, 2, 3)[offset] : (offset + len(text)) * 8 // 6]
        if len(certain) >= 6:  # the rest depends on what is beside it
            yield "base64", certain
            yield "base64", certain.replace(b"+", b"-").replace(b"/", b"_")
    for name in _HASHES:
        digest = hashlib.new(name, text, usedforsecurity=False).digest()
        yield name, digest[:_PREFIX]
        yield name, base64.b64encode(digest)[:_PREFIX]


def _counts(value: str, how: str, text: bytes, start: int, end: int) -> bool:
    """Short values and numbers are found by chance within longer ones: whole words alone count."""
    if how != "as it is" or (len(value) >= _WHOLE and not _is_number(value)):
        return True
    before, after = text[max(0, start - 1) : start], text[end : end + 2]
    if before[:1].isalnum() or before in (b".", b"-") or after[:1].isalnum():
        return False
    return not (after[:1] == b"." and after[1:].isdigit())


def _is_number(value: str) -> bool:
    return value.replace(".", "").isdigit()


def _contents(path: Path, size: int) -> Iterator[tuple[str, bytes]]:
    """What a file holds, with how it was unpacked: ", in a zip"."""
    if size > _MOST:
        with path.open("rb") as file:
            before = b""
            while block := file.read(_MOST):
                yield "", before + block
                before = block[-4096:]
        return
    content = path.read_bytes()
    if path.suffix == ".parquet":
        yield ", in a table", _table(path)
    yield from _unpacked(content, "", _DEPTH)


def _table(path: Path) -> bytes:
    """The cells of a Parquet table as text: a line each."""
    import polars as pl

    frame = pl.read_parquet(path, glob=False)
    lines: list[str] = list(frame.columns)
    for column in frame.iter_columns():
        while column.dtype == pl.List or column.dtype == pl.Array:
            column = column.explode()
        if column.dtype.is_float():  # a number of a patient beside a missing one is a float
            whole = (column == column.floor()) & (column.abs() >= 1000) & (column.abs() < 1e15)
            column = column.filter(whole.fill_null(False)).cast(pl.Int64)
        lines += map(_cell, column.drop_nulls().unique())
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def _cell(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, datetime):
        return value.isoformat(" ")
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _unpacked(content: bytes, how: str, depth: int) -> Iterator[tuple[str, bytes]]:
    yield how, content
    if not depth:
        return
    for inner, kind in _within(content):
        yield from _unpacked(inner, f"{how}, in {kind}", depth - 1)


def _within(content: bytes) -> Iterator[tuple[bytes, str]]:
    """What can be unpacked from a file's bytes. Nothing of it is trusted: sizes are bounded."""
    if content[:4] == b"PK\x03\x04":
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as packed:
                for info in packed.infolist():
                    if info.file_size <= _MOST and not info.flag_bits & 1:
                        yield packed.read(info), "a zip"
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, zlib.error):
            pass
    for start, (opened, how) in _STREAMS.items():
        if content.startswith(start):
            try:
                with opened(io.BytesIO(content)) as packed:
                    yield packed.read(_MOST), how
            except (OSError, EOFError, zlib.error, lzma.LZMAError):
                pass
    for match in _ZLIB.finditer(content):
        stream = zlib.decompressobj()
        try:
            inner = stream.decompress(content[match.start() :], 1 << 24)
        except zlib.error:
            continue
        if len(inner) >= SHORTEST:
            yield inner, "zlib"
    for match in _BASE64.finditer(content):
        coded = match[0]
        try:
            inner = base64.b64decode(coded[: len(coded) // 4 * 4])
        except binascii.Error:
            continue
        if (
            inner[:2] == b"PK"
            or inner.startswith(tuple(_STREAMS))
            or _ZLIB.match(inner)
            or inner[:4] == b"\x89PNG"
        ):
            yield inner, "base64"
