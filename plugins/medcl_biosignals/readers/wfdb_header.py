"""WFDB headers, read as claims to be checked against the files, before any array is made."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path

from medcl.plugin import Scalar
from medcl_biosignals.readers.contract import BadSignal
from medcl_biosignals.readers.header_labels import labels_of

MAX_HEADER_BYTES = 1 << 20
_BYTES = {
    "8": 1.0, "16": 2.0, "24": 3.0, "32": 4.0, "61": 2.0, "80": 1.0, "160": 2.0,
    "212": 1.5, "310": 4 / 3, "311": 4 / 3,
}  # fmt: skip
FLAC = frozenset({"508", "516", "524"})
_DEFAULT_FS = 250.0  # what the WFDB specification says where a header gives none

# Lines as header(5) of the WFDB manual defines them, as lenient as `wfdb.io.header`. They agree
# with it (tested), but it is not imported: it would bring pandas into every indexing worker.
_RECORD = re.compile(
    r"""
    (?P<record_name>[-\w\udc80-\udcff]+) /?(?P<n_seg>\d*)
    [ \t]+ (?P<n_sig>\d+)
    [ \t]* (?P<fs>\d*\.?\d*) /* -?\d*\.?\d* \(? -?\d*\.?\d* \)?  # counter's rate and start
    [ \t]* (?P<sig_len>\d*)
    """,
    re.VERBOSE,
)
_SIGNAL = re.compile(
    r"""
    (?P<file_name>~?[-\w\udc80-\udcff]*\.?\w*)
    [ \t]+ (?P<fmt>\d+) x?(?P<samps_per_frame>\d*) :?\d* \+?(?P<byte_offset>\d*)  # :skew
    [ \t]* -?\d*\.?\d*e?[+-]?\d* \(?-?\d*\)? /?(?P<units>[\w^\-?%/]*)  # gain(baseline)
    [ \t]* \d* [ \t]* -?\d* [ \t]* -?\d* [ \t]* -?\d* [ \t]* \d*  # of the converter; checks
    [ \t]* (?P<sig_name>[\S]?[^\t\n\r\f\v]*)
    """,
    re.VERBOSE,
)
_SEGMENT = re.compile(r"(?P<seg_name>[-\w\udc80-\udcff]*~?)[ \t]+(?P<seg_len>\d+)")


@dataclass(frozen=True)
class Channel:
    """One signal line."""

    file: str
    format: str
    per_frame: int
    offset: int
    units: str
    name: str


@dataclass(frozen=True)
class Header:
    """What a header says, less everything that could identify a person.

    ``frames`` is None where the header leaves the length out; ``segments`` is empty but for a
    multi-segment (master) header, which has no channels of its own. Of the comments there is what
    `medcl_biosignals.readers.header_labels` knows.
    """

    name: str
    fs: float
    fs_given: bool
    frames: int | None
    channels: tuple[Channel, ...]
    segments: tuple[tuple[str, int], ...] = ()
    labels: Mapping[str, Scalar] = field(default_factory=dict)
    clock: float | None = None


def read_header(path: Path) -> Header:
    """Parse a header file.

    Raises:
        BadSignal: if it is not a WFDB header, or claims what cannot be.
    """
    with path.open("rb") as handle:
        raw = handle.read(MAX_HEADER_BYTES + 1)
    if not raw.strip():
        raise BadSignal("empty-header", "the header file is empty")
    if len(raw) > MAX_HEADER_BYTES or b"\0" in raw:
        raise BadSignal("not-wfdb", "the .hea file is no WFDB header (binary or over 1 MB)")
    text = [line.strip() for line in raw.decode("utf-8", errors="surrogateescape").splitlines()]
    lines = [line for line in text if line and not line.startswith("#")]
    labels = labels_of(line.lstrip("# ") for line in text if line.startswith("#"))
    first = _RECORD.match(lines[0]) if lines else None
    if first is None:
        raise BadSignal("not-wfdb", "the first line of the .hea file is no WFDB record line")
    try:
        frames = int(first["sig_len"]) if first["sig_len"] else None
        fs = float(first["fs"]) if first["fs"] else _DEFAULT_FS
        n_channels = int(first["n_sig"])
        if first["n_seg"]:
            parts = [_match(_SEGMENT, line) for line in lines[1:]]
            segments = tuple((part["seg_name"], int(part["seg_len"])) for part in parts)
            channels: tuple[Channel, ...] = ()
        else:
            segments = ()
            channels = tuple(_channel(_match(_SIGNAL, line)) for line in lines[1 : n_channels + 1])
    except ValueError:
        raise BadSignal("not-wfdb", "a number in the header cannot be read") from None
    if fs <= 0:
        raise BadSignal("bad-sampling-rate", f"the header gives a sampling rate of {fs:g} Hz")
    if not segments and len(channels) < n_channels:
        raise BadSignal(
            "bad-header", f"{n_channels} signals are announced but {len(channels)} described"
        )
    if n_channels == 0:
        raise BadSignal("no-signals", "the header describes no signal")
    clock = _clock(lines[0][first.end() :])
    given = bool(first["fs"])
    return Header(first["record_name"], fs, given, frames, channels, segments, labels, clock)


def _clock(rest: str) -> float | None:
    """Seconds since midnight of the time in a record line, 22:30:00.5; None for what is none."""
    found = re.match(r"\s*([01]?\d|2[0-3]):([0-5]\d):([0-5]\d(?:\.\d+)?)(?=\s|$)", rest)
    return int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3]) if found else None


def undated(text: str) -> str:
    """A header without the time and date in its record line."""
    lines = text.splitlines()
    for n, line in enumerate(lines):
        if line.strip() and not line.lstrip().startswith("#"):
            match = _RECORD.match(line.strip())
            lines[n] = match[0].rstrip() if match else line
            break
    return "\n".join(lines) + "\n"


def _match(pattern: re.Pattern[str], line: str) -> Mapping[str, str]:
    found = pattern.match(line)
    if found is None:
        raise BadSignal("bad-header", "a signal or segment line of the header is malformed")
    return dict(found.groupdict())


def _channel(line: Mapping[str, str]) -> Channel:
    return Channel(
        file=line["file_name"],
        format=line["fmt"],
        per_frame=int(line["samps_per_frame"] or 1),
        offset=int(line["byte_offset"] or 0),
        units=line["units"] or "mV",
        name=line["sig_name"].strip().encode("utf-8", "surrogateescape").decode("utf-8", "replace"),
    )


def stored_frames(header: Header, folder: Path) -> int:
    """How many frames all signal files hold, as far as that can be told without decoding.

    Raises:
        BadSignal: if a file is missing, empty, of an unknown format, or shorter than the header
            claims. Nothing is allocated from a claim.
    """
    files: dict[str, list[Channel]] = {}
    for channel in header.channels:
        files.setdefault(channel.file, []).append(channel)
    frames = [_check_file(folder / file, header.frames, group) for file, group in files.items()]
    return min(frames)


def _check_file(path: Path, claimed: int | None, group: list[Channel]) -> int:
    fmt, offset = group[0].format, group[0].offset
    if any((channel.format, channel.offset) != (fmt, offset) for channel in group):
        raise BadSignal("bad-header", "the signals of one file differ in format or offset")
    if fmt not in _BYTES and fmt not in FLAC:
        raise BadSignal("unknown-format", f"WFDB format {fmt} is not one that can be read")
    if not path.is_file():
        raise BadSignal("missing-signal", "a signal file that the header names is missing")
    size = path.stat().st_size
    if size == 0:
        raise BadSignal("empty-signal", "a signal file that the header names is empty")
    if fmt in FLAC:
        return _check_flac(path, claimed, group)
    per_frame = sum(channel.per_frame for channel in group)
    held = int((size - offset) / (_BYTES[fmt] * per_frame))
    if claimed is not None and size < offset + ceil(claimed * per_frame * _BYTES[fmt]):
        raise _short(claimed, max(held, 0))
    return held


def _check_flac(path: Path, claimed: int | None, group: list[Channel]) -> int:
    """The stream's own frame count, tried by decoding its very last frame."""
    import soundfile

    try:
        with path.open("rb") as handle, soundfile.SoundFile(handle) as stream:
            held = stream.frames // group[0].per_frame - group[0].offset
            channels = stream.channels
            last = (claimed if claimed is not None and claimed <= held else held) - 1
            stream.seek(max((last + group[0].offset) * group[0].per_frame, 0))
            whole = len(stream.read(1, dtype="int32")) == 1
    except (soundfile.LibsndfileError, ValueError, RuntimeError):
        raise BadSignal(
            "bad-signal", "a signal file is no FLAC stream, or is cut off or damaged"
        ) from None
    if channels != len(group):
        raise BadSignal(
            "bad-header", f"a signal file holds {channels} channels, the header says {len(group)}"
        )
    if claimed is not None and claimed > held:
        raise _short(claimed, held)
    if not whole:
        raise BadSignal("truncated", "a signal file ends before its last sample")
    return held


def _short(claimed: int, held: int) -> BadSignal:
    return BadSignal(
        "truncated",
        f"a signal file holds {held} samples a channel but the header claims {claimed}: "
        "the file is cut off or the header wrong",
    )


def span(header: Header, file: str) -> tuple[float, float]:
    """The first byte of a record in a signal file, and the one behind its last.

    A compressed file, or a record of unknown length, counts as a whole.
    """
    channels = [channel for channel in header.channels if channel.file == file]
    first = min(channel.offset for channel in channels)
    if header.frames is None or any(channel.format in FLAC for channel in channels):
        return 0.0, float("inf")
    each = sum(channel.per_frame * _BYTES.get(channel.format, 2.0) for channel in channels)
    return float(first), first + header.frames * each
