"""Which files of an archive are opened together, by their names alone."""

from __future__ import annotations

import re
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath

from medcl.plugin import FileStat, Unit
from medcl_ct import layouts

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2")
NIFTI = (".nii", ".nii.gz")
NRRD = (".nrrd", ".nhdr")
META = (".mha", ".mhd")
PAIR = (".hdr", ".hdr.gz")
VOLUMES = (*NIFTI, *NRRD, *META, *PAIR)
APART = (".nhdr", ".mhd", *PAIR)
"""Headers whose values lie in a file of their own, beside them."""
DATA = (".raw", ".raw.gz", ".zraw", ".img", ".img.gz")
BENCHMARK = ".npz"

# Never CT, whatever they hold. All other names are opened: DICOM files often have no suffix.
_OTHER = re.compile(
    r".*\.(txt|md|rst|csv|tsv|xlsx?|json|xml|ya?ml|toml|html?|pdf|docx?|pptx?|py|ipynb|sh|bat|exe|dll"
    r"|js|css|log|ini|cfg|inf|png|jpe?g|gif|bmp|tiff?|svg|mp4|avi|npy|mat|h5|parquet|pth?|bval|bvec"
    r"|7z|rar|sqlite|db|mgz|mgh|mnc)",
    re.DOTALL,
)
_OTHER_NAMES = {"license", "licence", "readme", "makefile", "changelog", "checksums", "md5sums"}
_SLICES_A_UNIT = 64


def units(files: Sequence[FileStat]) -> Iterator[Unit]:
    """Group an archive's files.

    Single slices are opened some dozens at a time, by folder: a unit for each of a million files
    would cost more than reading them. Where a folder is cut depends on the names around the cut
    only, so that a new file changes one unit and not all that follow. A volume file goes with its
    masks (see `medcl_ct.layouts`) and its data (``x.raw``).
    """
    folders: dict[str, list[FileStat]] = defaultdict(list)
    for file in files:
        folders[str(PurePosixPath(file.path).parent)].append(file)
    apart = {stem(f.path) for f in files if f.path.lower().endswith(APART)}
    own = {stem(f.path) for f in files if f.path.lower().endswith(DATA)}
    lacking = {str(PurePosixPath(header).parent) for header in apart - own}
    volumes: list[FileStat] = []
    for folder, members in folders.items():
        slices = []
        for file in members:
            name = file.path.lower()
            if name.endswith((*ARCHIVES, BENCHMARK)):
                yield Unit(file.path, (file,))
            elif name.endswith(VOLUMES) or (
                name.endswith(DATA) and (stem(file.path) in apart or folder in lacking)
            ):
                volumes.append(file)
            elif not foreign(name):
                slices.append(file)
        yield from _chunks(sorted(slices, key=lambda file: file.path))
    yield from _volumes(volumes)


def foreign(name: str) -> bool:
    """Whether a file, by its lower-case name, is of a kind that is never CT."""
    base = PurePosixPath(name).name
    return bool(_OTHER.fullmatch(name)) or base in _OTHER_NAMES or base.startswith("._")


def stem(path: str) -> str:
    """The path without the suffix of a volume file."""
    for suffix in sorted((*VOLUMES, *DATA), key=len, reverse=True):
        if path.lower().endswith(suffix):
            return path[: -len(suffix)]
    return path


def is_mask(path: str) -> bool:
    """Whether a volume file is a segmentation, by its name or by its folder's."""
    return layouts.is_mask(stem(path))


def _volumes(files: Iterable[FileStat]) -> Iterator[Unit]:
    """Each image with its masks and data; a mask whose image is not there stands alone.

    The data of a header that has none of its own name may be any of its folder that is no other's:
    the header says which (`medcl_ct.volumes.scan`).
    """
    heads = [file for file in files if not file.path.lower().endswith(DATA)]
    apart = {stem(file.path) for file in heads if file.path.lower().endswith(APART)}
    data: dict[str, list[FileStat]] = defaultdict(list)  # by header, or by folder
    for file in files:
        if file.path.lower().endswith(DATA):
            own = stem(file.path)
            data[own if own in apart else str(PurePosixPath(own).parent)].append(file)
    whole = {
        f.path: [f, *(data[stem(f.path)] or data[str(PurePosixPath(f.path).parent)])]
        if f.path.lower().endswith(APART)
        else [f]
        for f in heads
    }
    images = [file.path for file in heads if not is_mask(file.path)]
    masks = [file.path for file in heads if is_mask(file.path)]
    by_stem: dict[str, str] = {}
    for path in images:
        by_stem.setdefault(stem(path), path)
    owners = layouts.owners(by_stem, [stem(path) for path in masks])
    groups = {path: list(whole[path]) for path in images}
    for mask in masks:
        owned = owners[stem(mask)]
        for image in owned:
            groups[by_stem[image]] += whole[mask]
        if not owned:
            groups[mask] = whole[mask]
    for path, group in groups.items():
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
