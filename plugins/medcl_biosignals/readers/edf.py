"""EDF, EDF+ and BDF: a header of fixed-width text, then records of 16- or 24-bit samples.

Kemp 1992, doi 10.1016/0013-4694(92)90009-7; EDF+: Kemp & Olivan 2003, doi
10.1016/S1388-2457(03)00123-8. Samples agree with those of `edfio` (tested), which is not used here
because a truncated file must still be read, and a file's header be held against its size.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
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

_FIXED = 256  # bytes of the header, and as many for each signal
_WIDTHS = (16, 80, 8, 8, 8, 8, 8, 80, 8, 32)  # of a signal's fields
_MOST_SIGNALS = 4096
_MOST_SECONDS = 400 * 86400.0  # between the first and the last record of a file with pauses
_MONTHS = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]
_NO_DAY = date(1985, 1, 1)  # what the specification asks for where the start is not to be told
_NOTES = ("EDF Annotations", "BDF Annotations")


@dataclass(frozen=True)
class _Signal:
    label: str
    units: str
    gain: float
    offset: float
    calibrated: bool
    per_record: int
    first_byte: int  # in a record


@dataclass(frozen=True)
class _Header:
    variant: str  # EDF, EDF+C, EDF+D, BDF, …
    subject: str | None
    start: int  # of the records, in bytes
    records: int
    duration: float  # of a record, in seconds
    signals: tuple[_Signal, ...]
    notes: tuple[_Signal, ...]
    width: int  # bytes a sample
    findings: tuple[str, ...]
    labels: Mapping[str, Scalar]

    @property
    def record_bytes(self) -> int:
        return self.width * sum(signal.per_record for signal in self.signals + self.notes)


def headings(path: Path, settings: Settings) -> Iterator[Heading | Flaw]:
    """The recording in a file."""
    header = _read_header(path)
    onsets = _onsets(path, header)
    channels = _channels(header)
    yield Heading(
        part="",
        format=header.variant,
        channels=channels,
        fs=max(channel.fs for channel in channels),
        seconds=_seconds(header, onsets),
        subject=header.subject,
        findings=header.findings + _noticed(header, onsets),
        labels=header.labels,
    )


def read(path: Path, part: str, settings: Settings, span: Span | None = None) -> Recording:
    """Its samples in physical units, each channel at its own rate; pauses (EDF+D) are NaN."""
    header = _read_header(path)
    onsets = _onsets(path, header)
    seconds = _seconds(header, onsets)
    raw = _records(path, header)
    samples = []
    for signal, channel in zip(header.signals, _channels(header), strict=True):
        n, first_byte = signal.per_record, signal.first_byte
        first, last = bounds(span, channel.fs, round(seconds * channel.fs))
        begin = np.rint(onsets * channel.fs).astype(np.int64)  # of each record
        wanted = np.flatnonzero((begin < last) & (begin + n > first))
        out = np.full(last - first, np.nan)
        if len(wanted):
            part_of = raw[wanted[0] : wanted[-1] + 1, first_byte : first_byte + n * header.width]
            digital = _integers(np.ascontiguousarray(part_of), header.width)  # (records, n)
            physical = digital * signal.gain + signal.offset
            place = (begin[wanted[0] : wanted[-1] + 1, None] - first + np.arange(n)).ravel()
            inside = (place >= 0) & (place < len(out))
            out[place[inside]] = physical.ravel()[inside]
        samples.append(kept(out))
    return Recording(_channels(header), samples, _clock(path))


def _channels(header: _Header) -> tuple[Channel, ...]:
    return tuple(
        Channel(signal.label, signal.units, signal.per_record / header.duration)
        for signal in header.signals
    )


def _seconds(header: _Header, onsets: np.ndarray) -> float:
    return float(onsets.max() + header.duration)


def _noticed(header: _Header, onsets: np.ndarray) -> tuple[str, ...]:
    """What the times of the records give away."""
    away = np.diff(onsets) - header.duration
    least = 1e-3 * header.duration
    found = [name for name, there in (
        ("gaps", (away > least).any()), ("overlapping-records", (away < -least).any())
    ) if there]  # fmt: skip
    if found and not header.variant.endswith("+D"):
        found.append("says-it-is-continuous")
    return tuple(found)


_TAL = re.compile(rb"([+-]\d+(?:\.\d*)?)(?:\x15(\d+(?:\.\d*)?))?\x14(.*)\x14", re.DOTALL)
_MOST_NOTES = 1_000_000


def notes(path: Path, since: Path | None = None) -> list[tuple[float, float | None, str]]:
    """The annotations of an EDF+ file: (onset, duration or None, text), in seconds from the first
    sample; from that of the file ``since``, of which it is the hypnogram.

    Raises:
        BadSignal: if the header cannot be read.
    """
    header = _read_header(path, annotated_only=True)
    if not header.notes or "+" not in header.variant:
        return []
    raw = _records(path, header)
    found: list[tuple[float, float | None, str]] = []
    began: float | None = None
    for row in raw:
        for note in header.notes:
            block = bytes(row[note.first_byte : note.first_byte + note.per_record * header.width])
            for tal in map(_TAL.match, block.split(b"\0")):
                if tal is None:
                    continue
                onset = float(tal[1])
                began = onset if began is None else began
                length = float(tal[2]) if tal[2] else None
                texts = tal[3].decode("utf-8", "replace").split("\x14")
                found += [(onset, length, text.strip()) for text in texts if text.strip()]
        if len(found) > _MOST_NOTES:
            raise BadSignal("too-large", "an EDF+ file with over a million annotations")
    shift = began or 0.0
    if since is not None:
        first, other = _started(since), _started(path)
        shift = (first - other).total_seconds() if first and other else 0.0
    return [(onset - shift, length, text) for onset, length, text in found]


def _clock(path: Path) -> float | None:
    """Seconds since midnight at which a file begins; None by the placeholder for no moment."""
    began = _started(path)
    if began is None or (began.date() == _NO_DAY and began.hour == began.minute == 0):
        return None
    return began.hour * 3600.0 + began.minute * 60 + began.second


def _started(path: Path) -> datetime | None:
    """When a file begins; None for what is no date."""
    with path.open("rb") as handle:
        text = handle.read(_FIXED)[168:184].decode("latin-1")
    try:
        return datetime.strptime(text, "%d.%m.%y%H.%M.%S")
    except ValueError:
        return None


def _read_header(path: Path, *, annotated_only: bool = False) -> _Header:
    size = path.stat().st_size
    with path.open("rb") as handle:
        fixed = handle.read(_FIXED)
        if len(fixed) < _FIXED or not (fixed[:8] == b"0       " or fixed[:1] == b"\xff"):
            raise BadSignal("not-edf", "the file does not begin like an EDF or BDF file")
        text = fixed[1:].decode("latin-1")
        bdf = fixed[:1] == b"\xff"
        reserved = text[191:235].strip()
        start, records, signals = (
            _integer(text[a:b]) for a, b in ((183, 191), (235, 243), (251, 255))
        )
        duration = _number(text[243:251])
        if not 0 < signals <= _MOST_SIGNALS or start != _FIXED * (signals + 1):
            raise BadSignal("bad-header", "the header's numbers contradict each other")
        rest = handle.read(_FIXED * signals)
    if len(rest) < _FIXED * signals:
        raise BadSignal("truncated", "the file ends within its header")
    variant = ("BDF" if bdf else "EDF") + (reserved[3:5] if reserved[3:4] == "+" else "")
    findings: list[str] = []
    width = 3 if bdf else 2
    lines = _signals(rest, signals, width)
    ours = tuple(line for line in lines if line.label not in _NOTES)
    record_bytes = width * sum(line.per_record for line in lines)
    unusable = (not ours or duration <= 0) and not (annotated_only and len(ours) < len(lines))
    if unusable or record_bytes == 0:
        raise BadSignal("no-signals", "the file holds annotations only, or records of no length")
    held = (size - start) // record_bytes
    if records > held:
        findings.append("truncated")
    if held < 1:
        raise BadSignal("truncated", f"{records} records are claimed; the file holds none")
    if 0 <= records < held:
        findings.append("longer-than-header")
    if not all(line.calibrated for line in ours):
        findings.append("uncalibrated-channel")
    return _Header(
        variant,
        _patient(text[7:87], plus="+" in variant),
        start,
        held if records < 0 else min(records, held),
        duration,
        ours,
        tuple(line for line in lines if line.label in _NOTES),
        width,
        tuple(findings),
        _labels(text[7:87], text[87:167]),
    )


def _signals(raw: bytes, count: int, width: int) -> list[_Signal]:
    fields, position = [], 0
    for size in _WIDTHS:
        fields.append([_text(raw[position + n * size :][:size]) for n in range(count)])
        position += size * count
    found, first_byte = [], 0
    for n in range(count):
        label, units, per_record = fields[0][n], fields[2][n], _integer(fields[8][n])
        low, high, digital_low, digital_high = (_number(fields[i][n]) for i in (3, 4, 5, 6))
        if per_record < 0:
            raise BadSignal("bad-header", "the header's numbers contradict each other")
        if "LN[" in fields[7][n].upper().replace(" ", ""):
            raise BadSignal(
                "logarithmic-samples",
                f"channel {n + 1} holds logarithms of floats (EDFfloat, 'sign*LN' in its "
                "prefiltering): write it as plain EDF",
            )
        calibrated = digital_high > digital_low and high != low
        gain = (high - low) / (digital_high - digital_low) if calibrated else 1.0
        offset = low - digital_low * gain if calibrated else 0.0
        found.append(_Signal(label, units, gain, offset, calibrated, per_record, first_byte))
        first_byte += per_record * width
    return found


def _text(raw: bytes) -> str:
    """A field: EDF is ASCII, but programs write units in UTF-8 or in Latin-1."""
    raw = raw.split(b"\0", 1)[0]
    try:
        return raw.decode("utf-8").strip()
    except UnicodeDecodeError:
        return raw.decode("latin-1").strip()


def _patient(field: str, plus: bool) -> str | None:
    """The code in the hospital, or else the name; of a plain EDF the field as it is.

    Many programs write EDF+'s four subfields, with X for what is not known, into a plain EDF too.
    """
    code, sex, birth, name, *_ = [*field.split(), "", "", "", ""]
    as_plus = sex in ("F", "M", "X") and (birth == "X" or _day(birth) is not None)
    if plus or as_plus:
        return person(code) or person(name)
    return person(field)


def _labels(patient: str, recording: str) -> dict[str, Scalar]:
    """Sex, and age at the recording, of EDF+'s subfields; the dates themselves are not kept.

    Plain EDF may hold anything there, but many programs write EDF+'s subfields into it too.
    """
    word, start, *_ = [*recording.split(), "", ""]
    if word != "Startdate":
        return {}
    _, sex, birth, *_ = [*patient.split(), "", "", ""]
    born, recorded = _day(birth), _day(start)
    if recorded == _NO_DAY:
        recorded = None
    return of_person(sex, age_at(born, recorded) if born and recorded else None)


def _day(text: str) -> date | None:
    """``02-MAY-1951``; None for "X" and what is no date."""
    day, _, rest = text.partition("-")
    month, _, year = rest.partition("-")
    try:
        return date(int(year), _MONTHS.index(month.upper()) + 1, int(day))
    except ValueError:
        return None


def _records(path: Path, header: _Header) -> np.ndarray:
    return np.memmap(
        path,
        dtype=np.uint8,
        mode="r",
        offset=header.start,
        shape=(header.records, header.record_bytes),
    )


def _integers(block: np.ndarray, width: int) -> np.ndarray:
    """(records, bytes) → (records, samples), little-endian."""
    if width == 2:
        return block.view("<i2").astype(np.float64)
    three = block.reshape(len(block), -1, 3).astype(np.int32)
    value = three[..., 0] | (three[..., 1] << 8) | (three[..., 2] << 16)
    return np.where(value >= 1 << 23, value - (1 << 24), value).astype(np.float64)


def _onsets(path: Path, header: _Header) -> np.ndarray:
    """Seconds from the first record to each, as their annotations give them.

    A file that calls itself continuous (EDF+C) is believed if its last record is where it should
    be.
    """
    even = np.arange(header.records) * header.duration
    if not header.notes or "+" not in header.variant:
        return even
    raw, note = _records(path, header), header.notes[0]
    notes = raw[:, note.first_byte : note.first_byte + note.per_record * header.width]
    continuous = not header.variant.endswith("+D")
    try:
        if continuous:
            ends = [float(bytes(notes[at]).split(b"\x14", 1)[0]) for at in (0, -1)]
            if abs(ends[1] - ends[0] - even[-1]) <= max(1e-3 * header.duration, 1e-6 * even[-1]):
                return even
        found = np.array([float(bytes(row).split(b"\x14", 1)[0]) for row in notes])
    except ValueError:
        if continuous:
            return even
        raise BadSignal(
            "bad-times", "a record of this EDF+D file does not say when it is"
        ) from None
    found -= found[0]
    if (np.diff(found) <= 0).any() or found[-1] > _MOST_SECONDS:
        raise BadSignal("bad-times", "the records of this EDF+ file are not in order of time")
    return found


def _number(text: str) -> float:
    try:
        value = float(text.strip().replace(",", ".") or 0)
    except ValueError:
        raise BadSignal("bad-header", "a number in the header cannot be read") from None
    if not np.isfinite(value):
        raise BadSignal("bad-header", "a number in the header cannot be read")
    return value


def _integer(text: str) -> int:
    return int(_number(text))
