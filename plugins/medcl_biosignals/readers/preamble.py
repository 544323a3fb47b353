"""What recorders write above a text table, or in comments: its rate, its channels, their units.

Known are Empatica E4, OpenSignals, AcqKnowledge's text export, LabChart's, BioSPPy's, those of
`medcl_biosignals.readers.loggers`, and lines that name a sampling rate in words. See
`medcl_biosignals.readers.text` for the table itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from medcl_biosignals.readers.above import Preamble, cells_of, number
from medcl_biosignals.readers.contract import BadSignal
from medcl_biosignals.readers.loggers import actigraph, geneactiv, openbci

_RATE = re.compile(
    r"(?:sampl\w*[\s_\-]*(?:rate|freq\w*)|abtast(?:rate|frequenz)|\bfs\b|\bsfreq\b|\bsrate\b|"
    r"\brate\b|\bfrequency\b)[\"']?\s*(?:[(\[]?\s*(?P<unit>k?hz|hertz|samples[ /](?:per )?s\w*|sps)"
    r"\s*[)\]]?)?[\"']?\s*(?::=|[:=,;\t]|\s)\s*[\"']?(?P<rate>\d+(?:[.,]\d+)?)[\"']?\s*"
    r"(?P<after>k?hz|hertz|samples[ /](?:per )?s\w*|sps)?",
    re.IGNORECASE,
)
_SURE = re.compile(r"sampl|abtast|\bfs\b|sfreq|srate", re.IGNORECASE)
_RATE_OF = re.compile(
    r"[^\w]*(?:(?:the|data|frame|output|measurement|acquisition|recording|signal|adc|scan|scanning|"
    r"digiti[sz]ation|channel|ecg|ekg|ppg|eeg|emg|eda|acc|device)[\s_\-]*)*",
    re.IGNORECASE,
)
"""What may stand before a bare rate or frequency: not that of a notch filter, or of a heart."""
_ASIDE = re.compile(
    r"(?:original|native|source|before|hardware|max\w*|min\w*|effective|filter\w*)[\w\s\-]*$", re.I
)
"""A rate that the samples do not have any more, or need not have."""
_STEP = re.compile(
    r"(?:interval|sampl\w*[\s_\-]*(?:period|interval)|\bdt\b)\s*(?::=|[:=,;\t])\s*"
    r"(?P<step>\d+(?:[.,]\d+)?(?:e-?\d+)?)\s*(?P<unit>s|sec|ms|msec|us|usec|µs)\b",
    re.IGNORECASE,
)
_ACQ = re.compile(r"(?P<step>\d+(?:[.,]\d+)?)\s*(?P<unit>m?u?sec|ms|us|s)/sample", re.IGNORECASE)
_ACQ_RATE = re.compile(r"(?P<rate>\d+(?:[.,]\d+)?)\s*samples/(?:sec|second|s)", re.IGNORECASE)
_ACQ_CHANNELS = re.compile(r"(\d+)\s+channels?", re.IGNORECASE)
_STEPS = {"s": 1.0, "sec": 1.0, "ms": 1e-3, "msec": 1e-3, "us": 1e-6, "usec": 1e-6, "µs": 1e-6}
_NAMES = re.compile(
    r"(?:labels|channels|channel ?names|columns|sensors)\s*(?::=|[:=])\s*(.+)", re.I
)
_UNITS = re.compile(r"(?:units?|units? ?names?)\s*(?::=|[:=])\s*(.+)", re.I)
_E4 = {
    "BVP": (("BVP",), ""), "ACC": (("ACC-x", "ACC-y", "ACC-z"), "g/64"), "EDA": (("EDA",), "uS"),
    "TEMP": (("TEMP",), "degC"), "HR": (("HR",), "bpm"),
}  # fmt: skip
LABCHART = "LabChart text"
_DECIMAL = re.compile(r"^\s*(-?\d+),(\d+)\s*$")
E4_SIGNALS = tuple(_E4)
E4_OTHERS = ("IBI", "tags", "info")
_EPOCH = (9e8, 2.6e9)  # seconds since 1970, in the years of wearables
_WORD = re.compile(r"[^\W\d_]")
_IBI = BadSignal(
    "not-a-signal", "intervals between beats (IBI) as a wearable found them: no waveform to read"
)
_TAGS = BadSignal(
    "not-a-signal", "a list of moments, such as the presses of a button: no waveform to read"
)


def preamble(lines: Sequence[str], stem: str) -> Preamble:
    """Read what stands above a table.

    Args:
        lines: the first of the file.
        stem: its name without suffix; Empatica's files say only there what they hold.

    Raises:
        BadSignal: if the file is one of a device's that hold no waveform.
    """
    for recognise in (
        _opensignals, _empatica, _acqknowledge, _labchart, _shimmer_capture,
        actigraph, geneactiv, openbci,
    ):  # fmt: skip
        found = recognise(lines, stem)
        if found is not None:
            return found
    return _in_words(lines)


def _numbers(line: str) -> list[float] | None:
    cells = [number(cell) for cell in cells_of(line)]
    return None if not cells or any(cell is None for cell in cells) else [c or 0.0 for c in cells]


# --- Empatica E4 ----------------------------------------------------------------------------------


def sensor(stem: str) -> tuple[str, str]:
    """``"e4_BVP"`` → ``("BVP", "e4")``: the sensor in a file's name, and the rest of it."""
    words = re.split(r"[\s_\-.]+", stem)
    for n, word in enumerate(words):
        for name in (*_E4, *E4_OTHERS):
            if word.upper() == name.upper():
                return name, "_".join(words[:n] + words[n + 1 :])
    return "", stem


