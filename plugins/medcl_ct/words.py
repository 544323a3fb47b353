"""Free text of headers → a few fixed words, so that nothing that somebody typed leaves the header.

Descriptions hold names, dates and remarks. What is kept of them is whether a word of a fixed list
occurs: good enough as a weak label, and never personal.
"""

from __future__ import annotations

import re
from functools import lru_cache

_REGIONS = {
    "head": r"head|brain|skull|cranium|cerebr\w*|neuro|sch[aä]del|sinus(es)?|orbits?|ear|nnh|ccj",
    "neck": r"neck|hals|carotids?|cervical",
    "chest": r"chest|thorax|thor\w*|lungs?|lunge|pulm\w*|hrct",
    "heart": r"heart|cardiac|coronar(y|ies)|cor|calcium",
    "abdomen": r"abd\w*|liver|kidneys?|renal|pancreas|colon\w*|urogr\w*",
    "pelvis": r"pel|pelvi\w*|becken|hips?|prostate|bladder",
    "spine": r"spine|[ctl]spine|ws|[bhl]ws|lumb\w*|vertebr\w*",
    "aorta": r"aort\w*|cta|angio\w*|tavi",
    "limb": r"extremity|knee|ankle|foot|wrist|hand|elbow|shoulder|leg|arm|femur|tibia|humerus",
    "whole-body": r"whole ?body|wholebody|wb|polytrauma",
}
_REGION = {
    name: re.compile(rf"(?<![a-z])(?:{pattern})(?![a-z])") for name, pattern in _REGIONS.items()
}
_VENDORS = {
    "siemens": "siemens",
    "ge": "ge medical|general electric|gems|^ge$|ge healthcare",
    "philips": "philips|marconi|picker|elscint",
    "canon": "canon|toshiba",
    "hitachi": "hitachi|fujifilm",
    "neusoft": "neusoft",
    "united-imaging": "united.?imaging|^uih",
    "shimadzu": "shimadzu",
}
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9 .+_/-]{0,23}")
_NO_CONTRAST = re.compile(r"\b(no|without|w/?o|non|native|nativ|none)\b")


@lru_cache(maxsize=4096)
def regions(*texts: str | None) -> str | None:
    """The body regions that these texts name, such as ``abdomen+chest``; None if none."""
    text = " ".join(t.lower().replace("_", " ") for t in texts if t)
    found = [name for name, pattern in _REGION.items() if pattern.search(text)]
    return "+".join(sorted(found)) or None


@lru_cache(maxsize=4096)
def vendor(text: str | None) -> str | None:
    """The maker of a scanner, by one of a few names; "other" for any other text."""
    if not text:
        return None
    lower = text.lower()
    found = (name for name, pattern in _VENDORS.items() if re.search(pattern, lower))
    return next(found, "other")


@lru_cache(maxsize=4096)
def kernel(text: str | None) -> str | None:
    """A reconstruction kernel: its first part, if it looks like the name of one."""
    if not text:
        return None
    name = text.split("\\")[0].strip()
    return name if len(name) <= 16 and _PLAIN.fullmatch(name) else "other"


def model(text: str | None, maker: str | None) -> str | None:
    """A scanner's model, where its maker is known, and the text is short and has no odd signs."""
    if not text or maker in (None, "other") or re.search(r"\d{5,}", text):
        return None
    return text if _PLAIN.fullmatch(text) else None


def contrast(agent: str | None) -> bool | None:
    """Whether a contrast agent was given, as far as the header says; None if it says nothing."""
    if not agent:
        return None
    return _NO_CONTRAST.search(agent.lower()) is None


def age(text: str | None) -> int | None:
    """A PatientAge in years; 90 stands for 90 and more, as rules on privacy ask."""
    match = re.fullmatch(r"(\d{3})([DWMY])", text or "")
    if match is None:
        return None
    years = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0}[match[2]] * int(match[1])
    return min(int(years), 90)
