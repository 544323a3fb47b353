"""Prepare the items of a recipe into the store, in parallel; existing entries are reused."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from medcl.archive import presence, refused
from medcl.archive.entries import State, Store, canonical, entry_keys
from medcl.archive.index import Index
from medcl.archive.scanning import READER, public
from medcl.archive.stored import StoredArrays
from medcl.archive.tables import REJECTS
from medcl.errors import IntegrityWarning, MedclError, UsageError
from medcl.io import roots, scratch, storage
from medcl.io.failure import Failure
from medcl.io.pmap import Engine, item_seconds, pmap
from medcl.io.room import NoRoomError, is_full
from medcl.plugin import MEMBER, FileStat, Plugin, Unit, file_of
from medcl.registry import Lazy, checked, resolve

__all__ = ["Prepared", "Store", "StoredArrays", "prepare"]

AWAY = "away"
_FINDINGS = "findings"


@dataclass(frozen=True)
class Prepared:
    """The usable items, their arrays, and the rejected items with their reasons.

    Attributes:
        items: the usable rows of the index.
        arrays: item id → its arrays.
        rejects: id, code, reason.
        anew: reason why existing entries were prepared again → count: "damaged", "other format".
    """

    items: pl.DataFrame
    arrays: StoredArrays
    rejects: pl.DataFrame
    anew: Mapping[State, int] = field(default_factory=dict)
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

    A run that was killed and repeated continues. A failed item is tried again only if its files or
    the settings change, or with ``retry``. Entries that are damaged, or of another format, are
    prepared anew, with a warning that counts them. For an entry above 1 MiB only the header is
    verified here. Damaged data raise an error when they are read; the next run prepares them anew.

    Args:
        index: the items; the arrays go to its ``store`` folder.
        plugin: the modality of the index.
        spec: the keyword settings of the plugin's ``prepare``; missing ones have their defaults.
        workers: processes.
        engine: "local" or "ray".
        retry: prepare again the items that failed before.

    Raises:
        UsageError: for unknown or ill-typed settings, or an index of another plugin.
        MedclError: if the store cannot be written (no space, no access).
    """
    if plugin.name != index.plugin_name:
        raise UsageError(
            f"{index.path} is an index of plugin '{index.plugin_name}', not '{plugin.name}'."
        )
    settings = checked(resolve(plugin.prepare), spec, "prepare")
    store = Store(index.path / "store")
    items = index.items
    keys = keys_of(index, plugin, spec)
    ids = list(keys)
    reasons = refused.read(store.refused)
    rejected: dict[str, _Rejected] = {}
    missing: set[str] = set()
    anew: Counter[State] = Counter()
    noticed: dict[str, list[str]] = {}
    for item, key in keys.items():
        state, meta = store.examined(key)
        if found := meta.get(_FINDINGS):
            noticed[item] = found
        if state == "absent" and key in reasons and not retry:
            rejected[item] = _Rejected(*reasons[key])
        elif state != "whole":
            missing.add(item)
            anew.update([state])
    del anew["absent"]
    if anew:
        warnings.warn(_again(anew, store), IntegrityWarning, stacklevel=2)
    if missing:
        about = {
            "plugin": plugin.name,
            "preparation": plugin.preparation,
            "spec": canonical(settings),
        }
        wanted = {item: index.stats(item) for item in missing}
        for item, reason in presence.away(index.archive, index.path, wanted, len(items)).items():
            rejected[item] = _Rejected(AWAY, reason)
            missing.discard(item)
        jobs = list(_jobs(index, keys, missing))
        with store.used(), scratch.new(index.path / "private") as shared:
            work = partial(
                _prepare_item, index.archive, store, plugin.prepare, settings, about, shared
            )
            for job, outcome in pmap(
                work,
                jobs,
                workers=workers,
                engine=engine,
                label="Preparing",
                seconds=item_seconds(),
            ):
                failed = _as_reject(outcome)
                if failed is not None:
                    rejected[job.item] = failed
                    _record(index, store, job, failed)
                    continue
                if job.key in reasons:
                    refused.add(store.refused, job.key, None, "")
                if found := store.meta(job.key).get(_FINDINGS):
                    noticed[job.item] = found
    used = items.filter(~pl.col("id").is_in(list(rejected)))
    used, findings = _with_findings(used, noticed)
    return Prepared(
        used,
        StoredArrays.of(
            store.path,
            [item for item in ids if item not in rejected],
            [keys[item] for item in ids if item not in rejected],
            index.path,
        ),
        pl.DataFrame(
            [(item, why.code, why.reason) for item, why in rejected.items()],
            schema=REJECTS,
            orient="row",
        ).sort("id"),
        dict(anew),
        findings,
    )


def _with_findings(
    items: pl.DataFrame, noticed: Mapping[str, Sequence[str]]
) -> tuple[pl.DataFrame, dict[str, int]]:
    """Items with what their preparation noticed among their findings, and how often each was."""
    counts = Counter(name for item in items["id"] for name in noticed.get(item, ()))
    if counts:
        both = [
            [*(own or []), *noticed.get(item, ())]
            for item, own in zip(items["id"], items["findings"].to_list(), strict=True)
        ]
        items = items.with_columns(pl.Series("findings", both, dtype=pl.List(pl.String)))
    return items, dict(sorted(counts.items()))


