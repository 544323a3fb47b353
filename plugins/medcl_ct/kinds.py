"""CT, MR and PET: which of them a file is, by its header or its name, and how recipes ask for one.

A recipe prepares one kind (``prepare.modality``); an item of another is left out by name.
"""

from __future__ import annotations

import json
import re
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

from medcl.errors import MedclError, UsageError
from medcl_ct.tags import Tags

Kind = Literal["ct", "mr", "pet"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_STORAGE = "1.2.840.10008.5.1.4.1.1."
PLAIN: dict[str, Kind] = {f"{_STORAGE}2": "ct", f"{_STORAGE}4": "mr", f"{_STORAGE}128": "pet"}
"""SOP classes of one slice a file."""
ENHANCED: dict[str, Kind] = {
    f"{_STORAGE}2.1": "ct",
    f"{_STORAGE}2.2": "ct",  # Legacy Converted
    f"{_STORAGE}4.1": "mr",
    f"{_STORAGE}4.4": "mr",
    f"{_STORAGE}130": "pet",
    f"{_STORAGE}128.1": "pet",
}
"""SOP classes of a whole volume, or several, in one file."""
_MODALITY: dict[str, Kind] = {"CT": "ct", "MR": "mr", "PT": "pet"}

_WORDS: dict[Kind, str] = {
    "ct": r"ct|cta|cect|ncct|ctres|hrct",
    "mr": r"mri?|t1|t1w|t1c|t1ce|t1gd|t1n|t1post|t2|t2w|t2f|t2star|t2starw|flair|dwi|adc|bold|swi"
    r"|pdw?|asl|mra|tof|mprage|unit1|inv[12]|angio",
    "pet": r"pet|suv|fdg|psma",
}
_WORD = {kind: re.compile(words, re.IGNORECASE) for kind, words in _WORDS.items()}
_JSON = 1024 * 1024  # bytes of a dataset.json


def of(tags: Tags) -> Kind | None:
    """What a DICOM file is by its header; None for all else."""
    sop = tags.get("SOPClassUID", "")
    return PLAIN.get(sop) or ENHANCED.get(sop) or _MODALITY.get(tags.get("Modality", ""))


def named(path: str) -> Kind | None:
    """What a volume file is, by a word of its own name, such as the suffix that BIDS asks for.

    Args:
        path: without the suffix of a volume file.
    """
    words = re.split(r"[_.\-\s]+", PurePosixPath(path).name)
    found = {kind for kind, word in _WORD.items() for part in words if word.fullmatch(part)}
    if words[-1].lower() == "pt":  # elsewhere it may stand for a patient
        found.add("pet")
    return found.pop() if len(found) == 1 else None


def declared(root: Path, path: str) -> Kind | None:
    """What ``dataset.json`` beside the folder of images says (Decathlon, nnU-Net).

    The Decathlon has ``"modality": {"0": "MRI"}``, nnU-Net ``"channel_names": {"0": "CT"}``; the
    channel is the one that the file's name ends with, or else the first.
    """
    place = (root / path).parent.parent / "dataset.json"
    try:
        with place.open("rb") as handle:
            said = json.loads(handle.read(_JSON))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(said, dict):
        return None
    channels: Any = said.get("channel_names") or said.get("modality")
    if not isinstance(channels, dict):
        return None
    match = re.search(r"_(\d{4})(?=\.)", PurePosixPath(path).name)
    name = str(channels.get(str(int(match[1])) if match else "0", ""))
    return named(name)


def refuse(kind: Kind, wanted: Kind) -> None:
    """Leave out an item of another kind.

    Raises:
        MedclError: that names both, and what to do.
    """
    if kind != wanted:
        raise MedclError(
            f"other-modality: it is {kind.upper()}, and this recipe prepares {wanted.upper()} "
            f"alone. Use a recipe with prepare.modality={kind} for it."
        )


def only_of_ct(kind: Kind, name: str) -> None:
    """Refuse an augmentation that makes sense in HU alone.

    Raises:
        UsageError: that names the setting.
    """
    if kind != "ct":
        raise UsageError(f"views.{name} looks through windows of CT, and this is {kind.upper()}.")
