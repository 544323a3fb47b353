"""Identifying values of headers: DICOM, EDF and its kin, NIfTI, TIFF, text, tables, packed files.

Only for `medcl.audit.phi`, which searches for them: reading an archive is the plugins' work. Here
it matters that no identifying field is missed, not what it means, so any file is looked at by its
content, and what cannot be read is passed over.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

_HEAD = 1 << 20
"""Bytes of a file in which its header is looked for."""
_MEMBERS = 100_000
_PACKED = 1 << 28

_IDENTIFIES = (
    r"patient\w*|subject\w*|\w*name|surname|mrn|ssn|\w*birth\w*|dob|\w*address\w*|\w*phone\w*|e?-?mail|"
    r"\w*date\w*|\w*time|\w*physician\w*|operator\w*|technician\w*|\w*user|\w*hospital\w*|"
    r"\w*institution\w*|clinic\w*|\w*serial\w*|\w*barcode\w*|accession\w*|filename|\w*[ _-]?uid|"
    r"(?:case|study|record|patient|subject|person|device)[ _-]?(?:id|number|no)"
)
_FIELD = re.compile(
    rf"(?im)[\"']?\b({_IDENTIFIES})\b[\"']?[ \t]*:?[:=][ \t]*[\"']?([^\"'\n\r,;|<>]+)"
)
_ELEMENT = re.compile(rf"(?i)<(?:\w+:)?({_IDENTIFIES})\b[^<>]*>([^<>]+)<")
_ATTRIBUTE = re.compile(rf"(?i)\b({_IDENTIFIES})=\"([^\"]+)\"")
_WFDB_MOMENT = re.compile(r"(?m)^\S+ \d+ \S+ \d+ (\d\d?:\d\d:\d\d)\S*(?: (\d\d/\d\d/\d{4}))?")

_NIFTI = (("db_name", 14, 32), ("descrip", 148, 228), ("aux_file", 228, 252))
_COLUMN = re.compile(
    r"(?i)(?:patient|subject)[ _-]?(?:id|number|no|name)?|[a-z]*[ _-]?name|mrn|ssn|.*birth.*|dob|"
    r".*address.*|.*phone.*|e?-?mail|(?:case|study|record|person)[ _-]?(?:id|number|no)|"
    r"accession.*|.*physician.*"
)
"""Of a table. Its columns of dates are often moments of a signal, and not sought."""

_DICOM_KINDS = {"PN", "DA", "TM", "DT"}
_DICOM_NAMED = re.compile(
    r"(Patient|Institution|Accession|Study|Series|Station|Device|Detector|Gantry|Plate|Operator|"
    r"Physician|Requested|Scheduled|Performed|Admission|Protocol|Filler|Placer|Barcode|Container|"
    r"Specimen|Issuer).*(ID|Name|Number|Address|Serial|IDs|Identifier|Comments|Phone|Numbers|"
    r"Description)$"
)
_DICOM_PUBLIC = re.compile(
    r"(SOPClass|TransferSyntax|ImplementationClass|CodingScheme|PrivateInformationCreator|"
    r"SpecificCharacterSet|ContextUID|ContextGroup|MappingResource).*"
)


def identifying(path: Path) -> Iterator[tuple[str, str]]:
    """(field, value) of the identifying fields of a file's header, and of those packed in it."""
    try:
        with path.open("rb") as file:
            yield from _of(file, path.name)
    except Exception:  # broken in any way: there is nothing to learn from it
        return


def _of(file: BinaryIO, name: str) -> Iterator[tuple[str, str]]:
    head = file.read(_HEAD)
    if head[:4] == b"PK\x03\x04":
        yield from _zip(file)
    elif name.lower().endswith((".tar", ".tgz", ".tar.gz", ".tar.xz", ".tar.bz2")):
        yield from _tar(file)
    elif head[128:132] == b"DICM" or (head[:2] in (b"\2\0", b"\x08\0") and head[3:4] == b"\0"):
        yield from _dicom(head)
    elif head[:8] == b"0       " or head[:8] == b"\xffBIOSEMI":
        yield from _edf(head)
    elif head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        yield from _tiff(file)
    elif head[:2] == b"\x1f\x8b":
        file.seek(0)
        with gzip.GzipFile(fileobj=file) as packed:
            yield from _of(io.BytesIO(packed.read(_HEAD)), name.removesuffix(".gz"))
    elif head[344:348] in (b"n+1\0", b"ni1\0"):
        for field, start, end in _NIFTI:
            yield f"NIfTI {field}", head[start:end].partition(b"\0")[0].decode("latin-1")
    elif head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        yield from _text(head)
    else:  # NRRD and MetaImage are text before their numbers
        yield from _text(head.partition(b"\0")[0])


