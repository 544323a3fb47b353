"""Folders of features as other tools leave them: what goes with a bag, and what is no item.

=============  =====================================================================================
CLAM           ``h5_files/X.h5`` and the same slide again in ``pt_files/X.pt``; ``masks``,
               ``stitches``, ``patches``
TRIDENT        ``…x_…px/features_ENCODER/X.h5``, ``…/patches/X_patches.h5`` (coordinates alone),
               ``…/slide_features_ENCODER``, ``…/visualization``, ``thumbnails``, ``contours``
torchmil       ``features/X.npy``, ``features_ENCODER/X.npy`` (or one in the other), and beside or
               above them ``coords``, ``labels``, ``inst_labels``, ``patch_labels``, ``adj``
slideflow      ``X.pt`` and ``X.index.npz`` (or ``.npy``), the centres of its tiles
=============  =====================================================================================
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath

HDF5 = (".h5", ".hdf5")
ARRAYS = (*HDF5, ".pt", ".npy", ".npz")
INDEXES = (".index.npz", ".index.npy")
_PICTURES = (".png", ".jpg", ".jpeg", ".bmp")
# Folders of pictures that these tools draw beside features: what was found, not what is learnt of.
_DRAWN = frozenset({"thumbnails", "contours", "visualization", "stitches", "masks", "heatmaps"})
_COORDS, _LABELS = ("coords", "coordinates"), ("labels",)
_BESIDE = frozenset({*_COORDS, *_LABELS, "inst_labels", "patch_labels", "adj", "adj_mat"})


@dataclass
class Layout:
    """What the names of an archive's files tell.

    Attributes:
        beside: a bag's file → what goes with it.
        aside: files that are no items of their own.
    """

    beside: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    aside: set[str] = field(default_factory=set)


def layout(paths: Iterable[str]) -> Layout:
    """Sort the files of an archive by their names alone."""
    every = set(paths)
    arrays = {path for path in every if path.lower().endswith(ARRAYS)}
    found = Layout()
    if not arrays:
        return found
    features = {path for path in arrays if not _no_features(path)}
    found.aside |= arrays - features if features else set()
    owners: defaultdict[tuple[str, str], list[str]] = defaultdict(list)  # of torchmil's layout
    for path in sorted(features):
        if (base := _base(path)) is not None and not _named_beside(path):
            for above in (base, *map(str, PurePosixPath(base).parents)):
                owners["" if above == "." else above, PurePosixPath(path).name].append(path)
    for path in sorted(features):
        again = _again(path, features) or _indexed(path, features)
        theirs = owners.get((_base(path) or "", PurePosixPath(path).name), [])
        if again is not None:
            found.beside[again].append(path)
            found.aside.add(path)
        elif _named_beside(path) and theirs:
            for owner in theirs if _parent_in(path, (*_COORDS, *_LABELS)) else ():
                found.beside[owner].append(path)
            found.aside.add(path)
    for path in every - arrays:
        if path.lower().endswith(_PICTURES) and _DRAWN & set(_folders(path)):
            found.aside.add(path)
    return found


def encoder(path: str) -> str | None:
    """The encoder that a folder of features is named after."""
    for folder in reversed(_folders(path)):
        if folder.startswith("features_"):
            return folder.removeprefix("features_")
    return None


def within(path: str, folder: str) -> bool:
    """Whether a file lies in a folder of that name, or of that end of a path."""
    return f"/{folder.strip('/')}/" in f"/{path}"


def coordinates(files: Iterable[str]) -> str | None:
    """Of the files that go with a bag, the one that says where the instances lie."""
    return next((f for f in files if f.endswith(INDEXES) or _parent_in(f, _COORDS)), None)


def labels(files: Iterable[str]) -> str | None:
    """Likewise the one that holds the bag's class."""
    return next((f for f in files if f.endswith(".npy") and _parent_in(f, _LABELS)), None)


def stem(path: str) -> str:
    """A file's name without its suffix; of ``X.index.npz``, X."""
    name = PurePosixPath(path).name
    return name[: -len(INDEXES[0])] if name.endswith(INDEXES) else PurePosixPath(name).stem


def _folders(path: str) -> list[str]:
    return [part.lower() for part in PurePosixPath(path).parent.parts]


def _no_features(path: str) -> bool:
    """Coordinates alone, or one vector a slide."""
    parent = (_folders(path) or [""])[-1]
    coordinates_alone = parent == "patches" and path.lower().endswith(HDF5)
    return coordinates_alone or parent.startswith("slide_features_")


def _again(path: str, features: set[str]) -> str | None:
    """The HDF5 file of the same slide: it has the places too."""
    if not path.endswith(".pt"):
        return None
    file = PurePosixPath(path)
    folders = [file.parent]
    if file.parent.name == "pt_files":
        folders.append(file.parent.parent / "h5_files")
    names = [str(folder / f"{file.stem}{suffix}") for folder in folders for suffix in HDF5]
    return next((name for name in names if name in features), None)


def _indexed(path: str, features: set[str]) -> str | None:
    """The tensors whose places slideflow wrote into this file."""
    owner = f"{path[: -len(INDEXES[0])]}.pt"
    return owner if path.endswith(INDEXES) and owner in features else None


def _parent_in(path: str, names: Iterable[str]) -> bool:
    return any(name in _folders(path)[-2:] for name in names)


def _named_beside(path: str) -> bool:
    return path.endswith(".npy") and _parent_in(path, _BESIDE)


def _base(path: str) -> str | None:
    """What a file of torchmil's layout lies below: the folder of ``features``, ``coords``, …."""
    parts = PurePosixPath(path).parent.parts
    for n in range(len(parts) - 1, -1, -1):
        name = parts[n].lower()
        if name in _BESIDE or name == "features" or name.startswith("features_"):
            return "/".join(parts[:n])
    return None