def _empatica(lines: Sequence[str], stem: str) -> Preamble | None:
    """The first row is when it starts (seconds since 1970), the second the rate, all columns
    alike."""
    # No sensor of it has two columns: 4,000 is a number with a decimal comma.
    filled = (_DECIMAL.sub(r"\1.\2", line) for line in lines[:200] if line.strip())
    first = next(filled, "")
    head, *rest = cells_of(first)
    began = number(head)
    if began is None or not _EPOCH[0] < began < _EPOCH[1]:
        return None
    if [cell.upper() for cell in rest] == ["IBI"]:
        raise _IBI
    rows = [_numbers(line) for line in (first, *filled)]
    if rows[0] is None or len(set(rows[0])) > 1:
        return None
    single = [row for row in rows if row is not None and len(row) == 1]
    if len(single) == len(rows) and all(_EPOCH[0] < row[0] < _EPOCH[1] for row in single):
        raise _TAGS
    if len(rows) < 2 or rows[1] is None or len(rows[1]) != len(rows[0]) or len(set(rows[1])) > 1:
        return None
    fs, columns = rows[1][0], len(rows[0])
    if not 0 < fs <= 5000:
        return None
    name, session = sensor(stem)
    names, unit = _E4.get(name, (tuple(f"signal {n + 1}" for n in range(columns)), ""))
    if len(names) != columns:
        names, unit = tuple(f"signal {n + 1}" for n in range(columns)), ""
    units = (unit,) * columns
    return Preamble(fs, tuple(names), units, 2, "Empatica E4", session if name else None, began)


# --- OpenSignals ----------------------------------------------------------------------------------


