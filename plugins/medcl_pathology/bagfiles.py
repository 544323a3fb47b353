"""Files of features that a lab already has: bags as CLAM, TRIDENT and STAMP write them, and others.

=================  ===============================================================================
CLAM, TRIDENT      ``.h5``: ``features`` (I, F), ``coords`` (I, 2) in pixels of the full-size image
STAMP              ``.h5``: ``feats`` (I, F), ``coords`` (I, 2) in µm
torch              ``.pt``: a tensor (I, F), or a mapping that holds one by such a name
MIL benchmarks     ``.npz``: ``X`` (N, F), ``bag`` (N,), ``y`` a bag; or one bag by such names
UCI                ``.data``: bag, instance, features…, class; ``.csv`` with columns bag and y
=================  ===============================================================================
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medcl import manifest
from medcl.errors import MedclError
from medcl.plugin import Scalar

FEATURES = ("features", "feats", "patch_embeddings", "embeddings", "x")
COORDS = ("coords", "coordinates")
_TABLES_AT_ONCE = 4


class NoBag(MedclError):
    """A file that holds no bag: a short code and the reason."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


@dataclass(frozen=True)
class Heading:
    """What is known of a bag without reading its features.

    Attributes:
        part: which bag of the file; None where it holds one.
        instances, features: the shape.
        tile: side of a tile in the units of the coordinates, where the file says.
    """

    part: str | None
    instances: int
    features: int
    labels: Mapping[str, Scalar] = field(default_factory=dict)
    tile: float | None = None


@dataclass(frozen=True)
class Bag:
    """The instances of a bag: features (I, F) float16 or float32, coords (I, 2) or None."""

    features: NDArray[Any]
    coords: NDArray[np.float32] | None = None


def headings(path: Path) -> list[Heading]:
    """The bags in a file; none for a CSV of another kind.

    Raises:
        NoBag: if it holds none, or cannot be read.
    """
    kind = path.suffix.lower()
    if kind in (".h5", ".hdf5"):
        return [_h5_heading(path)]
    if kind == ".pt":
        features = _pt(path).features
        return [Heading(None, *features.shape)]
    if kind == ".npz":
        return _npz_headings(path)
    table = _table(str(path), path.stat().st_mtime_ns)
    if table is None:
        return []
    return [
        Heading(name, len(rows), table.features.shape[1], {"y": _plain(table.y[rows[0]])})
        for name, rows in table.rows.items()
    ]


def load(path: Path, part: str | None) -> Bag:
    """Read a bag.

    Raises:
        NoBag: if it is not there any more.
        MedclError: if a feature is NaN or infinite: training on it would fail silently.
    """
    kind = path.suffix.lower()
    if kind in (".h5", ".hdf5"):
        bag = _h5(path)
    elif kind == ".pt":
        bag = _pt(path)
    elif part is None:
        with np.load(path, allow_pickle=False) as held:
            bag = _from_mapping({name: held[name] for name in held.files})
    else:
        table = _table(str(path), path.stat().st_mtime_ns)
        if table is None or part not in table.rows:
            raise NoBag("no-bag", "The bag is not in its file any more; run medcl index again.")
        bag = Bag(table.features[table.rows[part]])
    check_finite(bag.features)
    return bag


def check_finite(features: NDArray[Any]) -> None:
    """Refuse a bag with NaN.

    Raises:
        MedclError: that counts the instances; the caller names the bag.
    """
    bad = ~np.isfinite(features).all(axis=1)
    if bad.any():
        raise MedclError(
            f"nan-features: {int(bad.sum())} of its {len(features)} instances have NaN or "
            "infinite features. Make this bag anew; half precision overflows above 65504."
        )


def _name(names: Any, wanted: tuple[str, ...]) -> str | None:
    by_lower = {str(name).lower(): str(name) for name in names}
    return next((by_lower[name] for name in wanted if name in by_lower), None)


