"""Whose a volume file is, and which masks are its own, by the layouts of public data sets.

TotalSegmentator (``s0001/ct.nii.gz``, ``s0001/segmentations/liver.nii.gz``), the Medical
Segmentation Decathlon (``imagesTr/liver_1.nii.gz``, ``labelsTr/liver_1.nii.gz``), nnU-Net
(``imagesTr/CASE_0000.nii.gz``, ``labelsTr/CASE.nii.gz``), LUNA16 (``subset0/UID.mhd``,
``seg-lungs-LUNA16/UID.mhd``), CT-RATE (``train_1/train_1_a/train_1_a_2.nii.gz``), BIDS
(``sub-01/…``), and a mask beside its image (``x_seg.nii.gz``, ``x.nii.gz``).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath

from medcl.plugin import NO_PATIENT

LAYOUT = "patient-from-layout"
_MASK = re.compile(r"(?:(.*?)[._-])?(?:d?seg|mask|labels?|segmentation|roi|gt)$", re.IGNORECASE)
_IMAGE = re.compile(r"(.*?)[._-](?:ct|img|image)$", re.IGNORECASE)
_CHANNEL = re.compile(r"(.+)_\d{4}$")
_MASKS = re.compile(
    r"(?:labels?(?:tr|ts|val)?|masks?|segmentations?|segs?|gts?|rois?|seg[-_]lungs.*|annotations?)",
    re.IGNORECASE,
)
_IMAGES = re.compile(r"images?(tr|ts|val)?", re.IGNORECASE)
_PERSON = re.compile(r"sub-[A-Za-z0-9]+|(?:patient|subject|case)[-_]?\d+", re.IGNORECASE)
_CT_RATE = re.compile(r"((?:train|valid|test)_\d+)_[a-z]+_\d+")
_UID = re.compile(r"[012](?:\.\d+){6,}")
_TOTALSEGMENTATOR = re.compile(r"s\d{4}")
_GENERIC = {
    *("ct", "cta", "cect", "ncct", "image", "images", "img", "imaging", "volume", "vol", "scan"),
    *("data", "series", "raw", "input", "anat", "dicom", "nifti", "nii", "orig", "original", "x"),
    *("t1", "t2", "flair", "mr", "mri", "pet", "suv", "out", "output", "file", "study", "patient"),
}


def person(key: str) -> tuple[str, str | None]:
    """Whom a volume file shows, by its path.

    Args:
        key: the path without the suffix of a volume.

    Returns:
        the patient, and ``patient-from-layout`` where a data set's layout says so, `NO_PATIENT`
        where it is a guess: the file's name, or its folder's where the name is a word that says
        nothing (``ct``); None where a part of the path names somebody (``sub-01``).
    """
    path = PurePosixPath(key)
    named = [match[0] for part in path.parts if (match := _PERSON.match(part))]
    if named:
        return named[0], None
    if match := _CT_RATE.fullmatch(path.name):
        return match[1], LAYOUT
    folder = path.parent.name
    if path.name == "ct" and _TOTALSEGMENTATOR.fullmatch(folder):
        return folder, LAYOUT
    if _UID.fullmatch(path.name):
        return path.name, LAYOUT
    match = _CHANNEL.fullmatch(path.name)
    if _IMAGES.fullmatch(folder) and folder.lower() not in ("image", "images"):
        return match[1] if match else path.name, LAYOUT
    own = path.name.removesuffix("_ct")
    names = [own, *reversed(path.parent.parts)]
    return next((name for name in names if name.lower() not in _GENERIC), own), NO_PATIENT


def is_mask(path: str) -> bool:
    """Whether a volume file is a segmentation, by its name or by its folder's.

    Args:
        path: without the suffix of a volume.
    """
    place = PurePosixPath(path)
    return bool(_MASK.fullmatch(place.name) or _MASKS.fullmatch(place.parent.name))


def owners(images: Iterable[str], masks: Sequence[str]) -> dict[str, list[str]]:
    """Mask → the images that it belongs to: none where that is not certain.

    Args:
        images, masks: paths without the suffix of a volume.
    """
    by_place: dict[tuple[str, str], list[str]] = defaultdict(list)  # folder, name
    by_root: dict[tuple[str, str], list[str]] = defaultdict(list)  # folder above, name
    by_folder: dict[str, list[str]] = defaultdict(list)
    for image in images:
        path = PurePosixPath(image)
        folder = str(path.parent)
        by_folder[folder].append(image)
        names = {path.name}
        names |= {m[1] for pattern in (_IMAGE, _CHANNEL) if (m := pattern.fullmatch(path.name))}
        for name in names:
            by_place[folder, name].append(image)
            by_root[str(path.parent.parent), name].append(image)
    return {mask: _owners(PurePosixPath(mask), by_place, by_root, by_folder) for mask in masks}


def _owners(
    mask: PurePosixPath,
    by_place: Mapping[tuple[str, str], list[str]],
    by_root: Mapping[tuple[str, str], list[str]],
    by_folder: Mapping[str, list[str]],
) -> list[str]:
    folder, named = mask.parent, _MASK.fullmatch(mask.name)
    names = [*([named[1]] if named and named[1] else []), mask.name]
    if not _MASKS.fullmatch(folder.name):
        alone = by_folder.get(str(folder), [])
        unnamed = alone if named and not named[1] and len(alone) == 1 else []
        return next((f for n in names if (f := by_place.get((str(folder), n)))), unnamed)
    above = folder.parent
    twin = re.sub(r"(?i)^(?:labels?|masks?|segmentations?)", "images", folder.name)
    for name in names:
        for place in (str(above / twin), str(above), str(folder)):
            if found := by_place.get((place, name)):
                return found
        found = by_root.get((str(above), name), [])
        if len({str(PurePosixPath(image).parent) for image in found}) == 1:
            return found
    alone = by_folder.get(str(above), [])
    return alone if len(alone) == 1 else []
