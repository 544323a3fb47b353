"""Items of volume files: an image with its masks and values, whose it is, what is odd about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from medcl.errors import MedclError
from medcl.plugin import MEMBER, Record, Reject, Scalar
from medcl_ct import kinds, layouts, structures
from medcl_ct.affine_files import Volume, data_file, kind, open_volume
from medcl_ct.kinds import Kind
from medcl_ct.stacking import regularity
from medcl_ct.units import APART, DATA, VOLUMES, is_mask, stem

NOT_AIR = -200.0
"""HU: a volume without any lower value shows neither air nor lung, or is not in HU."""
_SECOND = (
    "Its image has other masks that say the same: masks of known structures are used, or else the "
    "map that is named as the image is."
)
_RATIO = 2000  # a mask packs well; a volume that claims more than that is made up
_FREE = 64 * 1024 * 1024


def scan(root: Path, files: Sequence[str]) -> Iterator[Record | Reject]:
    """A volume with its mask or data beside it: one item."""
    files = _with_named_data(root, files)
    images = _heads(files, mask=False)
    size = sum((root / file).stat().st_size for file in files)
    said = kinds.declared(root, images[0]) if images else None
    yield from records(files, partial(open_volume, root / (images or files)[0]), size, said)


def _with_named_data(root: Path, files: Sequence[str]) -> list[str]:
    """Files without the values of other headers than these: some name theirs otherwise."""
    stems, named = {stem(file) for file in files if file.lower().endswith(APART)}, set()
    for file in files:
        if (data := data_file(root / file)) is not None:
            named.add(str(PurePosixPath(file).parent / data))
    return [f for f in files if not f.lower().endswith(DATA) or stem(f) in stems or f in named]


def records(
    files: Sequence[str], opened: Callable[[], Volume], size: int, said: Kind | None = None
) -> Iterator[Record | Reject]:
    """The item that a volume and what goes with it are.

    Its patient is its path, until all files are known (`medcl_ct.people`).

    Args:
        files: the image, and its mask or data; may be members of an archive.
        opened: reads the image's header; raises MedclError where it cannot be.
        size: bytes of all files.
        said: what the data set says that its images are.
    """
    images, drawn = _heads(files, mask=False), _heads(files, mask=True)
    if not images:
        reason = (
            "It is named like a mask, or lies in a folder of masks, and there is no image, or more "
            "than one, that it can belong to."
        )
        yield from (Reject(shown(file), "mask-alone", reason) for file in drawn)
        return
    first = images[0]
    key = shown(first)
    try:
        volume = opened()
        _plausible(volume, size)
    except MedclError as error:
        code, _, reason = str(error).partition(": ")
        yield Reject(key, code, reason)
        return
    regular = regularity(volume.positions, volume.orientation)
    modality = said or kinds.named(stem(key))
    ct = modality in (None, "ct")
    findings = [
        *([] if ct else ["modality-from-name"]),
        *regular.findings,
        *volume.findings,
        *([] if volume.placed else ["no-affine"]),
        *(["not-hu"] if ct and volume.lowest > NOT_AIR else []),
    ]
    by_stem = {stem(shown(mask)): mask for mask in drawn}
    used = [by_stem[name] for name in layouts.of_item(stem(key), list(by_stem))]
    for mask in set(drawn) - set(used):
        yield Reject(shown(mask), "second-mask", _SECOND)
    drawn, files = used, [file for file in files if file in used or file not in drawn]
    if len(drawn) > 1 and any(structures.code(mask_name(mask)) is None for mask in drawn):
        findings.append("mask-names")
    fields: dict[str, Scalar] = {
        "source": kind(first),
        "modality": modality,
        "slices": volume.shape[2],
        "rows": volume.shape[1],
        "columns": volume.shape[0],
        "pixel_mm": round(float(np.mean(volume.spacing)), 5),
        "spacing_mm": round(regular.spacing, 4),
        "mask": bool(drawn),
    }
    yield Record(
        key,
        (first, *(f for f in files if f != first)),
        stem(key),
        None,
        fields,
        {},
        tuple(findings),
    )


def _heads(files: Sequence[str], *, mask: bool) -> list[str]:
    """The images, or the masks, without the files of their values."""
    return [f for f in files if f.lower().endswith(VOLUMES) and is_mask(shown(f)) == mask]


def masks(files: Sequence[str]) -> list[tuple[str, int]]:
    """The masks of an item, each with the number that it gets in one map of labels.

    A single one keeps its own values: 0 is returned. Of several, each is one structure.
    """
    found = _heads(files, mask=True)
    if len(found) == 1:
        return [(found[0], 0)]
    codes = {file: structures.code(mask_name(file)) for file in found}
    others = sorted((f for f, code in codes.items() if code is None), key=mask_name)
    return [
        (f, codes[f] or structures.LAST + 1 + others.index(f)) for f in sorted(found, key=mask_name)
    ]


def mask_name(file: str) -> str:
    """What a mask is called: its file's name without suffix."""
    return PurePosixPath(stem(shown(file))).name


def shown(file: str) -> str:
    """A file's path, or that of a member as if its archive were a folder."""
    return file.replace(MEMBER, "/")


def _plausible(volume: Volume, size: int) -> None:
    """Refuse a header that claims far more voxels than the file can hold."""
    voxels = int(np.prod([int(n) for n in volume.shape], dtype=object))
    if voxels > _RATIO * size + _FREE:
        raise MedclError(
            f"implausible-size: {voxels:,} voxels are claimed by a file of {size:,} bytes."
        )
