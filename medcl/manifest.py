"""A folder's manifest: its content, its inputs, and the SHA-256 of each file that is read back.

::

    FOLDER/manifest.json
        format    of this file
        kind      "run", "study", "fold", "embeddings", …
        content   the number of the kind's own format; see `CONTENT`
        made_of   the inputs of the content, by name: hashes, settings, versions; free of PHI
        files     name → SHA-256 of each file of this folder that is read back
        sha256    of all of the above

A file is hashed once per process, when it is first opened, block by block, so that it can stay
memory-mapped. A folder of a version without manifests has none: its files are read unchecked, and
`verified` is False for them.
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

from medcl.errors import IntegrityWarning, MedclError, UsageError
from medcl.io import atomic, stopping

FORMAT = 1
FILE = "manifest.json"
CONTENT: dict[str, int] = {}
"""Kind → the number of its format now, where it is not 1. The rule: whoever changes what a kind's
files mean raises its number here, and its reader goes on reading the older ones, or refuses them in
one sentence that says how to make it anew. A newer one than this is refused when it is opened."""
UNVERIFIED = "unverified: written before checksums were kept"
VERIFIED = "verified by SHA-256"
_HASH = re.compile(r"[0-9a-f]{16,}")
_REMEDY = "Restore it from a copy; without it the folder opens, but damage is not noticed."


class DamagedError(MedclError):
    """A file differs from what was written."""


@dataclass(frozen=True)
class Manifest:
    """See the module's docstring. A file that is being replaced has several hashes."""

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
        manifest = Manifest(raw["kind"], raw["made_of"], files)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise DamagedError(f"{path} is damaged. {_REMEDY}") from None
    if seal != digest(raw):
        raise DamagedError(f"{path} is damaged. {_REMEDY}")
    known = CONTENT.get(manifest.kind, 1)
    refuse_newer(path.parent, manifest.kind, raw.get("content", 1), known)
    return manifest


def refuse_newer(place: Path | str, kind: str, number: object, known: int) -> None:
    """Refuse what a newer medcl wrote, in one sentence.

    Raises:
        MedclError: if ``number`` is above ``known``.
    """
    if isinstance(number, int) and number > known:
        raise MedclError(
            f"{place} is {_an(kind)} of format {number}, and this medcl knows formats up to "
            f"{known}: update medcl."
        )


def _an(kind: str) -> str:
    return f"{'an' if kind[:1] in 'aeiou' else 'a'} {kind}" if kind else "a folder"


_checked: set[tuple[Any, ...]] = set()


def check(path: Path, remedy: str) -> bool:
    """Verify a file's SHA-256, once per process. False if the folder's manifest does not list it.

    A missing file is left to the caller that opens it.

    Args:
        path: the file to be read.
        remedy: what the user can do, for the error message.

    Raises:
        DamagedError: if its content, or the manifest, has changed.
        MedclError: if a newer medcl wrote the manifest.
    """
    manifest = load(path.parent)
    hashes = manifest.files.get(path.name) if manifest is not None else None
    if hashes is None:
        return False
    try:
        status = path.stat()
    except OSError:
        return True
    key = (path.absolute(), hashes, status.st_ino, status.st_size, status.st_mtime_ns)
    if key not in _checked:
        if of_file(path) not in hashes:
            raise DamagedError(f"{path} is damaged: its SHA-256 is not the one noted. {remedy}")
        _checked.add(key)
    return True


def verified(path: Path) -> bool:
    """True if damage to this file would be noticed."""
    manifest = load(path.parent)
    return manifest is not None and path.name in manifest.files


def note(path: Path, of: Path | None = None) -> None:
    """Warn, once per process, if damage to this file would not be noticed."""
    if not verified(path):
        folder = of or path.parent
        warn(f"{folder} was written before checksums were kept: damage to it cannot be noticed.")


_said: set[str] = set()


def tell(error: BaseException) -> None:
    """Warn, if that is why something is left out: a file that differs from what was written."""
    if isinstance(error, DamagedError):
        warn(str(error))


def warn(sentence: str) -> None:
    """Warn once per process, on standard error."""
    if sentence not in _said:
        _said.add(sentence)
        warnings.warn(sentence, IntegrityWarning, stacklevel=3)


# --- writing --------------------------------------------------------------------------------------


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """As `medcl.io.atomic.replacing`, and the folder's manifest has the new content's hash.

    File and manifest fit even if the process is killed: the manifest lists both hashes until the
    file is in its place.
    """
    with contextlib.ExitStack() as lock:
        with atomic.replacing(path) as temporary:
            yield temporary
            new = of_file(temporary)
            lock.enter_context(_alone(path.parent))
            manifest = load(path.parent) or Manifest()
            old = listed = manifest.files.get(path.name, ())
            if not listed and path.is_file():
                old = (of_file(path),)
            if listed != (new,):
                _write(path.parent, manifest, {path.name: tuple(dict.fromkeys((*old, new)))})
        if old and old != (new,):
            _write(path.parent, manifest, {path.name: (new,)})


