"""Bags in HDF5: CLAM, TRIDENT, STAMP and medcl; their coordinates' unit and the side of a tile."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medcl import manifest
from medcl_pathology.bag import (
    COORDS,
    FEATURES,
    Bag,
    Heading,
    NoBag,
    bag_of,
    counts_tiles,
    named,
    places_of,
    shape_of,
)


def heading(path: Path) -> Heading:
    """What a file holds, without its features."""
    import h5py

    with _open(h5py, path) as file:
        name = _features(file)
        shape = shape_of(file[name].shape)
        where = named(file, COORDS)
        found = dict(file[where].attrs) if where else {}
        found |= dict(file.attrs)
        encoder = file[name].attrs.get("encoder", found.get("encoder", found.get("extractor")))
        places = places_of(file[where][()], shape[0]) if where else None
        unit = _unit(name, found, places)
    grid = places is not None and not unit and counts_tiles(places)
    return Heading(
        None,
        *shape,
        tile=None if grid else _tile(found, unit),
        unit="um" if unit else "tiles" if grid else "px",
        mpp=_positive(found.get("slide_mpp")),
        encoder=encoder if isinstance(encoder, str) else None,
        patient=str(found["patient"]) if "medcl" in found and "patient" in found else None,
        untrained=bool(found.get("untrained", False)),
    )


_UM = {"um": 1.0, "µm": 1.0, "μm": 1.0, "mm": 1e3, "cm": 1e4, "nm": 1e-3}
_UM |= dict.fromkeys(("micron", "micrometer", "micrometre"), 1.0)
_UM |= {"millimeter": 1e3, "millimetre": 1e3}
_PIXELS = ("", "px", "pixel", "level0", "level0px", "level0pixel", "basepixel", "none")
_HISTORIC = 224.0, 256.0  # STAMP's first coordinates: tiles of 256 µm lie 224 apart


def _unit(name: str, found: Mapping[str, Any], coords: NDArray[np.float32] | None) -> float:
    """µm per unit of the coordinates; 0 for pixels of the full-size image.

    STAMP alone writes µm, and says so. Its first versions said nothing and counted pixels of their
    own tiles of 224, each 256 µm wide.

    Raises:
        NoBag: for a unit that is not known.
    """
    said = found.get("unit", "")
    said = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
    unit = said.strip().lower().replace(" ", "").replace("_", "")
    unit = unit if unit in _UM else unit.removesuffix("s")
    if unit in _UM:
        return _UM[unit]
    if unit not in _PIXELS:
        raise NoBag("bad-coords", "Its coordinates are in a unit that is not known: give px or um.")
    stamp = name == "feats" or "stamp_version" in found
    if unit or not stamp or coords is None:
        return 0.0
    historic = all((coords % side == 0).all() == (side == _HISTORIC[0]) for side in _HISTORIC)
    return _HISTORIC[1] / _HISTORIC[0] if historic else 1.0


def _tile(found: Mapping[str, Any], um: float) -> float | None:
    """The side of a tile in the coordinates' unit: µm, or pixels of the full-size image."""
    if um:
        return _positive(found.get("tile_size_um", found.get("tile_size")))
    size = _positive(found.get("patch_size"))
    for name in ("span_x", "patch_size_level0"):
        if (known := _positive(found.get(name))) is not None:
            return known
    if size is None:
        return None
    down = np.asarray(found.get("downsample", 1.0), dtype=np.float64).ravel()  # CLAM's level
    full, target = (_positive(found.get(f"{name}_magnification")) for name in ("level0", "target"))
    if full and target:
        return size * full / target
    return size * (float(down[0]) if down.size and down[0] > 0 else 1.0)


def _positive(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) and number > 0 else None


def _open(h5py: Any, path: Path) -> Any:
    try:
        return h5py.File(path, "r")
    except OSError:
        raise NoBag("unreadable", "It is no HDF5 file, or damaged. Make it anew.") from None


def _features(file: Any) -> str:
    name = named(file, FEATURES)
    if name is None and named(file, COORDS):
        raise NoBag("no-features", "It holds coordinates alone: give the file of features.")
    if name is None:
        known = ", ".join(FEATURES)
        raise NoBag("no-features", f"It holds none of {known}: not a bag of CLAM, TRIDENT, STAMP.")
    return name


def load(path: Path) -> Bag:
    """A bag, its coordinates in µm where they are in µm or STAMP's first unit, else in pixels."""
    import h5py

    manifest.check_block(path, "Remove it and run the same medcl embed --bags again.")
    with _open(h5py, path) as file:
        name = _features(file)
        features = np.asarray(file[name])
        where = named(file, COORDS)
        coords = np.asarray(file[where]) if where else None
        found = {**(dict(file[where].attrs) if where else {}), **dict(file.attrs)}
    bag = bag_of(features, coords)
    um = _unit(name, found, bag.coords)
    return bag if bag.coords is None or um in (0.0, 1.0) else Bag(bag.features, bag.coords * um)
