"""Files that all workers of one run need and only one of them makes, such as an unpacked archive.

They lie in a folder that belongs to the run and goes with it. Where there is none (`folder` is
None, as outside of `medcl prepare`), every reader makes do without.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_PREFIX = ".scratch-"
_ABANDONED_AFTER = 24 * 3600  # seconds
_folder: Path | None = None


@contextmanager
def new(place: Path) -> Iterator[Path]:
    """A folder in ``place`` that only its owner can open, removed at the end.

    Older ones, of processes that were killed, are removed at the beginning.
    """
    place.mkdir(parents=True, exist_ok=True)
    for old in place.glob(f"{_PREFIX}*"):
        if time.time() - old.stat().st_mtime > _ABANDONED_AFTER:
            shutil.rmtree(old, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=place) as path:
        try:
            yield Path(path)
        finally:
            use(None)


def use(path: Path | None) -> None:
    """Let this process, a worker of a run, share the run's folder."""
    global _folder
    _folder = path


def folder() -> Path | None:
    """The folder of the run that this process works for."""
    return _folder


def once(name: str, make: Callable[[Path], None]) -> Path | None:
    """The file of a name, made by whoever asks first while the others wait.

    Args:
        name: of what is made; equal names are the same file.
        make: writes it to the path that it is given.

    Returns:
        where it is; None if there is no folder.
    """
    if _folder is None:
        return None
    path = _folder / hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    if path.exists():
        return path
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            part = path.with_suffix(f".{os.getpid()}")
            try:
                make(part)
                part.replace(path)
            finally:
                part.unlink(missing_ok=True)
    return path


def digest(path: Path) -> bytes:
    """SHA-256 of a file; in a run, it is read for that only once."""

    def make(out: Path) -> None:
        out.write_bytes(_hash(path))

    made = once(digest_name(path), make)
    return _hash(path) if made is None else made.read_bytes()


def digest_name(path: Path) -> str:
    """The name (see `once`) under which a file's hash is found: also by who reads it anyhow."""
    status = path.stat()
    return f"sha256\0{path}\0{status.st_size}\0{status.st_mtime_ns}"


def _hash(path: Path) -> bytes:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").digest()
