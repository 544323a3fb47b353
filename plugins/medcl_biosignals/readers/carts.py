"""ECG carts and monitors: SCP-ECG, Philips XML (SierraECG) and MFER, decoded by ecgdatakit.

SCP-ECG: EN 1064, ISO 11073-91064. MFER: ISO 22077. What ecgdatakit warns of becomes a finding, and
what it could be led into by a hostile header (memory without end) is refused before.
"""

from __future__ import annotations

import binascii
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

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
from medcl_biosignals.readers.header_labels import age_of, of_person
from medcl_biosignals.readers.xml_tree import tree

if TYPE_CHECKING:
    from ecgdatakit import ECGRecord, Lead

ROOT = "restingecgdata"
_PARSERS = {
    ".scp": ("scp_ecg", "SCPECGParser", "SCP-ECG"),
    ".mwf": ("mfer", "MFERParser", "MFER"),
    ".mfer": ("mfer", "MFERParser", "MFER"),
    ".xml": ("sierra_xml", "SierraXMLParser", "Philips XML"),
}
_FULL = {"X": "Vx", "Y": "Vy", "Z": "Vz", "D": "Nehb D", "A": "Nehb A", "J": "Nehb J"}
"""Leads whose letters by themselves may stand for anything (Frank's and Nehb's)."""
_MOST_BYTES = 256 << 20
_MOST_CHANNELS = 4096
_MOST_XLI, _MOST_CHUNK = 1 << 20, 1 << 16  # bytes; each may stand for 600
_DEEPEST = 8
_Order = Literal["big", "little"]
_LATEST = 10_000_000  # samples from the first lead's first to another's
_SAID = {  # what ecgdatakit warns of → finding
    "CRC": "bad-checksum",
    "default of 1000 Hz": "assumed-1000-hz",
    "shorter than the frame": "truncated",
    "with no waveform data": "truncated",
    "redefine the channels": "other-frames-left-out",
    "without a gap": "pauses-left-out",
    "(long-term rhythm data)": "long-term-part-left-out",
    "median beats": "",
    "no signal resolution": "",  # no-unit says so
    "left unscaled": "",
}


@dataclass(frozen=True)
class _Held:
    """A file: its channels, each from the first sample of the earliest on, and what was noticed."""

    channels: tuple[Channel, ...]
    samples: list[np.ndarray]  # (N,) float64, NaN where missing
    findings: tuple[str, ...]
    subject: str | None
    site: str | None
    labels: dict[str, Scalar]


def headings(path: Path, settings: Settings) -> Iterator[Heading | Flaw]:
    """The one recording of a file; an averaged beat beside it is left out."""
    held = _held(path)
    fs = max(channel.fs for channel in held.channels)
    findings = list(held.findings)
    if settings.fs is not None and abs(settings.fs / fs - 1) > 0.02:
        findings.append("fs-mismatch")
    lengths = [
        len(row) / channel.fs for channel, row in zip(held.channels, held.samples, strict=True)
    ]
    if max(lengths) - min(lengths) > 1 / min(channel.fs for channel in held.channels):
        findings.append("unequal-lengths")
    yield Heading(
        "",
        _PARSERS[path.suffix.lower()][2],
        held.channels,
        fs,
        max(lengths),
        subject=held.subject,
        site=held.site,
        findings=tuple(findings),
        labels=held.labels,
    )


def read(path: Path, part: str, settings: Settings, span: Span | None = None) -> Recording:
    """Its samples; a lead that begins later or ends earlier than others is NaN there."""
    held = _held(path)
    seconds = max(
        len(row) / channel.fs for channel, row in zip(held.channels, held.samples, strict=True)
    )
    rows = []
    for channel, row in zip(held.channels, held.samples, strict=True):
        length = round(seconds * channel.fs)
        whole = np.pad(row, (0, max(length - len(row), 0)), constant_values=np.nan)
        first, last = bounds(span, channel.fs, length)
        rows.append(kept(whole[first:last]))
    return Recording(held.channels, rows)


def _held(path: Path) -> _Held:
    record, said = _parsed(path)
    leads: Sequence[Lead] = record.leads
    findings = list(dict.fromkeys(finding for finding in map(_finding, said) if finding))
    if not leads and record.median_beats:
        leads, findings = record.median_beats, [*findings, "derived-waveform"]
    elif record.median_beats:
        findings.append("averaged-beat-left-out")
    if not leads:
        raise BadSignal("no-signals", "the file describes no waveform")
    starts = [int(lead.annotations.get("start_sample", 1)) for lead in leads]
    late = [start - min(starts) for start in starts]
    if max(late) > _LATEST:
        raise BadSignal("bad-header", "a lead begins long after the others")
    if any(late):
        findings.append("leads-not-simultaneous")
    channels, samples = [], []
    for lead, fs, wait in zip(leads, _rates(record, leads), late, strict=True):
        values, unit = _physical(lead)
        channels.append(Channel(_FULL.get(lead.label, lead.label), unit, fs))
        samples.append(np.concatenate([np.full(wait, np.nan), values]))
    if not any(np.isfinite(row).any() for row in samples):
        raise BadSignal("no-samples", "the leads of the file hold no sample")
    patient = record.patient
    who = person(patient.patient_id) or person(f"{patient.last_name} {patient.first_name}")
    age = age_of(str(patient.age)) if patient.age else None  # 0 is what blanks are read as
    site = person(record.recording.device.institution)
    labels = of_person(patient.sex or "", age)
    return _Held(tuple(channels), samples, tuple(findings), who, site, labels)


