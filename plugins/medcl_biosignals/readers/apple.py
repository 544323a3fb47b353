"""The CSV of an electrocardiogram from Apple Health: a few named facts, then one value a line.

The facts are in the language of the phone, and name the person: they are told apart by position and
by their values (a rate "512 Hertz", a unit), and the person leaves this module only to be hashed.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

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
from medcl_biosignals.readers.measures import dimension, known_unit

_RATE = re.compile(r"(\d+(?:[.,]\d+)?)\s*(?:hertz|hz)\b", re.IGNORECASE)
_VALUE = re.compile(r"[+-]?\d+(?:[.,]\d+)?(?:e[+-]?\d+)?", re.IGNORECASE)
_MOST_FACTS = 40  # lines


def is_apple(head: bytes) -> bool:
    """Whether a file begins like one: named facts, among them a rate and a unit of voltage, then
    one
    value a line. A table of other columns may have a rate above it too."""
    if not re.search(rb"hertz|hz", head, re.IGNORECASE):  # most tables: the rest costs more
        return False
    rate = unit = False
    for line in head.decode("utf-8", "replace").splitlines()[:_MOST_FACTS]:
        cells = next(csv.reader([line]), [])
        if _VALUE.fullmatch(line.strip().strip('"')):
            return rate and unit
        if len(cells) > 2 and not any(map(_RATE.search, cells)) and all(cells):
            return False
        rate = rate or (len(cells) > 1 and _RATE.search(",".join(cells[1:])) is not None)
        unit = unit or (len(cells) > 1 and dimension(known_unit(cells[1])) == "voltage")
    return rate and unit


def headings(path: Path, settings: Settings) -> Iterator[Heading | Flaw]:
    """The one recording in the file."""
    fs, channel, who, values = _parse(path)
    findings = ("fs-mismatch",) if settings.fs is not None and settings.fs != fs else ()
    # Of an export that names nobody, all ECGs are of one person.
    session = "" if who is None and path.parent.name == "electrocardiograms" else None
    yield Heading(
        "", "Apple Health", (channel,), fs, len(values) / fs, subject=who, findings=findings,
        session=session,
    )  # fmt: skip


def subject(path: Path) -> str | None:
    """Whom a file names."""
    return _parse(path)[2]


def read(path: Path, part: str, settings: Settings, span: Span | None = None) -> Recording:
    """Its samples."""
    fs, channel, _, values = _parse(path)
    first, last = bounds(span, fs, len(values))
    return Recording((channel,), [values[first:last]])


def _parse(path: Path) -> tuple[float, Channel, str | None, np.ndarray]:
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as handle:
        rows = [[cell.strip() for cell in row] for row in csv.reader(handle)]
    facts: list[list[str]] = []
    body = len(rows)
    for n, row in enumerate(rows):
        if len(row) >= 2 and row[1] and not _VALUE.fullmatch(row[0]):
            facts.append(row)
        elif row and _VALUE.fullmatch(_joined(row)):
            body = n
            break
    rate = next((m for fact in facts for m in [_RATE.search(",".join(fact[1:]))] if m), None)
    if rate is None:
        raise BadSignal("no-sampling-rate", "an Apple Health ECG that gives no sampling rate")
    fs = float(rate[1].replace(",", "."))
    if not 0 < fs < 1e5:
        raise BadSignal("bad-sampling-rate", f"the file gives a sampling rate of {fs:g} Hz")
    unit = next((u for fact in facts for u in [known_unit(fact[1])] if u not in ("", "other")), "")
    lead = next((fact[1] for fact in facts if "lead" in fact[0].lower()), "Lead I")
    who = person(" ".join(" ".join(fact[1:]) for fact in facts[:2]))  # name, date of birth
    try:
        values = np.array([float(_joined(row).replace(",", ".")) for row in rows[body:] if row])
    except ValueError:
        raise BadSignal("bad-signal", "a line among the samples is no number") from None
    if not len(values):
        raise BadSignal("no-samples", "the file ends before its first sample")
    return fs, Channel(lead, unit, fs), who, kept(values)


def _joined(row: list[str]) -> str:
    """A line as one number: 0,5 without quotes comes as two cells."""
    return ",".join(row[:2]) if len(row) > 1 and row[1] else row[0]
