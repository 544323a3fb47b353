"""A full disk, a used-up quota or a limit on file sizes: one sentence with path, need and room.

It is no fault of an item that was being read: `medcl.io.pmap.pmap` raises it, so that no file is
rejected for want of room, and the verb ends with exit code 1. What was finished before is kept.
"""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from medcl.errors import MedclError

_NUMBERS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_TEXT = re.compile(
    r"no space left on device|disk quota exceeded|os error 27\b|\d+ requested and \d+ written", re.I
)
"""Of libraries that keep no error number: HDF5, safetensors, polars, NumPy."""
_NONE = 1 << 14
"""Bytes: with less free, an error of writing is that of a full disk, whatever a library says."""


class NoRoomError(MedclError):
    """A file could not be written for want of space."""


def is_full(error: BaseException | None) -> bool:
    """Whether an exception, or what it came from, says that a disk has no room."""
    while error is not None:
        if isinstance(error, NoRoomError) or getattr(error, "errno", None) in _NUMBERS:
            return True
        if _TEXT.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def told(path: Path, temporary: Path | None = None, needs: int | None = None) -> Iterator[None]:
    """Raise `NoRoomError` if there is no room for what is written within the context.

    Args:
        path: the file or folder that is written.
        temporary: where it is written meanwhile, and what it takes there is removed after an error.
        needs: its bytes, if they are known.

    Raises:
        NoRoomError: one sentence.
    """
    try:
        yield
    except Exception as error:
        full = is_full(error) or _free((temporary or path).parent) < _NONE
        if isinstance(error, NoRoomError) or not full:
            raise
        raise NoRoomError(sentence(path, temporary, needs)) from error


def sentence(path: Path, temporary: Path | None = None, needs: int | None = None) -> str:
    """What is told: see `told`."""
    written = _bytes(temporary) if temporary is not None else 0
    free = _free(path.parent) + written
    needed = shown(needs) if needs and needs >= written else f"more than {shown(written)}"
    quota = ", but a quota or a limit on the size of files is used up" if free > written * 2 else ""
    return (
        f"No room to write {path}: it needs {needed}, and {shown(free)} are free{quota}. "
        "Make room there and run the same again: what was finished is kept."
    )


def shown(count: int) -> str:
    """Bytes for reading."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"


def _bytes(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    total = 0
    for file in files:
        with suppress(OSError):
            total += file.stat().st_blocks * 512
    return total


def _free(folder: Path) -> int:
    for parent in (folder, *folder.parents):
        with suppress(OSError):
            return shutil.disk_usage(parent).free
    return 0
