"""Atomic outputs: written to a temporary name in the same folder, then renamed.

One rule for access: files in a folder named ``private``, or in a folder of it, are for their owner
alone (folders 0700, files 0600); all others follow the umask.

What a killed process left under a temporary name is removed by the next that writes into its
folder. A temporary name names the machine and the process, so that those in use stay.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from medcl.errors import UsageError
from medcl.io import room

PRIVATE = "private"


def _here() -> str:
    """This machine and its numbering of processes: containers on one machine count from 1 each."""
    numbering = ""
    with suppress(OSError):
        numbering = os.readlink("/proc/self/ns/pid")
    return hashlib.sha256(f"{socket.gethostname()} {numbering}".encode()).hexdigest()[:6]


_HERE = _here()
_NAME = re.compile(r"\..+\.(?:([0-9a-f]{6})-(\d+)-)?[0-9a-f]{8}\.(?:tmp|new|old)")
_UMASK = os.umask(0o077)  # it can only be read by setting it
os.umask(_UMASK)
_ABANDONED_AFTER = 24 * 3600  # seconds, for those of other machines


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary file name; on success it becomes ``path``, on an error it is removed.

    Raises:
        NoRoomError: if the disk is full.
    """
    temporary = temporary_name(path)
    try:
        with room.told(path, temporary):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            _set_mode(temporary, path)
            _sync(temporary)
            os.replace(temporary, path)
            _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def temporary_name(path: Path, suffix: str = "tmp") -> Path:
    """A name in the folder of ``path`` that no other process takes."""
    _sweep(path.parent)
    token = uuid.uuid4().hex[:8]
    return path.with_name(f".{path.name}.{mark()}-{token}.{suffix}")


def mark() -> str:
    """This machine and process, as part of the name of what must not outlive the process."""
    return f"{_HERE}-{os.getpid()}"


@cache
def _sweep(folder: Path) -> None:
    """Once a process: remove what processes that are no more left in a folder."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            match = _NAME.fullmatch(entry.name) if entry.name.startswith(".") else None
            if match is None:
                continue
            if abandoned(match[1], match[2], entry.stat(follow_symlinks=False).st_mtime):
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    os.unlink(entry.path)


def abandoned(machine: str | None, process: str | None, modified: float) -> bool:
    """Whether the process of a `mark` is no more; those of other machines: not after a day."""
    if machine == _HERE and process is not None:
        try:
            os.kill(int(process), 0)
        except ProcessLookupError:
            return True
        except OSError:  # another user's: it lives
            return False
        return False
    return time.time() - modified > _ABANDONED_AFTER


def _set_mode(file: Path, place: Path) -> None:
    """The access rights of a place: some libraries make files for their owner alone."""
    with suppress(OSError):  # a file system without access rights
        file.chmod(0o600 if is_private(place) else 0o666 & ~_UMASK)


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
    temporary = temporary_name(path)
    try:
        with room.told(path, temporary):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.mkdir()
            yield temporary
            for file in temporary.iterdir():
                if file.is_file():
                    _set_mode(file, path / file.name)
                if durable:
                    _sync(file)
            if durable:
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