def write_text(path: Path, text: str) -> None:
    """Replace a text file as a whole."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def new_folder(path: Path, kind: str, made_of: Mapping[str, Any]) -> Iterator[Path]:
    """Yield a temporary folder that becomes ``path``, with a manifest of all files in it.

    An existing folder is replaced.
    """
    fresh, old = (atomic.temporary_name(path, suffix) for suffix in ("new", "old"))
    with atomic.new_folder(fresh) as folder:
        yield folder
        seal(folder, kind, made_of)
    with stopping.deferred():  # a signal in between would take the old one away and bring none
        if path.exists():
            path.rename(old)
        fresh.rename(path)
        shutil.rmtree(old, ignore_errors=True)


_BLOCK = 512
_HEADER = b"medcl sha256 "


def seal_block(path: Path) -> None:
    """Write the hash of a HDF5 file into its user block, the 512 bytes that readers skip."""
    with path.open("r+b") as handle:
        handle.seek(_BLOCK)
        sha256 = hashlib.file_digest(handle, "sha256").hexdigest()
        handle.seek(0)
        handle.write((_HEADER + sha256.encode() + b"\n").ljust(_BLOCK, b"\0"))


def check_block(path: Path, remedy: str) -> bool:
    """As `check`, for a file with the block of `seal_block`; False if it has none.

    Raises:
        DamagedError: if its content has changed.
        OSError: if it cannot be read.
    """
    with path.open("rb") as handle:
        head = handle.read(_BLOCK)
        if b"medcl" not in head and b"sha256" not in head:
            return False
        status = os.fstat(handle.fileno())
        key = (path.absolute(), status.st_ino, status.st_size, status.st_mtime_ns)
        if key not in _checked:
            sha256 = hashlib.file_digest(handle, "sha256").hexdigest()
            if head != (_HEADER + sha256.encode() + b"\n").ljust(_BLOCK, b"\0"):
                raise DamagedError(f"{path} is damaged: its SHA-256 is not the one noted. {remedy}")
            _checked.add(key)
    return True


def seal(folder: Path, kind: str, made_of: Mapping[str, Any]) -> None:
    """Write the manifest of all files of a folder that no other process uses yet."""
    files = {p.name: (of_file(p),) for p in folder.iterdir() if p.is_file() and p.name != FILE}
    _write(folder, Manifest(kind, as_json(made_of)), files)


def bind(folder: Path, kind: str, made_of: Mapping[str, Any]) -> None:
    """Set a folder's kind and inputs; the listed files stay listed."""
    folder.mkdir(parents=True, exist_ok=True)
    made_of = as_json(made_of)
    with _alone(folder):
        manifest = load(folder) or Manifest()
        if (manifest.kind, manifest.made_of) != (kind, made_of):
            _write(folder, replace(manifest, kind=kind, made_of=made_of), {})


def add(path: Path) -> None:
    """List a file that was written line by line and is now complete."""
    with _alone(path.parent):
        _write(path.parent, load(path.parent) or Manifest(), {path.name: (of_file(path),)})


def forget(path: Path) -> None:
    """Remove a file that grows again from the list, until `add`."""
    with _alone(path.parent):
        manifest = load(path.parent)
        if manifest is not None and path.name in manifest.files:
            files = {name: hashes for name, hashes in manifest.files.items() if name != path.name}
            _write(path.parent, replace(manifest, files=files), {})


def _write(folder: Path, manifest: Manifest, files: Mapping[str, tuple[str, ...]]) -> None:
    """Write the manifest with ``files`` added and missing files removed."""
    present = {n: hashes for n, hashes in manifest.files.items() if (folder / n).is_file()}
    raw = {
        "format": FORMAT,
        "kind": manifest.kind,
        "content": CONTENT.get(manifest.kind, 1),
        "made_of": manifest.made_of,
        "files": {name: list(hashes) for name, hashes in sorted({**present, **files}.items())},
    }
    raw["sha256"] = digest(raw)
    text = json.dumps(raw, indent=1, ensure_ascii=False) + "\n"
    atomic.write_text(folder / FILE, text)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Lock the folder against other writers of its manifest. Some network disks cannot lock."""
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
    """``made_of`` as JSON returns it: tuples are lists, keys are strings."""
    plain: dict[str, Any] = json.loads(json.dumps(made_of, default=_plain))
    return plain


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)


def difference(recorded: Mapping[str, Any], expected: Mapping[str, Any]) -> str | None:
    """The difference of two ``made_of``, as a phrase after "holds a run …"; None if there is none.

    Hashes are shown by name only; of a section, the first setting that differs. None equals a
    missing value.
    """
    recorded, expected, opaque = as_json(recorded), as_json(expected), []
    for name in dict.fromkeys((*expected, *recorded)):
        old, new = recorded.get(name), expected.get(name)
        if old == new:
            continue
        if isinstance(old, Mapping) or isinstance(new, Mapping):
            old_leaves, new_leaves = dict(leaves(old or {})), dict(leaves(new or {}))
            for key in (*new_leaves, *old_leaves):
                if old_leaves.get(key) != new_leaves.get(key):
                    return (
                        f"of another {name}: {key} is {old_leaves.get(key)!r} there and "
                        f"{new_leaves.get(key)!r} here"
                    )
        elif all(value is None or _HASH.fullmatch(str(value)) for value in (old, new)):
            opaque.append(name)
        else:
            return f"with another {name}: {old!r} there and {new!r} here"
    return f"with other {' and '.join(opaque)}" if opaque else None


def refuse_other(
    folder: Path,
    what: str,
    recorded: Mapping[str, Any],
    expected: Mapping[str, Any],
    remedy: str = "Take another --out, or remove that folder.",
) -> None:
    """Refuse a folder whose content was made of other inputs.

    Raises:
        UsageError: names the difference.
    """
    if (differing := difference(recorded, expected)) is not None:
        raise UsageError(f"{folder} holds {what} {differing}. {remedy}")


def leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of a nested mapping by dotted key."""
    if isinstance(node, Mapping) and node:
        for key, value in node.items():
            yield from leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, node
