"""The arrays of prepared items, opened on demand."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medcl.archive import container
from medcl.archive.checked import AGAIN, Damaged
from medcl.archive.container import Entry, OtherFormat
from medcl.archive.entries import SUFFIX, Store
from medcl.archive.index import Index
from medcl.errors import MedclError
from medcl.io import storage
from medcl.io.atomic import temporary_name

TABLES = "tables"
"""The store's folder of files that map items to entries for other processes."""

_MAPPED_AT_ONCE = 256  # large entries; each is one memory map and one open file
_HELD_AT_ONCE = 64 << 20  # bytes of small entries
_OVERHEAD = 6 << 10  # bytes of Python objects around each of them
_INLINE = 20_000  # items; with more, other processes get their ids and keys from a file


class StoredArrays:
    """Item id → its arrays (`medcl.plugin.Arrays`). Picklable, also of millions of items.

    Small entries are read and verified as a whole, and 64 MiB of them are cached; large ones are
    memory-mapped, 256 at once, and each of their blocks is verified once per process.
    """

    def __init__(
        self,
        store: Path,
        ids: NDArray[np.bytes_],
        keys: NDArray[np.uint8],
        index: Path | None = None,
    ) -> None:
        """See `of`; ``ids`` (N,) are sorted, ``keys`` (N, 20) are the keys of their entries."""
        self._store, self._ids, self._keys, self._path = Store(store), ids, keys, index
        self._open: OrderedDict[int, Entry] = OrderedDict()
        self._mapped: OrderedDict[int, Entry] = OrderedDict()
        self._checked: dict[int, tuple[str, NDArray[np.bool_]]] = {}
        self._held, self._lock, self._tabled = 0, Lock(), False

    @classmethod
    def of(
        cls, store: Path, ids: Sequence[str], keys: Sequence[str], index: Path | None = None
    ) -> StoredArrays:
        """The arrays of the items ``ids``, whose entries are ``keys``.

        `files` needs ``index`` and raises without it.
        """
        names = np.array([item.encode() for item in ids], dtype="S") if len(ids) else _NONE
        order = np.argsort(names, kind="stable")
        raw = np.frombuffer(bytes.fromhex("".join(keys)), dtype=np.uint8).reshape(-1, 20)
        return cls(store, names[order], raw[order], index)

    def __call__(self, item_id: str) -> Mapping[str, NDArray[Any]]:
        """The arrays of an item.

        Raises:
            MedclError: if the item was not prepared, or its entry is damaged.
        """
        return self.at(self._position(item_id))

    def at(self, position: int) -> Mapping[str, NDArray[Any]]:
        """The arrays of the item at a position, see `positions`."""
        with self._lock:
            for opened in (self._open, self._mapped):
                entry = opened.get(position)
                if entry is not None:
                    opened.move_to_end(position)
                    return entry
        entry = self._read(position)
        with self._lock:
            self._keep(position, entry)
        return entry

    def positions(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """(N,) the positions of items, for `at`: smaller in memory and pickles than their ids.

        Raises:
            MedclError: if one of them was not prepared.
        """
        names = np.array([item.encode() for item in ids], dtype="S") if len(ids) else _NONE
        indices = np.searchsorted(self._ids, names)
        present = indices < len(self._ids)
        present[present] = self._ids[indices[present]] == names[present]
        if not present.all():
            raise _unknown(ids[int(np.flatnonzero(~present)[0])])
        return indices.astype(np.int64)

    def files(self, item_id: str) -> tuple[Path, ...]:
        """The item's own files, absolute. Only this reads the index's private table.

        Raises:
            MedclError: if the index or its private folder is missing, or the archive is on object
                storage.
        """
        index = self._index
        storage.refuse(index.archive)
        return tuple(index.archive / file for file in index.files(item_id))

    def __len__(self) -> int:
        return len(self._ids)

    @cached_property
    def _index(self) -> Index:
        if self._path is None:
            raise MedclError("These arrays came without an index, so their files are unknown.")
        return Index.open(self._path)

    def _position(self, item_id: str) -> int:
        name = item_id.encode()
        position = int(np.searchsorted(self._ids, np.bytes_(name)))
        if position == len(self._ids) or self._ids[position] != name:
            raise _unknown(item_id)
        return position

    def _read(self, position: int) -> Entry:
        key = self._keys[position].tobytes().hex()
        try:
            entry = self._store.arrays(key)
        except FileNotFoundError:
            problem = f"is missing from {self._store.path}."
            raise MedclError(self._about(position, problem)) from None
        except (Damaged, OtherFormat) as error:
            raise type(error)(self._about(position, f"cannot be used: {error}")) from None
        if entry.blocks is not None:  # each block is verified once per process
            digest, checked = self._checked.setdefault(position, (entry.digest, entry.blocks.done))
            if digest == entry.digest:
                entry.blocks.trust(checked)
        return entry

    def _about(self, position: int, what: str) -> str:
        item = self._ids[position].decode()
        remedy = "" if AGAIN in what else f" {AGAIN}"
        return f"The prepared entry of item {item} {what}{remedy}"

    def _keep(self, position: int, entry: Entry) -> None:
        if entry.blocks is not None:
            self._mapped[position] = entry
            if len(self._mapped) > _MAPPED_AT_ONCE:
                self._mapped.popitem(last=False)
            return
        if position in self._open:  # another thread was first
            return
        self._open[position] = entry
        self._held += entry.held + _OVERHEAD
        while self._held > _HELD_AT_ONCE:
            _, evicted = self._open.popitem(last=False)
            self._held -= evicted.held + _OVERHEAD

    def __reduce__(self) -> tuple[Any, ...]:
        if len(self._ids) > _INLINE:
            with contextlib.suppress(OSError):  # without write access, pickle the arrays
                return _from_table, (self._store.path, self._table(), self._path)
        return StoredArrays, (self._store.path, self._ids, self._keys, self._path)

    def _table(self) -> str:
        """Write the ids and keys to a file of the store, named by its content. Returns its name."""
        digest = hashlib.sha256(np.ascontiguousarray(self._ids).data)
        digest.update(np.ascontiguousarray(self._keys).data)
        name = digest.hexdigest()[:40]
        path = self._store.path / TABLES / f"{name}{SUFFIX}"
        if not (path.exists() if self._tabled else _is_whole(path)):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = temporary_name(path)
            try:
                container.write(temporary, {"ids": self._ids, "keys": self._keys}, {"key": name})
                os.replace(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)
        self._tabled = True
        return name


_NONE = np.zeros(0, dtype="S1")


def _from_table(store: Path, name: str, index: Path | None) -> StoredArrays:
    """In another process: the ids and keys are memory-mapped, which processes share."""
    table = container.read(f"{store}/{TABLES}/{name}{SUFFIX}")
    return StoredArrays(store, np.asarray(table["ids"]), np.asarray(table["keys"]), index)


def _is_whole(path: Path) -> bool:
    try:
        blocks = container.read(str(path)).blocks
        if blocks is not None:
            blocks.check_all()
    except (FileNotFoundError, Damaged, OtherFormat):
        return False
    return True


def _unknown(item_id: str) -> MedclError:
    return MedclError(f"The item '{item_id}' is not among the prepared ones.")