def _h5_heading(path: Path) -> Heading:
    import h5py

    with _h5_file(h5py, path) as file:
        data = file[_h5_name(file)]
        shape = _shape(data.shape)
        where = _name(file, COORDS)
        found = dict(file[where].attrs) if where else {}
        found |= dict(file.attrs)
        tile = next(
            (found[n] for n in ("tile_size_um", "patch_size_level0", "patch_size") if n in found),
            None,
        )
    return Heading(None, *shape, tile=None if tile is None else float(tile))


def _h5_file(h5py: Any, path: Path) -> Any:
    try:
        return h5py.File(path, "r")
    except OSError:
        raise NoBag("unreadable", "It is no HDF5 file, or damaged. Make it anew.") from None


def _h5_name(file: Any) -> str:
    name = _name(file, FEATURES)
    if name is None and _name(file, COORDS):
        raise NoBag("no-features", "It holds coordinates alone: give the file of features.")
    if name is None:
        known = ", ".join(FEATURES)
        raise NoBag("no-features", f"It holds none of {known}: not a bag of CLAM, TRIDENT, STAMP.")
    return name


def _h5(path: Path) -> Bag:
    import h5py

    manifest.check_block(path, "Remove it and run the same medcl embed --bags again.")
    with _h5_file(h5py, path) as file:
        features = np.asarray(file[_h5_name(file)])
        where = _name(file, COORDS)
        coords = np.asarray(file[where]) if where else None
    return _bag(features, coords)


def _pt(path: Path) -> Bag:
    import torch

    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # torch raises several kinds, from zip files to the unpickler
        raise NoBag(
            "unreadable", "It cannot be read as tensors alone: save a plain tensor (I, F)."
        ) from None
    if isinstance(held, torch.Tensor):
        return _bag(_numpy(held), None)
    if isinstance(held, Mapping):
        return _from_mapping({str(k): _numpy(v) for k, v in held.items() if hasattr(v, "dim")})
    raise NoBag("no-features", f"It holds a {type(held).__name__}: save a plain tensor (I, F).")


def _numpy(tensor: Any) -> NDArray[Any]:
    import torch

    kept = (torch.float16, torch.float32, torch.int64, torch.int32)
    array: NDArray[Any] = (tensor if tensor.dtype in kept else tensor.float()).numpy()
    return array


def _from_mapping(held: Mapping[str, NDArray[Any]]) -> Bag:
    name, where = _name(held, FEATURES), _name(held, COORDS)
    if name is None:
        raise NoBag("no-features", f"It holds none of {', '.join(FEATURES)}: not a bag.")
    return _bag(held[name], held[where] if where else None)


def _bag(features: NDArray[Any], coords: NDArray[Any] | None) -> Bag:
    """In plain shapes: some tools write an axis of 1 in front."""
    features = features.reshape(_shape(features.shape))
    if features.dtype not in (np.float16, np.float32):
        features = features.astype(np.float32)
    if coords is not None:
        try:
            if coords.dtype.names:  # STAMP once wrote a table of x and y
                coords = np.stack([coords[name] for name in coords.dtype.names[:2]], axis=1)
            coords = coords.reshape(len(features), 2).astype(np.float32)
        except (ValueError, TypeError):
            raise NoBag("bad-coords", "Its coordinates do not fit its features.") from None
    return Bag(features, coords)


def _shape(shape: tuple[int, ...]) -> tuple[int, int]:
    if len(shape) == 3 and shape[0] == 1:
        shape = shape[1:]
    if len(shape) != 2 or min(shape) < 1:
        raise NoBag("no-features", f"Its features have the shape {shape}; a bag's is (I, F).")
    return int(shape[0]), int(shape[1])


@dataclass(frozen=True)
class _Table:
    """Many bags in one file: all instances, their bag, and what each says its bag's class is."""

    features: NDArray[np.float32]
    rows: dict[str, NDArray[np.int64]]
    y: NDArray[Any]


