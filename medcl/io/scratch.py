"""Files that one worker creates for all workers of a run, such as an unpacked archive.

They are in a folder that belongs to the run and is removed with it. Without one (`folder` is None,
as outside of `medcl prepare`), every reader works without these files.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path

from medcl.io import atomic, room, stopping

PREFIX = ".medcl-scratch-"
_LOCK = ".lock"
_VARIABLE = "MEDCL_SCRATCH"
_MAKER = re.compile(rf"{re.escape(PREFIX)}([0-9a-f]{{6}})-(\d+)-")
_folder: Path | None = None


@contextmanager
def new(parent: Path) -> Iterator[Path]:
    """A folder that only its owner can open, removed at the end: in ``$MEDCL_SCRATCH``, else here.

    What killed processes left there is removed first. Until the end, temporary folders of this
    process and of those that it starts are made within.
    """
    with _made(Path(os.environ.get(_VARIABLE) or parent)) as path:
        before = os.environ.get(_VARIABLE)
        os.environ[_VARIABLE] = str(path)
        try:
            yield path
        finally:
            use(None)
            if before is None:
                del os.environ[_VARIABLE]
            else:
                os.environ[_VARIABLE] = before


def home() -> Path:
    """Where temporary folders are made: that of `new` or ``$MEDCL_SCRATCH``, else the system's."""
    return Path(os.environ.get(_VARIABLE) or tempfile.gettempdir())


@contextmanager
def temporary() -> Iterator[Path]:
    """A folder for as long as the context: within that of `new`, else in the system's."""
    with _made(home()) as path:
        yield path


@contextmanager
def _made(parent: Path) -> Iterator[Path]:
    parent.mkdir(parents=True, exist_ok=True)
    _sweep(parent)
    with ExitStack() as stack:
        with stopping.deferred():  # a signal while it is made or removed would leave it behind
            made = tempfile.TemporaryDirectory(prefix=f"{PREFIX}{atomic.mark()}-", dir=parent)
            folder = Path(stack.enter_context(made))
            lock = stack.enter_context(tempfile.NamedTemporaryFile(dir=folder, delete=False))
            fcntl.flock(lock, fcntl.LOCK_EX)
            Path(lock.name).rename(folder / _LOCK)  # whoever sees it finds it locked
        try:
            yield folder
        finally:
            with stopping.deferred():
                stack.close()


@cache
def _sweep(parent: Path) -> None:
    """Once a process: remove the folders of those that are no more. Nobody holds their lock."""
    for old in parent.glob(f"{PREFIX}*"):
        try:
            with (old / _LOCK).open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(old, ignore_errors=True)
        except FileNotFoundError:  # one being made, or whose maker was killed meanwhile
            maker = _MAKER.match(old.name)
            machine, process = (maker[1], maker[2]) if maker else (None, None)
            with suppress(OSError):
                if atomic.abandoned(machine, process, old.stat().st_mtime):
                    shutil.rmtree(old, ignore_errors=True)
        except OSError:  # in use, or somebody else's
            continue


def use(path: Path | None) -> None:
    """Set the folder of the run that this worker process shares."""
    global _folder
    _folder = path


def folder() -> Path | None:
    """The scratch folder of this process's run; None without one."""
    return _folder


def once(name: str, make: Callable[[Path], None]) -> Path | None:
    """The file of a name, created by the first caller while the others wait.

    Args:
        name: of the content; equal names share one file.
        make: writes the file to the given path.

    Returns:
        its path; None if there is no folder.
    """
    if _folder is None or not _folder.is_dir():  # none, or of a run that has ended
        return None
    path = _folder / hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    if path.exists():
        return path
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            part = path.with_suffix(f".{os.getpid()}")
            try:
                with room.told(path, part):
                    make(part)
                part.replace(path)
            finally:
                part.unlink(missing_ok=True)
    return path


def digest(path: Path) -> bytes:
    """SHA-256 of a file, computed once per run."""

    def make(out: Path) -> None:
        out.write_bytes(_hash(path))

    cached = once(digest_name(path), make)
    return _hash(path) if cached is None else cached.read_bytes()


def digest_name(path: Path) -> str:
    """The name of a file's hash for `once`, for callers that hash while they read."""
    status = path.stat()
    return f"sha256\0{path}\0{status.st_size}\0{status.st_mtime_ns}"


def _hash(path: Path) -> bytes:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").digest()
