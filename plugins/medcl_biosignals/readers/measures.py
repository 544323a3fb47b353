"""Units: their usual spelling, what they measure, and the factors between those that convert."""

from __future__ import annotations

import html
import re
import unicodedata
from functools import lru_cache
from typing import NamedTuple


class Measure(NamedTuple):
    """What a unit measures, and its size in the first unit of that dimension."""

    dimension: str
    size: float


_UNITS: dict[str, tuple[str, float, tuple[str, ...]]] = {
    # unit: dimension, size, other spellings
    "mV": ("voltage", 1.0, ("millivolt", "millivolts", "mvolt", "mvolts")),
    "uV": ("voltage", 1e-3, ("microvolt", "microvolts", "uvolt", "uvolts", "mcv", "mkv")),
    "nV": ("voltage", 1e-6, ("nanovolt", "nanovolts")),
    "V": ("voltage", 1e3, ("volt", "volts")),
    "mmHg": ("pressure", 1.0, ("mm[hg]", "mm hg", "mm_hg", "mm-hg", "torr")),
    "cmH2O": ("pressure", 0.735559, ("cm h2o", "cm[h2o]", "cm_h2o", "cmh20")),
    "Pa": ("pressure", 0.00750062, ("pascal",)),
    "kPa": ("pressure", 7.50062, ("kilopascal",)),
    "mbar": ("pressure", 0.750062, ("hpa",)),
    "bar": ("pressure", 750.062, ()),
    "g": ("acceleration", 1.0, ("gn", "g-force", "gs")),
    "mg": ("acceleration", 1e-3, ("milli-g", "millig")),
    "g/64": ("acceleration", 1 / 64, ("1/64g", "1/64 g")),
    "m/s2": (
        "acceleration",
        1 / 9.80665,
        ("m/s^2", "m/s/s", "m/(s^2)", "m/(s2)", "m/(sec^2)",
         "m/(sec2)", "m s-2", "m*s-2", "ms-2", "ms^-2", "m.s-2",
         "m s^-2", "m·s-2", "mps2", "m/sec2", "m/sec^2", "meter/second^2"),
    ),
    "uS": (
        "conductance",
        1.0,
        ("microsiemens", "microsiemen", "usiemens", "usiemen", "umho", "umhos", "micromho"),
    ),
    "nS": ("conductance", 1e-3, ("nanosiemens",)),
    "mS": ("conductance", 1e3, ("millisiemens",)),
    "S": ("conductance", 1e6, ("siemens",)),
    "Ohm": ("resistance", 1.0, ("ohms", "ω")),
    "kOhm": ("resistance", 1e3, ("kohms", "kω")),
    "MOhm": ("resistance", 1e6, ("mohms", "megaohm")),
    "nA": ("current", 1e-6, ("nanoampere",)),
    "uA": ("current", 1e-3, ("microampere",)),
    "mA": ("current", 1.0, ("milliampere",)),
    "A": ("current", 1e3, ("ampere", "amp")),
    "nW": ("power", 1.0, ("nanowatt",)),
    "W": ("power", 1e9, ("watt", "watts")),
    "deg/s": ("turning", 1.0, ("dps", "deg/sec", "degrees/s", "°/s", "degree/s", "deg.s-1")),
    "rad/s": ("turning", 57.29578, ("rad/sec", "rad.s-1")),
    "degC": ("temperature", 1.0, ("°c", "cel", "celsius", "deg c", "c", "degree c", "degrees c",
         "degrees celsius", "degree celsius", "ºc", "˚c", "º c", "° c",
         "oc")),
    "degF": ("temperature", 1.0, ("°f", "fahrenheit", "deg f", "f")),
    "bpm": (
        "frequency",
        1.0,
        ("pm", "rpm", "1/min", "/min", "min-1", "beats/min", "beats per minute", "brpm", "br/min",
         "breaths/min", "beat/min", "bts/min", "per min",
         "min^-1", "b/min", "beats/minute", "bpm.", "breaths per minute"),
    ),
    "Hz": ("frequency", 60.0, ("hertz", "1/s")),
    "%": ("share", 1.0, ("percent", "pct", "prozent")),
    "s": ("time", 1.0, ("sec", "secs", "second", "seconds")),
    "ms": ("time", 1e-3, ("msec", "msecs", "millisecond", "milliseconds")),
    "l": ("volume", 1.0, ("litre", "liter", "litres", "liters")),
    "ml": ("volume", 1e-3, ("millilitre", "milliliter")),
    "l/min": ("flow", 1.0, ("lpm", "l/m")),
    "l/s": ("flow", 60.0, ("l/sec",)),
    "ml/s": ("flow", 0.06, ("ml/sec",)),
    "mm": ("length", 1.0, ()),
    "cm": ("length", 10.0, ()),
    "m": ("length", 1000.0, ()),
    "deg": ("angle", 1.0, ("°", "degrees", "degree")),
    "m/s": ("speed", 1.0, ()),
    "mg/dl": ("concentration", 1.0, ()),
    "mmol/l": ("concentration", 18.0182, ("mmol<180.1558800000541>/l",)),
    "ml/min/kg": ("uptake", 1.0, ("ml/(kg*min)", "ml/kg/min")),
    "a.u.": (
        "arbitrary",
        1.0,
        ("au", "nu", "nd", "adu", "arb", "arb.", "arb. unit", "arb. units", "arbitrary", "n.u.",
         "arbitrary units", "count", "counts", "cnt", "cnts", "raw", "lsb", "bit", "bits", "digit",
         "digits", "adc", "unitless", "no units", "no unit", "dimensionless", "none", "1", "{1}",
         "normalized", "normalised", "norm"),
    ),
}  # fmt: skip
_KEEP = {"NU": "NU", "nu": "NU", "nd": "nd", "adu": "adu", "pm": "pm", "rpm": "rpm", "au": "au"}
"""Spellings of formats that are kept as they are: they are units of their own there."""
MEASURES = {unit: Measure(kind, size) for unit, (kind, size, _) in _UNITS.items()} | {
    "NU": Measure("arbitrary", 1.0),
    "nd": Measure("arbitrary", 1.0),
    "adu": Measure("arbitrary", 1.0),
    "au": Measure("arbitrary", 1.0),
    "pm": Measure("frequency", 1.0),
    "rpm": Measure("frequency", 1.0),
}
_EXACT = {unit: unit for unit in _UNITS} | _KEEP
_SPELLINGS = (
    {alias: unit for unit, (_, _, aliases) in _UNITS.items() for alias in aliases}
    | {unit.lower(): unit for unit in _UNITS if unit not in ("mS", "S", "MOhm", "A", "Pa")}
    | {"nu": "NU", "nd": "nd", "adu": "adu", "pm": "pm", "rpm": "rpm", "au": "au", "pa": "Pa"}
    | {"us": "uS", "mohm": "MOhm", "ma": "mA", "a": "A"}
)
_PREFIXED = re.compile(
    r"(u|m|n|k|micro|milli|nano|kilo)[\s_-]*(v|volts?|s|siemens|ohm|pa)", re.IGNORECASE
)
_PREFIXES = {"micro": "u", "milli": "m", "nano": "n", "kilo": "k"}
_BASES = {"v": "V", "s": "S", "o": "Ohm", "p": "Pa"}
_POWERS = str.maketrans("²³⁻¹", "23-1")


