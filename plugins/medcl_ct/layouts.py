"""Which volume files are masks, and whose, by the layouts of public data sets.

Three things are read from a path: a word at the beginning or the end of the name that says what
it is (``labels-0``, ``x_seg``, ``x_ct``), the words of the folder (``labelsTr``), and what is left
of the name, which is the case. A mask belongs to the images of its case that lie nearest. So it is
in TotalSegmentator, the Medical Segmentation Decathlon, nnU-Net, LUNA16, KiTS, LiTS, CT-ORG, BTCV,
AMOS, WORD, FLARE, BraTS, VerSe, HECKTOR, autoPET, AbdomenAtlas, and in BIDS with its derivatives.
`medcl_ct.people` says whom an image shows.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from medcl_ct import kinds, structures

_MASK = {
    *("seg", "segs", "dseg", "mask", "masks", "msk", "label", "labels", "lb", "roi", "rois"),
    *("segmentation", "segmentations", "gt", "gts", "groundtruth", "ground", "truth"),
    *("annotation", "annotations"),
}
_LONG = {word for word in _MASK if len(word) > 3}
_IMAGE = {"image", "images", "img", "im", "imaging", "volume", "vol", "scan", "data", "pt"}
_SPLIT = {"tr", "ts", "te", "val", "train", "training", "test", "testing", "validation"}
_MASKS = re.compile(
    r"(?:labels?(?:tr|ts|val)?|masks?|segmentations?|segs?|gts?|rois?|annotations?)", re.IGNORECASE
)
IMAGES = re.compile(r"images?(?:tr|ts|val)", re.IGNORECASE)
_LAST = re.compile(r"(.*?)(?:^|[_.\s-]+)\d*([A-Za-z][A-Za-z0-9]*)")
_FIRST = re.compile(rf"(?i)(?:{'|'.join(sorted(_MASK | _IMAGE))})(?![a-z])[_.\s-]*")
_CHANNEL = re.compile(r"(.+)_\d{4}$")
_SAID_OF_MASKS = ("seg", "label", "desc", "space", "res", "den")  # entities of BIDS derivatives


def is_mask(path: str) -> bool:
    """Whether a volume file is a segmentation, by its name or by its folder's.

    Args:
        path: without the suffix of a volume.
    """
    name, folder = PurePosixPath(path).name, PurePosixPath(path).parent.name
    words = _words(name)
    if IMAGES.fullmatch(folder):  # nnU-Net's cases may have any name, and end with their channel
        return bool(words) and words[-1] in _MASK
    if _MASKS.fullmatch(folder) or _names_mask(name):
        return True
    return _of_masks(folder) and not any(_bared(w) in _IMAGE or _is_kind(w) for w in words)


def owners(images: Iterable[str], masks: Sequence[str]) -> dict[str, list[str]]:
    """Mask → the images that it belongs to: none where that is not certain.

    Args:
        images, masks: paths without the suffix of a volume.
    """
    cases: dict[str, list[str]] = defaultdict(list)
    folders: dict[str, list[str]] = defaultdict(list)
    for image in sorted(images) if masks else ():
        folders[str(PurePosixPath(image).parent)].append(image)
        for one in set(_cases_of_image(image)):
            cases[one].append(image)
    return {mask: _owners(PurePosixPath(mask), cases, folders) for mask in masks}


def _owners(
    mask: PurePosixPath, cases: dict[str, list[str]], folders: dict[str, list[str]]
) -> list[str]:
    named = _cases_of_mask(str(mask))
    for place in _places(mask):
        for case in named:
            found = list(_below(place, cases.get(case, [])))
            if not case:  # it names nobody: it can only be beside its image
                found = [image for image in found if str(PurePosixPath(image).parent) == place]
            if len({str(PurePosixPath(image).parent) for image in found}) == 1:
                return found
            if found:
                return []
    inside = bool(_MASKS.fullmatch(mask.parent.name)) or mask.parent.name == "instances"
    alone = folders.get(str(mask.parent.parent if inside else mask.parent), [])
    if len({min(_cases_of_image(image)) for image in alone}) != 1:
        return []
    return alone if inside or not named[-1] or "" in _cases_of_image(alone[0]) else []


def _places(mask: PurePosixPath) -> list[str]:
    """Folders below which a mask's image may lie, the likeliest first."""
    folder = mask.parent
    if not mask.name.startswith("sub-"):
        twin = re.sub(r"(?i)^(?:labels?|masks?|segmentations?)", "images", folder.name)
        return [str(folder.parent / twin), str(folder), str(folder.parent)]
    parts = folder.parts
    if "derivatives" in parts:
        top = parts.index("derivatives")
    else:
        top = next((n for n, part in enumerate(parts) if part.startswith("sub-")), len(parts))
    return [str(PurePosixPath(*parts[:n])) for n in range(len(parts), top - 1, -1)]


