"""ISHNE Holter ``.ecg``: a header of 522 bytes, a comment, then 16-bit samples, frame by frame.

Badilini 1998, "The ISHNE Holter Standard Output File Format", Annals of Noninvasive
Electrocardiology 3(3). A day of several leads is hundreds of MB: a span is read, never all of it.
"""

from __future__ import annotations

import binascii
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np

from medcl.plugin import Scalar
from medcl_biosignals.readers.contract import (
    BadSignal,
    Channel,
    Flaw,
    Heading,
    Recording,
    Settings,
    Span,
    bounds,
    kept,
    person,
)
from medcl_biosignals.readers.header_labels import age_at, of_person

MAGIC = b"ISHNE1.0"
_FIXED = 522
_MOST_LEADS = 12
_MOST_COMMENT = 1 << 20
_FAULT = -32768  # a sample that is not valid, as the format proposes
_LEADS = {1: "ECG", 2: "Vx", 3: "Vy", 4: "Vz", 5: "I", 6: "II", 7: "III", 8: "aVR", 9: "aVL",
          10: "aVF", 11: "V1", 12: "V2", 13: "V3", 14: "V4", 15: "V5", 16: "V6", 17: "ES",
          18: "AS", 19: "AI"}  # fmt: skip


@dataclass(frozen=True)
class _Header:
    channels: tuple[Channel, ...]
    gains: tuple[float, ...]  # uV a count
    start: int  # of the samples, in bytes
    frames: int
    findings: tuple[str, ...]
    subject: str | None
    labels: Mapping[str, Scalar]


def headings(path: Path, settings: Settings) -> Iterator[Heading | Flaw]:
    """The recording of a file."""
    header = _read_header(path)
    fs = header.channels[0].fs
    findings = list(header.findings)
    if settings.fs is not None and abs(settings.fs / fs - 1) > 0.02:
        findings.append("fs-mismatch")
    yield Heading(
        "",
        "ISHNE",
        header.channels,
        fs,
        header.frames / fs,
        subject=header.subject,
        findings=tuple(findings),
        labels=header.labels,
    )


def read(path: Path, part: str, settings: Settings, span: Span | None = None) -> Recording:
    """Its samples; those that are marked as not valid are NaN."""
    header = _read_header(path)
    leads = len(header.channels)
    raw = np.memmap(path, "<i2", mode="r", offset=header.start, shape=(header.frames, leads))
    first, last = bounds(span, header.channels[0].fs, header.frames)
    rows = []
    for n, gain in enumerate(header.gains):
        counts = np.ascontiguousarray(raw[first:last, n])
        rows.append(kept(np.where(counts == _FAULT, np.nan, counts * gain)))
    return Recording(header.channels, rows)


def _read_header(path: Path) -> _Header:
    size = path.stat().st_size
    with path.open("rb") as handle:
        fixed = handle.read(_FIXED)
        if fixed[:8] != MAGIC:
            raise BadSignal("not-a-signal", "the file does not begin like an ISHNE Holter file")
        if len(fixed) < _FIXED:
            raise BadSignal("truncated", "the file ends within its header")
        checksum, comment, claimed = struct.unpack_from("<Hii", fixed, 8)
        if not 0 <= comment <= _MOST_COMMENT:
            raise BadSignal("bad-header", "the header's numbers contradict each other")
        checked = fixed[10:] + handle.read(comment)
    (leads,) = struct.unpack_from("<h", fixed, 156)
    codes, gains = (struct.unpack_from("<12h", fixed, at) for at in (158, 206))
    (fs,) = struct.unpack_from("<h", fixed, 272)
    if not 0 < leads <= _MOST_LEADS:
        raise BadSignal("bad-header", f"the file claims {leads} leads, of which there are 1 to 12")
    if fs <= 0:
        raise BadSignal("bad-sampling-rate", f"the file gives a sampling rate of {fs} Hz")
    start = _FIXED + comment
    frames = (size - start) // (2 * leads)
    if frames < 1:
        raise BadSignal("truncated", "the file ends before its first sample")
    findings = []
    # Writers put the samples of a lead there, those of all, or nothing: only too few is a flaw.
    if frames < claimed and frames * leads != claimed:
        findings.append("truncated")
    correct = binascii.crc_hqx(checked, 0xFFFF)
    if checksum not in (0, correct, (correct & 0xFF) << 8 | correct >> 8):
        findings.append("bad-checksum")
    if any(gain <= 0 for gain in gains[:leads]):
        findings.append("uncalibrated-channel")
    channels = tuple(
        Channel(_LEADS.get(code, f"ECG{n + 1}"), "uV" if gain > 0 else "adu", float(fs))
        for n, (code, gain) in enumerate(zip(codes[:leads], gains[:leads], strict=True))
    )
    sizes = tuple(gain / 1000 if gain > 0 else 1.0 for gain in gains[:leads])
    subject, labels = _about(fixed)
    return _Header(channels, sizes, start, frames, tuple(findings), subject, labels)


def _about(fixed: bytes) -> tuple[str | None, dict[str, Scalar]]:
    """The person, raw, and labels; of the dates nothing but the age is kept."""
    first, last, code = (_text(fixed[a:b]) for a, b in ((28, 68), (68, 108), (108, 128)))
    (sex,) = struct.unpack_from("<h", fixed, 128)
    born, recorded = _day(fixed, 132), _day(fixed, 138)
    age = age_at(born, recorded) if born and recorded else None
    return person(code) or person(f"{last} {first}"), of_person({1: "M", 2: "F"}.get(sex, ""), age)


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("latin-1").strip()


def _day(fixed: bytes, at: int) -> date | None:
    day, month, year = struct.unpack_from("<3h", fixed, at)
    try:
        return date(year, month, day)
    except ValueError:
        return None
