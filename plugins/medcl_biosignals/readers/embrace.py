"""Empatica EmbracePlus: Avro files with every sensor at its own rate, in whole numbers to scale."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

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

_SENSORS = {
    "bvp": (("values", "BVP", "nW"),),
    "accelerometer": (("x", "ACC-x", "g"), ("y", "ACC-y", "g"), ("z", "ACC-z", "g")),
    "gyroscope": (("x", "GYR-x", "deg/s"), ("y", "GYR-y", "deg/s"), ("z", "GYR-z", "deg/s")),
    "eda": (("values", "EDA", "uS"),),
    "temperature": (("values", "TEMP", "degC"),),
}


def headings(path: Path, settings: Settings) -> Iterator[Heading | Flaw]:
    """The recording in a file."""
    record = _record(path)
    held = _held(record)
    seconds = max(
        len(row) / channel.fs for channel, row in zip(held.channels, held.samples, strict=True)
    )
    fs = max(channel.fs for channel in held.channels)
    enrolled = record.get("enrollment")
    who = enrolled.get("participantID") if isinstance(enrolled, Mapping) else None
    yield Heading("", "Empatica Avro", held.channels, fs, seconds, subject=person(who))


def read(path: Path, part: str, settings: Settings, span: Span | None = None) -> Recording:
    """Its samples, from the start of the first sensor on."""
    held = _held(_record(path))
    rows = []
    for channel, row in zip(held.channels, held.samples, strict=True):
        first, last = bounds(span, channel.fs, len(row))
        rows.append(row[first:last])
    return Recording(held.channels, rows)


def _record(path: Path) -> Mapping[str, Any]:
    try:
        from fastavro import reader
    except ImportError:
        raise BadSignal(
            "needs-a-package", "Avro files need fastavro: pip install 'medcl[signals]'"
        ) from None
    try:
        with path.open("rb") as handle:
            record = next(iter(reader(handle)))
    except Exception as error:  # fastavro raises many kinds for a damaged file
        raise BadSignal(
            "bad-signal", f"the file is cut off, or no Avro file ({type(error).__name__})"
        ) from None
    if not isinstance(record, Mapping) or not isinstance(record.get("rawData"), Mapping):
        raise BadSignal("not-a-signal", "an Avro file that is not of Empatica's form")
    return record


def _held(record: Mapping[str, Any]) -> Recording:
    found: list[tuple[float, Channel, np.ndarray]] = []
    for sensor, lines in _SENSORS.items():
        data = record["rawData"].get(sensor)
        if not isinstance(data, Mapping):
            continue
        fs = float(data.get("samplingFrequency") or 0)
        for key, name, unit in lines:
            values = np.asarray(data.get(key) or [], dtype=np.float64)
            if fs > 0 and len(values):
                began = float(data.get("timestampStart") or 0) * 1e-6
                scaled = values * _factor(data)
                found.append((began, Channel(name, unit, fs), kept(scaled)))
    if not found:
        raise BadSignal("no-samples", "no sensor of the file holds a sample with its rate")
    zero = min(began for began, _, _ in found)
    rows = [
        np.concatenate([np.full(round((began - zero) * channel.fs), np.nan, row.dtype), row])
        for began, channel, row in found
    ]
    return Recording(tuple(channel for _, channel, _ in found), rows)


def _factor(data: Mapping[str, Any]) -> float:
    """From whole numbers to the unit: the ranges that Empatica's manual gives for IMU sensors."""
    scale = data.get("imuParams")
    if not isinstance(scale, Mapping):
        return 1.0
    span = float(scale["physicalMax"]) - float(scale["physicalMin"])
    digital = float(scale["digitalMax"]) - float(scale["digitalMin"])
    return span / digital if digital else 1.0
