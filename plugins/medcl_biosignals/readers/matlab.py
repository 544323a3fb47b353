"""MATLAB files up to version 7 (5.0 MAT-files), through scipy; version 7.3 is HDF5: see `hdf5`."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from medcl_biosignals.readers import last, windows
from medcl_biosignals.readers.contract import (
    BadSignal,
    Flaw,
    Heading,
    Recording,
    Settings,
    Span,
)
from medcl_biosignals.readers.variables import Variable, Variables

_HEAD = 128  # bytes
_SMALL = 4096  # elements: what may be names, units or a rate is loaded to see
_DEEPEST = 3  # structures in structures


def headings(path: Path, settings: Settings) -> Iterator[Heading | Flaw]:
    """The recordings in a file; large arrays are not loaded, structures are."""
    yield from windows.headings("MATLAB", _open(path), settings, path.stem)


def read(path: Path, part: str, settings: Settings, span: Span | None = None) -> Recording:
    """Its samples."""
    if not part:
        return windows.read(_open(path), settings, span)
    held = last.opened(path, settings, lambda: windows.loaded(_open(path)))
    return windows.read(held, settings, span, part)


def _open(path: Path) -> Variables:
    from scipy.io import whosmat

    if not _whole(path):
        raise BadSignal("truncated", "the MATLAB file ends before its last variable")
    try:
        listed = whosmat(str(path))
        look = [
            name
            for name, shape, kind in listed
            if kind in ("struct", "cell", "char") or int(np.prod(shape)) <= _SMALL
        ]
        loaded = _load(path, look)
    except Exception as error:  # scipy raises many kinds for a damaged file
        raise BadSignal(
            "bad-signal", f"the file is damaged, or no MATLAB file ({type(error).__name__})"
        ) from error
    arrays: list[Variable] = []
    numbers: dict[str, float] = {}
    texts: dict[str, tuple[str, ...]] = {}
    for name, shape, kind in listed:
        if name not in look and kind not in ("sparse", "object", "opaque", "function"):
            arrays.append(Variable(name, shape, lambda name=name: _load(path, [name])[name]))  # type: ignore[misc]
    for name, value in _flat(loaded):
        array = np.asarray(value)
        if array.dtype.kind in "US":
            texts[name] = tuple(str(text).strip() for text in np.atleast_1d(array))
        elif array.dtype.kind == "O" and all(isinstance(text, str) for text in array.ravel()):
            texts[name] = tuple(text.strip() for text in array.ravel())
        elif array.dtype.kind in "biuf" and array.size == 1:
            numbers[name] = float(array.item())
        elif array.dtype.kind in "biuf" and array.size:
            arrays.append(Variable(name, array.shape, lambda array=array: array))  # type: ignore[misc]
    return Variables(arrays, numbers, texts)


def _whole(path: Path) -> bool:
    """Whether the variables that a 5.0 file announces lie within it: scipy crashes where not."""
    size = path.stat().st_size
    with path.open("rb") as handle:
        head = handle.read(_HEAD)
        order = {b"IM": "<", b"MI": ">"}.get(head[126:128])
        if order is None:
            return True  # version 4, or no MATLAB file: scipy says so
        at = _HEAD
        while at < size:
            handle.seek(at)
            tag = handle.read(8)
            if len(tag) < 8:
                return False
            at += 8 + int(struct.unpack(f"{order}II", tag)[1])
    return at == size


def _load(path: Path, names: list[str]) -> dict[str, Any]:
    from scipy.io import loadmat

    if not names:
        return {}
    found: dict[str, Any] = loadmat(str(path), variable_names=names, simplify_cells=True)
    return {name: found[name] for name in names if name in found}


def _flat(values: Mapping[str, Any], deep: int = 0) -> Iterator[tuple[str, Any]]:
    """The fields of structures under their own names."""
    for name, value in values.items():
        if not isinstance(value, Mapping):
            yield name, value
        elif deep < _DEEPEST:
            yield from _flat(value, deep + 1)
