"""Atomic outputs: written to a temporary name in the same folder, then renamed.

One rule for access: files in a folder named ``private``, or in a folder of it, are for their owner
alone (folders 0700, files 0600); all others follow the umask.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medcl.errors import UsageError
from medcl.io import room

PRIVATE = "private"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary file name; on success it becomes ``path``, on an error it is removed.

    Raises:
        NoRoomError: if the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with room.told(path, temporary):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            if is_private(path):
                temporary.chmod(0o600)
            _sync(temporary)
            os.replace(temporary, path)
            _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def is_private(path: Path) -> bool:
    """Whether a file is for its owner alone: see the module's docstring."""
    return PRIVATE in (path.parent.name, path.parent.parent.name)


def opener(path: str, flags: int) -> int:
    """For ``open(…, opener=…)``: a new file has the access rights of its place."""
    return os.open(path, flags | os.O_CLOEXEC, 0o600 if is_private(Path(path)) else 0o666)


def write_text(path: Path, text: str) -> None:
    """Replace a text file as a whole."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def locked(path: Path, message: str, *, shared: bool = False) -> Iterator[None]:
    """Hold a lock file, which the system releases when a process is killed.

    ``shared`` holders exclude an exclusive one, and the reverse, but not each other.

    Raises:
        UsageError: with this message, if another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", opener=opener) as handle:
        try:
            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(message) from None
        yield


@contextmanager
def new_folder(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary folder that becomes ``path``; if another process was first, it wins.

    Without ``durable`` nothing is flushed to disk: many times faster for small files, but after a
    power cut (not a kill) the newest ones may be truncated. Use it for files verified on read.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with room.told(path, temporary):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.mkdir()
            yield temporary
            if durable:
                for file in temporary.iterdir():
                    _sync(file)
                _sync(temporary)
            try:
                os.rename(temporary, path)
            except OSError:
                if not path.is_dir():
                    raise
            if durable:
                _sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _sync(path: Path) -> None:
    """Flush to disk before the rename, so that a power cut cannot leave an empty file."""
    descriptor = os.open(path, os.O_RDONLY)  # a folder too: its entries are the names
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
