"""A recording's heading → its row in the index, or the reason why it cannot be used."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from medcl.plugin import Record, Reject, Scalar, file_of
from medcl_biosignals.naming import NUMERIC, meant
from medcl_biosignals.persons import BY_FOLDER, UNKNOWN, person, recorded
from medcl_biosignals.readers.contract import Heading, Settings
from medcl_biosignals.readers.measures import dimension, factor, known_unit
from medcl_biosignals.readers.preamble import stem_of
from medcl_biosignals.sidecar import NotUnderstood, beside, table_spans
from medcl_biosignals.vocabulary import Vocabulary, together, vocabulary

_NAMING = (
    "EDF", "BDF", "DICOM", "aECG", "GE MUSE", "SCP-ECG", "Philips XML", "MFER", "ISHNE", "GDF",
    "FIF",
)  # fmt: skip
"""Formats that have a place for the person: where it holds a placeholder, that is a finding."""


class Sides(NamedTuple):
    """The tables of events and stages beside a recording: the archive, and their paths in it."""

    root: Path
    files: Sequence[str]


_SECONDS = 1.0  # shorter recordings hold no heart beat


def row(
    key: str,
    files: tuple[str, ...],
    heading: Heading,
    settings: Settings,
    *,
    labels: Mapping[str, Scalar] | None = None,
    findings: tuple[str, ...] = (),
    annotated: bool = False,
    sides: Sides | None = None,
) -> Record | Reject:
    """The row of one recording, and of what lies beside it.

    Its patient is who the user's ``subject`` column says, else the folder named after a person,
    else whom the file names, else the recording itself with the finding `UNKNOWN`.
    """
    rates = [channel.fs for channel in heading.channels]
    fs, frames = heading.fs, round(heading.seconds * heading.fs)
    if heading.seconds < _SECONDS:
        return Reject(key, "too-short", f"{frames} samples at {fs:g} Hz: under one second")
    if sides is not None and sides.files:
        files = (*files, *sides.files)
        unread = _unread(sides, heading.seconds)
        findings = (*findings, *(["unreadable-annotations"] if unread else []))
        annotated = annotated or unread < len(sides.files)
    known = vocabulary(settings.vocabulary)
    names = together([channel.name for channel in heading.channels])
    units = [known_unit(channel.units) for channel in heading.channels]
    channels = [
        meant(name, known, unit=unit, fs=channel.pace)
        for name, unit, channel in zip(names, units, heading.channels, strict=True)
    ]
    leads, kinds = [c.shown for c in channels], [c.kind for c in channels]
    noticed = [*heading.findings, *findings, *_scales(kinds, units, known)]
    noticed += [finding for channel in channels for finding in channel.findings]
    if "other" in kinds:
        noticed.append("unknown-channel")
    if all(kind == NUMERIC for kind in kinds):
        noticed.append("no-waveform")
    fields: dict[str, Scalar] = {
        "format": heading.format,
        "fs": fs,
        "rates": ",".join(f"{rate:g}" for rate in rates) if len(set(rates)) > 1 else None,
        "channels": len(heading.channels),
        "leads": ",".join(leads),
        "kinds": ",".join(kinds),
        "units": ",".join(unit or "unknown" for unit in units),
        "samples": frames,
        "seconds": round(heading.seconds, 3),
        "segments": heading.segments,
        "annotated": annotated,
    }
    path = PurePosixPath(file_of(files[0]))
    folder = path.parent
    patient = heading.subject if settings.subject else None
    named = person(folder)
    if patient is None and named is not None:
        patient = named
        if heading.subject is None and heading.format.startswith(_NAMING):
            noticed.append(BY_FOLDER)
    patient = patient or heading.subject
    if patient is None:
        patient = recorded(folder, stem_of(path.name), fs, leads, heading.session)
        several = heading.session is None and not heading.format.startswith(_NAMING)
        if heading.part and several:  # those of a cart or a monitor are of one person
            patient += f"#{heading.part}"
        noticed.append(UNKNOWN)
    told = {**heading.labels, **(labels or {})}
    noticed = list(dict.fromkeys(noticed))
    return Record(key, files, patient, heading.site, fields, told, tuple(noticed))


def _unread(sides: Sides, seconds: float) -> int:
    """How many of the tables beside a recording are not understood."""
    count = 0
    for file in sides.files:
        try:
            if beside(file) is not None:  # a hypnogram in EDF is read when it is prepared
                table_spans(sides.root / file, seconds)
        except (NotUnderstood, OSError):
            count += 1
    return count


def _scales(kinds: list[str], units: list[str], known: Vocabulary) -> list[str]:
    """Whether channels of one kind differ in their unit, lack one, or have one that is not
    understood, or that does not convert to that of the kind (skin resistance to conductance)."""
    found: dict[str, set[str]] = defaultdict(set)
    for kind, unit in zip(kinds, units, strict=True):
        if kind not in ("other", NUMERIC):
            found[kind].add(unit)
    noticed = ["mixed-units"] if any(len(units) > 1 for units in found.values()) else []
    if "other" in units:
        noticed.append("unknown-unit")
    bare = {"", *(unit for unit in units if dimension(unit) == "arbitrary")}
    if any(bare & units and known.units.get(kind) for kind, units in found.items()):
        noticed.append("no-unit")
    if any(
        unit not in (*bare, "other")
        and known.units.get(kind)
        and not factor(unit, known.units[kind])
        for kind, units in found.items()
        for unit in units
    ):
        noticed.append("unit-not-converted")
    return noticed
