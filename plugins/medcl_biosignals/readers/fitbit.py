"""Fitbit's exports in JSON: heart rates of a day, and electrocardiograms of its Web API.

The tables of the same exports (CSV) are read as any table.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from medcl_biosignals.readers import values
from medcl_biosignals.readers.contract import (
    BadSignal,
    Channel,
    Flaw,
    Heading,
    Recording,
    Settings,
    Span,
    kept,
)
from medcl_biosignals.readers.json_text import loaded, number

_NAME = re.compile(r"((?:resting_)?heart_rate)[-_]\d{4}-\d{2}-\d{2}\.json")
_FOLDERS = frozenset(
    ("physical activity", "physical activity_googledata", "global export data", "heart rate",
     "heart rate variability", "user-site-export", "sleep", "biometrics")
)  # fmt: skip
"""Of an export of one person, whose files lie in several of these."""
_ECG = "waveformSamples"


def is_fitbit(name: str, head: bytes) -> bool:
    """Whether a JSON file is one of these, by its name or its beginning."""
    return _NAME.fullmatch(name.lower()) is not None or (
        b'"ecgReadings"' in head or b'"waveformSamples"' in head
    )


def headings(path: Path, settings: Settings) -> Iterator[Heading | Flaw]:
    """The heart rates of a file, or each electrocardiogram in it."""
    session = ".." if path.parent.name.lower() in _FOLDERS else ""
    document = loaded(path)
    readings = _readings(document)
    if readings is None:
        held, noticed = _rates(path, document)
        yield replace(values.heading(held, "Fitbit", noticed), session=session)
        return
    for n, reading in enumerate(readings):
        part = str(n + 1) if len(readings) > 1 else ""
        try:
            held = _ecg(reading)
        except BadSignal as error:
            yield Flaw(part, error.code, str(error))
            continue
        yield replace(values.heading(held, "Fitbit ECG", ()), part=part, session=session)


def read(path: Path, part: str, settings: Settings, span: Span | None = None) -> Recording:
    """The samples of one of them."""
    document = loaded(path)
    readings = _readings(document)
    if readings is None:
        return values.part(_rates(path, document)[0], span)
    if not (part or "1").isdigit() or not 1 <= int(part or 1) <= len(readings):
        raise BadSignal("changed", "the part that was indexed is no longer in the file")
    return values.part(_ecg(readings[int(part or 1) - 1]), span)


def _readings(document: Any) -> list[Any] | None:
    """The electrocardiograms in a file; None if it holds none by its form."""
    if isinstance(document, Mapping):
        if isinstance(document.get("ecgReadings"), list):
            found: list[Any] = document["ecgReadings"]
            return found
        return [document] if _ECG in document else None
    if isinstance(document, list) and document and isinstance(document[0], Mapping):
        return document if _ECG in document[0] else None
    return None


def _rates(path: Path, document: Any) -> tuple[Recording, tuple[str, ...]]:
    """``[{"dateTime": "01/20/21 08:00:05", "value": {"bpm": 70, "confidence": 2}}, …]``, in UTC."""
    resting = path.name.lower().startswith("resting")
    rows = document if isinstance(document, list) else []
    times, rates = [], []
    for row in rows:
        if not isinstance(row, Mapping):
            continue
        value = row.get("value")
        given = value.get("value" if resting else "bpm") if isinstance(value, Mapping) else value
        rate = number(given)
        if 0 < rate < 400:  # a day without a resting rate has 0
            times.append(values.moment(row.get("dateTime")))
            rates.append(rate)
    name = "HR-resting" if resting else "HR"
    return values.recording([values.Series(name, "bpm", np.array(times), np.array(rates))])


def _ecg(reading: Any) -> Recording:
    """One reading of the Web API: counts, with their rate and how many make a millivolt."""
    if not isinstance(reading, Mapping):
        raise BadSignal("bad-signal", "an entry that is no electrocardiogram")
    fs = number(reading.get("samplingFrequencyHz"))
    scale = number(reading.get("scalingFactor"))
    counts = reading.get(_ECG)
    if not 0 < fs < 1e5:
        raise BadSignal("no-sampling-rate", "a Fitbit ECG that gives no sampling rate")
    if not isinstance(counts, list) or not counts:
        raise BadSignal("no-samples", "a Fitbit ECG without a sample")
    row = np.array([number(count) for count in counts])
    unit = "mV" if scale > 0 else "a.u."
    return Recording((Channel("I", unit, fs),), [kept(row / scale if scale > 0 else row)])
