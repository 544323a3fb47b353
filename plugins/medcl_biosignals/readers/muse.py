"""GE MUSE: the XML of resting ECGs (``RestingECG``), samples in base64 as 16-bit integers.

MUSE stores eight independent leads. III, aVR, aVL and aVF follow from I and II (Einthoven,
Goldberger); they are computed here in the same way as its own prints show them, and the finding
``derived-leads`` says so. Every file may also hold the averaged beat, which is no recording.
"""

from __future__ import annotations

import binascii
import zlib
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

ROOT = "RestingECG"
_MOST_HZ = 1e5
_AUGMENTED = {
    "III": (-1.0, 1.0),
    "aVR": (-0.5, -0.5),
    "aVL": (1.0, -0.5),
    "aVF": (-0.5, 1.0),
}
"""Lead → its share of I and of II."""
_NO = ("", "0", "FALSE")


@dataclass(frozen=True)
class _Lead:
    channel: Channel
    gain: float
    counts: np.ndarray  # (N,) int16
    findings: tuple[str, ...]


def headings(path: Path, settings: Settings) -> Iterator[Heading | Flaw]:
    """The rhythm strip of a file; its averaged beat only where there is no strip."""
    document = tree(path, ROOT, typed=True)
    who, site, labels = _about(document)
    for part, waveform, noticed in _waveforms(document):
        try:
            leads = _leads(waveform)
        except BadSignal as error:
            yield Flaw(part, error.code, str(error))
            continue
        fs = leads[0].channel.fs
        findings = [*noticed, *(finding for lead in leads for finding in lead.findings)]
        computed = _computed(leads)
        if computed:
            findings.append("derived-leads")
        lengths = {len(lead.counts) for lead in leads}
        if len(lengths) > 1:
            findings.append("unequal-lengths")
        if settings.fs is not None and abs(settings.fs / fs - 1) > 0.02:
            findings.append("fs-mismatch")
        yield Heading(
            part,
            "GE MUSE",
            (*(lead.channel for lead in leads), *(channel for channel, _ in computed)),
            fs,
            max(lengths) / fs,
            subject=who,
            site=site,
            findings=tuple(dict.fromkeys(findings)),
            labels=labels,
        )


def read(path: Path, part: str, settings: Settings, span: Span | None = None) -> Recording:
    """Its samples; a lead that ends earlier than others is NaN from there."""
    for name, waveform, _ in _waveforms(tree(path, ROOT, typed=True)):
        if name == part:
            leads = _leads(waveform)
            lines = [(lead.channel, lead.counts * lead.gain) for lead in leads]
            lines += _computed(leads)
            longest = max(len(lead.counts) for lead in leads)
            first, last = bounds(span, lines[0][0].fs, longest)
            rows = [
                kept(np.pad(row, (0, longest - len(row)), constant_values=np.nan)[first:last])
                for _, row in lines
            ]
            return Recording(tuple(channel for channel, _ in lines), rows)
    raise BadSignal("changed", "the part that was indexed is no longer in the file")


def _waveforms(document: Element) -> Iterator[tuple[str, Element, list[str]]]:
    """(part, waveform, findings) of each that is to be read."""
    found = document.findall("Waveform")
    beats = [w for w in found if text_of(w, "WaveformType").upper() == "MEDIAN"]
    strips = [w for w in found if w not in beats]
    if not found:
        raise BadSignal("no-signals", "the file describes no waveform")
    noticed = ["averaged-beat-left-out"] if strips and beats else []
    chosen = strips or beats
    for n, waveform in enumerate(chosen):
        part = str(n + 1) if len(chosen) > 1 else ""
        yield part, waveform, noticed if strips else ["derived-waveform"]


