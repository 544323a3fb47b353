"""What a recorder's name for a channel means: medcl's name, the kind of signal, and its sign.

Names are free text: ``EEG Fpz-Cz`` (EDF+: the kind first), ``ECG1``, ``EKG 1``, ``PPG_raw``,
``finger_ppg``, ``Shimmer_8E5F_ECG_LL-RA_24BIT_CAL``, ``-aVR``. They are taken apart into words;
words that tell nothing of the signal are left off, until the vocabulary knows the rest.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from medcl_biosignals.readers.measures import dimension, repaired
from medcl_biosignals.vocabulary import Vocabulary

_DASHES = re.compile("[\u2010-\u2015\u2212\ufe58\ufe63\uff0d]")
_WORDS = re.compile(r"[^\W_]+")
_WORD = re.compile(r"[A-Za-z0-9+\-_%]{1,16}")
_ELECTRODE = re.compile(r"[A-Za-z]{1,3}\d{1,2}")
_NUMBERED = re.compile(r"(.*?[^\W\d])[\s_\-.:#]*\(?(\d{1,3})\)?")
_DEVICE = re.compile(r"^shimmer[_\s-]*[0-9a-f]{2,4}[_\s-]+", re.IGNORECASE)
_UPSIDE_DOWN = "(?:inverted|inv|negative|neg|minus|flipped|reversed)"
_SAYS_TURNED = re.compile(
    rf"{_UPSIDE_DOWN}[\s_.\-]+(.+)|(.+?)[\s_.(\-]+{_UPSIDE_DOWN}\)?", re.IGNORECASE
)
_MONITOR = re.compile(
    r"^(?:SNUADCM?|Solar8000M?|Primus|BIS|Orchestra|Vigilance|Vigileo|EV1000|CardioQ|Invos)/"
)
_LEAD = r"(?:I{1,3}|aV[RLF]|V\d[RL]?|ML(?:I{1,3}|\d))"
_TURNED_LEAD = re.compile(
    rf"(?:(?:ecg|ekg|lead)\s+)*(?:-\s*({_LEAD})|({_LEAD})\s*-)", re.IGNORECASE
)
"""``ECG -aVR``, ``aVR-``; not ``ECG - ECG100C``, nor ``Fp1-``, whose reference is left off."""
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z]{2})(?=[A-Z][a-z])")  # ABPSys
_NOISE = frozenset(
    ("raw", "cal", "calibrated", "uncal", "uncalibrated", "filt", "filtered", "clean", "cleaned",
     "signal", "signals", "sig", "wave", "waveform", "sensor", "data", "value", "values", "val",
     "channel", "chan", "ch", "lead", "derivation", "ln", "wr", "lownoise", "widerange",
     "low", "noise", "wide", "range", "24bit",
     "16bit", "12bit", "10bit", "8bit", "bit", "adc", "output", "out", "input", "in", "analog",
     "analogue", "smoothed", "smooth", "resampled", "norm", "normalized",
     "normalised", "amp", "amplitude", "led", "photodiode", "pd", "optical", "reading", "readings",
     "count", "counts",
     "a1", "a12", "a13", "int", "a14", "x1", "the", "of", "from", "at")
)  # fmt: skip
_PLACES = frozenset(
    ("wrist", "chest", "ankle", "hand", "arm", "forearm", "finger", "fingertip", "index", "ear",
     "earlobe", "forehead", "head", "leg", "hip", "waist", "left", "right", "l", "r", "e4", "watch",
     "ring", "band", "phone", "880nm", "940nm", "660nm", "525nm", "530nm", "850nm", "905nm",
     "respiban", "empatica", "bitalino", "polar", "max30102", "max30101",
     "max86141", "bangle", "oura", "garmin", "fitbit", "apple", "samsung", "thumb", "toe", "neck")
)  # fmt: skip
_DERIVED = frozenset(
    ("rate", "quality", "sqi", "st", "qt", "qtc", "pi", "pvi", "pvc", "pr", "spo2", "sao2",
     "peak", "peaks", "rpeak", "rpeaks", "onset", "onsets", "offsets",
     "phase", "event", "events", "flag", "status", "valid", "validity", "interval", "intervals",
     "ibi", "rri", "hrv", "confidence", "conf", "trigger", "marker", "label", "mask",
     "hr", "bpm", "rr",
     "ratio", "coverage", "off", "leadoff", "loff", "snr", "contact", "error", "battery", "gain",
     "saturation", "impedances",
     "rms", "mean", "avg", "average", "sys", "syst", "systolic", "dia", "dias", "diast",
     "diastolic", "map", "max", "min", "median", "std", "sd", "var")
)  # fmt: skip
"""Words that say that a channel holds what was worked out of a signal, not the signal."""
_ABOUT = frozenset(
    ("id", "ids", "name", "names", "type", "date", "time", "timestamp", "timestamps", "device",
     "file", "filename", "path", "code", "codes", "class", "number", "version", "source", "start",
     "end", "duration", "length", "samples", "position", "site", "annotation", "annotations",
     "score", "prediction", "predicted", "target", "note", "notes", "comment", "comments", "report",
     "diagnosis", "annotator", "subject", "patient", "fs", "frequency", "unit", "units")
)  # fmt: skip
"""Words that say that a column is about a signal, and holds none."""
_PAIR = re.compile(r"([A-Za-z]{1,4}\d{0,2})\s*[-:/]\s*([A-Za-z]{1,4}\d{0,2})")
_EARS = frozenset(("a1", "a2", "m1", "m2", "ref", "le", "re", "avg", "lm", "rm", "a1a2", "nz"))
_LIMBS = {"RA-LA": "-I", "RA-LL": "-II", "LA-LL": "-III"}
_UNIT_KINDS = {"g": "ACC", "mg": "ACC", "m/s2": "ACC", "mV": "ECG"}
NUMERIC = "numeric"


@dataclass(frozen=True)
class Meant:
    """A channel, understood.

    Attributes:
        name: to choose it by: the vocabulary's spelling, with a number (``ECG2``) or a minus sign
            (``-aVR``) where there is one; the name itself if it is one word; "?" for others.
        shown: what may be shown of it: ``name`` if it can name nobody, else "other".
        kind: of the signal; "numeric" for measured values, "other" where it is not known.
        findings: why it is not of the kind that its name says, if it is not.
    """

    name: str
    shown: str
    kind: str
    findings: tuple[str, ...] = ()


def meant(raw: str | None, known: Vocabulary, *, unit: str = "", fs: float | None = None) -> Meant:
    """What a channel is.

    Args:
        raw: its name as recorded.
        known: the vocabulary.
        unit: in its usual spelling (`medcl_biosignals.readers.measures.known_unit`).
        fs: its rate in Hz. A rate or unit that a waveform of its kind cannot have makes it numeric.
    """
    name, shown, kind = _parsed((raw or "").strip(), known)
    findings: list[str] = []
    if kind == "other" and unit in _UNIT_KINDS:
        kind, findings = _UNIT_KINDS[unit], ["kind-by-unit"]
    if kind not in (NUMERIC, "other"):
        measured, fits = dimension(unit), known.measures.get(kind, ())
        if measured not in (None, "arbitrary") and fits and measured not in fits:
            kind, findings = NUMERIC, ["unit-of-no-waveform"]
        elif fs is not None and fs < known.rates.get(kind, 0.0):
            kind, findings = NUMERIC, ["rate-of-no-waveform"]
    return Meant(name, shown, kind, tuple(findings))


@lru_cache(maxsize=4096)
def _parsed(raw: str, known: Vocabulary) -> tuple[str, str, str]:
    """name, shown, kind by the name alone."""
    text = _DASHES.sub("-", unicodedata.normalize("NFKC", repaired(raw))).strip()
    if text.startswith("-"):
        base, shown, kind = _parsed(text[1:].strip(), known)
        if kind not in ("other", NUMERIC):
            return turned(base), turned(shown) if shown != "other" else shown, kind
    lead = _TURNED_LEAD.fullmatch(text)
    if lead is not None:
        base, shown, kind = _parsed(lead[1] or lead[2], known)
        return turned(base), turned(shown), kind
    said = _SAYS_TURNED.fullmatch(text)
    if said is not None:
        base, shown, kind = _parsed((said[1] or said[2]).strip(), known)
        if kind not in ("other", NUMERIC):
            return turned(base), turned(shown) if shown != "other" else shown, kind
    text = _MONITOR.sub("", _DEVICE.sub("", text))  # VitalDB's names begin with the monitor's
    for name, kind, safe in _readings(text, known):
        return name, name if safe else "other", kind
    word = text if _WORD.fullmatch(text) else "?"
    return word, word if _ELECTRODE.fullmatch(word) else "other", "other"


def _readings(text: str, known: Vocabulary) -> Iterator[tuple[str, str, bool]]:
    """(name, kind, whether it may be shown), the best first."""
    yield from _exact(text, known)
    paired = _paired(text, known)
    if paired is not None:
        yield paired
    words = [word for part in _WORDS.findall(text) for word in _CAMEL.split(part)]
    lower = [re.sub(r"(?<=\D)\d$", "", word.lower()) for word in words]
    of_kind = [n for n, word in enumerate(words) if _word_kind(word, known) is not None]
    if len(words) > 1 and _ABOUT.intersection(lower):
        return
    if len(words) > 1 and (_DERIVED.intersection(lower) or _measures(text)):
        if of_kind:
            yield text if _WORD.fullmatch(text) else "?", NUMERIC, False
        return
    for left_off in (_NOISE, _NOISE | _PLACES):
        rest = [word for word in words if word.lower() not in left_off]
        if rest and len(rest) < len(words):
            yield from _exact(" ".join(rest), known)
    if of_kind:
        yield from _kind_first(text, words[of_kind[0]], known)


def _measures(text: str) -> bool:
    """Whether the last part of a name is what was worked out of the signal: ``PPG_SpO2``."""
    parts = [part.lower() for part in _WORDS.findall(text)]
    return len(parts) > 1 and parts[-1] in _DERIVED


def _kind_first(text: str, word: str, known: Vocabulary) -> Iterator[tuple[str, str, bool]]:
    """EDF+'s standard texts: the kind, then what it was taken between; others put it last."""
    found = _word_kind(word, known)
    assert found is not None
    kind, base = found
    rest = text[text.find(word) + len(word) :].strip(" _-:.")
    rest = " ".join(part for part in rest.split() if part.lower() not in _NOISE)
    paired = _paired(rest, known)
    if paired is not None and kind in ("EEG", "EOG", "EMG", "ECG"):
        yield paired[0], kind, paired[2]
    for name, other, safe in _exact(rest, known) if rest else ():
        if other == kind:
            yield name, kind, safe
    number = re.search(r"(?<!\d)(\d{1,2})\W*$", text)
    yield base + (number[1] if number else ""), kind, True


