"""Prepared arrays, memory-mapped, under a name made of their source and their preparation.

::

    STORE/ab/abcdef…/             one entry: <array>.npy …, meta.json; whole or absent
    STORE/ab/abcdef….reject.json  why this source cannot be prepared in this way

The name is a hash of (item fingerprint, plugin, its preparation's version, settings). A changed
file, code or setting therefore asks for another entry: old arrays are never taken for new ones.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import shutil
import time
import uuid
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medcl.errors import MedclError, UsageError
from medcl.io.atomic import new_folder, write_text

_ARRAY_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_ABANDONED_AFTER = 24 * 3600  # seconds; a temporary older than that has lost its writer


def entry_key(fingerprint: str, plugin: str, spec: Mapping[str, Any], preparation: int = 1) -> str:
    """The name of an entry. The order of the settings does not matter, every value does.

    Raises:
        UsageError: for a setting that is not made of texts, numbers, flags, lists and mappings.
    """
    text = json.dumps(
        [fingerprint, plugin, preparation, canonical(spec)], ensure_ascii=True, sort_keys=True
    )
    return hashlib.sha256(text.encode()).hexdigest()[:40]


def canonical(value: Any, where: str = "prepare") -> Any:
    """A setting as JSON holds it, so that equal settings look equal and different ones differ."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, list | tuple):
        return [canonical(part, f"{where}[{n}]") for n, part in enumerate(value)]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: canonical(part, f"{where}.{key}") for key, part in value.items()}
    raise UsageError(
        f"'{where}' = {value!r} cannot name prepared data: use texts, finite numbers, true/false, "
        "lists and mappings."
    )


@dataclass(frozen=True)
class Store:
    """A folder of entries. Several processes may read and write it at once."""

    path: Path

    def has(self, key: str) -> bool:
        """Whether the entry is there and whole: every file has the size its making recorded."""
        meta = self._meta(key)
        if meta is None:
            return False
        folder = self._folder(key)
        try:
            return all(
                (folder / f"{name}.npy").stat().st_size == facts["bytes"]
                for name, facts in meta["arrays"].items()
            )
        except (OSError, KeyError, TypeError):
            return False

    def arrays(self, key: str) -> dict[str, np.ndarray]:
        """The entry's arrays, memory-mapped and read-only.

        Raises:
            MedclError: if the entry is absent or damaged.
        """
        meta, folder = self._meta(key), self._folder(key)
        if meta is None:
            raise MedclError(f"{folder} is missing or damaged. Prepare again: it is then replaced.")
        try:
            return {name: _open(folder / f"{name}.npy") for name in meta["arrays"]}
        except (OSError, ValueError) as error:
            raise MedclError(
                f"{folder} is damaged ({type(error).__name__}). Prepare again: it is then replaced."
            ) from None

    def meta(self, key: str) -> dict[str, Any]:
        """What was recorded when the entry was made.

        Raises:
            MedclError: if the entry is absent or damaged.
        """
        meta = self._meta(key)
        if meta is None:
            raise MedclError(f"The store {self.path} has no whole entry {key}.")
        return meta

    def put(self, key: str, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> int:
        """Write an entry, whole or not at all; of two writers the first wins. Returns its bytes.

        Raises:
            MedclError: for no array, an array of Python objects, or a name that is no file name.
        """
        if not arrays:
            raise MedclError("Preparation gave no array.")
        if not self.has(key):
            self._discard(key)  # absent, or damaged
        described: dict[str, dict[str, Any]] = {}
        with new_folder(self._folder(key), durable=False) as folder:  # `has` notices a short file
            for name, values in arrays.items():
                array = np.ascontiguousarray(values) if np.ndim(values) else np.asarray(values)
                if array.dtype.hasobject or not _ARRAY_NAME.fullmatch(name):
                    raise MedclError(
                        f"The prepared array '{name}' ({array.dtype}) cannot be stored: it needs "
                        "a plain name and numbers."
                    )
                np.save(folder / f"{name}.npy", array, allow_pickle=False)
                described[name] = {
                    "shape": list(array.shape),
                    "dtype": array.dtype.str,
                    "bytes": (folder / f"{name}.npy").stat().st_size,
                }
            total: int = sum(facts["bytes"] for facts in described.values())
            text = json.dumps({**meta, "arrays": described, "bytes": total}, indent=1)
            (folder / "meta.json").write_text(text, encoding="utf-8")
        self._reject_file(key).unlink(missing_ok=True)
        return total

    def reject(self, key: str, code: str, reason: str) -> None:
        """Record that this cannot be prepared, so that it is not tried again every time."""
        text = json.dumps({"code": code, "reason": reason})
        write_text(self._reject_file(key), text)

    def rejected(self, key: str) -> tuple[str, str] | None:
        """(code, reason) of an earlier failure under this very key, if there was one."""
        try:
            raw = json.loads(self._reject_file(key).read_text(encoding="utf-8"))
            return str(raw["code"]), str(raw["reason"])
        except (OSError, ValueError, KeyError):
            return None

    def gc(self, keep: Collection[str]) -> int:
        """Remove the entries and rejects not in ``keep``, and what killed writers left.

        Not to be called while something is being prepared. Returns the bytes that were freed.
        """
        keep, freed = set(keep), 0
        for path in self._everything():
            if path.name.startswith("."):
                useless = time.time() - path.lstat().st_mtime > _ABANDONED_AFTER
            else:
                useless = path.name.partition(".")[0] not in keep
            if useless:
                freed += _size(path)
                _remove(path)
        return freed

    def _everything(self) -> Iterator[Path]:
        for shard in sorted(self.path.glob("[0-9a-f][0-9a-f]")):
            yield from sorted(shard.iterdir())

    def _folder(self, key: str) -> Path:
        return self.path / key[:2] / key

    def _reject_file(self, key: str) -> Path:
        return self.path / key[:2] / f"{key}.reject.json"

    def _meta(self, key: str) -> dict[str, Any] | None:
        try:
            text = (self._folder(key) / "meta.json").read_text(encoding="utf-8")
            meta: dict[str, Any] = json.loads(text)
        except (OSError, ValueError):
            return None
        return meta if isinstance(meta, dict) and "arrays" in meta else None

    def _discard(self, key: str) -> None:
        """Take a damaged entry out of the way; the rename makes it vanish as a whole."""
        folder = self._folder(key)
        if folder.exists():
            aside = folder.with_name(f".{key}.{uuid.uuid4().hex[:8]}.tmp")
            with contextlib.suppress(FileNotFoundError):  # another process did it
                os.rename(folder, aside)
            shutil.rmtree(aside, ignore_errors=True)


def _open(path: Path) -> np.ndarray:
    if path.stat().st_size == 0:
        raise ValueError("empty file")
    array: np.ndarray
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError:  # an array of no elements cannot be mapped; a truncated one fails again
        array = np.load(path, allow_pickle=False)
    return array


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(file.stat().st_size for file in path.iterdir())
    return path.stat().st_size


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