def keys_of(index: Index, plugin: Plugin, spec: Mapping[str, Any]) -> dict[str, str]:
    """Item → the key of its entry under these settings of ``prepare``, made or not.

    Raises:
        UsageError: for settings that the plugin does not take.
    """
    settings = checked(resolve(plugin.prepare), spec, "prepare")
    source = {READER: index.reader_mark} if index.reader else {}
    items = index.items
    names = entry_keys(items["fingerprint"], plugin.name, settings | source, plugin.preparation)
    return dict(zip(items["id"].to_list(), names, strict=True))


def _again(anew: Mapping[State, int], store: Store) -> str:
    said = {"damaged": "damaged", "other format": "of another version of medcl"}
    parts = [f"{n:,} {'are' if n > 1 else 'is'} {said[state]}" for state, n in anew.items()]
    return f"Of the prepared entries in {store.path} {' and '.join(parts)}: prepared anew."


def _jobs(index: Index, keys: Mapping[str, str], missing: set[str]) -> Iterator[_Job]:
    """The jobs in the order of the files, for sequential disk access."""
    rows = index.items.filter(pl.col("id").is_in(list(missing)))
    for row in sorted(rows.iter_rows(named=True), key=lambda row: index.locate(row["id"])):
        item = row["id"]
        fields = {name: row[name] for name in ("findings", *index.fields)}
        if index.reader:
            fields[READER] = index.reader
        yield _Job(item, keys[item], row["fingerprint"], index.stats(item), fields)


def _prepare_item(
    root: Path,
    store: Store,
    target: Lazy,
    settings: dict[str, Any],
    about: Mapping[str, Any],
    shared: Path,
    job: _Job,
) -> _Rejected | int:
    """In a worker: decode, hash the sources, store. Only a store that cannot be written raises."""
    scratch.use(shared)
    sources = _sources(job.files)
    with storage.local(root, (file.path for file in sources)) as here:
        return _prepare_local(here, sources, store, target, settings, about, job)


def _prepare_local(
    root: Path,
    sources: Sequence[FileStat],
    store: Store,
    target: Lazy,
    settings: dict[str, Any],
    about: Mapping[str, Any],
    job: _Job,
) -> _Rejected | int:
    unit = Unit(job.item, job.files)
    if _changed(root, sources):
        return _stale(root, store)
    try:
        made = resolve(target)(root, tuple(file.path for file in job.files), job.fields, **settings)
        arrays = {str(name): np.asarray(values) for name, values in made.items()}
        noticed = arrays.pop(_FINDINGS, np.zeros(0, dtype="U1")).astype(str).tolist()
        content = _content_hash(
            root, sources, {file_of(f.path) for f in job.files if MEMBER in f.path}
        )
    except UsageError:  # the settings are wrong, not this item
        raise
    except (Exception, SystemExit) as error:
        if is_full(error):
            raise
        if _changed(root, sources):  # away meanwhile, or written to
            return _stale(root, store)
        failure = Failure.of(error)
        code = "out-of-memory" if isinstance(error, MemoryError) else "unprepared"
        return _Rejected(code, public(failure.reason, root, unit), failure.detail)
    if _changed(root, sources):  # while it was read
        return _stale(root, store)
    meta = {
        **about,
        "fingerprint": job.fingerprint,
        "content": content,
        "findings": [public(text, root, unit) for text in noticed],
    }
    try:
        return store.put(job.key, arrays, meta)
    except NoRoomError:
        raise
    except MedclError as error:
        return _Rejected("bad-arrays", f"The plugin broke its contract: {error}")
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise MedclError(
            f"The store could not be written: {why} ({store.path}). Make room or mend the access "
            "rights, and run the same again: what is prepared is kept."
        ) from error


def _sources(files: Sequence[FileStat]) -> list[FileStat]:
    """Each file once, without members."""
    return list(
        {path: replace(f, path=path) for f in files for path in (file_of(f.path),)}.values()
    )


def _stale(root: Path, store: Store) -> _Rejected:
    """Of files that are not as they were indexed.

    Raises:
        MedclError: if the whole archive is no more there: unmounted since preparing began.
    """
    if not roots.is_there(root):
        raise MedclError(presence.gone(root, store.path.parent))
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


def _content_hash(root: Path, files: Sequence[FileStat], shared: Collection[str]) -> str:
    """SHA-256 over the files' own hashes, in the order of their names.

    Files that are ``shared`` with other items, as archives are, are hashed once a run.
    """
    total = hashlib.sha256()
    for file in sorted(files, key=lambda file: file.path):
        if file.path in shared:
            total.update(scratch.digest(root / file.path))
            continue
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


def _record(index: Index, store: Store, job: _Job, failed: _Rejected) -> None:
    """Write the reason to the store, the traceback to the private folder."""
    if failed.code == "changed":  # not a property of the indexed item
        return
    refused.add(store.refused, job.key, failed.code, failed.reason)
    if failed.detail:
        line = json.dumps({"id": job.item, "key": job.key, "detail": failed.detail}) + "\n"
        details = index.path / "private" / "prepare.jsonl"
        descriptor = os.open(details, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "ab") as handle:
            handle.write(line.encode())
