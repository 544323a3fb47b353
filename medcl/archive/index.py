"""The index of an archive: one row per item and per reject, without patient identifiers.

::

    IDX/index.json        plugin, versions, counts; written last: without it the index is unfinished
    IDX/items.parquet     id, patient, site, group, fingerprint, findings, technical fields,
                          label.<name>
    IDX/rejects.parquet   id, code, reason
    IDX/private/          (owner only) key, archive.json, paths.parquet, scan/units.jsonl
    IDX/store/            prepared arrays (`medcl.archive.store`)
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import polars as pl

from medcl import manifest
from medcl.archive import (
    assign,
    copies,
    joining,
    presence,
    pseudonym,
    scanning,
    tables,
    unchanged,
)
from medcl.archive.claim import (
    FORMAT,
    RESTORE,
    claim,
    digests,
    made_by,
    private_folder,
    reader_mark,
    reader_settings,
)
from medcl.archive.ignored import counted
from medcl.archive.journal import Journal
from medcl.archive.walk import walk
from medcl.errors import MedclError, UsageError
from medcl.io import roots, storage
from medcl.io.atomic import locked
from medcl.io.failure import Failure
from medcl.io.pmap import Engine, item_seconds, pmap
from medcl.plugin import FileStat, Plugin, Reject, Unit
from medcl.reading import read_json, read_table
from medcl.registry import checked
from medcl.strings import is_text, original


class NothingTaken(UsageError):
    """No file of the archive is for the plugin."""


@dataclass(frozen=True)
class Summary:
    """The counts of an indexing run.

    Attributes:
        rejects: code → count.
        ignored: files that belong to no unit of this plugin.
        ignored_suffixes: how many of them end in what.
        scanned, reused: units opened in this run, and those taken over from earlier ones.
        unmatched: rows of the table that no item asked for.
        notes: what was decided about the table, and what is odd about the patients
            (`medcl.archive.identity`).
    """

    items: int
    patients: int
    sites: int
    rejects: dict[str, int] = field(default_factory=dict)
    ignored: int = 0
    ignored_suffixes: dict[str, int] = field(default_factory=dict)
    scanned: int = 0
    reused: int = 0
    unmatched: int = 0
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def rejected(self) -> int:
        """Rejects of all codes."""
        return sum(self.rejects.values())


def build(
    archive: Path,
    out: Path,
    plugin: Plugin,
    *,
    workers: int = 1,
    engine: Engine = "local",
    key_file: Path | None = None,
    patient_from: str | None = None,
    table: Path | Sequence[Path] | None = None,
    key_column: str | None = None,
    patient_column: str | None = None,
    reader: Mapping[str, Any] | None = None,
    merge_spellings: bool = False,
    rescan: bool = False,
    follow_links: bool = False,
) -> Summary:
    """Index an archive. Run again, it opens only new or changed files.

    Killed at any moment and run again, it writes the same tables, byte for byte, as uninterrupted.

    Args:
        archive: the folder of the recordings, or an address of object storage; it is only read.
        out: the index; inside the archive, it is skipped by the walk.
        plugin: the modality.
        workers: processes.
        engine: "local" or "ray".
        key_file: the secret for pseudonyms; see `medcl.archive.pseudonym.given`.
        patient_from: a pattern on the item's key; see `medcl.archive.assign.load`.
        table: patients, sites and labels by file; see `medcl.archive.assign.load`.
        key_column, patient_column: the table's, where they have none of the usual names.
        reader: what the files do not say, for the keyword-only parameters of the plugin's ``scan``;
            kept in the private folder for preparing and for indexing again. None: as before.
        merge_spellings: patients whose ids differ in case, spaces, punctuation or leading zeros
            only are one; see `medcl.archive.identity`.
        rescan: open every file again, for instance after access rights were mended.
        follow_links: take what links lead to outside of the archive too.

    Raises:
        UsageError: for a missing or empty archive, one without a file of this modality, an index of
            another archive, plugin or key, one that another process is writing, or settings that
            the plugin does not know.
        MedclError: if the archive of an existing index is not there, or a large part of it.
    """
    started = time.monotonic()
    storage.refuse_output(out)
    archive, out = storage.absolute(archive), out.resolve()
    if out == archive:
        raise UsageError(f"The index cannot be the archive itself ({out}). Choose another --out.")
    if not is_text(out):
        raise UsageError("The name of --out is not UTF-8. Choose another.")
    if reader is not None:  # as it will be read again: the keys of YAML may be numbers
        reader = json.loads(json.dumps(reader, default=str))
    values = checked(plugin.scan, _settings(out, plugin) if reader is None else reader, "reader")
    if reader is not None:  # paths hold wherever a later command is
        reader = {
            **reader,
            **{n: str(v.resolve()) for n, v in values.items() if isinstance(v, Path)},
        }
    contents = digests(values)
    assignment = assign.load(
        patient_from,
        table,
        key_column=key_column,
        patient_column=patient_column,
        codes=plugin.codes,
    )
    presence.check_index(archive, out)
    walked = walk(archive, skip=out, follow=follow_links)
    nothing = f"No file in {archive} is for the plugin '{plugin.name}': none was taken."
    grouped = None if (out / "index.json").is_file() else _group(plugin, walked.files)
    if grouped is not None and not grouped[0] and not grouped[1] and not walked.rejects:
        raise NothingTaken(nothing)
    given = pseudonym.given(key_file)  # before anything is made: it may be no key
    private = private_folder(out)
    busy = f"Another process is indexing into {out}. Wait for it, or choose another --out."
    with locked(private / "lock", busy):
        pseudonyms = claim(private, archive, plugin, given, reader, contents)
        versions, settings = made_by(plugin), reader_mark(private)
        options: dict[str, Any] = {"patient_from": patient_from, "table": assignment.table_hash}
        if merge_spellings:
            options["merge_spellings"] = True
        facts = {**versions, **options}
        snapshot = unchanged.Snapshot(
            private / "scan",
            walked,
            {**facts, "reader": settings, "tables": assignment.contents},
        )
        if not rescan and (known := snapshot.known(out)) is not None:
            return replace(Summary(**known), seconds=time.monotonic() - started)
        fewer = presence.check_walked(out, walked.files)
        units, repeated = grouped or _group(plugin, walked.files)
        rejects, paths = walked.rejects + repeated, [file.path for file in walked.files]
        files = len(paths)
        del walked, grouped
        if not units and not rejects:
            raise NothingTaken(nothing)
        snapshot.begin()
        with (
            storage.opened(archive, private) as root,
            _scanned(
                private / "scan" / "units.jsonl",
                {**versions, "reader": settings} if settings else versions,
                root,
                partial(plugin.scan, **values),
                units,
                workers=workers,
                engine=engine,
                rescan=rescan,
            ) as (entries, scanned),
        ):
            join = partial(joining.join, plugin.assemble, root) if plugin.assemble else None
            group = partial(copies.group, root=root, cache=private / "copies.parquet")
            opened = len(units)
            del units
            made = tables.build(
                entries.read_once(),
                rejects,
                paths,
                assignment,
                pseudonyms,
                join,
                group,
                merge_spellings=merge_spellings,
            )
        if len(made.ignored) == files and not rejects:
            raise NothingTaken(nothing)
        summary = Summary(
            items=len(made.items),
            patients=made.items["patient"].n_unique(),
            sites=made.items["site"].drop_nulls().n_unique(),
            rejects=dict(sorted(Counter(made.rejects["code"]).items())),
            ignored=len(made.ignored),
            ignored_suffixes=counted(made.ignored, plugin.hints),
            scanned=scanned,
            reused=opened - scanned,
            unmatched=assignment.unused,
            notes=(*assignment.notes, *made.notes, *([fewer] if fewer else [])),
            seconds=time.monotonic() - started,
        )
        _write(out, made, facts, summary)
        told = (*assignment.notes, *made.notes)
        again = replace(summary, scanned=0, reused=opened, notes=told)
        snapshot.finish(out, asdict(again))
    return summary


def _settings(out: Path, plugin: Plugin) -> dict[str, Any]:
    """The reader settings of an existing index in ``out``, if it is one of this plugin."""
    bound = out / "private" / "archive.json"
    if not bound.is_file() or read_json(bound, RESTORE).get("plugin") != plugin.name:
        return {}
    return reader_settings(bound.parent)


def _group(plugin: Plugin, files: Sequence[FileStat]) -> tuple[dict[str, Unit], list[Reject]]:
    """The plugin's units by key, sorted; of two with one key, the second is rejected."""
    units: dict[str, Unit] = {}
    refused = []
    for unit in plugin.units(files):
        if unit.key in units:
            reason = "Two groups of files have the same key; the first is kept."
            refused.append(Reject(unit.key, "duplicate", reason))
        else:
            units[unit.key] = unit
    return {key: units[key] for key in sorted(units)}, refused


