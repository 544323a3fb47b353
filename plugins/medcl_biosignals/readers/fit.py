"""FIT: activities and all-day monitoring of Garmin, Polar, Suunto, Wahoo and others.

Their messages hold measured values (heart rate, cadence, power …), each at moments of its own. The
accelerometer of a few watches is in them too, as a waveform. Positions are never read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medcl_biosignals.readers import values
from medcl_biosignals.readers.contract import (
    BadSignal,
    Flaw,
    Heading,
    Recording,
    Settings,
    Span,
)

if TYPE_CHECKING:
    from fitdecode import FitDataMessage

_VALUES = {
    # message: field → name and unit; the field of its time is "timestamp" but for stress
    "record": {
        "heart_rate": ("HR", "bpm"),
        "cadence": ("cadence", "rpm"),
        "power": ("power", "W"),
        "enhanced_speed": ("speed", "m/s"),
        "speed": ("speed", "m/s"),
        "enhanced_altitude": ("altitude", "m"),
        "altitude": ("altitude", "m"),
        "temperature": ("TEMP", "degC"),
        "enhanced_respiration_rate": ("RR", "bpm"),
        "respiration_rate": ("RR", "bpm"),
        "saturated_hemoglobin_percent": ("SmO2", "%"),
    },
    "monitoring": {"heart_rate": ("HR", "bpm")},
    "respiration_rate": {"respiration_rate": ("RR", "bpm")},
    "spo2_data": {"reading_spo2": ("SpO2", "%")},
    "hrv_value": {"value": ("RMSSD", "ms")},
    "stress_level": {"stress_level_value": ("stress", "")},
}
_ENHANCED = {"speed": "enhanced_speed", "altitude": "enhanced_altitude"}
_POSSIBLE = {"HR": (1, 300), "RR": (1, 120), "SpO2": (1, 100), "stress": (0, 100)}
"""What a watch writes where it could not measure (0, 255, −1) lies outside."""
_MOST = 50_000_000  # values


def headings(path: Path, settings: Settings) -> Iterator[Heading | Flaw]:
    """The one recording in a file."""
    held, noticed = _held(path)
    yield values.heading(held, "FIT", noticed)


def read(path: Path, part: str, settings: Settings, span: Span | None = None) -> Recording:
    """Its values."""
    return values.part(_held(path)[0], span)


def _held(path: Path) -> tuple[Recording, tuple[str, ...]]:
    times: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    held: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    last: float | None = None
    count = 0
    for message in _messages(path):
        now = _moment(message, last)
        last = now if now is not None and message.name != "stress_level" else last
        for field, channel in _VALUES.get(message.name, {}).items():
            if field in _ENHANCED and message.has_field(_ENHANCED[field]):
                continue
            value = _number(message, field)
            if now is None or value is None:
                continue
            low, high = _POSSIBLE.get(channel[0], (-np.inf, np.inf))
            if low <= value <= high:
                times[channel].append(now)
                held[channel].append(value)
                count += 1
        if count > _MOST:
            raise BadSignal("too-large", "the file holds more values than any device records")
    if not held:
        raise BadSignal(
            "no-signals",
            "a FIT file without measured values over time, such as settings or a course",
        )
    return values.recording(
        values.Series(name, unit, np.array(times[name, unit]), np.array(row))
        for (name, unit), row in held.items()
    )


def _messages(path: Path) -> Iterator[FitDataMessage]:
    """The messages of a file with data in them.

    Raises:
        BadSignal: if the package is missing, or the file is damaged.
    """
    try:
        import fitdecode
    except ImportError:
        raise BadSignal(
            "needs-a-package", "FIT files need fitdecode: pip install 'medcl[signals]'"
        ) from None
    try:
        with fitdecode.FitReader(str(path), error_handling=fitdecode.ErrorHandling.RAISE) as reader:
            for frame in reader:
                if isinstance(frame, fitdecode.FitDataMessage):
                    yield frame
    except (fitdecode.FitError, OSError, ValueError, IndexError, KeyError, TypeError) as error:
        raise BadSignal(
            "bad-signal", f"the file is cut off, or no FIT file ({type(error).__name__})"
        ) from None


def _moment(message: FitDataMessage, last: float | None) -> float | None:
    """When the values of a message were measured, in seconds since 1970.

    All-day files shorten times to the lower 16 bits of seconds since the last full one.
    """
    if message.name == "stress_level":
        return _time(message, "stress_level_time")
    now = _time(message, "timestamp")
    short = _number(message, "timestamp_16")
    if now is None and short is not None and last is not None:
        seconds = round(last) - _EPOCH
        return last + (round(short) - seconds) % 65536
    return now


_EPOCH = 631065600  # FIT counts from 1989-12-31 in UTC


def _time(message: FitDataMessage, field: str) -> float | None:
    value: Any = message.get_value(field, fallback=None)
    if isinstance(value, datetime):
        return value.timestamp()
    if isinstance(value, int | float):
        return float(value) + _EPOCH
    return None


def _number(message: FitDataMessage, field: str) -> float | None:
    value: Any = message.get_value(field, fallback=None)
    return float(value) if isinstance(value, int | float) and np.isfinite(value) else None
