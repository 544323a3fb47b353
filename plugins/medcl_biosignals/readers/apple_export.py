"""Apple Health's ``export.xml``: measured values of a watch, a phone and other devices, by kind.

The file may be gigabytes: it is streamed. Its document type declares elements only; entities are
refused. Electrocardiograms are CSV files beside it (`apple`).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from medcl.plugin import Scalar
from medcl_biosignals.readers import apple, values
from medcl_biosignals.readers.contract import (
    BadSignal,
    Flaw,
    Heading,
    Recording,
    Settings,
    Span,
)
from medcl_biosignals.readers.header_labels import age_at, day_of, of_person
from medcl_biosignals.readers.xml_tree import attributes
from medcl_biosignals.spans import ASLEEP, LIGHT

_KINDS = {
    "HeartRate": ("HR", "bpm"),
    "RestingHeartRate": ("HR-resting", "bpm"),
    "WalkingHeartRateAverage": ("HR-walking", "bpm"),
    "HeartRateVariabilitySDNN": ("SDNN", "ms"),
    "OxygenSaturation": ("SpO2", "%"),
    "RespiratoryRate": ("RR", "bpm"),
    "BodyTemperature": ("TEMP", "degC"),
    "AppleSleepingWristTemperature": ("TEMP", "degC"),
    "BloodPressureSystolic": ("SBP", "mmHg"),
    "BloodPressureDiastolic": ("DBP", "mmHg"),
    "BloodGlucose": ("glucose", ""),
    "VO2Max": ("VO2max", ""),
}
"""What is measured at a moment. Counts (steps, energy, distances) are left out: a phone and a watch
both write them, and their sum is no value of either."""
_UNITS = {"count/min": "bpm", "count/s": "Hz", "mg/dL": "mg/dl", "mL/min·kg": "ml/min/kg"}
_PREFIX = "HKQuantityTypeIdentifier"
_SLEEP, _SLEPT = "HKCategoryTypeIdentifierSleepAnalysis", "HKCategoryValueSleepAnalysis"
_STAGES = {
    "Awake": "W",
    "AsleepREM": "R",
    "AsleepCore": LIGHT,
    "AsleepDeep": "N3",
    "Asleep": ASLEEP,
    "AsleepUnspecified": ASLEEP,
}
"""Core sleep is N1 or N2, by Apple's description of its algorithm; time in bed is no stage."""
_ELECTROCARDIOGRAMS = "electrocardiograms"
FORMAT = "Apple Health export"
_Held = tuple[Recording, tuple[str, ...], Mapping[str, Scalar]]


def headings(path: Path, settings: Settings) -> Iterator[Heading | Flaw]:
    """The values of the one person of an export."""
    held, noticed, labels = _held(path)
    found = values.heading(held, FORMAT, noticed, subject=_person(path))
    beside = (path.parent / _ELECTROCARDIOGRAMS).is_dir()
    yield replace(found, labels=labels, session=_ELECTROCARDIOGRAMS if beside else None)


def read(path: Path, part: str, settings: Settings, span: Span | None = None) -> Recording:
    """Its values, each kind on a grid of its own."""
    return values.part(_held(path)[0], span)


def _person(path: Path) -> str | None:
    """Whom the electrocardiograms of the same export name: the file itself does not."""
    for file in sorted((path.parent / _ELECTROCARDIOGRAMS).glob("*.csv"))[:1]:
        try:
            return apple.subject(file)
        except BadSignal:
            return None
    return None


def _held(path: Path) -> _Held:
    times: dict[tuple[str, str], array[float]] = {}
    held: dict[tuple[str, str], array[float]] = {}
    labels: dict[str, Scalar] = {}
    moments: dict[str, float] = {}
    slept: list[tuple[float, float, str]] = []
    left_out = False
    last = ""
    for name, given in attributes(path, "HealthData"):
        if name == "Me":
            sex = given.get("HKCharacteristicTypeIdentifierBiologicalSex", "")
            born = day_of(
                given.get("HKCharacteristicTypeIdentifierDateOfBirth", "").replace("-", "")
            )
            then = day_of(last.replace("-", ""))
            age = age_at(born, then) if born and then else None
            labels = dict(of_person(sex.removeprefix("HKBiologicalSex"), age))
        elif name == "ExportDate":
            last = given.get("value", "")
        elif name == "Record":
            kind = given.get("type", "")
            if kind == _SLEEP:
                stage = _STAGES.get(given.get("value", "").removeprefix(_SLEPT))
                spans = [values.moment(given.get(name)) for name in ("startDate", "endDate")]
                if stage is not None and spans[0] < spans[1]:
                    slept.append((spans[0], spans[1], stage))
                continue
            known = _KINDS.get(kind.removeprefix(_PREFIX))
            if known is None:
                left_out = left_out or kind.startswith(_PREFIX)
                continue
            value, unit = _scaled(given.get("value", ""), given.get("unit", ""))
            began = given.get("startDate", "")
            if began not in moments:
                if len(moments) > 4096:
                    moments.clear()
                moments[began] = values.moment(began)
            channel = (known[0], unit or known[1])
            times.setdefault(channel, array("d")).append(moments[began])
            held.setdefault(channel, array("d")).append(value)
    if not held:
        raise BadSignal(
            "no-signals",
            "an export of Apple Health without measured values. Its ECGs are the CSV files in the "
            "folder electrocardiograms beside it",
        )
    series = (
        values.Series(name, unit, np.array(times[name, unit]), np.array(row))
        for (name, unit), row in held.items()
    )
    found, noticed = values.recording(series, _finest(slept))
    return found, (*noticed, *(("counts-left-out",) if left_out else ())), labels


def _finest(slept: list[tuple[float, float, str]]) -> list[tuple[float, float, str]]:
    """Stages, without what another device says of the same time in one word: asleep."""
    told = sorted(span for span in slept if span[2] != ASLEEP)
    begins = np.array([first for first, _, _ in told])
    ends = np.maximum.accumulate([last for _, last, _ in told]) if told else begins

    def alone(first: float, last: float) -> bool:
        before = int(np.searchsorted(begins, last))  # those that begin before its end
        return before == 0 or bool(ends[before - 1] <= first)

    return told + [span for span in slept if span[2] == ASLEEP and alone(*span[:2])]


def _scaled(value: str, unit: str) -> tuple[float, str]:
    """A value and its unit; shares of one as percent, which is what Apple calls them."""
    try:
        number = float(value)
    except ValueError:
        return float("nan"), unit
    if unit == "%" and number <= 1:
        return 100 * number, unit
    return number, _UNITS.get(unit, unit)
