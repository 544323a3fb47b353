"""Labels from what headers say in words: age, sex, diagnoses, alarms.

A header's comments may hold anything, names and dates among it. So nothing is passed on: a comment
must begin with a key that is known here, and its value must be one that is known here, all of it;
what follows a value that is not is left unread. Ages over 89 become 90, as the safe-harbour rule of
HIPAA asks (45 CFR 164.514(b)(2)(i)(C)). Such labels are as reliable as whoever typed them:
``finetune.auxiliary`` can take them as noisy.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from itertools import pairwise

from medcl.plugin import Scalar

OLDEST = 90
"""Stands for every age above 89."""
_POSSIBLE = 130

SEXES = {"f": "F", "female": "F", "w": "F", "woman": "F", "m": "M", "male": "M", "man": "M"}

DIAGNOSES = (
    "bundle branch block", "cardiomyopathy", "dysrhythmia", "healthy control", "heart failure",
    "hypertrophy", "myocardial hypertrophy", "myocardial infarction", "myocarditis", "palpitation",
    "stable angina", "unstable angina", "valvular heart disease",
)  # fmt: skip
"""Reasons for admission in the PTB database (Bousseljot 1995), in words."""

FINDINGS = {
    "164889003": "AF", "164890007": "AFL", "6374002": "BBB", "426627000": "Brady",
    "733534002": "CLBBB", "713427006": "CRBBB", "270492004": "IAVB", "713426002": "IRBBB",
    "39732003": "LAD", "445118002": "LAnFB", "164909002": "LBBB", "251146004": "LQRSV",
    "698252002": "NSIVCB", "426783006": "NSR", "284470004": "PAC", "10370003": "PR",
    "365413008": "PRWP", "427172004": "PVC", "164947007": "LPR", "111975006": "LQT",
    "164917005": "QAb", "47665007": "RAD", "59118001": "RBBB", "427393009": "SA",
    "426177001": "SB", "427084000": "STach", "63593006": "SVPB", "164934002": "TAb",
    "59931005": "TInv", "17338001": "VPB",
}  # fmt: skip
"""SNOMED CT codes and their abbreviations, as scored in the PhysioNet/CinC Challenge 2021 (Reyna
2021, doi 10.23919/CinC53138.2021.9662687)."""

WORDS = {
    "AF": ("atrial fibrillation", "afib"),
    "AFL": ("atrial flutter",),
    "BBB": ("bundle branch block",),
    "Brady": ("bradycardia",),
    "CLBBB": ("complete left bundle branch block",),
    "CRBBB": ("complete right bundle branch block",),
    "IAVB": ("1st degree av block", "first degree av block", "1st degree atrioventricular block",
             "first degree atrioventricular block", "i avb", "1avb"),
    "IRBBB": ("incomplete right bundle branch block",),
    "LAD": ("left axis deviation",),
    "LAnFB": ("left anterior fascicular block",),
    "LBBB": ("left bundle branch block",),
    "LQRSV": ("low qrs voltages", "low qrs voltage"),
    "NSIVCB": ("nonspecific intraventricular conduction disorder",
               "non specific intraventricular conduction disorder"),
    "NSR": ("sinus rhythm", "normal sinus rhythm", "snr", "sr"),
    "PAC": ("premature atrial contraction", "premature atrial contractions"),
    "PR": ("pacing rhythm",),
    "PRWP": ("poor r wave progression",),
    "PVC": ("premature ventricular contractions", "premature ventricular contraction"),
    "LPR": ("prolonged pr interval",),
    "LQT": ("prolonged qt interval",),
    "QAb": ("q wave abnormal", "qwave abnormal"),
    "RAD": ("right axis deviation",),
    "RBBB": ("right bundle branch block",),
    "SA": ("sinus arrhythmia",),
    "SB": ("sinus bradycardia",),
    "STach": ("sinus tachycardia",),
    "SVPB": ("supraventricular premature beats", "supraventricular premature beat"),
    "TAb": ("t wave abnormal",),
    "TInv": ("t wave inversion",),
    "VPB": ("ventricular premature beats", "ventricular premature beat"),
}  # fmt: skip
"""The same findings in the words of the Challenge's own table, compared without hyphens."""
_NAMED = {word: name for name, words in WORDS.items() for word in (name.lower(), *words)}

ONE_FINDING = (("CLBBB", "LBBB"), ("CRBBB", "RBBB"), ("PAC", "SVPB"), ("PVC", "VPB"))
"""Pairs that are scored there as one: databases differ in which of the two they write."""

ALARMS = ("asystole", "bradycardia", "tachycardia", "ventricular_tachycardia",
          "ventricular_flutter_fib")  # fmt: skip
"""Of the PhysioNet/CinC Challenge 2015 (Clifford 2015)."""

_VERDICTS = {"false alarm": False, "true alarm": True}

_AGE_UNITS = {
    "y": 1.0, "year": 1.0, "month": 1 / 12, "week": 7 / 365.25, "day": 1 / 365.25,
    "hour": 1 / 8766,
}  # fmt: skip
"""In years."""

_KEY = re.compile(
    r"<?(age|sex|gender|dx|reason for admission|diagnos[ei]s|diagnose)>?"
    r"(?:\s*\([^()]*\))?\s*[:=]\s*",
    re.IGNORECASE,
)
_NEXT = re.compile(r"[\s,;]+(?=" + _KEY.pattern + ")", re.IGNORECASE)
_AGE = re.compile(r"(\d{1,3})(?:\.\d*)?\s*(?:y|yrs?|years?)?(?:\s*old)?", re.IGNORECASE)
_MIT_BIH = re.compile(r"(-1|\?|\d{1,3})\s+([MF])(?:\s+\d+\s+\d+\s+x\d)?")


