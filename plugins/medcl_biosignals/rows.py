"""A recording's heading → its row in the index, or the reason why it cannot be used."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import PurePosixPath

from medcl.plugin import Record, Reject, Scalar, file_of
from medcl_biosignals.leads import canonical, shown
from medcl_biosignals.persons import UNKNOWN, person, recorded
from medcl_biosignals.readers.contract import Heading, Settings
from medcl_biosignals.readers.measures import known_unit
from medcl_biosignals.vocabulary import camera, vocabulary

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
) -> Record | Reject:
    """The row of one recording.

    Its patient is who the user's ``subject`` column says, else the folder named after a person,
    else whom the file names, else the recording itself with the finding `UNKNOWN`.
    """
    rates = [channel.fs for channel in heading.channels]
    fs, frames = heading.fs, round(heading.seconds * heading.fs)
    if heading.seconds < _SECONDS:
        return Reject(key, "too-short", f"{frames} samples at {fs:g} Hz: under one second")
    known = vocabulary(settings.vocabulary)
    names = camera([channel.name for channel in heading.channels])
    leads = [shown(name, known) for name in names]
    units = [known_unit(channel.units) for channel in heading.channels]
    kinds = [known.kind(canonical(n, known), u) for n, u in zip(names, units, strict=True)]
    noticed = [*heading.findings, *findings, *_mixed(kinds, units)]
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
    patient = patient or person(folder) or heading.subject
    if patient is None:
        patient = recorded(folder, path.stem, fs, leads)
        patient += f"#{heading.part}" if heading.part else ""
        noticed.append(UNKNOWN)
    told = {**heading.labels, **(labels or {})}
    return Record(key, files, patient, heading.site, fields, told, tuple(noticed))


def _mixed(kinds: list[str], units: list[str]) -> list[str]:
    """Whether channels of one kind differ in their unit."""
    found: dict[str, set[str]] = defaultdict(set)
    for kind, unit in zip(kinds, units, strict=True):
        if kind not in ("other", "numeric"):
            found[kind].add(unit)
    return ["mixed-units"] if any(len(units) > 1 for units in found.values()) else []
