"""Many bags in one file: the tables that MIL benchmarks are handed around in."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medcl.archive import labtable
from medcl.plugin import Scalar
from medcl_pathology.bag import Bag, Heading, NoBag

_TABLES_AT_ONCE = 4
_HEAD = 1 << 16  # bytes, of the first line of a table


def headings(path: Path) -> list[Heading] | None:
    """The bags of a table; None for a CSV of another kind.

    Raises:
        NoBag: if it is no such table.
    """
    table = _table(str(path), path.stat().st_mtime_ns)
    if table is None:
        return None
    width, known = table.features.shape[1], table.y.dtype != object
    if known and any(len(set(table.y[rows].tolist())) > 1 for rows in table.rows.values()):
        reason = "Instances of one bag have different classes in y: give each its bag's class."
        raise NoBag("bad-label", reason)
    return [
        Heading(name, len(rows), width, {"y": plain(table.y[rows[0]])} if known else {})
        for name, rows in table.rows.items()
    ]


def load(path: Path, part: str) -> Bag:
    """One of its bags.

    Raises:
        NoBag: if it is not there any more.
    """
    table = _table(str(path), path.stat().st_mtime_ns)
    if table is None or part not in table.rows:
        raise NoBag("no-bag", "The bag is not in its file any more; run medcl index again.")
    return Bag(table.features[table.rows[part]])


def plain(value: Any) -> Scalar:
    """A class of 0.0 or "1." is a whole number, a word is itself."""
    try:
        number = float(value)
    except ValueError:
        return str(value)
    return int(number) if number.is_integer() else number


@dataclass(frozen=True)
class _Table:
    """Many bags in one file: all instances, their bag, and what each says its bag's class is."""

    features: NDArray[np.float32]
    rows: dict[str, NDArray[np.int64]]
    y: NDArray[Any]


@lru_cache(maxsize=_TABLES_AT_ONCE)
def _table(path: str, changed: int) -> _Table | None:
    """All bags of a file; ``changed`` makes the cache notice another file of the same name."""
    kind = Path(path).suffix.lower()
    try:
        if kind == ".npz":
            return _npz_table(path)
        return _uci_table(path) if kind == ".data" else _csv_table(path)
    except (ValueError, KeyError, IndexError, UnicodeDecodeError):
        reason = "It is no table of bag, features and class, or a feature is no number."
        raise NoBag("no-features", reason) from None


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
    with open(path, "rb") as handle:  # most tables beside slides are of labels: look at the head
        if not re.search(rb"b\0?a\0?g", handle.read(_HEAD), re.IGNORECASE):
            return None
    (header, *rows), delimiter = labtable.cells(Path(path))
    names = [name.strip().lower() for name in header]
    if "bag" not in names or "y" not in names or len(names) < 3:
        return None
    at, label = names.index("bag"), names.index("y")
    chosen = [n for n, name in enumerate(names) if name not in ("bag", "y", "instance")]
    if not rows:
        raise NoBag("no-features", "It holds no instance.")
    if delimiter != ",":  # a spreadsheet's decimal commas
        rows = [[cell.replace(",", ".") if n in chosen else cell for n, cell in enumerate(line)]
                for line in rows]  # fmt: skip
    features = np.array([[line[n] for n in chosen] for line in rows], dtype=np.float32)
    y = np.array([line[label].strip() for line in rows])
    bags, code = np.unique([line[at].strip() for line in rows], return_inverse=True)
    return _Table(features, _rows(bags.tolist(), code), y)
