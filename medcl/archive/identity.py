"""Whether a patient is one person: what is odd about an archive's patients, said without names.

Splits, positives and intervals are by patient. A patient who is really several people, or several
who are one, makes every figure wrong, and nothing else would show it.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from medcl.archive.records import Records
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


def merge(records: Records | list[Record]) -> None:
    """In place: patients are one where their ids differ in spelling only."""
    for n, record in enumerate(records):
        if (name := normal(record.patient)) != record.patient:
            records[n] = replace(record, patient=name)


def notice(records: Records | list[Record]) -> list[str]:
    """What to say of the patients. In place: a finding where an id has another spelling too.

    The sentences hold counts and commands, and no id.
    """
    items: Counter[str] = Counter()
    unnamed = 0
    for record in records:
        items[record.patient] += 1
        unnamed += NO_PATIENT in record.findings
    first: dict[str, str] = {}
    spelt: dict[str, set[str]] = defaultdict(set)
    for patient in items:
        name = normal(patient)
        if first.setdefault(name, patient) != patient:
            spelt[name] |= {first[name], patient}
    del first
    several = {patient for ids in spelt.values() for patient in ids}
    for n, record in enumerate(records) if several else ():
        if record.patient in several:
            records[n] = replace(record, findings=(*record.findings, SPELLINGS))
    return [
        *_spellings(spelt),
        *_generic(records, items),
        *_few(records, items),
        *_unnamed(records, unnamed),
    ]


def _spellings(spelt: dict[str, set[str]]) -> list[str]:
    """Of each id that is spelt in several ways, the ways."""
    if not spelt:
        return []
    return [
        f"{sum(map(len, spelt.values())):,} patients may be {len(spelt):,}: their ids differ in "
        "case, spaces, punctuation or leading zeros only. If they are the same people: "
        f"{_MERGE}"
    ]


def _generic(records: Iterable[Record], items: Counter[str]) -> list[str]:
    of_word = sum(count for patient, count in items.items() if normal(patient) in _GENERIC)
    if of_word < _MANY:
        return []
    return [
        f"{of_word:,} items have a patient whose id is a word that names nobody: they count "
        f"as one person. Say who they are: {_advice(records)}"
    ]


def _few(records: Iterable[Record], items: Counter[str]) -> list[str]:
    if items.total() < 2 or len(items) > 1:
        return []
    return [
        f"All {items.total():,} items are of one patient: there is nobody to tell them from, and "
        f"nobody to test on. If they are of several people: {_advice(records)}"
    ]


def _unnamed(records: Sequence[Record], unnamed: int) -> list[str]:
    if not unnamed:
        return []
    unknown = (record for record in records if NO_PATIENT in record.findings)
    return [
        f"{unnamed:,} of {len(records):,} items name no patient: each study, folder or file "
        f"counts as one. If one person has several: {_advice(unknown)}"
    ]


def _advice(records: Iterable[Record]) -> str:
    """The option to type: the first level of folders that may be people, or a table."""
    many = 0
    held: list[set[int]] | None = None  # the folders of each level that all have, by their hashes
    for record in records:
        many += 1
        place = record.key.partition("#")[0].replace(MEMBER, "/")
        folders = place.split("/")[:-1]  # a series' key is one
        held = [set() for _ in folders] if held is None else held[: len(folders)]
        for depth, level in enumerate(held):
            level.add(hash(tuple(folders[: depth + 1])))
    for depth, level in enumerate(held or ()):
        if len(level) > 1 and many <= _MOST_EACH * len(level):
            before = "[^/]+/" * depth
            return f"--patient-from '^{before}(?P<patient>[^/]+)/'"
    return "--table patients.csv, with columns key and patient"