def _exact(text: str, known: Vocabulary) -> Iterator[tuple[str, str, bool]]:
    """A name that the vocabulary has, or one with a number after it."""
    found = known.find(text)
    if found is not None:
        yield found, known.kinds[found], True
        return
    numbered = _NUMBERED.fullmatch(text)
    if numbered is not None:
        found = known.find(numbered[1])
        if found is not None and known.kinds[found] != "other":
            yield f"{found}{int(numbered[2])}", known.kinds[found], True


def _paired(text: str, known: Vocabulary) -> tuple[str, str, bool] | None:
    """Two electrodes with the voltage between them: ``Fpz-Cz``, ``C3:A2``, ``LA-LL``,
    ``ECG1-ECG2``."""
    match = _PAIR.fullmatch(text.strip())
    if match is None:
        return None
    first, second = match[1], match[2]
    limbs = _LIMBS.get(f"{first.upper()}-{second.upper()}")
    if limbs is not None:
        return limbs, "ECG", True
    kinds = [next((k for _, k, _ in _exact(side, known)), None) for side in (first, second)]
    if kinds[0] not in (None, "other", NUMERIC) and (
        kinds[1] == kinds[0] or second.lower() in _EARS
    ):
        return f"{first}-{second}", str(kinds[0]), True
    return None


def _word_kind(word: str, known: Vocabulary) -> tuple[str, str] | None:
    """The kind that one word names, and medcl's name for it; not leads such as ``V`` or ``I``."""
    if len(word) < 3:
        return None
    base = word.rstrip("0123456789")
    found = known.find(base) if len(base) >= 3 else None
    if found is None or known.kinds[found] == "other":
        return None
    return known.kinds[found], found


def turned(name: str) -> str:
    """The name of the same channel turned over: ``aVR`` → ``-aVR`` and back."""
    return name[1:] if name.startswith("-") else f"-{name}"
