"""Whether a patient is one person: what is odd about an archive's patients, said without names.

Splits, positives and intervals are by patient. A patient who is really several people, or several
who are one, makes every figure wrong, and nothing else would show it.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from medcl.plugin import MEMBER, NO_PATIENT, Record

SPELLINGS = "patient-spellings"
"""Finding: the same id, but for its spelling (`normal`), is another patient's too."""

_GENERIC = {
    *(
        "ct",
        "image",
        "img",
        "scan",
        "volume",
        "data",
        "test",
        "patient",
        "subject",
        "study",
        "case",
    ),
    *("dicom", "unknown", "none", "anonymous", "anonymized", "anonymised", "anon", "phantom", "na"),
    *("default", "recording", "record", "slide", "sample", "export", "noname", "nn", "xxx", "temp"),
}
_NONE = ("Cc", "Cf")  # characters that control or format
_MANY = 3
_MOST_EACH = 20  # items a folder, on average, of folders that may be people: fewer are sites, sizes
_MERGE = "medcl index … --merge-spellings"


def normal(patient: str) -> str:
    """A patient's id without case, spaces, punctuation, and leading zeros of its numbers.

    Between two numbers there stays a dash. Forms of one letter or digit are one (accents as
    characters of their own, digits of other widths or scripts); what has no form is left out.
    """
    text = unicodedata.normalize("NFKC", patient).casefold()
    shown = (c for c in unicodedata.normalize("NFKC", text) if unicodedata.category(c) not in _NONE)
    plain = "".join(str(unicodedata.decimal(c, c)) for c in shown)
    plain = re.sub(r"(?<=\d)[\W_]+(?=\d)", "-", plain)
    plain = re.sub(r"(?!(?<=\d)-(?=\d))[\W_]+", "", plain)
    return re.sub(r"(?<!\d)0+(?=\d)", "", plain) or patient


def merged(records: Sequence[Record]) -> list[Record]:
    """Records whose patients are one where their ids differ in spelling only."""
    return [replace(record, patient=normal(record.patient)) for record in records]


def noticed(records: Sequence[Record]) -> tuple[list[Record], list[str]]:
    """Records with a finding where their patient's id has another spelling, and what to say.

    The sentences hold counts and commands, and no id.
    """
    first: dict[str, str] = {}
    spelt: dict[str, set[str]] = defaultdict(set)
    for patient in dict.fromkeys(record.patient for record in records):
        name = normal(patient)
        if first.setdefault(name, patient) != patient:
            spelt[name] |= {first[name], patient}
    del first
    several = {patient for ids in spelt.values() for patient in ids}
    found = [
        replace(record, findings=(*record.findings, SPELLINGS))
        if record.patient in several
        else record
        for record in records
    ]
    return found, [*_spellings(spelt), *_generic(records), *_few(records), *_unnamed(records)]


def _spellings(spelt: dict[str, set[str]]) -> list[str]:
    """Of each id that is spelt in several ways, the ways."""
    if not spelt:
        return []
    return [
        f"{sum(map(len, spelt.values())):,} patients may be {len(spelt):,}: their ids differ in "
        "case, spaces, punctuation or leading zeros only. If they are the same people: "
        f"{_MERGE}"
    ]


def _generic(records: Sequence[Record]) -> list[str]:
    words = {p for p in {r.patient for r in records} if normal(p) in _GENERIC}
    of_word = [r for r in records if r.patient in words]
    if len(of_word) < _MANY:
        return []
    return [
        f"{len(of_word):,} items have a patient whose id is a word that names nobody: they count "
        f"as one person. Say who they are: {_advice(records)}"
    ]


def _few(records: Sequence[Record]) -> list[str]:
    if len(records) < 2 or len({record.patient for record in records}) > 1:
        return []
    return [
        f"All {len(records):,} items are of one patient: there is nobody to tell them from, and "
        f"nobody to test on. If they are of several people: {_advice(records)}"
    ]


def _unnamed(records: Sequence[Record]) -> list[str]:
    unknown = [record for record in records if NO_PATIENT in record.findings]
    if not unknown:
        return []
    return [
        f"{len(unknown):,} of {len(records):,} items name no patient: each study, folder or file "
        f"counts as one. If one person has several: {_advice(unknown)}"
    ]


def _advice(records: Sequence[Record]) -> str:
    """The option to type: the first level of folders that may be people, or a table."""
    places = [r.key.partition("#")[0].replace(MEMBER, "/") for r in records]
    parts = [p.split("/")[:-1] for p in places]  # folders; a series' key is one
    for depth in range(min(map(len, parts), default=0)):
        count = len({tuple(part[: depth + 1]) for part in parts})
        if count > 1 and len(records) <= _MOST_EACH * count:
            before = "[^/]+/" * depth
            return f"--patient-from '^{before}(?P<patient>[^/]+)/'"
    return "--table patients.csv, with columns key and patient"
