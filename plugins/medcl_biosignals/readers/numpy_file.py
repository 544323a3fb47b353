""".npy and .npz: arrays of numbers; what would have to be unpickled is refused."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

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

_SMALL = 1 << 16  # bytes: what may be names, units or a rate


def headings(path: Path, settings: Settings) -> Iterator[Heading | Flaw]:
    """The recordings in a file, by the headers of its arrays."""
    yield from windows.headings("NumPy", _open(path), settings, path.stem)


def read(path: Path, part: str, settings: Settings, span: Span | None = None) -> Recording:
    """Its samples."""
    if not part:
        return windows.read(_open(path), settings, span)
    held = last.opened(path, settings, lambda: windows.loaded(_open(path)))
    return windows.read(held, settings, span, part)


def _open(path: Path) -> Variables:
    try:
        if path.suffix.lower() == ".npy":
            with path.open("rb") as handle:
                shape, dtype = _head(handle)
                held = path.stat().st_size - handle.tell()
            _numeric(dtype)
            if held < math.prod(shape) * dtype.itemsize:
                raise BadSignal("truncated", "the file ends before the last sample of its array")
            return Variables([Variable("", shape, lambda: _load(path))])
        return _archive(path)
    except BadSignal:
        raise
    except Exception as error:  # a damaged header may raise what Python's parser does
        raise BadSignal(
            "bad-signal", f"the file is cut off, or no NumPy file ({type(error).__name__})"
        ) from None


def _archive(path: Path) -> Variables:
    arrays: list[Variable] = []
    numbers: dict[str, float] = {}
    texts: dict[str, tuple[str, ...]] = {}
    pickled = False
    with zipfile.ZipFile(path) as members:
        for member in members.namelist():
            name = str(PurePosixPath(member).with_suffix(""))
            with members.open(member) as handle:
                shape, dtype = _head(handle)
            if dtype.hasobject:
                pickled = True
            elif dtype.kind in "US" and np.prod(shape) * dtype.itemsize <= _SMALL:
                texts[name] = tuple(str(text) for text in np.atleast_1d(_member(path, name)))
            elif dtype.kind in "biuf" and int(np.prod(shape)) == 1:
                numbers[name] = float(_member(path, name).item())
            elif dtype.kind in "biuf":
                arrays.append(Variable(name, shape, lambda name=name: _member(path, name)))  # type: ignore[misc]
    if pickled and not arrays:
        raise _pickled()
    return Variables(arrays, numbers, texts)


def _head(handle: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(handle)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(handle)
    else:
        shape, _, dtype = np.lib.format.read_array_header_2_0(handle)
    return shape, dtype


def _load(path: Path) -> np.ndarray:
    array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def _member(path: Path, name: str) -> np.ndarray:
    with np.load(path, allow_pickle=False) as archive:
        array: np.ndarray = archive[name]
    return array


def _numeric(dtype: np.dtype) -> None:
    if dtype.hasobject:
        raise _pickled()
    if dtype.kind not in "biuf":
        raise BadSignal("not-a-signal", "the array holds no real numbers")


def _pickled() -> BadSignal:
    return BadSignal(
        "pickled-objects",
        "the file holds Python objects, which could run any code when they are loaded: it is not "
        "read. Save plain arrays of numbers",
    )