def _leads(waveform: Element) -> list[_Lead]:
    exponent = min(max(number_of(waveform, "SampleExponent", 0.0), -9.0), 9.0)
    fs = number_of(waveform, "SampleBase") * 10.0**exponent
    if not 0 < fs <= _MOST_HZ:
        raise BadSignal("bad-sampling-rate", f"the file gives a sampling rate of {fs:g} Hz")
    leads = [_lead(lead, fs) for lead in waveform.findall("LeadData")]
    if not leads:
        raise BadSignal("no-signals", "the file describes no waveform")
    if not any(len(lead.counts) for lead in leads):
        raise BadSignal("no-samples", "the leads of the file hold no sample")
    return leads


def _lead(lead: Element, fs: float) -> _Lead:
    name = text_of(lead, "LeadID")
    if number_of(lead, "LeadSampleSize", 2.0) != 2:
        raise BadSignal("bad-header", "a lead whose samples are not of two bytes")
    text = "".join(text_of(lead, "WaveFormData").split()).rstrip("=")
    text += "=" * (-len(text) % 4)  # some leave them off
    try:
        raw = binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        raise BadSignal("bad-signal", "the samples of a lead are no base64") from None
    held = len(raw) // 2
    claimed = number_of(lead, "LeadSampleCountTotal", float(held))
    in_bytes = number_of(lead, "LeadByteCountTotal", float(len(raw)))
    if len(raw) % 2 or held < claimed or len(raw) < in_bytes:
        raise BadSignal("truncated", f"{claimed:g} samples are claimed; a lead holds {held}")
    findings = []
    if held > claimed:
        findings.append("longer-than-header")
    check = text_of(lead, "LeadDataCRC32")
    if check not in ("", "0") and check != str(zlib.crc32(raw)):
        findings.append("bad-checksum")
    if text_of(lead, "LeadOff").upper() not in _NO:
        findings.append("lead-off")
    if any(number_of(lead, name, 0.0) for name in ("LeadOffsetFirstSample", "FirstSampleBaseline",
                                                 "LeadTimeOffset")):  # fmt: skip
        findings.append("unexplained-offset")  # nothing says what it is added to
    gain, unit = (
        number_of(lead, "LeadAmplitudeUnitsPerBit", 1.0),
        text_of(lead, "LeadAmplitudeUnits"),
    )
    if gain == 0:
        raise BadSignal("bad-header", "a lead of which one count stands for nothing")
    if lead.find("LeadAmplitudeUnitsPerBit") is None:
        unit = "adu"  # counts, whatever they are of
    counts = np.frombuffer(raw, dtype="<i2")
    return _Lead(Channel(name, unit, fs), gain, counts, tuple(findings))


def _computed(leads: list[_Lead]) -> list[tuple[Channel, np.ndarray]]:
    """The limb leads that are not stored; none where that cannot be said for sure."""
    by_name = {lead.channel.name.upper(): lead for lead in leads}
    one, two = by_name.get("I"), by_name.get("II")
    if one is None or two is None or one.channel.units != two.channel.units:
        return []
    if len(one.counts) != len(two.counts) or any(name.upper() in by_name for name in _AUGMENTED):
        return []
    return [
        (
            Channel(name, one.channel.units, one.channel.fs),
            one.counts * (one.gain * of_one) + two.counts * (two.gain * of_two),
        )
        for name, (of_one, of_two) in _AUGMENTED.items()
    ]


def _about(document: Element) -> tuple[str | None, str | None, dict[str, Scalar]]:
    """The person and the institution, raw, and labels; of the dates nothing is kept."""
    demo, test = document.find("PatientDemographics"), document.find("TestDemographics")
    site = None if test is None else person(text_of(test, "SiteName"))
    if demo is None:
        return None, site, {}
    named = " ".join(text_of(demo, f"Patient{which}Name") for which in ("Last", "First"))
    who = person(text_of(demo, "PatientID")) or person(named)
    age = age_in(text_of(demo, "PatientAge"), text_of(demo, "AgeUnits"))
    return who, site, of_person(text_of(demo, "Gender"), age)