def _opensignals(lines: Sequence[str], stem: str) -> Preamble | None:
    """A line of JSON: device → its rate, sensors and columns; then rows of counts."""
    if not lines or "OpenSignals" not in lines[0]:
        return None
    end = next((n for n, line in enumerate(lines) if "EndOfHeader" in line), None)
    text = next((line.lstrip("# ") for line in lines[1:] if line.lstrip("# ").startswith("{")), "")
    try:
        devices: dict[str, dict[str, Any]] = json.loads(text)
        rates = {float(device["sampling rate"]) for device in devices.values()}
        names: list[str] = []
        for device in devices.values():
            sensors = dict(zip(map(str, device["label"]), map(str, device["sensor"]), strict=True))
            names += [sensors.get(str(column), "") for column in device["column"]]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BadSignal(
            "bad-header", "the header of this OpenSignals file cannot be read"
        ) from None
    if end is None or len(rates) != 1:
        raise BadSignal("bad-header", "the header of this OpenSignals file ends too early")
    return Preamble(rates.pop(), tuple(names), ("raw",) * len(names), end + 1, "OpenSignals")


# --- AcqKnowledge, LabChart -----------------------------------------------------------------------


def _acqknowledge(lines: Sequence[str], stem: str) -> Preamble | None:
    """``1 msec/sample``, ``2 channels``, a name and a unit a channel, a header, a row of counts."""
    for n, line in enumerate(lines[:6]):
        said, below = (text.strip(' ,;\t\r"') for text in (line, *lines[n + 1 : n + 2], "")[:2])
        step, rate = _ACQ.fullmatch(said), _ACQ_RATE.fullmatch(said)
        count = _ACQ_CHANNELS.fullmatch(below)
        if (step or rate) and count:
            break
    else:
        return None
    channels = int(count[1])
    if rate:
        fs = float(rate["rate"].replace(",", "."))
    elif step:
        each = float(step["step"].replace(",", ".")) * _STEPS.get(step["unit"].lower(), 1.0)
        fs = 1 / each if each else 0.0
    if not 0 < fs < 1e6:
        raise BadSignal("bad-sampling-rate", f"the file gives a sampling rate of {fs:g} Hz")
    described = [line.strip(' ,;\t\r"') for line in lines[n + 2 : n + 2 + 2 * channels]]
    if len(described) < 2 * channels:
        raise BadSignal("truncated", "the file ends within its header")
    names, units = described[::2], described[1::2]
    at = n + 2 + 2 * channels
    timed = headed = False
    while at < len(lines):  # the header of the columns, and the counts of samples below it
        cells = cells_of(lines[at])
        while cells and not cells[-1]:
            cells.pop()
        if cells and number(cells[0]) is not None and not (headed and _is_counts(cells, channels)):
            timed = len(cells) == channels + 1
            break
        headed = bool(cells) and not cells[0].isdigit()
        timed = timed or (bool(cells) and cells[0].lower() in ("min", "sec", "msec", "ms", "hour"))
        at += 1
    before = ("",) if timed else ()
    return Preamble(
        fs, (*before, *names), (*before, *units), at, "AcqKnowledge text"
    )  # the rate is exact, times in minutes are rounded


def _is_counts(cells: Sequence[str], channels: int) -> bool:
    """Whether a row holds the number of samples of each channel: whole, alike, nothing before."""
    values = [cell for cell in cells if cell]
    return len(set(values)) == 1 and len(values) == channels and values[0].isdigit()


def _labchart(lines: Sequence[str], stem: str) -> Preamble | None:
    """``Interval=<tab>0.001 s``, ``ChannelTitle=<tab>ECG<tab>PPG``; times come before the
    channels."""
    said: dict[str, list[str]] = {}
    last = -1
    for n, line in enumerate(lines[:40]):
        key, equals, rest = line.partition("=")
        if equals and key.strip().isalpha():
            said[key.strip().lower()] = [cell.strip() for cell in rest.split("\t") if cell.strip()]
            last = n
    if "interval" not in said or "channeltitle" not in said:
        return None
    match = re.fullmatch(r"([\d.,]+(?:e-?\d+)?)\s*(m|u|µ)?s(?:ec)?", " ".join(said["interval"]))
    if match is None:
        raise BadSignal("bad-header", "the interval of this LabChart file cannot be read")
    each = float(match[1].replace(",", ".")) * {"m": 1e-3, "u": 1e-6, "µ": 1e-6}.get(match[2], 1.0)
    units = tuple(re.sub(r"^[\d.,\s]+", "", cell) for cell in said.get("range", []))
    names = tuple(said["channeltitle"])
    units = tuple(said.get("unitname", units))
    units = units if len(units) == len(names) else ("",) * len(names)
    first = lines[last + 1].split("\t") if last + 1 < len(lines) else []
    cells = [cell for cell in first if cell.strip()]
    before = ("",) * max(len(cells) - len(names), 0)
    return Preamble(1 / each, (*before, *names), (*before, *units), last + 1, LABCHART)