def _below(place: str, images: Sequence[str]) -> Sequence[str]:
    """Those of some paths, in order, that lie below a folder."""
    if place == ".":
        return images
    return images[bisect_left(images, f"{place}/") : bisect_left(images, f"{place}0")]


def case(name: str) -> str:
    """A name without the words at its end that say what it is: ``BraTS20_001_t2`` → BraTS20_001."""
    while match := _LAST.fullmatch(name):
        if match[2].lower() not in _MASK | _IMAGE and not _is_kind(match[2]):
            break
        name = match[1]
    return name


def of_item(image: str, masks: Sequence[str]) -> list[str]:
    """The masks of an image that are one description of it.

    Beside a map of all labels there may be masks of single structures, or of several hands. Known
    structures are preferred, then the map that is named as its image is.
    """
    cases = set(_cases_of_image(image))
    structure = [m for m in masks if structures.code(PurePosixPath(m).name) is not None]
    maps = [mask for mask in masks if not cases.isdisjoint(_cases_of_mask(mask))]
    if structure and maps:
        return [m for m in masks if m in structure or not _names_mask(PurePosixPath(m).name)]
    return maps or list(masks)


def channel(name: str) -> str | None:
    """The case of a file that is named as nnU-Net names a channel of it."""
    match = _CHANNEL.fullmatch(name)
    return match[1] if match else None


def _cases_of_image(path: str) -> list[str]:
    name = PurePosixPath(path).name
    if name.startswith("sub-"):
        return [_entities(name)]
    names = [name, *([whole] if (whole := channel(name)) else [])]
    return [case for one in names for case in _bare(one)]


def _cases_of_mask(path: str) -> list[str]:
    """The cases that a mask may be of: by its whole name, and without what says that it is one."""
    name = PurePosixPath(path).name
    if name.startswith("sub-"):
        return [_entities(name)]
    words = _words(name)
    last = max((n for n, word in enumerate(words) if _bared(word) in _MASK), default=0)
    return [*_bare(name), *([" ".join(words[:last])] if last else [])]


def _bare(name: str) -> list[str]:
    """A name, and without the words at its end and its beginning that say what it is."""
    plain = case(name)
    return [" ".join(_words(text)) for text in (name, plain, _FIRST.sub("", plain))]


def _entities(name: str) -> str:
    """What a name of BIDS says of the image, without its suffix and what is said of masks alone."""
    parts = name.split("_")[:-1]
    return "_".join(part for part in parts if part.partition("-")[0] not in _SAID_OF_MASKS)


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"[^a-z0-9]+", text.lower()) if word]


def _bared(word: str) -> str:
    return word.strip("0123456789")


def _names_mask(name: str) -> bool:
    """Whether the first or the last word of a name says that it is a mask."""
    told = [bare for word in _words(name) if (bare := _bared(word))]
    return bool(told) and (told[0] in _MASK or told[-1] in _MASK)


def _of_masks(folder: str) -> bool:
    """Whether a folder's name begins or ends with a word of masks: ``seg-lungs-LUNA16``."""
    if _names_mask(re.sub(r"[\d-]+$", "", folder)):
        return True
    humps = _words(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", folder))
    return next((word in _LONG for word in reversed(humps) if word not in _SPLIT), False)


def _is_kind(word: str) -> bool:
    return kinds.named(word) is not None
