"""What the columns of a table are: times, channels, persons, or nothing for us."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from medcl_biosignals.naming import meant
from medcl_biosignals.readers.contract import TICKS, BadSignal, Settings
from medcl_biosignals.readers.measures import dimension, known_unit, plain_unit
from medcl_biosignals.vocabulary import Vocabulary, plain, vocabulary

_BRACKETS = re.compile(r"[\s_]*[\[({<]\s*(?:in\s+|units?\s*[:=]?\s+)?([^\])}>]*?)\s*[\])}>]\s*$")
_SIDE = re.compile(
    r"EEG[\s_]*\(?sec\)?|(?:EEG|EOG|EMG|ECG|EKG|LEG|CHIN)\s*\([lracf]\)", re.IGNORECASE
)
"""``EEG(sec)``, the secondary channel, and ``EOG(L)``: what is in brackets is no unit."""
_TRAILING = (  # milli-V before V, m/s^2 before s^2
    re.compile(
        r"^(.*[^\W_])[\s_\-.,:;|=/]+((?:milli|micro|nano|[mun\u00b5\u03bc])[\s\-]+v(?:olts?)?)$",
        re.IGNORECASE,
    ),
    re.compile(r"^(.*?[^\W_])[\s_\-.,:;|=]+(?:in\s+)?([^\s_:;|=]+/[^\s_]+)$"),
    re.compile(r"^(.*[^\W_])[\s_\-.,:;|=/]+(?:in\s+)?([^\s_]+)$"),
    re.compile(r"^(.*[a-zA-Z])((?<=[a-z])[MU][vV]|[\u00b5\u03bc]V|(?<=[A-Z])[um]V)$"),  # ecgUv
)
_DEVICE = re.compile(r"^shimmer[_\s-]*[0-9a-f]{2,4}[_\s-]+|\(/api/datatype/\d+/\)$", re.IGNORECASE)
"""What Shimmer writes before a name, and Hexoskin behind its unit."""
_TREATED = re.compile(
    r"[\s_\-]+[\[({]?\s*(?:raw|(?:un)?filt(?:ered)?|clean(?:ed)?|smooth(?:ed)?|processed)\s*[\])}]?$",
    re.IGNORECASE,
)
"""``ecg_mV_raw``, ``ECG uV (filtered)``: what was done to a signal, behind its unit."""
_TIMES_AS_MUCH = re.compile(r"[\s_]+[x\u00d7*]\s?(10+|1e\d+|10\^\d+)\b", re.IGNORECASE)
"""``ECG x1000 mV``: the unit is another one, by a factor that may be meant either way."""
_RATE_IN_NAME = re.compile(r"[\s_\-@(\[]*(?<![\d.])(\d+(?:\.\d+)?)\s*(k?)hz[)\]]*", re.IGNORECASE)
_PASS_BAND = re.compile(
    r"\d\s*(?:k?hz)?\s*(?:-|to|\u2013)\s*\d+(?:\.\d+)?\s*k?hz|filt|notch|pass|band|cut-?off|"
    r"\b[hlb]pf?\b",
    re.IGNORECASE,
)
"""``ECG (.5 - 35 Hz)``, ``EMG 50 Hz notch``: the frequencies of a filter, not of the sampling."""
_FREQUENCIES = re.compile(
    r"[\s_@(\[]*(?:[\d.]+\s*(?:k?hz)?\s*(?:-|to|\u2013)\s*)?[\d.]+\s*k?hz[)\]]*", re.IGNORECASE
)
TIMES = frozenset(
    ("time", "times", "t", "ts", "timestamp", "timestamps", "tstamp", "datetime", "date", "timer",
     "sec", "secs", "seconds", "second", "elapsed", "elapsedtime", "ms", "msec", "milliseconds",
     "timems", "timesec", "timeus", "timens", "timestampms", "timestampus", "timestampns",
     "unixtime", "unix", "epoch", "utc", "datetimeutc", "localtime", "zeit", "temps", "tick",
     "ticks", "clock", "uhrzeit", "datum", "zeitstempel", "horodatage", "heure", "hora", "fecha",
     "tiempo", "tempo", "czas", "tijd", "tid", "recordedat", "createdat", "timeofday", "tod",
     "millis", "micros", "nanos", "microseconds", "nanoseconds")
)  # fmt: skip
_TIME_WORDS = frozenset(
    ("time", "times", "timestamp", "timestamps", "ts", "datetime", "epoch", "clock", "ticks",
    "tick",
     "zeit", "t", "stamp")
)  # fmt: skip
_BESIDE_TIME = frozenset(
    ("phone", "sensor", "device", "system", "local", "utc", "unix", "gmt", "host", "server", "pc",
     "recording", "recorded", "record", "sample", "sampling", "elapsed", "relative", "start",
     "absolute", "cal", "raw", "watch", "since", "of", "day", "the", "sync", "synced", "hardware",
     "boot", "nanos", "millis", "micros", "posix", "iso", "event", "measurement", "acquisition",
     "packet", "arrival", "rtc", "real", "stamp", "at", "from", "begin", "stop", "end", "time",
     "timestamp", "date", "sys", "dev", "creation", "log", "logger", "int", "in", "and", "number")
)  # fmt: skip
_NUMBERS = frozenset(
    ("index", "sample", "samples", "sampleno", "samplenumber", "n", "no", "number", "row", "rowid",
     "unnamed0", "frame", "counter", "packet", "seq", "nseq", "sequence", "idx", "", "seqno",
     "seqnum", "sampleindex", "sampleid", "rownum", "rownumber", "framenumber", "packetid",
     "packetnumber", "recordnumber", "#", "nr", "indexlevel0", "level0")
)  # fmt: skip
PERSONS = frozenset(
    ("subject", "subjectid", "patient", "patientid", "participant", "participantid", "person",
     "personid", "user", "userid", "sid", "pid", "subj", "participantfullid", "subjectcode",
     "subjid", "ptid", "patid", "patientcode", "participantcode", "patientnumber", "subjectnumber")
)  # fmt: skip
NO_SIGNALS = frozenset(
    ("id", "label", "labels", "class", "target", "y", "activity", "activityid", "age", "sex",
     "gender", "height", "weight", "bmi", "session", "sessionid", "visit", "fold", "stratfold",
     "split", "device", "deviceid", "record", "recordid", "recording", "recordingid", "segment",
     "segmentid", "diagnosis", "quality", "annotation", "annotations", "event", "marker", "year",
     "month", "day", "hour", "minute", "tag", "tags", "comment", "note", "source", "trigger",
     "status", "error", "batterylevel", "lead", "di", "headbandon", "elements", "timezone",
     "timezoneoffset", "utcoffset", "fs", "samplingrate", "samplerate", "samplingfrequency")
)  # fmt: skip
_SAYS_NOTHING = frozenset(
    ("value", "values", "sample", "samples", "data", "signal", "amplitude", "reading", "raw", "adc",
     "measurement", "y")
)  # fmt: skip
RATES = frozenset(("fs", "samplingrate", "samplerate", "samplingfrequency", "sfreq", "srate"))
_UNIT_OF_TIME = {
    "s": "s", "sec": "s", "secs": "s", "seconds": "s", "second": "s", "ms": "ms", "msec": "ms",
    "msecs": "ms", "millis": "ms", "milliseconds": "ms", "millisecond": "ms", "us": "us",
    "usec": "us", "micros": "us", "microseconds": "us", "microsecond": "us", "ns": "ns",
    "nsec": "ns", "nanos": "ns", "nanoseconds": "ns", "nanosecond": "ns", "min": "min",
    "mins": "min", "minutes": "min", "minute": "min", "h": "h", "hr": "h", "hrs": "h", "hours": "h",
    "hour": "h", "d": "d", "days": "d",
}  # fmt: skip
_MULTIPLE = re.compile(
    r"(?:[\s_(\[{<]|^)(?:(?:1\s*/\s*(?P<part>\d+(?:\.\d+)?)|x?\s*(?P<times>\d+(?:\.\d+)?))\s*)"
    r"(?P<unit>[a-zA-Z\u00b5\u03bc]+)\s*[)\]}>]?\s*$"
    r"|(?:[\s_(\[{<]|^)(?P<unit2>[a-zA-Z]+)\s*/\s*(?P<share>\d+(?:\.\d+)?)\s*[)\]}>]?\s*$"
)
"""``time (1/128 s)``, ``time [10 ms]``, ``time [s/128]``: what a number of such a column counts."""
_POWER = re.compile(r"10\s*\^\s*-|\*\*\s*-|\de-\d")
_JOINED = re.compile(
    r"(?:time|timestamp|tstamp|t|epoch|unix|unixtime|ticks?|clock|elapsed)"
    r"(msec|ms|millis|usec|us|micros|nsec|ns|nanos|sec)"
)
_NOT_ALONE = frozenset(("s", "g", "c", "f", "a", "v", "m", "l", "1", "d", "h", "bit", "raw", "pm",
                        "none", "norm", "normalized", "normalised", "deg", "min", "counts", "cal",
                        "adc", "count"))  # fmt: skip
"""Words that are units in brackets, but may as well be something else at the end of a name."""


@dataclass(frozen=True)
class Look:
    """What the first rows of a column show.

    Attributes:
        numeric: it holds numbers.
        moment: it holds dates or times of day, by its type or in words.
        rising: numbers that never fall, and rise.
        since: rising numbers as large as those that count from a day (1970) until now.
        counter: whole numbers that go up by one, and may begin anew: rows, counted.
    """

    numeric: bool = True
    moment: bool = False
    rising: bool = False
    since: bool = False
    counter: bool = False


@dataclass(frozen=True)
class Roles:
    """Columns by their position.

    Attributes:
        times: (position, unit) of columns of times; unit of plain numbers, None if that must be
            seen from them. Several: any of them, or a date and a time of day.
        channels: (position, name, unit) of each signal.
        subject: the column that names persons.
        rate: in Hz, if the names of the channels say it.
    """

    times: tuple[tuple[int, str | None], ...]
    channels: tuple[tuple[int, str, str], ...]
    subject: int | None = None
    rate: float | None = None


@lru_cache(maxsize=4096)  # the files of an archive have the same columns
def parted(name: str) -> tuple[str, str]:
    """``"II [mV]"`` → ``("II", "mV")``, ``"ecg_uV"`` → ``("ecg", "uV")``; without a unit, ""."""
    name = _DEVICE.sub("", html.unescape(name).strip())
    if _SIDE.fullmatch(name):
        return name, ""
    bare, treated = _TREATED.subn("", name)
    if treated and bare:
        before = parted(bare)
        if before[1]:  # the unit stands before it
            return before
    match = _BRACKETS.search(name)
    if match is not None:
        inside = match[1].strip()
        if known_unit(inside) != "other" or inside.lower() in _UNIT_OF_TIME:
            return name[: match.start()].strip(), inside
        if known_unit(name[match.start() :].strip()) not in ("", "other"):  # m/(s^2)
            return name[: match.start()].strip(), name[match.start() :].strip()
    for match in filter(None, (pattern.match(name) for pattern in _TRAILING)):
        if _RATE_IN_NAME.fullmatch(f"{match[1][-1]}{match[2]}"):
            continue  # 500 Hz
        unit = plain_unit(match[2])
        alone = known_unit(unit) not in ("", "other") and unit.lower() not in _NOT_ALONE
        if alone or (unit in ("V", "g") and len(match[1]) > 2):  # acc_x_g, ecg_V
            bare, times = _TIMES_AS_MUCH.subn("", match[1])
            bare = bare.lstrip(" _.,:").rstrip(" _-.,:")  # a minus before is a sign
            return bare, f"{match[2]} times 10" if times else match[2]
    return name, ""


def by_file(names: Sequence[str], stem: str, settings: Settings) -> tuple[str, ...]:
    """Names of columns that say nothing by themselves, as the file's name says it.

    ``ECG_left.csv`` with ``timestamp, value`` holds an ECG, and ``watch_acc.csv`` with ``x, y, z``
    accelerations. A column that has a name of its own, or a mapping of the user's, is left alone.
    """
    known = vocabulary(settings.vocabulary)
    shown = tuple(names)
    blank = [at for at, name in enumerate(names) if plain(parted(name)[0]) in _SAYS_NOTHING]
    axes = [at for at, name in enumerate(names) if plain(parted(name)[0]) in ("x", "y", "z")]
    others = [at for at, name in enumerate(names) if meant(parted(name)[0], known).kind != "other"]
    if settings.columns or others or not (len(blank) == 1 or len(axes) == 3):
        return shown
    what = meant(" ".join(re.findall(r"[^\W\d_]+", stem)), known)
    if what.kind == "other" or (len(axes) == 3 and what.kind not in ("ACC", "gyroscope")):
        return shown
    renamed = list(shown)
    for at in axes if len(axes) == 3 else blank:
        bare, bracket = parted(shown[at])
        name = f"{what.name}-{bare.lower()}" if len(axes) == 3 else what.name
        renamed[at] = f"{name} [{bracket}]" if bracket else name
    return tuple(renamed)


def roles(
    names: Sequence[str] | None,
    looks: Sequence[Look],
    settings: Settings,
    *,
    fs: float | None = None,
) -> Roles:
    """Who is who among the columns of a table.

    Args:
        names: of the columns; None where there is no header.
        looks: at them.
        settings: what the user says counts.
        fs: the rate that the file gives elsewhere: then a column that counts rows is no clock.

    Raises:
        BadSignal: if no column is a signal, or one that the user names is not there.
    """
    shown = list(names) if names is not None else [str(n + 1) for n in range(len(looks))]
    known = vocabulary(settings.vocabulary)
    fs = fs if fs is not None else settings.fs
    times = _times(shown, names is not None, looks, settings, known, rated=fs is not None)
    subject = _named(settings.subject, shown, "reader.subject")
    if subject is None and names is not None:
        subject = next((i for i, n in enumerate(shown) if plain(n) in PERSONS), None)
    for wanted in settings.columns:
        _named(wanted, shown, "reader.columns")
    three = [name for name in shown if plain(parted(name)[0]) in ("x", "y", "z")]
    axes = {parted(name)[0] for name in three} if len(three) == 3 else set()  # y: else a label
    found, rates = [], set()
    for at, name in enumerate(shown):
        if at in (*times, subject) or not looks[at].numeric:
            continue
        if settings.columns:
            mapped = settings.channel(name, at + 1)
            if mapped is not None:
                found.append((at, mapped, parted(name)[1]))
            continue
        bare, bracket = parted(name)
        bare, rate = _rate_of(bare) if names is not None else (bare, None)
        measured = dimension(known_unit(bracket)) not in (None, "arbitrary", "time")
        if (
            not measured
            and _no_signal(bare, names is not None, looks[at], known, many=len(shown) > 1)
            and bare not in axes
        ):
            continue
        rates.add(rate)
        found.append((at, bare if names is not None else f"signal {at + 1}", bracket))
    every = all(look.numeric or look.moment for look in looks)
    if names is not None and not settings.columns and not every and len(found) > 0:
        # Words beside numbers: a table of samples only if it says so by its names or its times.
        told = any(is_time(shown[at]) for at in times)  # not dates of visits, births, reports
        told = told or any(meant(channel[1], known).kind != "other" for channel in found)
        found = found if told else []
    if not found:
        raise BadSignal(
            "not-a-signal",
            "no column of this table is a signal. Patients and labels: --table. If one is, name "
            "it: --set reader.columns.2=PPG (by its number from 1, or its name)",
        )
    clocks = tuple(
        (at, settings.time_unit or (time_unit(shown[at]) if names is not None else None))
        for at in times
    )
    rate = rates.pop() if len(rates) == 1 else None
    return Roles(clocks, tuple(found), subject, rate)


def _no_signal(bare: str, header: bool, look: Look, known: Vocabulary, *, many: bool) -> bool:
    """Whether a column of numbers is a count of rows, a label or the like, by its name or looks."""
    named = header and meant(bare, known).kind != "other"
    if look.since and many and not named:
        return True
    if look.counter and many and not named:
        return True
    return header and not named and plain(bare) in _NUMBERS | NO_SIGNALS


def _times(
    names: list[str],
    header: bool,
    looks: Sequence[Look],
    settings: Settings,
    known: Vocabulary,
    *,
    rated: bool,
) -> list[int]:
    """The columns that may hold the times, the likeliest first."""
    given = _named(None if settings.time == "none" else settings.time, names, "reader.time")
    if given is not None:
        return [given]
    wanted = [
        at
        for at, name in enumerate(names)
        if not (settings.columns and settings.channel(name, at + 1) is not None)
    ]
    found = []
    for at in wanted:
        look, name = looks[at], names[at]
        if header and meant(parted(name)[0], known).kind != "other":
            continue
        says = header and (is_time(name) or (look.rising and _TIME_WORDS & _words(name)))
        if look.moment or (look.since and len(names) > 1) or (says and not _count(look, rated)):
            found.append(at)
    bare = not header and not found and len(names) > 1 and 0 in wanted
    if bare and (not looks[0].numeric or looks[0].rising) and not _count(looks[0], rated):
        found = [0]
    if settings.time == "none":
        return []
    legible = [at for at in found if looks[at].numeric or looks[at].moment]
    return legible or found


def _count(look: Look, rated: bool) -> bool:
    """Whether numbers that count 1, 2, 3 are those of the rows, as the rate is known anyway."""
    return look.counter and rated


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


def _words(name: str) -> set[str]:
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", parted(name)[0])
    return set(re.split(r"[\s_\-.:()\[\]/]+", apart.lower())) - {""}


def is_time(name: str) -> bool:
    """Whether a column's name says that it holds times: ``time [s]``, ``t_ms``, ``Phone
    timestamp``."""
    bare = parted(name)[0]
    if plain(bare) in TIMES or _JOINED.fullmatch(plain(bare)):
        return True
    words = _words(name)
    rest = words - _TIME_WORDS - _BESIDE_TIME - _UNIT_OF_TIME.keys()
    return bool(words & _TIME_WORDS) and not rest


def time_unit(name: str) -> str | None:
    """The unit that a column's name gives for the times in it; "10 ms" and "s/128" are such."""
    multiple = _MULTIPLE.search(name)
    if multiple is not None:
        size, part = multiple["times"], multiple["part"] or multiple["share"]
        unit = _UNIT_OF_TIME.get((multiple["unit"] or multiple["unit2"]).lower())
        if unit not in ("s", "ms", "us", "ns") or not float(part or size or 0):  # 24h: of a clock
            return TICKS
        return f"{unit}/{part}" if part else f"{size} {unit}"
    if _POWER.search(name):
        return TICKS
    bare, bracket = parted(name)
    found = _UNIT_OF_TIME.get(bracket.lower()) or unit_of_time(bare)
    return found or (TICKS if _words(name) & {"tick", "ticks", "cycles"} else None)


def unit_of_time(name: str) -> str | None:
    """The unit in a column's name, as in ``time_ms``, ``timestamp-us``, ``time [ns] cal``."""
    bare, bracket = parted(name)
    if bracket.lower() in _UNIT_OF_TIME:
        return _UNIT_OF_TIME[bracket.lower()]
    joined = _JOINED.fullmatch(plain(bare))
    if joined is not None:
        return _UNIT_OF_TIME[joined[1]]
    words = [w for w in re.split(r"[\s_\-.()\[\]]+", name.lower()) if w and w not in ("cal", "raw")]
    if not words or (len(words) == 1 and words[0] not in _UNIT_OF_TIME):
        return None
    return _UNIT_OF_TIME.get(words[-1])


def _rate_of(name: str) -> tuple[str, float | None]:
    """``"ECG_500Hz"`` → ``("ECG", 500.0)``."""
    match = _RATE_IN_NAME.search(name)
    if match is None or match.start() == 0:
        return name, None
    if _PASS_BAND.search(name):
        return " ".join(_FREQUENCIES.sub(" ", name).split()), None
    return (
        (name[: match.start()] + name[match.end() :]).strip(" _-@"),
        float(match[1]) * (1e3 if match[2] else 1.0),
    )