def _shimmer_capture(lines: Sequence[str], stem: str) -> Preamble | None:
    """Four lines: the device, the signal, RAW or CAL, the unit. Raw counts are left out where a
    signal is there in its unit too."""
    above = [re.split(r"[\t,;]", line.rstrip("\r\n \t,;")) for line in lines[:4]]
    if len(above) < 4 or len({len(row) for row in above}) != 1 or len(set(above[0])) != 1:
        return None
    _, names, kinds, units = ([cell.strip(' "') for cell in row] for row in above)
    if not set(kinds) <= {"RAW", "CAL"} or "CAL" not in kinds:
        return None
    known = [n for n, kind in zip(names, kinds, strict=True) if kind == "CAL"]
    used = ["" if k == "RAW" and n in known else n for n, k in zip(names, kinds, strict=True)]
    return Preamble(None, tuple(used), tuple(units), 4, "ShimmerCapture")


# --- anything that says it in words ---------------------------------------------------------------


def _in_words(lines: Sequence[str]) -> Preamble:
    """A rate, labels and units in comments (BioSPPy's ``# Sampling Rate (Hz):= 1000.00``) or
    lines."""
    rates: set[float] = set()
    names: tuple[str, ...] | None = None
    units: tuple[str, ...] | None = None
    form = "BioSPPy" if lines and "Simple Text Format" in lines[0] else ""
    for line in lines[:100]:
        if not _WORD.search(line):
            continue  # numbers alone
        cells = re.split(r"[,;\t]", line)
        comment = line.lstrip()[:1] in ("#", "%", ";")
        if not comment and len(cells) > 3:
            continue  # of the table
        rate = _rate(line)
        if rate is not None:
            rates.add(rate)
        if comment:
            bare = line.lstrip("#%; ")
            for pattern, which in ((_NAMES, "names"), (_UNITS, "units")):
                match = pattern.match(bare)
                if match is not None:
                    parts = tuple(p.strip(" \"'[]") for p in re.split(r"[,;\t|]", match[1]))
                    names, units = (parts, units) if which == "names" else (names, parts)
    fs = rates.pop() if len(rates) == 1 else None  # of several, none: which columns have which?
    return Preamble(fs, names, units, None, form)


def _rate(line: str) -> float | None:
    """A sampling rate that a line names."""
    match = _RATE.search(line)
    if match is not None and not _ASIDE.search(line[: match.start()]):
        unit = (match["unit"] or match["after"] or "").lower()
        said = _SURE.search(match[0]) or (unit and _RATE_OF.fullmatch(line[: match.start()]))
        if said:
            fs = float(match["rate"].replace(",", ".")) * (1e3 if unit == "khz" else 1.0)
            return fs if 0 < fs < 1e6 else None
    step = _STEP.search(line)
    if step is not None:
        each = float(step["step"].replace(",", ".")) * _STEPS.get(step["unit"].lower(), 1.0)
        return 1 / each if each > 1e-6 else None
    return None


def stem_of(name: str) -> str:
    """A file's name without its suffixes."""
    bare = PurePosixPath(name).name
    for suffix in (".gz", ".xz", ".bz2", ".zst"):
        bare = bare.removesuffix(suffix)
    return PurePosixPath(bare).stem