def _npz_headings(path: Path) -> list[Heading]:
    try:
        with np.load(path, allow_pickle=False) as held:
            names = set(held.files)
    except Exception:
        raise NoBag("unreadable", "It is no file of NumPy arrays, or damaged.") from None
    if {"X", "bag"} <= names:
        table = _table(str(path), path.stat().st_mtime_ns)
        assert table is not None
        return [
            Heading(
                name,
                len(rows),
                table.features.shape[1],
                {} if table.y.dtype == object else {"y": _plain(table.y[rows[0]])},
            )
            for name, rows in table.rows.items()
        ]
    try:
        with np.load(path, allow_pickle=False) as held:
            bag = _from_mapping({name: held[name] for name in held.files})
    except ValueError:
        raise NoBag("no-features", "It holds objects or words, no features (I, F).") from None
    return [Heading(None, *bag.features.shape)]


def _plain(value: Any) -> Scalar:
    """A class of 0.0 or "1." is a whole number, a word is itself."""
    try:
        number = float(value)
    except ValueError:
        return str(value)
    return int(number) if number.is_integer() else number


@lru_cache(maxsize=_TABLES_AT_ONCE)
def _table(path: str, changed: int) -> _Table | None:
    """All bags of a file; ``changed`` makes the cache notice another file of the same name."""
    kind = Path(path).suffix.lower()
    try:
        if kind == ".npz":
            return _npz_table(path)
        return _uci_table(path) if kind == ".data" else _csv_table(path)
    except (ValueError, KeyError, IndexError, UnicodeDecodeError):
        raise NoBag("no-features", "It is no table of instances: bag, features, class.") from None


def _npz_table(path: str) -> _Table:
    with np.load(path, allow_pickle=False) as held:
        features, bag = np.asarray(held["X"], dtype=np.float32), np.asarray(held["bag"])
        y = np.asarray(held["y"]) if "y" in held.files else None
    if features.ndim != 2 or bag.shape != (len(features),):
        raise NoBag("no-features", "X should be (N, F) and bag (N,).")
    if not len(features):
        raise NoBag("no-features", "It holds no instance.")
    names, code = np.unique(bag, return_inverse=True)
    if y is None:
        each = np.full(len(features), None, dtype=object)
    elif len(y) == len(names):
        each = y[code]
    elif len(y) == len(features):
        each = y
    else:
        raise NoBag("no-features", "y should hold one class a bag, or one an instance.")
    return _Table(features, _rows([str(name) for name in names], code), each)


def _rows(names: list[str], code: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    return {name: np.flatnonzero(code == n) for n, name in enumerate(names)}


def _uci_table(path: str) -> _Table:
    with open(path, encoding="utf-8", newline="") as handle:
        lines = [line for line in csv.reader(handle) if line]
    features = np.array([line[2:-1] for line in lines], dtype=np.float32)
    y = np.array([float(line[-1].rstrip(".")) for line in lines])
    names, code = np.unique([line[0] for line in lines], return_inverse=True)
    return _Table(features, _rows(names.tolist(), code), y)


def _csv_table(path: str) -> _Table | None:
    with open(path, encoding="utf-8", newline="") as handle:
        lines = csv.reader(handle)
        header = next(lines, [])
        if "bag" not in header or "y" not in header or len(header) < 3:
            return None
        rows = [line for line in lines if line]
    at, label = header.index("bag"), header.index("y")
    chosen = [n for n, name in enumerate(header) if name not in ("bag", "y", "instance")]
    features = np.array([[line[n] for n in chosen] for line in rows], dtype=np.float32)
    if not rows:
        raise NoBag("no-features", "It holds no instance.")
    y = np.array([line[label] for line in rows])
    names, code = np.unique([line[at] for line in rows], return_inverse=True)
    return _Table(features, _rows(names.tolist(), code), y)