def _zip(file: BinaryIO) -> Iterator[tuple[str, str]]:
    with zipfile.ZipFile(file) as packed:
        for info in packed.infolist()[:_MEMBERS]:
            if not info.is_dir() and not info.flag_bits & 1:
                with packed.open(info) as member:
                    head = io.BytesIO(member.read(_HEAD))
                yield "file name", Path(info.filename).name
                yield from _passed(head, info.filename)


def _tar(file: BinaryIO) -> Iterator[tuple[str, str]]:
    file.seek(0)
    read = 0
    with tarfile.open(fileobj=file, mode="r:*") as packed:
        for info in packed:
            read += info.size
            if read > _PACKED * 16:
                return
            if info.isreg() and (member := packed.extractfile(info)) is not None:
                yield "file name", Path(info.name).name
                yield from _passed(io.BytesIO(member.read(_HEAD)), info.name)


def _passed(file: BinaryIO, name: str) -> list[tuple[str, str]]:
    try:
        return list(_of(file, name))
    except Exception:
        return []


def _dicom(head: bytes) -> Iterator[tuple[str, str]]:
    import pydicom

    dataset = pydicom.dcmread(io.BytesIO(head), stop_before_pixels=True, force=True)
    for element in dataset.iterall():
        word = element.keyword or ("private" if element.tag.is_private else "")
        if element.VR == "UI":
            wanted = word.endswith("UID") and not _DICOM_PUBLIC.match(word)
        else:
            wanted = element.VR in _DICOM_KINDS or bool(_DICOM_NAMED.match(word))
        if wanted:
            yield from ((word or element.VR, str(value)) for value in _each(element.value))


def _each(value: Any) -> list[Any]:
    if value is None or isinstance(value, str | bytes):
        return [value] if isinstance(value, str) and value else []
    return list(value) if isinstance(value, list | tuple) or hasattr(value, "append") else [value]


def _edf(head: bytes) -> Iterator[tuple[str, str]]:
    patient, recording = (head[a : a + 80].decode("latin-1").strip() for a in (8, 88))
    for field, text in (("EDF patient", patient), ("EDF recording", recording)):
        yield field, text
        yield from ((field, word) for word in text.split() if word not in ("X", "Startdate"))
        yield from ((field, word.replace("_", " ")) for word in text.split() if "_" in word)
    day, time = (head[a : a + 8].decode("latin-1") for a in (168, 176))
    date = re.fullmatch(r"(\d\d)[./-](\d\d)[./-](\d\d)", day)
    clock = time.replace(".", ":")
    if date is not None:
        d, m, y = date.groups()
        year = ("19" if int(y) >= 85 else "20") + y  # as EDF has it
        yield "EDF date", f"{year}-{m}-{d}"
        yield "EDF start", f"{year}-{m}-{d} {clock}"
    yield "EDF time", clock


def _tiff(file: BinaryIO) -> Iterator[tuple[str, str]]:
    import tifffile

    file.seek(0)
    with tifffile.TiffFile(file) as tiff:
        for page in tiff.pages[:8]:
            for tag in ("ImageDescription", "DateTime", "Artist", "HostComputer", "DocumentName"):
                found = page.aspage().tags.get(tag)
                if found is not None and isinstance(found.value, str):
                    if tag != "ImageDescription":
                        yield tag, found.value
                    yield from _fields(found.value)


def _text(head: bytes) -> Iterator[tuple[str, str]]:
    encoding = "utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8"
    text = head.decode(encoding, "replace")
    moment = _WFDB_MOMENT.search(text)
    if moment is not None:
        yield "WFDB time", moment[1]
        if moment[2]:
            d, m, y = moment[2].split("/")
            yield "WFDB date", f"{y}-{m}-{d}"
    yield from _fields(text)
    yield from _columns(text)


def _columns(text: str) -> Iterator[tuple[str, str]]:
    """The cells below those heads of a table that name a person."""
    head = text.partition("\n")[0]
    separator = max(",;\t|", key=head.count)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    names = next(rows, [])
    wanted = [n for n, name in enumerate(names) if _COLUMN.fullmatch(name.strip(" \ufeff"))]
    for row in rows if wanted and len(names) > 1 else ():
        yield from ((names[n].strip(" \ufeff"), row[n].strip()) for n in wanted if n < len(row))


def _fields(text: str) -> Iterator[tuple[str, str]]:
    for pattern in (_FIELD, _ELEMENT, _ATTRIBUTE):
        for match in pattern.finditer(text):
            yield match[1], match[2].strip()