def _parsed(path: Path) -> tuple[ECGRecord, list[str]]:
    """The file as ecgdatakit reads it, and what it warned of."""
    module, name, form = _PARSERS[path.suffix.lower()]
    try:
        parser: Any = getattr(import_module(f"ecgdatakit.parsing.parsers.{module}"), name)()
    except ImportError:
        raise BadSignal(
            "needs-a-package", f"{form} files need ecgdatakit: pip install 'medcl[signals]'"
        ) from None
    if path.stat().st_size > _MOST_BYTES:
        raise BadSignal("too-large", f"a file of over {_MOST_BYTES >> 20} MB is not read")
    if form == "Philips XML":
        _bounded_philips(path)
    elif form == "MFER":
        _bounded_mfer(path.read_bytes())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            record: ECGRecord = parser.parse(path)
        except Exception as error:  # its own kinds, and others for a damaged file
            raise _damaged(error, form) from None
    return record, [str(warning.message) for warning in caught]


def _damaged(error: Exception, form: str) -> BadSignal:
    """Says what is wrong in our words: a message of the library may quote the file."""
    from ecgdatakit.exceptions import UnsupportedFormatError

    if isinstance(error, UnsupportedFormatError):
        return BadSignal("unknown-format", f"a variant of {form} that ecgdatakit does not decode")
    return BadSignal(
        "bad-signal", f"the file is cut off, damaged, or no {form} file ({type(error).__name__})"
    )


def _finding(said: str) -> str:
    known = (finding for text, finding in _SAID.items() if text in said)
    return next(known, "inconsistent-header")


def _rates(record: ECGRecord, leads: Sequence[Lead]) -> list[float]:
    """In Hz, exact: ecgdatakit rounds them to whole numbers, and so do those who store µs."""
    exact = record.raw_metadata.get("sampling_rates")
    if isinstance(exact, list) and len(exact) == len(leads) and leads is record.leads:
        return [float(fs) for fs in exact]
    interval = record.raw_metadata.get("rhythm_sample_interval_us")
    rates = []
    for lead in leads:
        fs = float(lead.sampling_rate)
        if interval and (fs < 1 or abs(1e6 / fs - interval) > 1):
            fs = 1e6 / interval
        rates.append(fs)
    return rates


def _physical(lead: Lead) -> tuple[np.ndarray, str]:
    """(N,) in the unit beside it."""
    samples = np.asarray(lead.samples, dtype=np.float64)
    if lead.resolution_unit:
        return samples * lead.resolution + lead.offset, lead.resolution_unit
    if lead.adc_resolution and lead.adc_resolution_unit:  # no voltage: it is left to the reader
        counts = samples + float(lead.annotations.get("offset_counts", 0.0))
        return counts * lead.adc_resolution, lead.adc_resolution_unit
    return samples, "adu"


def _bounded_philips(path: Path) -> None:
    """Refuses unsafe XML, and compressed leads far larger than any ECG's.

    Raises:
        BadSignal: if it is so.
    """
    for waveforms in tree(path, ROOT).iter("parsedwaveforms"):
        how = waveforms.get("compressmethod") or waveforms.get("compression") or ""
        if how in ("", "Uncompressed"):
            continue
        try:
            packed = binascii.a2b_base64("".join((waveforms.text or "").split()))
        except ValueError:
            raise BadSignal("bad-signal", "the samples of the file are no base64") from None
        at, large = 0, len(packed) > _MOST_XLI
        while at < len(packed) and not large:  # each lead: its size, 4 bytes, its data
            size = int.from_bytes(packed[at : at + 4], "little")
            large = size > _MOST_CHUNK
            at += 8 + size
        if large:
            raise BadSignal("too-large", "a compressed lead is larger than any ECG's: not read")


def _bounded_mfer(data: bytes, *, order: _Order = "big", depth: int = 0) -> None:
    """Refuses a number of channels that would fill the memory before a sample is read.

    Raises:
        BadSignal: if it is so, or the definitions do not fit into the file.
    """
    at = 0
    while at < len(data):
        tag, at = data[at], at + 1
        if tag == 0x80:  # end
            return
        if tag == 0:
            continue
        if tag == 0x3F:  # of one channel: its number, 7 bits a byte
            while at < len(data) and data[at] & 0x80:
                at += 1
            at += 1
        if at >= len(data):
            raise BadSignal("truncated", "the file ends within a definition")
        length, at = data[at], at + 1
        if length == 0x80:  # until an end mark: what is in it follows as if it were by itself
            continue
        if length > 0x80:
            width = length & 0x7F
            length, at = int.from_bytes(data[at : at + width], "big"), at + width
        value = data[at : at + length] if length <= 4 or tag in (0x3F, 0x67) else b""
        if tag == 0x01:
            order = "little" if value[:1] == b"\1" else "big"
        elif tag == 0x05 and int.from_bytes(value, order) > _MOST_CHANNELS:
            raise BadSignal("bad-header", "the file claims thousands of channels")
        elif tag in (0x3F, 0x67) and depth < _DEEPEST:
            _bounded_mfer(value, order=order, depth=depth + 1)
        at += length
