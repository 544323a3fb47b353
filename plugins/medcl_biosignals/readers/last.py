"""The file that a process opened last: the many parts of a file do not each cost all of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from medcl_biosignals.readers.contract import Settings

T = TypeVar("T")
_held: dict[tuple[str, int, int, str], object] = {}


def opened(path: Path, settings: Settings, read: Callable[[], T]) -> T:
    """What ``read`` returns for a file, or what it returned if the file was the last one.

    Args:
        path: the file; if it has changed since, it is read again.
        settings: by which it is read.
        read: reads it.
    """
    status = path.stat()
    key = (str(path), status.st_mtime_ns, status.st_size, repr(settings))
    if key not in _held:
        _held.clear()
        _held[key] = read()
    return _held[key]  # type: ignore[return-value]
