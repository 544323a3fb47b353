"""DICOM waveforms: 12-lead, ambulatory and haemodynamic; each multiplex group is a recording."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from medcl_biosignals.readers.header_labels import age_at, age_of, day_of, of_person

if TYPE_CHECKING:
    from pydicom import Dataset

_ABOUT = ("PatientSex", "PatientAge", "PatientBirthDate", "AcquisitionDateTime", "StudyDate")
_TAGS = ["WaveformSequence", "PatientID", "InstitutionName", "SpecificCharacterSet", *_ABOUT]
_AGES = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}


def headings(path: Path, settings: Settings) -> Iterator[Heading | Flaw]:
    """The multiplex groups of a file."""
    file = _open(path)
    groups, labels = list(file.WaveformSequence), _labels(file)
    for n, group in enumerate(groups):
        part = str(n + 1) if len(groups) > 1 else ""
        try:
            channels, frames = _contents(group)
        except (AttributeError, TypeError, ValueError, IndexError):
            yield Flaw(part, "bad-header", "a waveform of the file lacks what describes it")
            continue
        fs = channels[0].fs
        held = _held(group, len(channels))
        if held < frames:
            reason = f"{frames} samples are claimed; the file holds {held}"
            yield Flaw(part, "truncated", reason)
            continue
        findings = ["derived-waveform"] if group.get("WaveformOriginality") == "DERIVED" else []
        if settings.fs is not None and abs(settings.fs / fs - 1) > 0.02:
            findings.append("fs-mismatch")
        yield Heading(
            part,
            "DICOM",
            channels,
            fs,
            frames / fs,
            subject=person(file.get("PatientID")),
            site=person(file.get("InstitutionName")),
            findings=tuple(findings),
            labels=labels,
        )


def read(path: Path, part: str, settings: Settings, span: Span | None = None) -> Recording:
    """The samples of a group in the units of its channels' sensitivity; padding is NaN."""
    from pydicom.waveforms import multiplex_array

    file, index = _open(path), int(part or 1) - 1
    group = file.WaveformSequence[index]
    channels, frames = _contents(group)
    first, last = bounds(span, channels[0].fs, frames)
    try:
        values = multiplex_array(file, index, as_raw=False)  # (frames, channels)
        padding = group.get("WaveformPaddingValue")
        if padding is not None:
            raw = multiplex_array(file, index, as_raw=True)
            code = int.from_bytes(padding, "little", signed=raw.dtype.kind == "i")
            values = np.where(raw == code, np.nan, values)
    except Exception as error:  # pydicom raises many kinds for what does not fit together
        raise BadSignal(
            "bad-signal", f"the waveform cannot be decoded ({type(error).__name__})"
        ) from error
    rows = np.ascontiguousarray(values[first:last].T)
    return Recording(channels, [kept(row) for row in rows])


def _open(path: Path) -> Dataset:
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    try:
        file = dcmread(path, specific_tags=_TAGS)
        has = "WaveformSequence" in file and len(file.WaveformSequence) > 0
    except InvalidDicomError:
        raise BadSignal("not-dicom", "the file is no DICOM file") from None
    except Exception as error:  # pydicom raises many kinds for a damaged file
        raise BadSignal(
            "bad-header", f"the DICOM file is damaged ({type(error).__name__})"
        ) from error
    if not has:
        raise BadSignal("not-a-signal", "a DICOM file without a waveform")
    return file


def _labels(file: Dataset) -> dict[str, Scalar]:
    """Sex, and age as it is written or at the recording; the dates themselves are not kept."""
    sex, age, birth, *times = (str(file.get(name) or "") for name in _ABOUT)
    written = re.fullmatch(r"(\d{3})([YMWD])", age)
    if written:
        return of_person(sex, age_of(str(int(int(written[1]) * _AGES[written[2]]))))
    born, recorded = day_of(birth), next((d for d in map(day_of, times) if d), None)
    return of_person(sex, age_at(born, recorded) if born and recorded else None)


def _contents(group: Dataset) -> tuple[tuple[Channel, ...], int]:
    fs = float(group.SamplingFrequency)
    if fs <= 0:
        raise ValueError("rate")
    lines = group.ChannelDefinitionSequence
    channels = tuple(
        Channel(
            _first(line, "ChannelSourceSequence", "CodeMeaning")
            or str(line.get("ChannelLabel", "")),
            _first(line, "ChannelSensitivityUnitsSequence", "CodeValue"),
            fs,
        )
        for line in lines
    )
    if len(channels) != int(group.NumberOfWaveformChannels) or not channels:
        raise ValueError("channels")
    return channels, int(group.NumberOfWaveformSamples)


def _first(line: Any, sequence: str, name: str) -> str:
    items = line.get(sequence)
    return str(items[0].get(name, "")) if items else ""


def _held(group: Dataset, channels: int) -> int:
    width = int(group.get("WaveformBitsAllocated", 16)) // 8
    return len(group.get("WaveformData", b"")) // max(width * channels, 1)
