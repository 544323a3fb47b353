"""Files of features that a lab already has: bags as CLAM, TRIDENT and STAMP write them, and others.

=================  ===============================================================================
CLAM, TRIDENT      ``.h5``: ``features`` (I, F), ``coords`` (I, 2) in pixels of the full-size image
STAMP              ``.h5``: ``feats`` (I, F), ``coords`` (I, 2) in µm
torch, slideflow   ``.pt``: a tensor (I, F), or a mapping that holds one by such a name
torchmil           ``.npy``: (I, F); ``coords`` and ``labels`` in folders beside
MIL benchmarks     ``.npz``: ``X`` (N, F), ``bag`` (N,), ``y`` a bag; or one bag by such names
UCI                ``.data``: bag, instance, features…, class; ``.csv`` with columns bag and y
=================  ===============================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medcl.plugin import Scalar
from medcl_pathology import bag_hdf5, bag_tables, layouts
from medcl_pathology.bag import (
    COORDS,
    FEATURES,
    Bag,
    Heading,
    NoBag,
    bag_of,
    check_finite,
    counts_tiles,
    named,
    shape_of,
    spacing,
)

__all__ = ["Bag", "Heading", "NoBag", "check_finite", "headings", "label", "load", "unit"]


def headings(path: Path) -> list[Heading]:
    """The bags in a file; none for a CSV of another kind.

    Raises:
        NoBag: if it holds none, or cannot be read.
    """
    kind = path.suffix.lower()
    if kind in (".h5", ".hdf5"):
        return [bag_hdf5.heading(path)]
    if kind == ".pt":
        features = _pt(path).features
        return [Heading(None, *features.shape)]
    if kind == ".npy":
        return [Heading(None, *shape_of(_npy(path).shape))]
    if kind == ".npz":
        return _npz_headings(path)
    return bag_tables.headings(path) or []


def load(path: Path, part: str | None, places: Path | None = None) -> Bag:
    """Read a bag; ``places`` is the file with its coordinates, where they lie in one of their own.

    Raises:
        NoBag: if it is not there any more.
        MedclError: if a feature is NaN or infinite: training on it would fail silently.
    """
    kind = path.suffix.lower()
    if kind in (".h5", ".hdf5"):
        bag = bag_hdf5.load(path)
    elif kind == ".pt":
        bag = _pt(path)
    elif kind == ".npy":
        bag = bag_of(np.asarray(_npy(path)), None)
    elif part is None:
        with np.load(path, allow_pickle=False) as held:
            bag = _from_mapping({name: held[name] for name in held.files})
    else:
        bag = bag_tables.load(path, part)
    if places is not None and bag.coords is None:
        bag = bag_of(bag.features, _places(places))
    check_finite(bag.features)
    return bag


def label(path: Path) -> Scalar:
    """The class that an array of its own holds: one number, or the same for all instances.

    Raises:
        NoBag: if it holds something else.
    """
    held = np.unique(_npy(path, numbers="iufb"))
    if held.size != 1:
        raise NoBag("bad-label", f"Its class is {held.size} different numbers: one is needed.")
    return bag_tables.plain(held[0])


def _npy(path: Path, numbers: str = "f") -> NDArray[Any]:
    try:
        held: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception:  # numpy raises several kinds, on objects too
        raise NoBag("unreadable", "It is no NumPy array of numbers, or damaged.") from None
    if held.dtype.kind not in numbers:
        raise NoBag("no-features", f"It holds {held.dtype}, no features.")
    return held


def _places(path: Path) -> NDArray[Any]:
    """Coordinates (I, 2) of top left corners in a file of their own; slideflow's are of centres."""
    if path.suffix.lower() == ".npy":
        places = np.asarray(_npy(path, numbers="iuf"))
    else:
        with np.load(path, allow_pickle=False) as held:
            fitting = [held[name] for name in held.files if held[name].ndim == 2]
        if len(fitting) != 1:
            raise NoBag("bad-coords", "The file of its coordinates does not hold one array (I, 2).")
        places = np.asarray(fitting[0])
    centres = path.name.endswith(layouts.INDEXES) and places.ndim == 2
    return places - spacing(places) / 2 if centres else places


def unit(path: Path) -> Literal["px", "tiles"]:
    """Of coordinates in a file of their own: pixels, or columns and rows of a grid.

    Raises:
        NoBag: if they cannot be read.
    """
    places = _places(path)
    return "tiles" if places.ndim == 2 and counts_tiles(places) else "px"


def _pt(path: Path) -> Bag:
    import torch

    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # torch raises several kinds, from zip files to the unpickler
        raise NoBag(
            "unreadable", "It cannot be read as tensors alone: save a plain tensor (I, F)."
        ) from None
    if isinstance(held, torch.Tensor):
        return bag_of(_numpy(held), None)
    if isinstance(held, Mapping):
        return _from_mapping({str(k): _numpy(v) for k, v in held.items() if hasattr(v, "dim")})
    raise NoBag("no-features", f"It holds a {type(held).__name__}: save a plain tensor (I, F).")


def _numpy(tensor: Any) -> NDArray[Any]:
    import torch

    kept = (torch.float16, torch.float32, torch.int64, torch.int32)
    array: NDArray[Any] = (tensor if tensor.dtype in kept else tensor.float()).numpy()
    return array


def _from_mapping(held: Mapping[str, NDArray[Any]]) -> Bag:
    name, where = named(held, FEATURES), named(held, COORDS)
    if name is None:
        raise NoBag("no-features", f"It holds none of {', '.join(FEATURES)}: not a bag.")
    return bag_of(held[name], held[where] if where else None)


def _npz_headings(path: Path) -> list[Heading]:
    try:
        with np.load(path, allow_pickle=False) as held:
            names = set(held.files)
    except Exception:
        raise NoBag("unreadable", "It is no file of NumPy arrays, or damaged.") from None
    if {"X", "bag"} <= names:
        return bag_tables.headings(path) or []
    try:
        with np.load(path, allow_pickle=False) as held:
            bag = _from_mapping({name: held[name] for name in held.files})
    except ValueError:
        raise NoBag("no-features", "It holds objects or words, no features (I, F).") from None
    return [Heading(None, *bag.features.shape)]
