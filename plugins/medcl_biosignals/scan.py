"""The files of a WFDB record → one row of technical facts, or the reason why it cannot be used."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from medcl.plugin import Record, Reject, Scalar, Unit
from medcl_biosignals.aami import CLASSES, beats
from medcl_biosignals.header import BadHeader, Header, known_unit, read_header, stored_frames
from medcl_biosignals.leads import shown
from medcl_biosignals.units import HEADER, SIGNALS

ANNOTATIONS = (".atr",)
# No bare s123: that is a study in MIMIC-IV, a session elsewhere. p1000 and p00 only group people.
_PERSON = re.compile(r"(patient|subject|subj|sub)[-_]?\d+|sub-\w+|p\d{5,}", re.IGNORECASE)
_VERSION = re.compile(r"_(lr|hr)$")  # PTB-XL: one recording at two sampling rates
_RATE = re.compile(r"records\d+")  # in folders of these names
_SECONDS = 1.0  # shorter recordings hold no heart beat


def scan(root: Path, unit: Unit) -> Iterator[Record | Reject]:
    """Read the headers of a unit; check what they claim; never decode a signal.

    Patients are folders where those are named after a person (``patient001``, ``p000020``), else
    the record itself, with the finding ``patient-is-record-name``. Comments, dates and times of a
    header are never read, and no name in it is quoted: they identify people.
    """
    files = [file.path for file in unit.files]
    headers: dict[str, Header] = {}
    for path in (file for file in files if file.endswith(HEADER)):
        key = path.removesuffix(HEADER)
        try:
            headers[key] = read_header(root / path)
        except BadHeader as error:
            yield Reject(key, error.code, str(error))
    segments = {
        str(PurePosixPath(key).parent / name)
        for key, header in headers.items()
        for name, _ in header.segments
    }
    used = {
        str(PurePosixPath(key).parent / channel.file)
        for key, header in headers.items()
        for channel in header.channels
    }
    for key, header in headers.items():
        if key not in segments:
            yield _row(root, key, header)
    known = {file.removesuffix(HEADER) for file in files if file.endswith(HEADER)}
    for path in files:
        if path.endswith(SIGNALS) and path not in used:
            key = str(PurePosixPath(path).with_suffix(""))
            if key not in known:
                reason = "a signal file has no header (.hea) that names it"
                yield Reject(key, "missing-header", reason)


def _row(root: Path, key: str, header: Header) -> Record | Reject:
    folder = PurePosixPath(key).parent
    try:
        channels, frames, files = _contents(root, key, header)
    except BadHeader as error:
        return Reject(key, error.code, str(error))
    seconds = frames / header.fs
    if seconds < _SECONDS:
        return Reject(key, "too-short", f"{frames} samples at {header.fs:g} Hz: under one second")
    annotation = next((f"{key}{s}" for s in ANNOTATIONS if (root / f"{key}{s}").is_file()), None)
    findings = [] if header.fs_given else ["assumed-250-hz"]
    labels: dict[str, Scalar] = {}
    if annotation is not None:
        try:
            labels = _labels(root / annotation)
            files.append(annotation)
        except Exception:  # wfdb raises what it likes on a broken file; the signal is still good
            findings.append("unreadable-annotations")
            annotation = None
    leads = [shown(channel.name) for channel in channels]
    fields: dict[str, Scalar] = {
        "format": "+".join(sorted({channel.format for channel in channels})),
        "fs": header.fs,
        "channels": len(channels),
        "leads": ",".join(leads),
        "units": ",".join(known_unit(channel.units) for channel in channels),
        "samples": frames,
        "seconds": round(seconds, 3),
        "segments": len(header.segments),
        "annotated": annotation is not None,
    }
    patient = _person(folder)
    if patient is None:
        patient = _recorded(folder, PurePosixPath(key).name, header.fs, leads)
        findings.append("patient-is-record-name")
    return Record(key, tuple(files), patient, None, fields, labels, tuple(findings))


def _contents(root: Path, key: str, header: Header) -> tuple[tuple, int, list[str]]:
    """Channels, frames and files of a record, those of its segments included."""
    folder = PurePosixPath(key).parent
    files = [f"{key}{HEADER}"]
    if not header.segments:
        frames = stored_frames(header, root / folder)
        return header.channels, frames, files + _signal_files(folder, header)
    channels: dict[str, object] = {}
    held = 0
    for name, length in header.segments:
        held += length
        if name == "~":  # a pause between segments
            continue
        path = str(folder / f"{name}{HEADER}")
        if not (root / path).is_file():
            raise BadHeader("missing-segment", "a segment header that the record names is missing")
        segment = read_header(root / path)
        for channel in segment.channels:
            channels.setdefault(channel.name, channel)
        files.append(path)
        if length == 0:  # the layout header: names every channel, holds no sample
            continue
        if segment.frames is not None and segment.frames < length:
            raise BadHeader("truncated", "a segment is shorter than the master header says")
        stored_frames(segment, root / folder)
        files += _signal_files(folder, segment)
    frames = header.frames if header.frames is not None else held
    if frames > held:
        raise BadHeader("truncated", f"{frames} samples are claimed; the segments hold {held}")
    return tuple(channels.values()), frames, files


def _signal_files(folder: PurePosixPath, header: Header) -> list[str]:
    return sorted({str(folder / channel.file) for channel in header.channels})


def _labels(annotation: Path) -> dict[str, Scalar]:
    """Beats by class, and which ectopic beats make one in a hundred or more."""
    _, classes, paced = beats(annotation)
    count = Counter(classes.tolist())
    labels: dict[str, Scalar] = {f"beats_{c}": count[i] for i, c in enumerate(CLASSES)}
    often = [c for i, c in enumerate(CLASSES) if c in "SV" and count[i] >= 0.01 * len(classes) > 0]
    return labels | {"paced": paced, "ectopy": "".join(often) or "none"}


def _person(folder: PurePosixPath) -> str | None:
    """The deepest folder that is named after a person: a site or cohort may be above it."""
    return next((part for part in reversed(folder.parts) if _PERSON.fullmatch(part)), None)


def _recorded(folder: PurePosixPath, name: str, fs: float, leads: list[str]) -> str:
    """The record in place of a person: with its folder, for two people may have a ``visit1``."""
    if name in ("201", "202") and fs == 360 and leads == ["MLII", "V1"]:
        return "201"  # MIT-BIH 201 and 202 are the same man (Moody & Mark 2001)
    if _VERSION.search(name):
        name = _VERSION.sub("", name)
        folder = PurePosixPath(*(part for part in folder.parts if not _RATE.fullmatch(part)))
    return str(folder / name)
