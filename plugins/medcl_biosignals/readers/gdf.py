"""GDF 1 and 2, the General Data Format of BioSig: binary headers, records of samples of any type.

Schlögl 2006, arXiv cs/0608052. MNE-Python reads it too, but knows of units only mV and µV, brings
all channels to one rate, and takes the duration of records of GDF 2.2 and later for another number.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
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

_FIXED = 256  # bytes of the header, and as many for each channel
_MOST_CHANNELS = 4096
_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "i8", 8: "u8", 16: "f4",
          17: "f8", 279: "i3", 535: "u3"}  # fmt: skip
_UNITS = {512: "a.u.", 544: "%", 736: "deg", 1280: "m", 1600: "l", 2176: "s", 2496: "Hz",
          2528: "bpm", 2720: "bpm", 3072: "l/min", 3840: "Pa", 3872: "mmHg", 3904: "cmH2O",
          4160: "A", 4256: "V", 4288: "Ohm", 6048: "degC"}  # fmt: skip
"""ISO/IEEE 11073-10101, without the decimal factor in the lowest five bits."""
_FACTORS = {0: "", 3: "k", 4: "M", 18: "m", 19: "u", 20: "n"}
_RATIONAL = 2.205  # up to here a duration is two whole numbers, later one of double precision
_ZERO = date(1, 1, 1)
_NO_DAY = 367  # days that GDF 2 counts from before 1 January of the year 1


@dataclass(frozen=True)
class _Signal:
    channel: Channel
    gain: float
    offset: float
    low: float  # a digital value below, or above ``high``, is no sample
    high: float
    type: str
    per_record: int
    first_byte: int  # in a record


@dataclass(frozen=True)
class _Header:
    version: float
    start: int  # of the records, in bytes
    records: int
    duration: float  # of a record, in seconds
    record_bytes: int
    signals: tuple[_Signal, ...]
    findings: tuple[str, ...]
    subject: str | None
    labels: Mapping[str, Scalar]


def headings(path: Path, settings: Settings) -> Iterator[Heading | Flaw]:
    """The recording in a file."""
    header = _read_header(path)
    channels = tuple(signal.channel for signal in header.signals)
    fs = max(channel.fs for channel in channels)
    findings = list(header.findings)
    if settings.fs is not None and abs(settings.fs / fs - 1) > 0.02:
        findings.append("fs-mismatch")
    yield Heading(
        "",
        f"GDF{int(header.version)}",
        channels,
        fs,
        header.records * header.duration,
        subject=header.subject,
        findings=tuple(findings),
        labels=header.labels,
    )


def read(path: Path, part: str, settings: Settings, span: Span | None = None) -> Recording:
    """Its samples in physical units, each channel at its own rate; NaN where out of range."""
    header = _read_header(path)
    raw = np.memmap(
        path, np.uint8, "r", offset=header.start, shape=(header.records, header.record_bytes)
    )
    samples = []
    for signal in header.signals:
        n = signal.per_record
        first, last = bounds(span, signal.channel.fs, header.records * n)
        begin, end = first // n, -(-last // n)
        block = raw[begin:end, signal.first_byte : signal.first_byte + n * _width(signal.type)]
        digital = _numbers(np.ascontiguousarray(block), signal.type).ravel()
        digital = digital[first - begin * n : last - begin * n]
        valid = (digital >= signal.low) & (digital <= signal.high)
        samples.append(kept(np.where(valid, digital * signal.gain + signal.offset, np.nan)))
    return Recording(tuple(signal.channel for signal in header.signals), samples)


def _read_header(path: Path) -> _Header:
    size = path.stat().st_size
    with path.open("rb") as handle:
        fixed = handle.read(_FIXED)
        if fixed[:3] != b"GDF":
            raise BadSignal("not-a-signal", "the file does not begin like a GDF file")
        if len(fixed) < _FIXED:
            raise BadSignal("truncated", "the file ends within its header")
        try:
            version = float(fixed[3:8])
        except ValueError:
            version = float("nan")
        if not 1 <= version < 3:
            raise BadSignal("unknown-format", "a version of GDF that is not read")
        second = version > 1.9
        (records,) = struct.unpack_from("<q", fixed, 236)
        numerator, denominator = struct.unpack_from("<II", fixed, 244)
        (count,) = struct.unpack_from("<H" if second else "<I", fixed, 252)
        (start,) = struct.unpack_from("<H" if second else "<q", fixed, 184)
        start *= 256 if second else 1
        if not 0 < count <= _MOST_CHANNELS or not _FIXED * (count + 1) <= start <= size:
            raise BadSignal("bad-header", "the header's numbers contradict each other")
        rest = handle.read(_FIXED * count)
    duration = numerator / denominator if denominator else 0.0
    if version > _RATIONAL:
        (duration,) = struct.unpack_from("<d", fixed, 244)
    if not 1e-6 < duration < 1e9:
        raise BadSignal("no-sampling-rate", "the file gives no duration of its records")
    signals, record_bytes = _signals(rest, count, duration, second)
    if not signals:
        raise BadSignal("no-signals", "no channel of the file holds samples")
    held = (size - start) // record_bytes
    findings = []
    if records > held:
        findings.append("truncated")
    if held < 1:
        raise BadSignal("truncated", f"{records} records are claimed; the file holds none")
    subject, labels = _about(fixed, second)
    if any(signal.gain == 1 and not np.isfinite(signal.low) for signal in signals):
        findings.append("uncalibrated-channel")
    return _Header(
        version,
        start,
        held if records < 0 else min(records, held),  # events may follow the records
        duration,
        record_bytes,
        tuple(signals),
        tuple(findings),
        subject,
        labels,
    )


def _signals(raw: bytes, count: int, duration: float, second: bool) -> tuple[list[_Signal], int]:
    """The channels that hold samples, and the bytes of a record."""
    at = {name: offset * count for name, offset in (
        ("label", 0), ("unit", 96), ("code", 102), ("low", 104), ("high", 112),
        ("digital low", 120), ("digital high", 128), ("samples", 216), ("type", 220),
    )}  # fmt: skip
    calibration = "<d" if second else "<q"

    def number(form: str, name: str, n: int) -> float:
        return float(struct.unpack_from(form, raw, at[name] + n * struct.calcsize(form))[0])

    found, first_byte = [], 0
    for n in range(count):
        per_record, code = int(number("<I", "samples", n)), int(number("<I", "type", n))
        if code not in _TYPES:
            raise BadSignal("unknown-format", "samples that are not of whole bytes are not read")
        kind = _TYPES[code]
        low, high = number("<d", "low", n), number("<d", "high", n)
        bottom, top = (number(calibration, f"digital {end}", n) for end in ("low", "high"))
        calibrated = top > bottom and high != low and np.isfinite([low, high, bottom, top]).all()
        gain = (high - low) / (top - bottom) if calibrated else 1.0
        if per_record:
            found.append(
                _Signal(
                    Channel(
                        _text(raw[at["label"] + 16 * n :][:16]),
                        _unit(raw, at, n, second),
                        per_record / duration,
                    ),
                    gain,
                    low - bottom * gain if calibrated else 0.0,
                    bottom if calibrated else -np.inf,
                    top if calibrated else np.inf,
                    kind,
                    per_record,
                    first_byte,
                )
            )
        first_byte += per_record * _width(kind)
    return found, first_byte


def _unit(raw: bytes, at: Mapping[str, int], n: int, second: bool) -> str:
    if not second:
        return _text(raw[at["unit"] + 8 * n :][:8])
    (code,) = struct.unpack_from("<H", raw, at["code"] + 2 * n)
    base, prefix = _UNITS.get(code & ~31), _FACTORS.get(code & 31)
    if code == 0 or code == 512:
        return "a.u." if code else ""
    return "unknown" if base is None or prefix is None else prefix + base


def _about(fixed: bytes, second: bool) -> tuple[str | None, dict[str, Scalar]]:
    """The person, raw, and labels; of the dates nothing but the age is kept."""
    code, _, name = _text(fixed[8 : 74 if second else 88]).partition(" ")
    who = person(code) or person(name)
    if not second:
        return who, {}
    sex = {1: "M", 2: "F"}.get(fixed[87] & 3, "")
    recorded, born = _day(fixed, 168), _day(fixed, 176)
    return who, of_person(sex, age_at(born, recorded) if born and recorded else None)


def _day(fixed: bytes, at: int) -> date | None:
    """A day of GDF 2: days in the upper four bytes, their fraction in the lower."""
    (days,) = struct.unpack_from("<I", fixed, at + 4)
    try:
        return _ZERO + timedelta(days - _NO_DAY) if days else None
    except OverflowError:
        return None


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("latin-1").strip()


def _width(kind: str) -> int:
    return int(kind[1])


def _numbers(block: np.ndarray, kind: str) -> np.ndarray:
    """(records, bytes) → (records, samples) float64, little-endian."""
    if _width(kind) != 3:
        return block.view(f"<{kind}").astype(np.float64)
    three = block.reshape(len(block), -1, 3).astype(np.int32)
    value = three[..., 0] | (three[..., 1] << 8) | (three[..., 2] << 16)
    signed = kind == "i3"
    return np.where(signed & (value >= 1 << 23), value - (1 << 24), value).astype(np.float64)
