"""Whom volume files show, by the layouts of public data sets.

All files of an archive are looked at together: no single name tells whether ``amos_0001`` is a case
or the second channel of one, or whether two folders that both hold a ``case_1`` hold one person.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from medcl.plugin import NO_PATIENT
from medcl_ct import kinds, layouts

LAYOUT, SEVERAL = "patient-from-layout", "patient-in-folders"
_PERSON = re.compile(r"sub-[A-Za-z0-9]+|(?:patient|subject|case)[-_]?\d+", re.IGNORECASE)
_SET = re.compile(  # CT-RATE, autoPET, AbdomenAtlas, BraTS, TCIA's LIDC
    r"(?P<ctrate>(?:train|valid|test)_\d+)_[a-z]+_\d+|PETCT_[0-9a-f]+|BDMAP_\d+"
    r"|BraTS-[A-Za-z]+-\d+(?=-\d{3})|BraTS\d\d_[A-Za-z]+_\d+|LIDC-IDRI-\d{4}"
)
_UID = re.compile(r"[012](?:\.\d+){6,}")
_TOTALSEGMENTATOR = re.compile(r"s\d{4}")
_DATED = re.compile(r"(.+?)[_-](?:\d{4}-\d\d-\d\d|\d\d-\d\d-\d{4}).*")
_MOST_CHANNELS = 16
_GENERIC = {
    *("image", "images", "img", "imaging", "volume", "vol", "scan", "data", "series", "raw"),
    *("input", "anat", "dicom", "nifti", "nii", "orig", "original", "x", "out", "output", "file"),
    *("study", "patient", "rawdata", "sourcedata", "derivatives"),
}


@dataclass(frozen=True)
class _Named:
    """Who: an id that is one person's within ``place``, folders that hold a data set."""

    who: str
    place: tuple[str, ...]
    finding: str | None


def people(keys: Sequence[str]) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Whom each volume file of an archive shows.

    Args:
        keys: paths without the suffix of a volume, of images.

    Returns:
        path → the patient, and findings: ``patient-from-layout`` where a data set's layout says so,
        `NO_PATIENT` where it is a guess (the file's name, or its folder's where the name is a word
        that says nothing), none where a part of the path names somebody (``sub-01``); and
        ``patient-in-folders`` where another folder holds somebody of the same name.
    """
    channels = _channels(keys)
    named = {key: _named(PurePosixPath(key), channels.get(key)) for key in keys}
    places: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for one in named.values():
        places[one.who].add(one.place)
    found = {}
    for key, one in named.items():
        several = len(places[one.who]) > 1
        doubt = [SEVERAL] if several and one.finding != NO_PATIENT else []
        patient = "/".join((*one.place, one.who)) if several else one.who
        found[key] = patient, (*([one.finding] if one.finding else []), *doubt)
    return found


def _channels(keys: Iterable[str]) -> dict[str, str]:
    """Files that are channels of a case of nnU-Net → that case's name.

    ``X_0001`` is one only if ``X_0000`` is beside it and there are few of them. Where all files of
    a folder would be channels of one case, they are taken for cases.
    """
    folders: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for key in keys:
        path = PurePosixPath(key)
        if whole := layouts.channel(path.name):
            folders[str(path.parent)][whole].append(key)
    return {
        key: whole
        for cases in folders.values()
        for whole, files in cases.items()
        if any(file.endswith("_0000") for file in files)
        and len(files) <= _MOST_CHANNELS
        and (len(cases) > 1 or len(files) == 1)
        for key in files
    }


def _named(path: PurePosixPath, channel_of: str | None) -> _Named:
    parts = path.parts
    for n, part in enumerate(parts):
        if match := _PERSON.match(part):
            return _Named(match[0], _place(parts[:n]), None)
    for part in parts:
        if match := _SET.match(part):
            return _Named(match["ctrate"] or match[0], (), LAYOUT)
    folder = path.parent.name
    if path.name in ("ct", "mri") and _TOTALSEGMENTATOR.fullmatch(folder):
        return _Named(folder, _place(parts[:-2]), LAYOUT)
    if _UID.fullmatch(path.name):
        return _Named(path.name, (), LAYOUT)
    own = layouts.case(channel_of or path.name)
    own = match[1] if (match := _DATED.fullmatch(own)) else own
    if layouts.IMAGES.fullmatch(folder):
        return _Named(own or path.name, _place(parts[:-2]), LAYOUT)
    names = [(own, len(parts) - 1), *((parts[n], n) for n in range(len(parts) - 2, -1, -1))]
    who, depth = next(((n, d) for n, d in names if not _generic(n)), (path.name, len(parts) - 1))
    return _Named(who, _place(parts[:depth]), NO_PATIENT)


def _place(parts: Sequence[str]) -> tuple[str, ...]:
    """Folders without those that hold a kind of file of everybody."""
    return tuple(part for part in parts if not _generic(part))


def _generic(name: str) -> bool:
    """Whether each word of a name says what is shown, and none who."""
    words = re.split(r"[_.\-\s]+", name.lower())
    return all(not word or word in _GENERIC or kinds.named(word) for word in words)
