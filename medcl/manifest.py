"""What a folder holds and what it was made of: one file, checked where the others are read back.

::

    FOLDER/manifest.json
        format    of this file
        kind      "run", "study", "fold", "embeddings", …
        made_of   what decides the content, by name: hashes, settings, versions; free of PHI
        files     name → SHA-256 of each file of this folder that is read back
        sha256    of all of the above

A file is hashed once in a process, when it is first opened, block by block: what is memory-mapped
stays so. A folder that was written before there were manifests has none: its files are read as they
are, and `verified` says that nothing can be said of them.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any
from uuid import uuid4

from medcl.errors import IntegrityWarning, MedclError, UsageError
from medcl.io import atomic

FORMAT = 1
FILE = "manifest.json"
UNVERIFIED = "unverified: written before checksums were kept"
VERIFIED = "verified by SHA-256"
_HASH = re.compile(r"[0-9a-f]{16,}")
_REMEDY = "Restore it from a copy; without it the folder opens, but damage is not noticed."


class DamagedError(MedclError):
    """A file is not what was written."""


@dataclass(frozen=True)
class Manifest:
    """See the module's docstring. Several hashes of a file: it was about to be replaced."""

    kind: str = ""
    made_of: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


# --- reading --------------------------------------------------------------------------------------


def load(folder: Path) -> Manifest | None:
    """The manifest of a folder; None if it has none.

    Raises:
        DamagedError: if it is damaged.
        MedclError: if a newer medcl wrote it.
    """
    path = folder / FILE
    try:
        status = path.stat()
    except OSError:
        return None
    return _read(path.absolute(), status.st_ino, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=1024)
def _read(path: Path, inode: int, size: int, time: int) -> Manifest:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(raw, dict) and isinstance(raw["format"], int) and raw["format"] > FORMAT:
            raise MedclError(
                f"{path} is of format {raw['format']}, and this medcl knows formats up to {FORMAT}:"
                " update medcl."
            )
        seal = raw.pop("sha256")
        files = {name: tuple(hashes) for name, hashes in raw["files"].items()}
        found = Manifest(raw["kind"], raw["made_of"], files)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise DamagedError(f"{path} is damaged. {_REMEDY}") from None
    if seal != digest(raw):
        raise DamagedError(f"{path} is damaged. {_REMEDY}")
    return found


_checked: set[tuple[Any, ...]] = set()


def check(path: Path, remedy: str) -> bool:
    """See that a file is what was written, once in a process. False if its folder does not know it.

    A file that is not there is left to whoever opens it.

    Args:
        path: the file, about to be read.
        remedy: what the reader of the error can do.

    Raises:
        DamagedError: if its content, or the manifest, is another.
        MedclError: if a newer medcl wrote the manifest.
    """
    manifest = load(path.parent)
    known = manifest.files.get(path.name) if manifest is not None else None
    if known is None:
        return False
    try:
        status = path.stat()
    except OSError:
        return True
    key = (path.absolute(), known, status.st_ino, status.st_size, status.st_mtime_ns)
    if key not in _checked:
        if of_file(path) not in known:
            raise DamagedError(f"{path} is damaged: its SHA-256 is not the one noted. {remedy}")
        _checked.add(key)
    return True


def verified(path: Path) -> bool:
    """Whether damage to this file would be noticed."""
    manifest = load(path.parent)
    return manifest is not None and path.name in manifest.files


def note(path: Path, of: Path | None = None) -> None:
    """Say, once in a process, that damage to this file, part of a folder, would not be noticed."""
    if not verified(path):
        folder = of or path.parent
        warn(f"{folder} was written before checksums were kept: damage to it cannot be noticed.")


_said: set[str] = set()


def warn(sentence: str) -> None:
    """Say something once in a process: on standard error, for people."""
    if sentence not in _said:
        _said.add(sentence)
        warnings.warn(sentence, IntegrityWarning, stacklevel=3)


# --- writing --------------------------------------------------------------------------------------


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """As `medcl.io.atomic.replacing`, and the folder's manifest knows the new content.

    Killed at any moment, file and manifest fit: until the file is in its place both are known.
    """
    with contextlib.ExitStack() as alone:
        with atomic.replacing(path) as temporary:
            yield temporary
            new = of_file(temporary)
            alone.enter_context(_alone(path.parent))
            there = load(path.parent) or Manifest()
            old = there.files.get(path.name, ())
            if not old and path.is_file():
                old = (of_file(path),)
            if old != (new,):
                _write(path.parent, there, {path.name: tuple(dict.fromkeys((*old, new)))})
        if old and old != (new,):
            _write(path.parent, there, {path.name: (new,)})


