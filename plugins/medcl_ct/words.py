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
# Names of kernels, as makers give them. What a person types into the field fits none of them.
_KERNEL = re.compile(
    r"[ABDHIJQSTU][a-z]?\d{2}[a-z]?|[ABDHIJQSTU]\d{2}[a-z] (?:medium )?(?:very )?"
    r"(?:smooth|sharp)(?:\+\+?)?"  # Siemens: B30f, Br38f, Qr40, "H30s medium smooth"
    r"|STANDARD|STND|SOFT|DETAIL|BONE(?:PLUS)?|EDGE|LUNG|CHST|CHEST|ULTRA|HD ?(?:STND|STANDARD"
    r"|SOFT|DETAIL|BONE|BONEPLUS|EDGE|LUNG|ULTRA)|STANDARDPLUS|STND\+|EXPERIMENTAL7"  # GE
    r"|[ABCDEFLU]|E[BC]|U[AB]|X?C[ABC]|Y[A-F]|FILTER|SHARP|SMOOTH|IMR[12]"  # Philips
    r"|FC\d{2}[A-Z]?(?:-H)?|(?:BODY|BRAIN|LUNG|BONE|CARDIAC)(?: STD)?(?: AXIAL)?"  # Canon
    r"|[BHC]_(?:V?SOFT|V?SHARP|SMOOTH|STANDARD|ULTRA)_[A-D]",  # United Imaging
    re.IGNORECASE,
)
_FAMILY = re.compile(r"([ABDHIJQSTU][a-z]?)(\d{2})([a-z]?(?: [a-z +]+)?)", re.IGNORECASE)
_MODEL_WORDS = """
    somatom sensation emotion definition flash edge force drive perspective spirit scope volume zoom
    plus4 balance go now up all top open pro sim x cite ceed naeotom alpha biograph truepoint mct
    vision horizon symbia intevo t t2 t6 t16 as as+ ds cardiac duo hirez emotion16
    lightspeed hispeed brightspeed discovery revolution optima bright speed light hi high ct cti
    ct/i gsi vct xt xte pro16 plus ultra rt rt16 dual fx/i lx/i nx/i dx/i zx/i ste st rx hd evo es
    apex frontier maxima ace qxi edge elite select advantage pet pet/ct infinia hawkeye nm/ct
    brilliance ingenuity ict iqon mx8000 mx idt big bore access incisive spectral core tf gemini
    vereos aquilion one prime start lightning exceed lb asteion activion alexion xpress gx viga rxl
    cxl vision genesis precision serve aura scenaria eclos supria radix presto pronto robusto view
    neuviz epoch prime 16 64 128 in neusoft uct umi umr uexplorer scintcare anatom shimadzu sct
"""
_MODELS = frozenset(_MODEL_WORDS.split())
_NUMBER = re.compile(r"[a-z]{0,2}\d{1,3}[a-z]{0,2}|\d[./]\d|[a-z]{1,3}/i")
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
    """A reconstruction kernel: its first part, if it is the name of one; else "other".

    Spelled in one way, and of a series of letters and digits (``Br38f``) only within its maker's
    families: what was typed is never passed on as it was. A number alone may be anybody's.
    """
    if not text:
        return None
    name = " ".join(text.split("\\")[0].split())
    if not _KERNEL.fullmatch(name):
        return "other"
    family = _FAMILY.fullmatch(name)
    if family is None:
        return name.upper()
    letters, number, rest = family.groups()
    return f"{letters[0].upper()}{letters[1:].lower()}{number}{rest.lower()}"


@lru_cache(maxsize=4096)
def model(text: str | None, maker: str | None) -> str | None:
    """A scanner's model, if its maker is known and all its words are of known models."""
    if not text or maker in (None, "other") or len(text) > 32:
        return None
    parts = re.split(r"[\s._-]+", text.strip().lower())
    known = all(part in _MODELS or _NUMBER.fullmatch(part) for part in parts)
    return text.strip() if known else None


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
