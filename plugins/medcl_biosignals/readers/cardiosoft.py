"""GE CardioSoft and CASE: the XML of resting and exercise ECGs (``CardiologyXML``).

The strip (``StripData``) holds a list of counts for each lead; the whole of an exercise test
(``FullDisclosure``) one list, in which the leads take turns. A file that has both is two
recordings of one person. The averaged beats beside them (``MedianSamples``) are no recording.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
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
from medcl_biosignals.readers.header_labels import age_in, of_person
from medcl_biosignals.readers.xml_tree import number_of, text_of, tree

ROOT = "CardiologyXML"
_STRIP, _WHOLE, _BEAT = "StripData", "FullDisclosure", "MedianSamples"
_MOST_HZ = 1e5


@dataclass(frozen=True)
class _Held:
    channels: tuple[Channel, ...]
    rows: list[np.ndarray]  # (N,) float64 in the channels' units
    findings: tuple[str, ...]


def headings(path: Path, settings: Settings) -> Iterator[Heading | Flaw]:
    """The strip, the full disclosure, or both; an averaged beat only where there is neither."""
    document = tree(path, ROOT)
    who, labels = _about(document)
    for part, element, noticed in _parts(document):
        try:
            held = _read(element)
        except BadSignal as error:
            yield Flaw(part, error.code, str(error))
            continue
        fs, lengths = held.channels[0].fs, {len(row) for row in held.rows}
        findings = [*noticed, *held.findings]
        if len(lengths) > 1:
            findings.append("unequal-lengths")
        if settings.fs is not None and abs(settings.fs / fs - 1) > 0.02:
            findings.append("fs-mismatch")
        yield Heading(
            part,
            "CardioSoft",
            held.channels,
            fs,
            max(lengths) / fs,
            subject=who,
            findings=tuple(dict.fromkeys(findings)),
            labels=labels,
        )


def read(path: Path, part: str, settings: Settings, span: Span | None = None) -> Recording:
    """Its samples; a lead that ends earlier than others is NaN from there."""
    for name, element, _ in _parts(tree(path, ROOT)):
        if name == part:
            held = _read(element)
            longest = max(map(len, held.rows))
            first, last = bounds(span, held.channels[0].fs, longest)
            padded = (np.pad(r, (0, longest - len(r)), constant_values=np.nan) for r in held.rows)
            return Recording(held.channels, [kept(row[first:last]) for row in padded])
    raise BadSignal("changed", "the part that was indexed is no longer in the file")


def _parts(document: Element) -> Iterator[tuple[str, Element, list[str]]]:
    """(part, element, findings) of each that is to be read."""
    strip, whole = document.find(_STRIP), document.find(_WHOLE)
    beats = next(document.iter(_BEAT), None)
    strips = strip is not None and strip.find("WaveformData") is not None
    wholes = whole is not None and bool(text_of(whole, "FullDisclosureData"))
    left_out = ["averaged-beat-left-out"] if beats is not None else []
    if strip is not None and strips:
        yield "strip" if wholes else "", strip, left_out
    if whole is not None and wholes:
        yield "full-disclosure" if strips else "", whole, left_out
    if not strips and not wholes:
        if beats is None:
            raise BadSignal("no-signals", "the file describes no waveform")
        yield "", beats, ["derived-waveform"]


def _read(element: Element) -> _Held:
    fs = number_of(element, "SampleRate")
    if not 0 < fs <= _MOST_HZ:
        raise BadSignal("bad-sampling-rate", f"the file gives a sampling rate of {fs:g} Hz")
    gain, unit = _gain(element)
    if element.tag == _WHOLE:
        names = [name.strip() for name in text_of(element, "LeadOrder").split(",") if name.strip()]
        counts = _counts(text_of(element, "FullDisclosureData"))
        if not names:
            raise BadSignal("bad-header", "the file does not say the order of its leads")
        if len(counts) % len(names):
            raise BadSignal("truncated", "the last sample is not there of all leads")
        rows = list(counts.reshape(-1, len(names)).T)
    else:
        listed = element.findall("WaveformData")
        names = [lead.get("lead", "").strip() for lead in listed]
        rows = [_counts(lead.text or "") for lead in listed]
    if not any(map(len, rows)):
        raise BadSignal("no-samples", "the leads of the file hold no sample")
    claimed, shortest = number_of(element, "ChannelSampleCountTotal", 0.0), min(map(len, rows))
    if shortest < claimed:
        raise BadSignal("truncated", f"{claimed:g} samples are claimed; a lead holds {shortest}")
    leads = [number_of(element, name, 0.0) for name in ("NumberOfLeads", "NumberOfChannels")]
    findings = []
    if 0 < claimed < max(map(len, rows)):
        findings.append("longer-than-header")
    if any(number not in (0, len(rows)) for number in leads):
        findings.append("inconsistent-header")
    channels = tuple(Channel(name, unit, fs) for name in names)
    return _Held(channels, [row * gain for row in rows], tuple(findings))


def _gain(element: Element) -> tuple[float, str]:
    """What one count stands for, and its unit, of ``<Resolution units="uVperLsb">5</…>``."""
    resolution = element.find("Resolution")
    if resolution is None:
        return 1.0, "adu"
    gain = number_of(element, "Resolution")
    unit, per, _ = resolution.get("units", "").partition("per")
    if gain == 0:
        raise BadSignal("bad-header", "a recording of which one count stands for nothing")
    return gain, unit.strip() if per else "adu"


def _counts(text: str) -> np.ndarray:
    """Numbers between commas, with any blanks around them; a comma may end the list."""
    cells = [cell for cell in map(str.strip, text.split(",")) if cell]
    try:
        return np.array(cells, dtype=np.float64)
    except ValueError:
        raise BadSignal("bad-signal", "the samples of a lead are no numbers") from None


def _about(document: Element) -> tuple[str | None, dict[str, Scalar]]:
    """The person, raw, and labels; of the dates nothing is kept."""
    patient = document.find("PatientInfo")
    if patient is None:
        return None, {}
    named = " ".join(text_of(patient, f"Name/{which}Name") for which in ("Family", "Given"))
    who = person(text_of(patient, "PID")) or person(named)
    age = patient.find("Age")
    years = None if age is None else age_in((age.text or "").strip(), age.get("units", "years"))
    return who, of_person(text_of(patient, "Gender"), years)
