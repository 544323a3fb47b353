"""The few tags that indexing needs, read from the front of a DICOM file.

A plain walk over the elements, for the two little-endian encodings in which nearly all files are
written. It stops after the last wanted tag, decodes nothing else, and gives up (`Odd`) at the first
thing that is out of the ordinary: pydicom then reads that file. Both give the same values.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from medcl_ct.quiet import quiet

Tags = dict[str, Any]
"""Keyword → text, a tuple of numbers, or an int; absent and empty tags are not in it."""

Opener = Callable[[], BinaryIO]
"""Opens a file at its beginning."""

TEXT, NUMBERS, SHORT, BINARY = "text", "numbers", "short", "binary"

WANTED: dict[int, tuple[str, str]] = {
    0x00080005: ("SpecificCharacterSet", TEXT),
    0x00080008: ("ImageType", TEXT),
    0x00080016: ("SOPClassUID", TEXT),
    0x00080018: ("SOPInstanceUID", TEXT),
    0x0008002A: ("AcquisitionDateTime", TEXT),
    0x00080032: ("AcquisitionTime", TEXT),
    0x00080060: ("Modality", TEXT),
    0x00080070: ("Manufacturer", TEXT),
    0x00080080: ("InstitutionName", TEXT),
    0x00081030: ("StudyDescription", TEXT),
    0x0008103E: ("SeriesDescription", TEXT),
    0x00081090: ("ManufacturerModelName", TEXT),
    0x00100020: ("PatientID", TEXT),
    0x00100040: ("PatientSex", TEXT),
    0x00101010: ("PatientAge", TEXT),
    0x00180010: ("ContrastBolusAgent", TEXT),
    0x00180015: ("BodyPartExamined", TEXT),
    0x00180050: ("SliceThickness", NUMBERS),
    0x00180060: ("KVP", NUMBERS),
    0x00180081: ("EchoTime", NUMBERS),
    0x00181030: ("ProtocolName", TEXT),
    0x00181060: ("TriggerTime", NUMBERS),
    0x00181120: ("GantryDetectorTilt", NUMBERS),
    0x00181210: ("ConvolutionKernel", TEXT),
    0x00189087: ("DiffusionBValue", BINARY),
    0x0020000D: ("StudyInstanceUID", TEXT),
    0x0020000E: ("SeriesInstanceUID", TEXT),
    0x00200012: ("AcquisitionNumber", NUMBERS),
    0x00200013: ("InstanceNumber", NUMBERS),
    0x00200032: ("ImagePositionPatient", NUMBERS),
    0x00200037: ("ImageOrientationPatient", NUMBERS),
    0x00200052: ("FrameOfReferenceUID", TEXT),
    0x00200100: ("TemporalPositionIdentifier", NUMBERS),
    0x00201041: ("SliceLocation", NUMBERS),
    0x00209241: ("NominalPercentageOfCardiacPhase", BINARY),
    0x00280002: ("SamplesPerPixel", SHORT),
    0x00280008: ("NumberOfFrames", NUMBERS),
    0x00280010: ("Rows", SHORT),
    0x00280011: ("Columns", SHORT),
    0x00280030: ("PixelSpacing", NUMBERS),
    0x00280100: ("BitsAllocated", SHORT),
    0x00280103: ("PixelRepresentation", SHORT),
    0x00280120: ("PixelPaddingValue", SHORT),
    0x00280121: ("PixelPaddingRangeLimit", SHORT),
    0x00280301: ("BurnedInAnnotation", TEXT),
    0x00281052: ("RescaleIntercept", NUMBERS),
    0x00281053: ("RescaleSlope", NUMBERS),
    0x00281054: ("RescaleType", TEXT),
    0x00282110: ("LossyImageCompression", TEXT),
}
_LAST = max(WANTED)
_WANTED_IN_META = {0x00020010: ("TransferSyntaxUID", TEXT)}

IMPLICIT = "1.2.840.10008.1.2"
_NOT_LITTLE = ("1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99")  # big-endian, deflated
COMPRESSED_FROM = "1.2.840.10008.1.2.4"  # JPEG and its kin
RLE = "1.2.840.10008.1.2.5"

FIRST_READ = 16 * 1024
PACKED_READ = 4 * 1024
HEADER_LIMIT = 64 * 1024 * 1024
_DEEPEST = 16
_SAMPLED = 4096  # bytes of a slice's pixels by which a copy is told

_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_LONG = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR"))
_LONG |= {b"UT", b"UV"}
_SHORT_VR = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
_explicit = struct.Struct("<HH2sH").unpack_from
_implicit = struct.Struct("<HHI").unpack_from
_u32 = struct.Struct("<I").unpack_from


class NotDicom(Exception):
    """The bytes are no DICOM file."""


class Odd(Exception):
    """Legal or not, not for this walk."""


class _Short(Exception):
    """The walk needs more of the file than it was given."""


def read(open_file: Opener, size: int, first: int = FIRST_READ) -> tuple[Tags, int]:
    """The wanted tags of a file, and how many of its bytes were behind the reader when it stopped.

    Args:
        open_file: opens the file, from its beginning; called again where pydicom has to read it.
        size: of the file in bytes.
        first: how many of them to read at first.

    Raises:
        NotDicom: if it is none.
        Exception: whatever pydicom raises for a file that even it cannot read.
    """
    tags, end, _ = read_with_pixels(open_file, size, sampled=False, first=first)
    return tags, end


def read_with_pixels(
    open_file: Opener, size: int, *, sampled: bool = True, first: int = FIRST_READ
) -> tuple[Tags, int, int | None]:
    """As `read`, with a checksum of some bytes from the middle of the pixels, where ``sampled``.

    At ``first`` that many bytes are read: less where they have to be unpacked.

    Two files of one place in one body have the same checksum only if one is a copy of the other:
    no two scans have the same noise.
    """
    with open_file() as handle:
        data = handle.read(first)
        if not looks_like_dicom(data):
            raise NotDicom
        try:
            while True:
                try:
                    tags, end = walk(data, complete=len(data) >= size)
                    return tags, end, _checksum(handle, end, size) if sampled else None
                except _Short:
                    if len(data) >= min(size, HEADER_LIMIT):
                        raise Odd from None
                    # A second step that is small: of a member, what is read costs twice.
                    more = handle.read((3 if len(data) < FIRST_READ else 15) * len(data))
                    if not more:
                        raise Odd from None
                    data += more
        except Odd:
            pass
    with open_file() as handle:
        tags = by_pydicom(handle)
        return tags, 0, _checksum(handle, 0, size) if sampled else None


def _checksum(handle: BinaryIO, start: int, size: int) -> int:
    """CRC-32 of the middle of what follows ``start``; 0 where all of it is the same byte."""
    handle.seek(max(start, (start + size - _SAMPLED) // 2))
    sample = handle.read(_SAMPLED)
    return 0 if sample.count(sample[:1]) == len(sample) else zlib.crc32(sample)


def looks_like_dicom(data: bytes) -> bool:
    """Whether there is the mark of a DICOM file, or an element that one may start with."""
    if data[128:132] == b"DICM":
        return True
    if len(data) < 8:
        return False
    for order in "<>":
        group, element, length = struct.unpack_from(f"{order}HHI", data)
        known = (group == 2 and element <= 0x16) or (group == 8 and element <= 0x70)
        if known and (data[4:6] in _SHORT_VR or length < 256):
            return True
    return False


def walk(data: bytes, *, complete: bool) -> tuple[Tags, int]:
    """The wanted tags in the front part of a file, and where the walk stopped.

    Args:
        data: from the file's beginning.
        complete: whether this is all of the file.

    Raises:
        Odd: if the encoding is none of the two, or an element does not look like one.
        _Short: if ``data`` ends before the last wanted tag, and there is more.
    """
    raw: dict[str, tuple[str, bytes]] = {}
    position = 0
    if data[128:132] == b"DICM":
        position = _elements(data, 132, 0x0002FFFF, _WANTED_IN_META, raw, True, complete)
    syntax = _decoded(*raw["TransferSyntaxUID"]) if "TransferSyntaxUID" in raw else None
    if syntax is None or syntax in _NOT_LITTLE:
        raise Odd
    explicit = syntax != IMPLICIT
    if not explicit and data[position + 4 : position + 6] in (_SHORT_VR | _LONG):
        raise Odd  # says implicit, looks explicit
    end = _elements(data, position, _LAST, WANTED, raw, explicit, complete)
    tags = {name: _decoded(kind, value) for name, (kind, value) in raw.items()}
    return {name: value for name, value in tags.items() if value is not None}, end


def _elements(
    data: bytes,
    position: int,
    last: int,
    wanted: dict[int, tuple[str, str]],
    found: dict[str, tuple[str, bytes]],
    explicit: bool,
    complete: bool,
) -> int:
    """Walk until a tag above ``last``; returns where that is."""
    end, before = len(data), 0
    while position + 8 <= end:
        if explicit:
            group, element, vr, length = _explicit(data, position)
            start = position + 8
            tag = group << 16 | element
            if tag > last:
                return position
            if vr in _LONG:
                if position + 12 > end:
                    break
                (length,) = _u32(data, start)
                start += 4
                if length == _UNDEFINED and vr == b"UN":
                    raise Odd
            elif vr not in _SHORT_VR:
                raise Odd
        else:
            group, element, length = _implicit(data, position)
            start = position + 8
            tag = group << 16 | element
            if tag > last:
                return position
        if tag <= before:  # out of order, or twice
            raise Odd
        before = tag
        if length == _UNDEFINED:
            if tag in wanted:
                raise Odd
            position = _after_sequence(data, start, explicit, 0)
            continue
        position = start + length
        if tag in wanted:
            if position > end:
                break
            name, kind = wanted[tag]
            found[name] = kind, data[start:position]
    if complete and position == end:
        return position
    raise _Short


def _after_sequence(data: bytes, position: int, explicit: bool, depth: int) -> int:
    """The end of a sequence of undefined length that starts here."""
    if depth > _DEEPEST:
        raise Odd
    while position + 8 <= len(data):
        group, element, length = _implicit(data, position)
        tag = group << 16 | element
        position += 8
        if tag == _SEQUENCE_END:
            return position
        if tag != _ITEM:
            raise Odd
        if length != _UNDEFINED:
            position += length
        else:
            position = _after_item(data, position, explicit, depth)
    raise _Short


def _after_item(data: bytes, position: int, explicit: bool, depth: int) -> int:
    while position + 8 <= len(data):
        group, element, length = _implicit(data, position)
        if group << 16 | element == _ITEM_END:
            return position + 8
        position += 8
        if explicit:
            vr, length = data[position - 4 : position - 2], length >> 16
            if vr in _LONG:
                if position + 4 > len(data):
                    break
                (length,) = _u32(data, position)
                position += 4
                if length == _UNDEFINED and vr == b"UN":
                    raise Odd
            elif vr not in _SHORT_VR:
                raise Odd
        if length == _UNDEFINED:
            position = _after_sequence(data, position, explicit, depth + 1)
        else:
            position += length
    raise _Short


def _decoded(kind: str, raw: bytes) -> Any:
    if kind == SHORT:
        if len(raw) != 2:
            if not raw:
                return None
            raise Odd
        return raw[0] | raw[1] << 8
    if kind == BINARY:  # one number: FL or FD
        if len(raw) not in (0, 4, 8):
            raise Odd
        numbers = struct.unpack({0: "", 4: "<f", 8: "<d"}[len(raw)], raw)
        return numbers if numbers and math.isfinite(numbers[0]) else None
    if not raw.isascii():
        raise Odd  # pydicom knows the character sets
    return _number_list(raw.decode()) if kind == NUMBERS else _clean(raw.decode())


def _clean(text: str) -> str | None:
    return text.strip(" \0\t\r\n") or None


def _number_list(text: str) -> tuple[float, ...] | None:
    """``1\\2.5`` → (1.0, 2.5); None if one of them is no finite number."""
    try:
        numbers = tuple(float(part) for part in text.strip(" \0").split("\\"))
    except ValueError:
        return None
    return numbers if all(abs(number) < 1e300 for number in numbers) else None


def by_pydicom(handle: BinaryIO) -> Tags:
    """The same by pydicom, which reads every encoding and forgives much.

    Raises:
        NotDicom: if it finds no element in it.
        Exception: if it cannot read the file.
    """
    import pydicom

    with quiet():
        dataset = pydicom.dcmread(
            BytesIO(handle.read(HEADER_LIMIT)),
            stop_before_pixels=True,
            force=True,
            specific_tags=list(WANTED),
        )
        tags: Tags = {}
        syntax = getattr(dataset, "file_meta", {}).get("TransferSyntaxUID")
        if syntax:
            tags["TransferSyntaxUID"] = str(syntax)
        for tag, (name, kind) in WANTED.items():
            if tag not in dataset:
                continue
            try:
                value = _from_pydicom(dataset[tag].value, kind)
            except Exception:  # a value that does not fit its type: as good as absent
                continue
            if value is not None:
                tags[name] = value
    if not tags:
        raise NotDicom
    return tags


def _from_pydicom(value: Any, kind: str) -> Any:
    if value is None or value == "":
        return None
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    if kind == SHORT:
        return int(value) & 0xFFFF  # as its bytes are, whatever sign they stand for
    many = isinstance(value, list | tuple) or type(value).__name__ == "MultiValue"
    text = "\\".join(str(part) for part in value) if many else str(value)
    return _number_list(text) if kind in (NUMBERS, BINARY) else _clean(text)


def open_path(path: Path | str) -> Opener:
    """A way to open a file for `read`, unbuffered: its front is read in one go."""
    place = path if isinstance(path, Path) else Path(path)  # it may be one on object storage
    return lambda: place.open("rb", buffering=0)
