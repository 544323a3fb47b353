"""Which files of an archive are opened together, by their names alone."""

from __future__ import annotations

import re
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath

from medcl.plugin import FileStat, Unit

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2")
NIFTI = (".nii", ".nii.gz")
NRRD = (".nrrd", ".nhdr")
NRRD_DATA = (".raw", ".raw.gz", ".zraw")
VOLUMES = (*NIFTI, *NRRD)
BENCHMARK = ".npz"

# Never CT, whatever they hold. All other names are opened: DICOM files often have no suffix.
_OTHER = re.compile(
    r".*\.(txt|md|rst|csv|tsv|xlsx?|json|xml|ya?ml|toml|html?|pdf|docx?|pptx?|py|ipynb|sh|bat|exe|dll"
    r"|js|css|log|ini|cfg|inf|png|jpe?g|gif|bmp|tiff?|svg|mp4|avi|npy|mat|h5|parquet|pth?|bval|bvec"
    r"|7z|rar|sqlite|db)",
    re.DOTALL,
)
_OTHER_NAMES = {"license", "licence", "readme", "makefile", "changelog", "checksums", "md5sums"}
_MASK = re.compile(r"(.*?)[._-](?:seg|mask|label|labels|segmentation)$", re.IGNORECASE)
_IMAGE = re.compile(r"(.*?)[._-](?:ct|img|image)$", re.IGNORECASE)

_SLICES_A_UNIT = 64


def units(files: Sequence[FileStat]) -> Iterator[Unit]:
    """Group an archive's files.

    Single slices are opened some dozens at a time, by folder: a unit for each of a million files
    would cost more than reading them. Where a folder is cut depends on the names around the cut
    only, so that a new file changes one unit and not all that follow. A volume file goes with its
    mask (``x_seg.nii.gz`` beside ``x.nii.gz`` or ``x_ct.nii.gz``) or its data (``x.raw``).
    """
    folders: dict[str, list[FileStat]] = defaultdict(list)
    for file in files:
        folders[str(PurePosixPath(file.path).parent)].append(file)
    for members in folders.values():
        volumes, slices = [], []
        data = {stem(f.path) for f in members if f.path.lower().endswith(".nhdr")}
        for file in members:
            name = file.path.lower()
            if name.endswith((*ARCHIVES, BENCHMARK)):
                yield Unit(file.path, (file,))
            elif name.endswith(VOLUMES) or (name.endswith(NRRD_DATA) and stem(file.path) in data):
                volumes.append(file)
            elif not foreign(name):
                slices.append(file)
        yield from _volumes(volumes)
        yield from _chunks(sorted(slices, key=lambda file: file.path))


def foreign(name: str) -> bool:
    """Whether a file, by its lower-case name, is of a kind that is never CT."""
    return bool(_OTHER.fullmatch(name)) or PurePosixPath(name).name in _OTHER_NAMES


def stem(path: str) -> str:
    """The path without the suffix of a volume file."""
    for suffix in sorted((*VOLUMES, *NRRD_DATA), key=len, reverse=True):
        if path.lower().endswith(suffix):
            return path[: -len(suffix)]
    return path


def is_mask(path: str) -> bool:
    """Whether a volume file is named like a segmentation."""
    return _MASK.fullmatch(stem(path)) is not None


def _volumes(files: Iterable[FileStat]) -> Iterator[Unit]:
    """Each image with its mask and data; a mask whose image is not there stands alone."""
    images: dict[str, list[FileStat]] = {}
    masks: list[FileStat] = []
    data: list[FileStat] = []
    for file in files:
        if file.path.lower().endswith(NRRD_DATA):
            data.append(file)
        elif is_mask(file.path):
            masks.append(file)
        else:
            images[file.path] = [file]
    by_stem: dict[str, str] = {}
    for path in images:
        by_stem.setdefault(stem(path), path)
        named = _IMAGE.fullmatch(stem(path))
        if named:
            by_stem.setdefault(named[1], path)
    for file in masks:
        named = _MASK.fullmatch(stem(file.path))
        image = by_stem.get(named[1]) if named else None
        images.setdefault(image or file.path, []).append(file)
    for file in data:
        header = stem(file.path) + ".nhdr"
        if header in images:
            images[header].append(file)
    for path, group in images.items():
        yield Unit(path, tuple(group))


def _chunks(files: Sequence[FileStat]) -> Iterator[Unit]:
    """Cut a sorted folder after names whose checksum says so: about every 64 files."""
    chunk: list[FileStat] = []
    for file in files:
        chunk.append(file)
        if zlib.crc32(file.path.encode()) % _SLICES_A_UNIT == 0 or len(chunk) == 8 * _SLICES_A_UNIT:
            yield Unit(chunk[0].path, tuple(chunk))
            chunk = []
    if chunk:
        yield Unit(chunk[0].path, tuple(chunk))