@lru_cache(maxsize=4096)  # the files of an archive have the same units
def known_unit(text: str) -> str:
    """A unit in its usual spelling; "" for none; "other" for what may as well be a name.

    Case counts only where it tells two units apart (mS, ms); micro may be ``u``, either of the two
    Greek letters, and either of them in UTF-8 that was read as Latin-1.

    Example:
        >>> [known_unit(text) for text in ("µV", "[uV]", "ÂµV", "Microvolts", "m/s²", "Roe")]
        ['uV', 'uV', 'uV', 'uV', 'm/s2', 'other']
    """
    text = plain_unit(text)
    if not text:
        return ""
    found = _EXACT.get(text) or _SPELLINGS.get(text.lower())
    parts = None if found else _PREFIXED.fullmatch(text)
    if parts is None:
        return found or "other"
    prefix, base = parts[1].lower(), parts[2]
    if base == "s" and prefix in _PREFIXES.values():
        return "other"  # a second, or siemens
    made = _PREFIXES.get(prefix, prefix) + _BASES[base[0].lower()]
    return made if made in _EXACT else "other"


def plain_unit(text: str) -> str:
    """A unit's text without brackets, and with one spelling of micro."""
    text = html.unescape(repaired(text.replace("\0", " "))).translate(_POWERS)
    text = unicodedata.normalize("NFKC", text).replace("μ", "u").replace("Ω", "Ohm")
    text = " ".join(text.split())
    while len(text) > 2 and (text[0], text[-1]) in (("[", "]"), ("(", ")"), ("{", "}")):
        text = text[1:-1].strip()
    return re.sub(r"\bOhms?\b", "Ohm", text)


def repaired(text: str) -> str:
    """Text whose UTF-8 was read as Latin-1 (or Windows-1252), as it was meant."""
    if text.isascii():
        return text
    for encoding in ("latin-1", "cp1252"):
        try:
            return text.encode(encoding).decode("utf-8")
        except (UnicodeEncodeError, UnicodeDecodeError):
            continue
    return text


def dimension(unit: str) -> str | None:
    """What a unit in its usual spelling measures: "voltage", "arbitrary" …; None if not known."""
    return MEASURES[unit].dimension if unit in MEASURES else None


def factor(unit: str, to: str | None) -> float | None:
    """What to multiply by to come from one unit to the other; None where that is not known."""
    if to is None or unit not in MEASURES or to not in MEASURES:
        return None
    (kind, size), (other, target) = MEASURES[unit], MEASURES[to]
    if kind != other or kind in ("temperature", "arbitrary"):
        return None
    return size / target
