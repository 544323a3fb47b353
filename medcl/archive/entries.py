"""Prepared arrays, one file per item, named by the hash of its source and its preparation.

::

    STORE/ab/abcdef….safetensors   one entry: see `medcl.archive.container`; whole or absent
    STORE/rejects.jsonl            why sources cannot be prepared: see `medcl.archive.refused`

The name is a hash of (item fingerprint, plugin, its preparation's version, settings). A changed
file, code or setting therefore has another name, and old arrays are never reused for it. An entry
contains its own name and SHA-256 checksums of all its bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from medcl.archive import container
from medcl.archive.checked import AGAIN, ASIDE, Damaged
from medcl.archive.container import Entry, OtherFormat
from medcl.errors import MedclError, UsageError
from medcl.io import room
from medcl.io.atomic import locked, temporary_name

SUFFIX = ".safetensors"
State = Literal["whole", "absent", "damaged", "other format"]

_ARRAY_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def entry_key(fingerprint: str, plugin: str, spec: Mapping[str, Any], preparation: int = 1) -> str:
    """The name of an entry. It depends on every value of the settings, not on their order.

    Raises:
        UsageError: for a setting other than texts, numbers, flags, lists and mappings.
    """
    return next(entry_keys([fingerprint], plugin, spec, preparation))


def entry_keys(
    fingerprints: Iterable[str], plugin: str, spec: Mapping[str, Any], preparation: int = 1
) -> Iterator[str]:
    """The names of the entries of many sources with the same settings: see `entry_key`."""
    rest = json.dumps([plugin, preparation, canonical(spec)], ensure_ascii=True, sort_keys=True)
    for fingerprint in fingerprints:
        text = f"[{json.dumps(fingerprint)}, {rest[1:]}"
        yield hashlib.sha256(text.encode()).hexdigest()[:40]


def canonical(value: Any, where: str = "prepare") -> Any:
    """A setting in its JSON form, which is equal for equal settings only."""
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

    def state(self, key: str) -> State:
        """The state of an entry: see `examined`."""
        return self.examined(key)[0]

    def examined(self, key: str) -> tuple[State, Mapping[str, Any]]:
        """The state of an entry, and if it is whole its metadata.

        A small one is verified as a whole, a large one's header. A large one is also damaged if an
        earlier read of its arrays failed.
        """
        try:
            return "whole", self.meta(key)
        except FileNotFoundError:
            file = self.file(key)
            if os.path.exists(file + ASIDE):
                return "damaged", {}
            return ("other format" if os.path.isdir(file.removesuffix(SUFFIX)) else "absent"), {}
        except OtherFormat:
            return "other format", {}
        except (Damaged, OSError):
            return "damaged", {}

    def has(self, key: str) -> bool:
        """True if the entry is present and intact: see `state`."""
        return self.state(key) == "whole"

    def arrays(self, key: str) -> Entry:
        """The entry's arrays, read-only.

        Raises:
            FileNotFoundError: if there is none.
            OtherFormat: if another version of medcl wrote it.
            Damaged: if it differs from what was written.
        """
        entry = container.read(self.file(key))
        if entry.meta.get("key") != key:
            raise Damaged(f"{self.file(key)} holds another entry than its name says. {AGAIN}")
        return entry

    def meta(self, key: str) -> dict[str, Any]:
        """The metadata of the entry: see `arrays` for its errors."""
        return self.arrays(key).meta

    def put(self, key: str, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> int:
        """Write or replace an entry atomically. Returns its bytes.

        Nothing is flushed to disk: after a power cut the newest entries may be damaged, which their
        checksums reveal.

        Raises:
            MedclError: for no array, an array of Python objects, or an invalid name.
            NoRoomError: if the disk is full.
        """
        if not arrays:
            raise MedclError("Preparation gave no array.")
        for name, array in arrays.items():
            dtype = np.asarray(array).dtype
            if dtype.hasobject or not _ARRAY_NAME.fullmatch(name) or name == "__metadata__":
                raise MedclError(
                    f"The prepared array '{name}' ({dtype}) cannot be stored: it needs a plain "
                    "name and numbers."
                )
        file = Path(self.file(key))
        temporary = temporary_name(file)
        converted = {name: np.asarray(array) for name, array in arrays.items()}
        try:
            with room.told(file, temporary, sum(array.nbytes for array in converted.values())):
                file.parent.mkdir(parents=True, exist_ok=True)
                total = container.write(temporary, converted, {**meta, "key": key})
                os.replace(temporary, file)
        finally:
            temporary.unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{file}{ASIDE}")
        if file.with_suffix("").is_dir():  # of format 1
            shutil.rmtree(file.with_suffix(""), ignore_errors=True)
        return total

    def file(self, key: str) -> str:
        """The path of an entry, whether it exists or not."""
        return f"{self.path}/{key[:2]}/{key}{SUFFIX}"

    @contextlib.contextmanager
    def used(self, *, alone: bool = False) -> Iterator[None]:
        """Lock the store while entries are added, or exclusively (``alone``) for removing some.

        Raises:
            UsageError: if another process removes entries; with ``alone``, also if one adds some.
        """
        what = "preparing into" if alone else "reclaiming"
        message = f"Another process is {what} {self.path}. Wait for it, and run this again."
        with locked(self.path / ".lock", message, shared=not alone):
            yield

    @property
    def refused(self) -> Path:
        """The file of sources that cannot be prepared: see `medcl.archive.refused`."""
        return self.path / "rejects.jsonl"
