"""What loggers of motion and of EEG write above their text: ActiGraph, GENEActiv, OpenBCI.

Layouts: ActiLife's and GENEActiv's manuals; docs.openbci.com, "OpenBCI GUI data formats".
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from medcl_biosignals.readers.above import Preamble, cells_of, number
from medcl_biosignals.readers.contract import BadSignal

_AT = re.compile(r"\bat (\d+(?:\.\d+)?) Hz\b")
_EPOCH = re.compile(r"Epoch Period \(hh:mm:ss\)[\s,;]*(\d+):(\d+):(\d+)")
_AXES = ("Accelerometer X", "Accelerometer Y", "Accelerometer Z")
_COUNTS = ("Axis1", "Axis2", "Axis3", "Steps")
_MEASURED = {"acc": "g", "tem": "degC", "gyr": "deg/s"}
_FREQUENCY = re.compile(r"Measurement Frequency[,;\s]+(\d+(?:[.,]\d+)?) Hz")
_STAMP = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[:.,]\d{3}")
_GENEACTIV = (
    ("time", ""), ("ACC-x", "g"), ("ACC-y", "g"), ("ACC-z", "g"), ("light", ""), ("", ""),
    ("TEMP", "degC"),
)  # fmt: skip
_OPENBCI_RATE = re.compile(r"%\s*Sample Rate\s*=\s*(\d+(?:\.\d+)?)")
_OPENBCI_COUNT = re.compile(r"%\s*Number of channels\s*=\s*(\d{1,2})")


def actigraph(lines: Sequence[str], stem: str) -> Preamble | None:
    """Ten lines between two of dashes; raw samples in g at the rate that the first one gives, or
    counts of an epoch."""
    if not lines or "Data File Created By ActiGraph" not in lines[0]:
        return None
    ends = (n for n, line in enumerate(lines[1:40], 1) if re.match(r'"?-{20,}', line))
    end = next(ends, len(lines))
    if end + 1 >= len(lines):
        raise BadSignal("truncated", "the file ends within its header")
    rate, epoch = _AT.search(lines[0]), _EPOCH.search("\n".join(lines[:end]))
    seconds = (
        sum(int(part) * by for part, by in zip(epoch.groups(), (3600, 60, 1), strict=True))
        if epoch
        else 0
    )
    if seconds == 0 and rate is None:
        raise BadSignal("bad-header", "the header of this ActiGraph file names no rate")
    fs = 1 / seconds if seconds else float(rate[1]) if rate else 0.0
    first = cells_of(lines[end + 1])
    headed = not any(number(cell) is not None for cell in first)
    names = tuple(first) if headed else (_COUNTS if seconds else _AXES)[: len(first)]
    units = tuple("" if seconds else _MEASURED.get(name[:3].lower(), "") for name in names)
    return Preamble(fs, names, units, end + 1 + headed, "ActiGraph")


def geneactiv(lines: Sequence[str], stem: str) -> Preamble | None:
    """A hundred lines of settings, then moments, three axes in g, light, button, temperature."""
    if not lines or not re.match(r'"?Device Type"?[,;\t]"?GENEActiv', lines[0]):
        return None
    rate = next(filter(None, map(_FREQUENCY.search, lines[:40])), None)
    start = next((n for n, line in enumerate(lines) if _STAMP.match(line)), None)
    if start is None or rate is None or len(cells_of(lines[start])) != len(_GENEACTIV):
        return None  # an epoch's means, which a header of its own names
    names, units = zip(*_GENEACTIV, strict=True)
    return Preamble(float(rate[1].replace(",", ".")), names, units, start, "GENEActiv")


def openbci(lines: Sequence[str], stem: str) -> Preamble | None:
    """Comments, then rows that begin with a counter of packets: channels in uV, axes in g, inputs.

    Packets come at the device's rate; the times beside them say when the computer took them.
    """
    if not lines or not lines[0].startswith("%OpenBCI Raw"):
        return None
    rate = next(filter(None, map(_OPENBCI_RATE.match, lines[:10])), None)
    start = next((n for n, line in enumerate(lines) if line.strip() and line[0] != "%"), None)
    if rate is None or start is None:
        raise BadSignal("bad-header", "the header of this OpenBCI file names no rate")
    first = cells_of(lines[start])
    if first[0] == "Sample Index":
        names = tuple(_openbci_name(name) for name in first)
        start += 1
    else:  # until version 5 without a line of names
        count = next(filter(None, map(_OPENBCI_COUNT.match, lines[:10])), None)
        exg = [f"EXG {n}" for n in range(int(count[1]) if count else 0)]
        names = ("", *exg, "ACC-x", "ACC-y", "ACC-z")
        names += ("",) * (len(first) - len(names))
    units = tuple(
        "uV" if n.startswith("EXG") else "g" if n.startswith("ACC") else "" for n in names
    )
    return Preamble(float(rate[1]), names, units, start, "OpenBCI")


def _openbci_name(name: str) -> str:
    if name.startswith("EXG Channel "):
        return name
    axis = re.fullmatch(r"Accel Channel ([012])", name)
    return f"ACC-{'xyz'[int(axis[1])]}" if axis else ""