@contextmanager
def _scanned(
    path: Path,
    versions: dict[str, Any],
    archive: Path,
    scan: scanning.Scan,
    units: Mapping[str, Unit],
    *,
    workers: int,
    engine: Engine,
    rescan: bool,
) -> Iterator[tuple[Journal, int]]:
    """The outcome of every unit, from the journal if unchanged; and the number of units opened."""
    if rescan:
        path.unlink(missing_ok=True)
    with Journal(path, versions, units) as entries:
        todo = [unit for key, unit in units.items() if key not in entries]
        work = partial(scanning.scan_unit, scan, archive)
        outcomes = pmap(
            work, todo, workers=workers, engine=engine, label="Indexing", seconds=item_seconds()
        )
        for unit, outcome in outcomes:
            if isinstance(outcome, Failure):
                if outcome.error == UsageError.__name__:  # object storage cannot be read
                    raise UsageError(outcome.reason)
                outcome = scanning.died(unit, outcome)
            entries.add(outcome)
        count = len(todo)
        del todo, units, outcomes  # a million of them are much memory, and the journal has all
        yield entries, count


def _write(out: Path, made: tables.Tables, facts: dict[str, Any], summary: Summary) -> None:
    """Remove index.json, replace the tables, and write it last: no partial index can be opened."""
    (out / "index.json").unlink(missing_ok=True)
    for frame, path in (
        (made.items, out / "items.parquet"),
        (made.rejects, out / "rejects.parquet"),
        (made.paths, out / "private" / "paths.parquet"),
        (made.sites, out / "private" / "sites.parquet"),
    ):
        with manifest.replacing(path) as temporary:
            frame.write_parquet(temporary)
    counts = {
        name: value
        for name, value in asdict(summary).items()
        if name not in ("scanned", "reused", "seconds", "notes")
    }
    manifest.bind(out, "index", facts)
    manifest.write_text(out / "index.json", json.dumps({**facts, **counts}, indent=2) + "\n")


