"""Fill the store with what a recipe needs, in parallel; what is there already is not made again."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from medcl.archive.entries import Store, canonical, entry_key
from medcl.archive.index import Index
from medcl.archive.scanning import READER, public
from medcl.archive.tables import REJECTS
from medcl.errors import MedclError, UsageError
from medcl.io.atomic import write_text
from medcl.io.failure import Failure
from medcl.io.pmap import Engine, pmap
from medcl.plugin import FileStat, Plugin, Unit, file_of
from medcl.registry import Lazy, checked, resolve

__all__ = ["Prepared", "Store", "StoredArrays", "prepare"]

_FINDINGS = "findings"
_MAPPED_AT_ONCE = 256  # items; each array is one memory map, and a process may have 65,530


class StoredArrays:
    """Item id → its memory-mapped arrays (`medcl.plugin.Arrays`). Picklable; keeps few open."""

    def __init__(self, store: Path, keys: Mapping[str, str], index: Path | None = None) -> None:
        """``index`` is where `files` looks them up; without it there are none to be had."""
        self._store, self._keys, self._path = store, dict(keys), index
        self._open = lru_cache(maxsize=_MAPPED_AT_ONCE)(Store(store).arrays)

    def __call__(self, item_id: str) -> Mapping[str, np.ndarray]:
        """The arrays of an item.

        Raises:
            MedclError: if the item was not prepared, or its entry is damaged.
        """
        if item_id not in self._keys:
            raise MedclError(f"The item '{item_id}' is not among the prepared ones.")
        return self._open(self._keys[item_id])

    def files(self, item_id: str) -> tuple[Path, ...]:
        """The item's own files, absolute. Only here is the index's private table read.

        Raises:
            MedclError: if the index, or its private folder, is not there.
        """
        index = self._index
        return tuple(index.archive / file for file in index.files(item_id))

    @cached_property
    def _index(self) -> Index:
        if self._path is None:
            raise MedclError("These arrays came without an index, so their files are unknown.")
        return Index.open(self._path)

    def __reduce__(self) -> tuple[type[StoredArrays], tuple[Path, dict[str, str], Path | None]]:
        return StoredArrays, (self._store, self._keys, self._path)


@dataclass(frozen=True)
class Prepared:
    """The items that can be used, a way to their arrays, and the others with their reasons."""

    items: pl.DataFrame
    arrays: StoredArrays
    rejects: pl.DataFrame
    findings: Mapping[str, int] = field(default_factory=dict)
    """What ``prepare`` noticed of items that it could use: finding → how many."""

    def noticed(self) -> str | None:
        """One line on what was noticed of the items that can be used; None if nothing was."""
        if not self.findings:
            return None
        every = self.items.height
        parts = [f"{name} ({count:,})" for name, count in self.findings.items()]
        return f"Noticed while preparing {every:,} items: {', '.join(parts)}."

    def left_out(self) -> str | None:
        """One line on the items that cannot be used, with the first reason; None if all can."""
        bad, every = self.rejects.height, self.rejects.height + self.items.height
        if not bad:
            return None
        reasons = self.rejects["reason"].unique(maintain_order=True)
        others = " medcl prepare names the other reasons." if len(reasons) > 1 else ""
        were = "were" if bad > 1 else "was"
        return f"{bad:,} of {every:,} items {were} left out: {_sentence(reasons[0])}{others}"


def _sentence(reason: str) -> str:
    return reason if reason.endswith((".", "!", "?")) else f"{reason}."


@dataclass(frozen=True)
class _Job:
    item: str
    key: str
    fingerprint: str
    files: tuple[FileStat, ...]
    fields: Mapping[str, Any]


@dataclass(frozen=True)
class _Rejected:
    code: str
    reason: str
    detail: str = ""


def prepare(
    index: Index,
    plugin: Plugin,
    spec: Mapping[str, Any],
    *,
    workers: int = 1,
    engine: Engine = "local",
    retry: bool = False,
) -> Prepared:
    """Prepare every item of the index that the store lacks in this preparation.

    Killed and run again, it goes on where it was. An item that failed is not tried again until its
    files or the settings change, or ``retry`` asks for it. Damaged entries are made anew.

    Args:
        index: the items; the arrays go to its ``store`` folder.
        plugin: the modality of the index.
        spec: the keyword settings of the plugin's ``prepare``; missing ones take their defaults.
        workers: processes.
        engine: "local" or "ray".
        retry: try again what failed before.

    Raises:
        UsageError: for unknown or ill-typed settings, or a plugin that did not make this index.
        MedclError: if the store cannot be written (no space, no access).
    """
    if plugin.name != index.plugin_name:
        raise UsageError(
            f"{index.path} is an index of plugin '{index.plugin_name}', not '{plugin.name}'."
        )
    settings = checked(resolve(plugin.prepare), spec, "prepare")
    store = Store(index.path / "store")
    items = index.items
    source = {READER: index.reader_mark} if index.reader else {}
    keys = {
        item: entry_key(fingerprint, plugin.name, settings | source, plugin.preparation)
        for item, fingerprint in zip(items["id"], items["fingerprint"], strict=True)
    }
    rejected: dict[str, _Rejected] = {}
    missing: set[str] = set()
    for item, key in keys.items():
        known = None if retry else store.rejected(key)
        if known is not None:
            rejected[item] = _Rejected(*known)
        elif not store.has(key):
            missing.add(item)
    if missing:
        work = partial(_prepare_item, index.archive, store, plugin.name, plugin.prepare, settings)
        jobs = list(_jobs(index, keys, missing))
        for job, outcome in pmap(work, jobs, workers=workers, engine=engine, label="Preparing"):
            failed = _as_reject(outcome)
            if failed is not None:
                rejected[job.item] = failed
                _record(index, store, job.key, failed)
    used = items.filter(~pl.col("id").is_in(list(rejected)))
    used, findings = _with_findings(used, store, keys)
    return Prepared(
        used,
        StoredArrays(
            store.path,
            {item: key for item, key in keys.items() if item not in rejected},
            index.path,
        ),
        pl.DataFrame(
            [(item, why.code, why.reason) for item, why in rejected.items()],
            schema=REJECTS,
            orient="row",
        ).sort("id"),
        findings,
    )


def _with_findings(
    items: pl.DataFrame, store: Store, keys: Mapping[str, str]
) -> tuple[pl.DataFrame, dict[str, int]]:
    """Items with what their preparation noticed among their findings, and how often each was."""
    made = {item: store.meta(keys[item]).get("findings", []) for item in items["id"]}
    counts = Counter(name for names in made.values() for name in names)
    if counts:
        both = [
            [*(own or []), *made[item]]
            for item, own in zip(items["id"], items["findings"].to_list(), strict=True)
        ]
        items = items.with_columns(pl.Series("findings", both, dtype=pl.List(pl.String)))
    return items, dict(sorted(counts.items()))


def _jobs(index: Index, keys: Mapping[str, str], missing: set[str]) -> Iterator[_Job]:
    """In the order of the files, so that disks are read in theirs."""
    rows = index.items.filter(pl.col("id").is_in(list(missing)))
    for row in sorted(rows.iter_rows(named=True), key=lambda row: index.locate(row["id"])):
        item = row["id"]
        fields = {name: row[name] for name in ("findings", *index.fields)}
        if index.reader:
            fields[READER] = index.reader
        yield _Job(item, keys[item], row["fingerprint"], index.stats(item), fields)


def _prepare_item(
    root: Path, store: Store, plugin: str, target: Lazy, settings: dict[str, Any], job: _Job
) -> _Rejected | int:
    """In a worker: decode, hash the sources, store. Only a store that cannot be written raises."""
    unit, sources = Unit(job.item, job.files), _sources(job.files)
    if _changed(root, sources):
        return _stale()
    try:
        made = resolve(target)(root, tuple(file.path for file in job.files), job.fields, **settings)
        arrays = {str(name): np.asarray(values) for name, values in made.items()}
        noticed = arrays.pop(_FINDINGS, np.zeros(0, dtype="U1")).astype(str).tolist()
        content = _content_hash(root, sources)
    except UsageError:  # the settings are wrong, not this item
        raise
    except (Exception, SystemExit) as error:
        failure = Failure.of(error)
        code = "out-of-memory" if isinstance(error, MemoryError) else "unprepared"
        return _Rejected(code, public(failure.reason, root, unit), failure.detail)
    if _changed(root, sources):  # while it was read
        return _stale()
    meta = {
        "plugin": plugin,
        "spec": canonical(settings),
        "fingerprint": job.fingerprint,
        "content": content,
        "findings": [public(text, root, unit) for text in noticed],
    }
    try:
        return store.put(job.key, arrays, meta)
    except MedclError as error:
        return _Rejected("bad-arrays", f"The plugin broke its contract: {error}")
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise MedclError(
            f"The store could not be written: {why} ({store.path}). Make room or mend the access "
            "rights, and run the same again: what is prepared is kept."
        ) from error


def _sources(files: Sequence[FileStat]) -> list[FileStat]:
    """Each file once, whatever is read in it."""
    return list(
        {path: replace(f, path=path) for f in files for path in (file_of(f.path),)}.values()
    )


def _stale() -> _Rejected:
    return _Rejected("changed", "Its files changed after indexing; run medcl index again.")


def _changed(root: Path, files: Sequence[FileStat]) -> bool:
    for file in files:
        try:
            status = (root / file.path).stat()
        except OSError:
            return True
        if (status.st_size, status.st_mtime_ns) != (file.size, file.mtime_ns):
            return True
    return False


def _content_hash(root: Path, files: Sequence[FileStat]) -> str:
    """SHA-256 over the files' own hashes, in the order of their names."""
    total = hashlib.sha256()
    for file in sorted(files, key=lambda file: file.path):
        with (root / file.path).open("rb") as handle:
            total.update(hashlib.file_digest(handle, "sha256").digest())
    return total.hexdigest()


def _as_reject(outcome: _Rejected | int | Failure) -> _Rejected | None:
    if isinstance(outcome, Failure):
        if outcome.error == UsageError.__name__:
            raise UsageError(outcome.reason)
        if not outcome.died:
            raise MedclError(outcome.reason)
        return _Rejected("crashed", outcome.reason, outcome.detail)
    return outcome if isinstance(outcome, _Rejected) else None


def _record(index: Index, store: Store, key: str, failed: _Rejected) -> None:
    """Keep the reason beside the entries, the traceback in the private folder."""
    if failed.code == "changed":  # not a property of what was indexed
        return
    store.reject(key, failed.code, failed.reason)
    if failed.detail:
        write_text(index.path / "private" / "prepare" / f"{key}.txt", failed.detail)
