"""What the columns of a table are: times, channels, persons, or nothing for us."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from medcl_biosignals.readers.contract import BadSignal, Settings
from medcl_biosignals.readers.measures import known_unit
from medcl_biosignals.vocabulary import plain, vocabulary

_BRACKETS = re.compile(r"\s*[\[(]([^\])]*)[\])]\s*$")
TIMES = frozenset(
    ("time", "times", "t", "timestamp", "timestamps", "datetime", "date", "timer", "sec", "secs",
     "seconds", "second", "elapsed", "elapsedtime", "ms", "msec", "milliseconds", "timems", "times",
     "timesec", "timeus", "timens", "timestampms", "timestampus", "timestampns", "unixtime", "unix",
     "epoch", "utc", "datetimeutc", "localtime", "zeit", "temps")
)  # fmt: skip
_NUMBERS = frozenset(
    ("index", "sample", "samples", "sampleno", "samplenumber", "n", "no", "number", "row", "rowid",
     "unnamed0", "frame", "counter", "packet", "seq", "sequence", "idx", "")
)  # fmt: skip
PERSONS = frozenset(
    ("subject", "subjectid", "patient", "patientid", "participant", "participantid", "person",
     "personid", "user", "userid", "sid", "pid", "subj")
)  # fmt: skip
NO_SIGNALS = frozenset(
    ("id", "label", "labels", "class", "target", "y", "activity", "activityid", "age", "sex",
     "gender", "height", "weight", "bmi", "session", "sessionid", "visit", "fold", "stratfold",
     "split", "device", "deviceid", "record", "recordid", "recording", "recordingid", "segment",
     "segmentid", "diagnosis", "quality", "annotation", "annotations", "event", "marker", "year")
)  # fmt: skip
_UNIT_OF_TIME = {
    "s": "s", "sec": "s", "secs": "s", "seconds": "s", "second": "s", "ms": "ms", "msec": "ms",
    "milliseconds": "ms", "us": "us", "µs": "us", "microseconds": "us", "ns": "ns",
}  # fmt: skip


@dataclass(frozen=True)
class Roles:
    """Columns by their position.

    Attributes:
        time: the column of times; None without one.
        unit: of plain numbers in it; None if that must be seen from them.
        channels: (position, name, unit) of each signal.
        subject: the column that names persons.
    """

    time: int | None
    unit: str | None
    channels: tuple[tuple[int, str, str], ...]
    subject: int | None = None


def parted(name: str) -> tuple[str, str]:
    """``"II [mV]"`` → ``("II", "mV")``; no brackets, or none with a unit in them: no unit."""
    match = _BRACKETS.search(name)
    if match is None:
        return name.strip(), ""
    inside = match[1].strip()
    if known_unit(inside) == "other" and inside not in _UNIT_OF_TIME:
        return name.strip(), ""
    return name[: match.start()].strip(), inside


def roles(
    names: Sequence[str] | None, numeric: Sequence[bool], rising: Sequence[bool], settings: Settings
) -> Roles:
    """Who is who among the columns of a table.

    Args:
        names: of the columns; None where there is no header.
        numeric: whether a column holds numbers.
        rising: whether its first values never fall, and rise: without a header, such a first column
            beside others is taken for times.
        settings: what the user says counts.

    Raises:
        BadSignal: if no column is a signal, or one that the user names is not there.
    """
    shown = list(names) if names is not None else [str(n + 1) for n in range(len(numeric))]
    time = _time(shown, names is not None, numeric, rising, settings)
    subject = _named(settings.subject, shown, "reader.subject")
    if subject is None and names is not None:
        subject = next((i for i, n in enumerate(shown) if plain(n) in PERSONS), None)
    for wanted in settings.columns:
        _named(wanted, shown, "reader.columns")
    unit: str | None = settings.time_unit
    if unit is None and time is not None and names is not None:
        name, bracket = parted(shown[time])
        unit = _UNIT_OF_TIME.get(bracket.lower()) or unit_of_time(name)
    found = []
    known = vocabulary(settings.vocabulary)
    for at, name in enumerate(shown):
        if at in (time, subject) or not numeric[at]:
            continue
        if settings.columns:
            mapped = settings.channel(name, at + 1)
            if mapped is not None:
                found.append((at, mapped, parted(name)[1]))
            continue
        bare, bracket = parted(name)
        key = plain(bare)
        if names is not None and known.find(bare) is None and (key in _NUMBERS | NO_SIGNALS):
            continue
        found.append((at, bare if names is not None else f"signal {at + 1}", bracket))
    if names is not None and not settings.columns and not all(numeric) and len(found) > 0:
        # Words beside numbers: a table of samples only if it says so by its names or its times.
        listed = [c for c in found if known.find(c[1]) is not None]
        if time is None and not listed:
            found = []
    if not found:
        raise BadSignal(
            "not-a-signal",
            "no column of this table is a signal. If one is, name it: "
            "--set reader.columns.2=PPG (by its number from 1, or its name)",
        )
    return Roles(time, unit, tuple(found), subject)


def _time(
    names: list[str],
    header: bool,
    numeric: Sequence[bool],
    rising: Sequence[bool],
    settings: Settings,
) -> int | None:
    if settings.time == "none":
        return None
    given = _named(settings.time, names, "reader.time")
    if given is not None:
        return given
    for at, name in enumerate(names):
        if settings.channel(name, at + 1) is not None and settings.columns:
            continue
        if header and is_time(name):
            return at
    if not header and len(names) > 1 and (not numeric[0] or rising[0]):
        return 0
    return None


def _named(wanted: str | None, names: list[str], where: str) -> int | None:
    """The position of a column by its name, or its number from 1."""
    if wanted is None:
        return None
    if wanted in names:
        return names.index(wanted)
    bare = [parted(name)[0] for name in names]
    if wanted in bare:
        return bare.index(wanted)
    if wanted.isdigit() and 1 <= int(wanted) <= len(names):
        return int(wanted) - 1
    raise BadSignal(
        "no-such-column", f"a column that {where} names is not among the {len(names)} of this file"
    )


def is_time(name: str) -> bool:
    """Whether a column's name says that it holds times, as ``time [s]`` and ``t_ms`` do."""
    bare = parted(name)[0]
    words = re.split(r"[\s_\-.]+", bare)
    without = plain(" ".join(words[:-1])) if unit_of_time(bare) and len(words) > 1 else ""
    return plain(bare) in TIMES or without in TIMES


def unit_of_time(name: str) -> str | None:
    """The unit at the end of a column's name, as in ``time_ms`` and ``timestamp-us``."""
    words = re.split(r"[\s_\-.]+", name.lower())
    return _UNIT_OF_TIME.get(words[-1]) if len(words) > 1 or words[0] in _UNIT_OF_TIME else None