_REMAKE = "Run the same medcl index (or medcl curate) again: it writes it anew."


@dataclass(frozen=True)
class Index:
    """An opened index. See `Index.open`."""

    path: Path
    facts: dict[str, Any]
    items: pl.DataFrame
    rejects: pl.DataFrame

    @classmethod
    def open(cls, path: Path) -> Index:
        """Open an index.

        Raises:
            UsageError: if the folder is not an index, or an unfinished one.
            MedclError: if one of its files is missing or damaged.
        """
        facts_file = path / "index.json"
        if not facts_file.is_file():
            if (path / "private").is_dir():
                raise UsageError(f"{path} is unfinished: run the same medcl index again.")
            if path.is_dir() and any(path.iterdir()):  # recordings, most likely
                how = f"medcl index {path} --plugin NAME --out IDX, if it holds recordings"
            else:
                how = f"medcl index ARCHIVE --plugin NAME --out {path}"
            raise UsageError(f"{path} is not an index. Make one: {how}")
        facts = read_json(facts_file, _REMAKE)
        manifest.refuse_newer(path, "index", facts.get("format"), FORMAT)
        if facts.get("format") != FORMAT:
            raise UsageError(
                f"{path} is an index of format {facts.get('format')}; this medcl reads {FORMAT}. "
                "Run medcl index again."
            )
        items, rejects = (
            read_table(path / name, _REMAKE) for name in ("items.parquet", "rejects.parquet")
        )
        return cls(path, facts, items, rejects)

    @property
    def plugin_name(self) -> str:
        """The modality."""
        return str(self.facts["plugin"])

    @property
    def key_check(self) -> str | None:
        """The check value of its key; None if the private folder is missing."""
        path = self.path / "private" / "archive.json"
        return read_json(path, RESTORE).get("key_check") if path.is_file() else None

    @property
    def fields(self) -> list[str]:
        """The plugin's technical columns."""
        return [
            name
            for name in self.items.columns
            if name not in (*scanning.CORE, scanning.KEEP) and not name.startswith(scanning.LABEL)
        ]

    @cached_property
    def archive(self) -> Path:
        """The archive's folder, where it lies now (`medcl.io.roots`)."""
        bound = read_json(self._private("archive.json"), RESTORE)
        beside = bound.get("beside")
        near = Path(os.path.normpath(self.path.resolve() / beside)) if beside else None
        return roots.found(Path(bound["archive"]), roots.ARCHIVE, near)

    @cached_property
    def reader(self) -> dict[str, Any]:
        """The reader settings of its files. Private: they may name columns."""
        return reader_settings(self._private("archive.json").parent, moved=True)

    @cached_property
    def reader_mark(self) -> dict[str, Any]:
        """The same with a hash for each file: a change means that items are prepared anew."""
        return reader_mark(self._private("archive.json").parent)

    @cached_property
    def paths(self) -> pl.DataFrame:
        """id → key, files, sizes, mtimes, detail. Identifies patients: never show or log it.

        Paths are as `medcl.strings.storable` makes them; `files` and `stats` give those of files.
        """
        return read_table(self._private("paths.parquet"), _REMAKE)

    @cached_property
    def _row(self) -> dict[str, int]:
        return {item: row for row, item in enumerate(self.paths["id"])}

    def files(self, item_id: str) -> tuple[str, ...]:
        """The item's files, relative to the archive."""
        return tuple(original(file) for file in self._path(item_id, "files"))

    def stats(self, item_id: str) -> tuple[FileStat, ...]:
        """The item's files with their size and time at indexing."""
        columns = (self.files(item_id), *(self._path(item_id, n) for n in ("sizes", "mtimes")))
        return tuple(FileStat(*row) for row in zip(*columns, strict=True))

    def locate(self, item_id: str) -> str:
        """The readable key of an item or reject. Private."""
        return str(self._path(item_id, "key"))

    def site_names(self) -> dict[str, str]:
        """A site's key → its own name; empty for an index of an earlier version. Private."""
        path = self.path / "private" / "sites.parquet"
        return dict(read_table(path, _REMAKE).iter_rows()) if path.is_file() else {}

    def detail(self, item_id: str) -> str | None:
        """The traceback of a reject, if reading it raised. Private."""
        detail: str | None = self._path(item_id, "detail")
        return detail

    def _path(self, item_id: str, column: str) -> Any:
        if item_id not in self._row:
            raise MedclError(f"No item or reject has the id '{item_id}' in {self.path}.")
        return self.paths[column][self._row[item_id]]

    def _private(self, name: str) -> Path:
        path = self.path / "private" / name
        if not path.is_file():
            raise MedclError(
                f"{path} is missing: this index came without its private folder, so its files "
                "cannot be found. Use the original, or index the archive here."
            )
        return path