def write_text(path: Path, text: str) -> None:
    """Replace a text file as a whole."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def new_folder(path: Path, kind: str, made_of: Mapping[str, Any]) -> Iterator[Path]:
    """Yield a temporary folder that becomes ``path``, with a manifest of all files in it.

    A folder that is there is replaced.
    """
    fresh, old = (path.with_name(f".{path.name}.{uuid4().hex[:8]}.{s}") for s in ("new", "old"))
    with atomic.new_folder(fresh) as folder:
        yield folder
        seal(folder, kind, made_of)
    if path.exists():
        path.rename(old)
    fresh.rename(path)
    shutil.rmtree(old, ignore_errors=True)


_BLOCK = 512
_HEADER = b"medcl sha256 "


def seal_block(path: Path) -> None:
    """Write the hash of a HDF5 file into its user block, the 512 bytes that readers pass over."""
    with path.open("r+b") as handle:
        handle.seek(_BLOCK)
        found = hashlib.file_digest(handle, "sha256").hexdigest()
        handle.seek(0)
        handle.write((_HEADER + found.encode() + b"\n").ljust(_BLOCK, b"\0"))


def check_block(path: Path, remedy: str) -> bool:
    """As `check`, of a file that `seal_block` wrote to; False if it has no such block.

    Raises:
        DamagedError: if its content is another.
        OSError: if it cannot be read.
    """
    with path.open("rb") as handle:
        head = handle.read(_BLOCK)
        if b"medcl" not in head and b"sha256" not in head:
            return False
        status = os.fstat(handle.fileno())
        key = (path.absolute(), status.st_ino, status.st_size, status.st_mtime_ns)
        if key not in _checked:
            found = hashlib.file_digest(handle, "sha256").hexdigest()
            if head != (_HEADER + found.encode() + b"\n").ljust(_BLOCK, b"\0"):
                raise DamagedError(f"{path} is damaged: its SHA-256 is not the one noted. {remedy}")
            _checked.add(key)
    return True


def seal(folder: Path, kind: str, made_of: Mapping[str, Any]) -> None:
    """Note all files of a folder that nobody else sees yet."""
    found = {p.name: (of_file(p),) for p in folder.iterdir() if p.is_file() and p.name != FILE}
    _write(folder, Manifest(kind, as_json(made_of)), found)


def bind(folder: Path, kind: str, made_of: Mapping[str, Any]) -> None:
    """Say what a folder is and what it is made of; files that are noted stay noted."""
    folder.mkdir(parents=True, exist_ok=True)
    made_of = as_json(made_of)
    with _alone(folder):
        there = load(folder) or Manifest()
        if (there.kind, there.made_of) != (kind, made_of):
            _write(folder, replace(there, kind=kind, made_of=made_of), {})


def add(path: Path) -> None:
    """Note a file that grew line by line, now that it is whole."""
    with _alone(path.parent):
        _write(path.parent, load(path.parent) or Manifest(), {path.name: (of_file(path),)})


def forget(path: Path) -> None:
    """A file begins to grow again: until `add`, nothing is noted of it."""
    with _alone(path.parent):
        there = load(path.parent)
        if there is not None and path.name in there.files:
            files = {name: hashes for name, hashes in there.files.items() if name != path.name}
            _write(path.parent, replace(there, files=files), {})


def _write(folder: Path, manifest: Manifest, files: Mapping[str, tuple[str, ...]]) -> None:
    """With these files, and without those that are gone."""
    there = {n: hashes for n, hashes in manifest.files.items() if (folder / n).is_file()}
    raw = {
        "format": FORMAT,
        "kind": manifest.kind,
        "made_of": manifest.made_of,
        "files": {name: list(hashes) for name, hashes in sorted({**there, **files}.items())},
    }
    raw["sha256"] = digest(raw)
    text = json.dumps(raw, indent=1, ensure_ascii=False) + "\n"
    atomic.write_text(folder / FILE, text)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait for other processes that write this manifest. Some network disks cannot lock folders."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


# --- hashes and differences -----------------------------------------------------------------------


def of_file(path: Path) -> str:
    """The SHA-256 of a file, read block by block."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def digest(*values: Any, ordered: bool = False) -> str:
    """The SHA-256 of values that JSON can hold, arrays and paths among them.

    ``ordered``: the order of a mapping's keys counts too.
    """
    value = values[0] if len(values) == 1 else values
    text = json.dumps(value, sort_keys=not ordered, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()


def as_json(made_of: Mapping[str, Any]) -> dict[str, Any]:
    """As it will be read again: tuples are lists, keys are texts."""
    plain: dict[str, Any] = json.loads(json.dumps(made_of, default=_plain))
    return plain


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)


def difference(there: Mapping[str, Any], here: Mapping[str, Any]) -> str | None:
    """What differs between two ``made_of``, as it fits behind "holds a run …"; None if nothing.

    Hashes are called by their names; of sections, the first setting that differs is shown. What is
    None and what is not there are the same.
    """
    there, here, opaque = as_json(there), as_json(here), []
    for name in dict.fromkeys((*here, *there)):
        old, new = there.get(name), here.get(name)
        if old == new:
            continue
        if isinstance(old, Mapping) or isinstance(new, Mapping):
            one, other = dict(leaves(old or {})), dict(leaves(new or {}))
            for key in (*other, *one):
                if one.get(key) != other.get(key):
                    return (
                        f"of another {name}: {key} is {one.get(key)!r} there and "
                        f"{other.get(key)!r} here"
                    )
        elif all(value is None or _HASH.fullmatch(str(value)) for value in (old, new)):
            opaque.append(name)
        else:
            return f"with another {name}: {old!r} there and {new!r} here"
    return f"with other {' and '.join(opaque)}" if opaque else None


def refuse_other(
    folder: Path,
    what: str,
    there: Mapping[str, Any],
    here: Mapping[str, Any],
    remedy: str = "Take another --out, or remove that folder.",
) -> None:
    """Raises UsageError if a folder holds something made of something else: says what differs."""
    if (found := difference(there, here)) is not None:
        raise UsageError(f"{folder} holds {what} {found}. {remedy}")


def leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of a nested mapping by dotted key."""
    if isinstance(node, Mapping) and node:
        for key, value in node.items():
            yield from leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, node