def labels_of(comments: Iterable[str]) -> dict[str, Scalar]:
    """Comment lines of a header, without their ``#``, → the labels in them; of several the first.

    Example:
        >>> labels_of(["<age>: 93 <sex>: F <diagnoses>: Roe, Anna", "Name: Roe"])
        {'age': 90, 'sex': 'F'}
    """
    found: dict[str, Scalar] = {}
    lines = [" ".join(line.split()) for line in comments]
    for line, following in pairwise([*lines, ""]):
        for name, value in (_alarm(line, following) or _of_line(line)).items():
            found.setdefault(name, value)
    return found


def age_of(text: str) -> int | None:
    """Whole years; None for what is no age."""
    match = _AGE.fullmatch(text.strip())
    years = int(match[1]) if match else _POSSIBLE + 1
    return min(years, OLDEST) if years <= _POSSIBLE else None


def age_at(birth: date, recorded: date) -> int | None:
    """Whole years from one day to another; None from a birth on 1 January 1900: it is a blank."""
    if birth == date(1900, 1, 1):
        return None
    before = (recorded.month, recorded.day) < (birth.month, birth.day)
    return age_of(str(recorded.year - birth.year - before))


def age_in(number: str, unit: str) -> int | None:
    """Whole years of an age in any unit; None for none, and for 0 years: often a blank.

    Example:
        >>> [age_in("93", "YEARS"), age_in("30", "months"), age_in("0", "YEARS"), age_in("7", "")]
        [90, 2, None, None]
    """
    years = _AGE_UNITS.get(unit.strip().lower().rstrip("s"))
    try:
        value = float(number) * (years if years is not None else float("nan"))
    except ValueError:
        return None
    if not 0 <= value <= _POSSIBLE or (value == 0 and years == 1):
        return None
    return min(int(value), OLDEST)


def day_of(text: str) -> date | None:
    """The day of a time stamp of DICOM or HL7 (``20130125…``); None for what is none."""
    try:
        return date(int(text[:4]), int(text[4:6]), int(text[6:8]))
    except ValueError:
        return None


def of_person(sex: str, age: int | None) -> dict[str, Scalar]:
    """The labels of one person, of those that are known."""
    known = {"sex": sex_of(sex), "age": age}
    return {name: value for name, value in known.items() if value is not None}


def sex_of(text: str) -> str | None:
    """ "F" or "M"; None for anything else."""
    return SEXES.get(text.strip().lower())


def _of_line(line: str) -> dict[str, Scalar]:
    if alone := _alone(line):
        return alone
    found: dict[str, Scalar] = {}
    while key := _KEY.match(line):
        end = _NEXT.search(line, key.end())
        value = line[key.end() : end.start() if end else len(line)].strip(" ,;")
        made = _READ[key[1].lower()](value)
        if made is None:
            break  # free text: who knows what else stands in it
        found |= made
        line = line[end.end() :] if end else ""
    return found


def _alone(line: str) -> dict[str, Scalar]:
    """A line of MIT-BIH, which is values without a key."""
    match = _MIT_BIH.fullmatch(line)
    if match is None:
        return {}
    age = age_of(match[1])
    return {"sex": match[2]} | ({} if age is None else {"age": age})


def _alarm(line: str, following: str) -> dict[str, Scalar]:
    """An alarm, and on the next line whether it was true; by itself "Bradycardia" is a finding."""
    alarm, verdict = line.lower().replace(" ", "_"), _VERDICTS.get(following.lower())
    if alarm not in ALARMS or verdict is None:
        return {}
    return {"alarm": alarm, "true_alarm": verdict}


def _age(text: str) -> dict[str, Scalar] | None:
    age = age_of(text)
    return None if age is None else {"age": age}


def _sex(text: str) -> dict[str, Scalar] | None:
    sex = sex_of(text)
    return None if sex is None else {"sex": sex}


def _diagnosis(text: str) -> dict[str, Scalar] | None:
    """The first of a list that is known whole; a class in brackets (NYHA) is left off.

    One part by itself may mean the opposite: "rule out, myocarditis", "no myocarditis, angina".
    """
    parts = [re.sub(r"\s*\(nyha [^()]*\)", "", p.strip().lower()) for p in re.split("[,;]", text)]
    return {"diagnosis": parts[0]} if all(part in DIAGNOSES for part in parts) else None


def _codes(text: str) -> dict[str, Scalar] | None:
    """Every known finding: whether it, or its equal, is there. Codes of others may be anything:
    left out. Words must be known, all of them: one by itself may mean the opposite."""
    parts = [
        " ".join(re.split(r"[\s_-]+", part.strip().lower())) for part in re.split("[,;]", text)
    ]
    if not all(part.isdigit() or part in _NAMED for part in parts):
        return None
    there = {FINDINGS.get(part) or _NAMED.get(part) for part in parts}
    for pair in ONE_FINDING:
        if there.intersection(pair):
            there.update(pair)
    return {f"dx.{name}": name in there for name in FINDINGS.values()}


_Reading = Callable[[str], dict[str, Scalar] | None]
_READ: Mapping[str, _Reading] = {
    "age": _age,
    "sex": _sex,
    "gender": _sex,
    "dx": _codes,
    "reason for admission": _diagnosis,
    "diagnosis": _diagnosis,
    "diagnoses": _diagnosis,
    "diagnose": _diagnosis,
}
