"""WFDB records: all formats that the wfdb package reads, whole or in segments, at several rates."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medcl.io import scratch
from medcl_biosignals.readers import contract
from medcl_biosignals.readers.contract import BadSignal, Flaw, Heading, Recording, Settings, Span
from medcl_biosignals.readers.wfdb_header import (
    Channel,
    Header,
    read_header,
    stored_frames,
    undated,
)

HEADER = ".hea"
_WIDE = frozenset(("24", "32", "524"))  # formats of more bits than a float32 has


@dataclass(frozen=True)
class Contents:
    """A record with its segments: its signal lines, its frames, and the files it is made of.

    ``longer``: whether those hold a second or more beyond what the header lets be read.
    """

    channels: tuple[Channel, ...]
    frames: int
    files: tuple[str, ...]
    longer: bool = False


def headings(path: Path, settings: Settings) -> Iterator[Heading | Flaw]:
    """The record of a header file."""
    header = read_header(path)
    yield heading(header, contents(path, header), settings)


def heading(header: Header, made: Contents, settings: Settings) -> Heading:
    """What the index needs to know of a record."""
    fs = header.fs if header.fs_given or settings.fs is None else settings.fs
    findings: tuple[str, ...] = ()
    if not header.fs_given and settings.fs is None:
        findings = ("assumed-250-hz",)
    elif header.fs_given and settings.fs is not None and settings.fs != header.fs:
        findings = ("fs-mismatch",)  # the header's own counts
    if made.longer:
        findings = (*findings, "longer-than-header")
    return Heading(
        part="",
        format="+".join(sorted({channel.format for channel in made.channels})),
        channels=tuple(
            contract.Channel(line.name, line.units, fs * line.per_frame) for line in made.channels
        ),
        fs=fs,
        seconds=made.frames / fs,
        findings=findings,
        segments=len(header.segments),
        labels=header.labels,
    )


def contents(path: Path, header: Header) -> Contents:
    """What a record holds, its segments included; nothing is decoded.

    Args:
        path: its header file.
        header: that, read.

    Raises:
        BadSignal: if a file is missing, or shorter than is claimed.
    """
    folder = path.parent
    if not header.segments:
        stored = stored_frames(header, folder)
        frames = header.frames if header.frames is not None else stored
        longer = stored - frames >= header.fs
        return Contents(header.channels, frames, (path.name, *_signal_files(header)), longer)
    files = [path.name]
    channels: dict[str, Channel] = {}
    held = 0
    for name, length in header.segments:
        held += length
        if name == "~":  # a pause between segments
            continue
        file = f"{name}{HEADER}"
        if not (folder / file).is_file():
            raise BadSignal("missing-segment", "a segment header that the record names is missing")
        segment = read_header(folder / file)
        for channel in segment.channels:
            channels.setdefault(channel.name, channel)
        files.append(file)
        if length == 0:  # the layout header: names every channel, holds no sample
            continue
        if segment.frames is not None and segment.frames < length:
            raise BadSignal("truncated", "a segment is shorter than the master header says")
        stored_frames(segment, folder)
        files += _signal_files(segment)
    frames = header.frames if header.frames is not None else held
    if frames > held:
        raise BadSignal("truncated", f"{frames} samples are claimed; the segments hold {held}")
    return Contents(tuple(channels.values()), frames, tuple(files))


def _signal_files(header: Header) -> list[str]:
    return sorted({channel.file for channel in header.channels})


def read(path: Path, part: str, settings: Settings, span: Span | None = None) -> Recording:
    """Samples in physical units, as `wfdb.rdrecord` gives them; invalid ones are NaN.

    Signals with several samples a frame keep them all, at their own rate.

    Raises:
        BadSignal: if wfdb cannot decode the record.
    """
    header = read_header(path)
    return replace(_read(path, part, header, settings, span), clock=header.clock)


def _read(
    path: Path, part: str, header: Header, settings: Settings, span: Span | None
) -> Recording:
    if span is not None and any(line.format == "8" for line in _lines(path, header)):
        return _cut(read(path, part, settings), span)  # differences: they count from the start
    if header.segments and _fixed(header) and any(name == "~" for name, _ in header.segments):
        return _cut(_joined(path, header, settings), span)  # wfdb cannot join these
    return _decoded(path, header, settings, span)


def _decoded(path: Path, header: Header, settings: Settings, span: Span | None) -> Recording:
    import numpy as np
    import wfdb

    fs = header.fs if header.fs_given or settings.fs is None else settings.fs
    lines = _lines(path, header)
    first, last = 0, None
    if span is not None:
        first, last = contract.bounds(span, fs, contents(path, header).frames)

    def decode(path: Path) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return wfdb.rdrecord(
                str(path.with_suffix("")),
                sampfrom=first,
                sampto=last,
                smooth_frames=all(line.per_frame == 1 for line in lines),
                return_res=64 if any(line.format in _WIDE for line in lines) else 32,
            )

    try:
        try:
            record = decode(path)
        except Exception:
            with _undated(path, header) as plain:
                if plain is None:
                    raise
                record = decode(plain)
    except Exception as error:  # wfdb raises many kinds, often without a message
        raise BadSignal(
            "bad-signal", f"the signal cannot be decoded ({type(error).__name__})"
        ) from error
    if record.p_signal is not None:
        rows = [contract.kept(row) for row in np.ascontiguousarray(record.p_signal.T)]
        per_frame = [1] * len(rows)
    else:
        rows = [contract.kept(np.asarray(row)) for row in record.e_p_signal]
        per_frame = list(record.samps_per_frame)
    units = record.units or [""] * len(rows)
    return Recording(
        tuple(
            contract.Channel(str(name), str(unit), fs * n)
            for name, unit, n in zip(record.sig_name, units, per_frame, strict=True)
        ),
        rows,
    )


_NO_TEXT = re.compile("[\udc80-\udcff]")
"""Bytes that are no UTF-8, as Python gives them."""


@contextmanager
def _undated(path: Path, header: Header) -> Iterator[Path | None]:
    """A copy of the record's header without what wfdb cannot read there; None if there is nothing.

    Time and date (``12/31/2017``, ``2017-03-01``) are nothing to us, but wfdb gives the whole
    record up for them. Names of files that are no UTF-8 get others.
    """
    import wfdb

    names = dict.fromkeys([path.name, *(f"{n}{HEADER}" for n, _ in header.segments if n != "~")])
    texts = {name: (path.parent / name).read_text("utf-8", "surrogateescape") for name in names}
    bad = any(map(_NO_TEXT.search, texts.values()))
    for name in names:
        try:
            wfdb.rdheader(str((path.parent / name).with_suffix("")))
        except Exception:  # it raises ValueError and others
            bad = True
    if not bad:
        yield None
        return
    with scratch.temporary() as folder:
        for file in path.parent.iterdir():
            (folder / _plain(file.name)).symlink_to(file.absolute())
        for name, text in texts.items():
            (folder / _plain(name)).unlink()
            (folder / _plain(name)).write_text(undated(_plain(text)), encoding="utf-8")
        yield folder / _plain(path.name)


def _plain(text: str) -> str:
    return _NO_TEXT.sub(lambda byte: f"_{ord(byte[0]) & 0xFF:02x}", text)


def _joined(path: Path, header: Header, settings: Settings) -> Recording:
    """The segments of a fixed layout (all have the same channels) with the pauses between them."""
    import numpy as np

    parts = {
        name: read(path.parent / f"{name}{HEADER}", "", settings)
        for name, _ in header.segments
        if name != "~"
    }
    channels = next(iter(parts.values())).channels
    if any(len(part.channels) != len(channels) for part in parts.values()):
        raise BadSignal("bad-header", "the segments of the record differ in their channels")
    samples = []
    parts_of = [
        np.concatenate([part.samples[c][:1] for part in parts.values()])
        for c in range(len(channels))
    ]
    for c, channel in enumerate(channels):
        per_frame = round(channel.fs / header.fs)
        pieces = [
            np.full(length * per_frame, np.nan, dtype=parts_of[c].dtype)
            if name == "~"
            else parts[name].samples[c][: length * per_frame]
            for name, length in header.segments
        ]
        samples.append(np.concatenate(pieces))
    return Recording(channels, samples)


def _fixed(header: Header) -> bool:
    return header.segments[0][1] > 0


def _cut(recording: Recording, span: Span | None) -> Recording:
    samples = []
    for channel, row in zip(recording.channels, recording.samples, strict=True):
        first, last = contract.bounds(span, channel.fs, len(row))
        samples.append(row[first:last])
    return Recording(recording.channels, samples)


def _lines(path: Path, header: Header) -> list[Channel]:
    """The signal lines of a record and of its segments."""
    segments = [
        read_header(path.parent / f"{name}{HEADER}") for name, _ in header.segments if name != "~"
    ]
    return [line for each in (header, *segments) for line in each.channels]
