"""HL7 v3 annotated ECG (aECG, ANSI/HL7 V3 ECG R1-2004), as drug trials and recorders export it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import Element

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
from medcl_biosignals.readers.header_labels import age_at, day_of, of_person
from medcl_biosignals.readers.xml_tree import tree

_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}


def headings(path: Path, settings: Settings) -> Iterator[Heading | Flaw]:
    """Each set of leads in the file: a rhythm strip, perhaps an averaged beat beside it."""
    document = tree(path, "AnnotatedECG")
    who, labels = _subject(document), _labels(document)
    for part, derived, sequences in _sets(document):
        try:
            fs, leads = _leads(sequences)
        except BadSignal as error:
            yield Flaw(part, error.code, str(error))
            continue
        lengths = {len(samples) for _, samples in leads}
        findings = ["derived-waveform"] if derived else []
        if len(lengths) > 1:
            findings.append("unequal-lengths")
        if settings.fs is not None and abs(settings.fs / fs - 1) > 0.02:
            findings.append("fs-mismatch")
        channels = tuple(channel for channel, _ in leads)
        yield Heading(
            part,
            "aECG",
            channels,
            fs,
            max(lengths) / fs,
            subject=who,
            findings=tuple(findings),
            labels=labels,
        )


def read(path: Path, part: str, settings: Settings, span: Span | None = None) -> Recording:
    """The samples of one set; a lead that ends earlier than others is NaN from there."""
    for name, _, sequences in _sets(tree(path, "AnnotatedECG")):
        if name == part:
            fs, leads = _leads(sequences)
            longest = max(len(samples) for _, samples in leads)
            first, last = bounds(span, fs, longest)
            rows = [
                np.pad(samples, (0, longest - len(samples)), constant_values=np.nan)[first:last]
                for _, samples in leads
            ]
            return Recording(tuple(channel for channel, _ in leads), rows)
    raise BadSignal("changed", "the part that was indexed is no longer in the file")


def _sets(document: Element) -> Iterator[tuple[str, bool, list[Element]]]:
    """(part, derived, sequences) of each sequence set."""
    derived = {id(found) for each in document.iter("derivedSeries") for found in each.iter()}
    sets = [
        (id(found) in derived, [s for part in found.findall("component") for s in part])
        for found in document.iter("sequenceSet")
    ]
    if not sets:
        raise BadSignal("no-signals", "the file describes no waveform")
    for n, (is_derived, sequences) in enumerate(sets):
        yield (str(n + 1) if len(sets) > 1 else ""), is_derived, sequences


def _leads(sequences: list[Element]) -> tuple[float, list[tuple[Channel, np.ndarray]]]:
    fs: float | None = None
    lines: list[tuple[str, Element]] = []
    for sequence in sequences:
        code, value = sequence.find("code"), sequence.find("value")
        name = code.get("code", "") if code is not None else ""
        if value is None:
            continue
        if name.startswith("TIME_"):
            step = _quantity(value, "increment", _SECONDS)
            if step <= 0:
                raise BadSignal(
                    "bad-sampling-rate", "the file's time between samples is not positive"
                )
            fs = 1 / step
            fs = float(round(fs)) if abs(fs - round(fs)) < 1e-6 * fs else fs
        elif value.find("digits") is not None:
            lines.append((name, value))
    if fs is None:
        raise BadSignal("no-sampling-rate", "the file gives no time between its samples")
    if not lines:
        raise BadSignal("no-signals", "the file describes no waveform")
    leads = []
    for name, value in lines:
        unit = _attribute(value, "scale", "unit")
        gain, origin = _quantity(value, "scale"), _quantity(value, "origin", missing=0.0)
        try:
            digits = np.array((value.findtext("digits") or "").split(), dtype=np.float64)
        except ValueError:
            raise BadSignal("bad-signal", "the samples of a lead are no numbers") from None
        leads.append((Channel(name, unit, fs), kept(digits * gain + origin)))
    if not any(len(samples) for _, samples in leads):
        raise BadSignal("no-samples", "the leads of the file hold no sample")
    return fs, leads


def _quantity(
    value: Element, name: str, units: dict[str, float] | None = None, missing: float | None = None
) -> float:
    found = value.find(name)
    if found is None and missing is not None:
        return missing
    try:
        number = float(found.get("value", "")) if found is not None else float("nan")
        scale = units[found.get("unit", "")] if units and found is not None else 1.0
    except (ValueError, KeyError):
        number = scale = float("nan")
    if not np.isfinite(number * scale):
        raise BadSignal("bad-header", f"the {name} of a sequence is missing or cannot be read")
    return number * scale


def _attribute(value: Element, name: str, attribute: str) -> str:
    found = value.find(name)
    return found.get(attribute, "") if found is not None else ""


def _subject(document: Element) -> str | None:
    for trial in document.iter("trialSubject"):
        for identifier in trial.findall("id"):
            named = person(identifier.get("extension"))
            if named is not None:
                return named
    return None


def _labels(document: Element) -> dict[str, Scalar]:
    """Sex, and age at the recording; the dates themselves are not kept."""
    who = next(document.iter("subjectDemographicPerson"), None)
    when = document.find("effectiveTime")
    if who is None:
        return {}
    born = day_of(_attribute(who, "birthTime", "value"))
    times = [] if when is None else [_attribute(when, n, "value") for n in ("low", "center")]
    recorded = next((day for day in map(day_of, times) if day), None)
    age = age_at(born, recorded) if born and recorded else None
    return of_person(_attribute(who, "administrativeGenderCode", "code"), age)
