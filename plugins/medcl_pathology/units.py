"""Which files of an archive are opened together, by their names alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from medcl.plugin import FileStat, Unit
from medcl_pathology.layouts import layout

TIFF = (".tif", ".tiff", ".btf", ".tf8")
SLIDES = (
    ".svs",
    ".qptiff",
    ".ndpi",
    ".scn",
    ".bif",
    ".vsi",
    ".vms",
    ".vmu",
    ".svslide",
    ".czi",
    *TIFF,
)
PICTURES = (".png", ".jpg", ".jpeg", ".bmp")
DICOM = (".dcm", ".dicom")
BAGS = (".h5", ".hdf5", ".pt", ".npy", ".npz", ".data", ".csv")
MIRAX = ".mrxs"
ZARR = ".zarr"


def units(files: Sequence[FileStat]) -> Iterator[Unit]:
    """Group an archive's files.

    A slide, tile or bag file stands for itself; ``x.mrxs`` goes with all that lies in the folder
    ``x``, and the DICOM files of a folder are looked at together, since a slide is several of them.
    What belongs to a bag of another tool's layout goes with it: `medcl_pathology.layouts`.
    """
    found = layout(file.path for file in files)
    by_path = {file.path: file for file in files}
    mirax = {file.path[: -len(MIRAX)]: file for file in files if file.path.lower().endswith(MIRAX)}
    parts: dict[str, list[FileStat]] = {stem: [file] for stem, file in mirax.items()}
    dicom: dict[str, list[FileStat]] = defaultdict(list)
    for file in files:
        name = file.path.lower()
        folder = str(PurePosixPath(file.path).parent)
        owner = folder if folder in mirax else None
        if ZARR in name and (store := _store(file.path)) is not None:
            parts.setdefault(store, []).append(file)
        elif owner is not None:
            parts[owner].append(file)
        elif name.endswith(DICOM):
            dicom[folder].append(file)
        elif name.endswith((*SLIDES, *PICTURES, *BAGS)) and file.path not in found.aside:
            beside = (by_path[path] for path in found.beside.get(file.path, ()))
            yield Unit(file.path, (file, *beside))
    for stem, members in parts.items():
        yield Unit(stem if stem.lower().endswith(ZARR) else members[0].path, tuple(members))
    for members in dicom.values():
        members.sort(key=lambda file: file.path)
        yield Unit(members[0].path, tuple(members))


def _store(path: str) -> str | None:
    """The Zarr folder that a file lies in: one image is thousands of files."""
    parts = PurePosixPath(path).parts
    at = next((n for n, part in enumerate(parts[:-1]) if part.lower().endswith(ZARR)), None)
    return None if at is None else "/".join(parts[: at + 1])
