"""New recordings as a temporary index: links to the given paths, with the run's pseudonym key."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import polars as pl

from medcl import manifest
from medcl.archive import index as indexing
from medcl.archive.claim import reader_settings
from medcl.archive.index import Index
from medcl.archive.scanning import scan_unit
from medcl.errors import UsageError
from medcl.io import roots, scratch
from medcl.io.pmap import Engine
from medcl.plugin import FileStat, Plugin, Samples, Unit, file_of
from medcl.private import recalled
from medcl.reading import read_json
from medcl.registry import resolve
from medcl.run import Trained

ITEMS = "items.parquet"


@contextmanager
def indexed(
    run: Trained,
    records: Sequence[Path],
    *,
    key_file: Path | None = None,
    reader: Mapping[str, Any] | None = None,
    workers: int = 1,
    engine: Engine = "local",
) -> Iterator[Index]:
    """Index files and folders for the duration of the context; the data folders stay untouched.

    A file includes the files that are read with it: those of the same stem (``100.hea`` needs
    ``100.dat``), or else those that its plugin groups with it (segments, a signal file that another
    header names too, the folder of a slide). Of such a group only what the file is part of is
    indexed. A record may be named without suffix. Paths are relative to the archive of the
    run's index, or else to the common folder of all of them, so that a patient has the same
    pseudonym in both.

    Args:
        run: its plugin reads the files, and its index provides the key.
        records: files, stems of files, and folders; or one index, which is used as it is.
        key_file: the secret of the pseudonyms, if the run's index was made with a key file.
        reader: settings that these files lack; they override those of the run's index.
        workers: processes that read headers.
        engine: "local", or "ray" for a cluster that shares the folder of temporary files.

    Raises:
        UsageError: if a path does not exist, or holds nothing for this plugin; if ``reader`` comes
            with an index, or has settings unknown to the plugin.
    """
    if _is_index(records):
        if reader:
            raise UsageError(
                f"{records[0]} is an index, which has its own reader settings: give it "
                "reader.… by medcl index --set."
            )
        index = Index.open(records[0])
        if index.plugin_name != run.recipe.plugin:
            raise UsageError(
                f"{records[0]} was indexed by '{index.plugin_name}', but {run.path.name} uses "
                f"'{run.recipe.plugin}'."
            )
        yield index
        return
    paths, partial = _wanted(run.plugin, records)
    base = _base(run, paths)
    inside = base == _archive(run)
    data = _data(run)
    if key_file is None and data is not None and (data / "private" / "key").is_file():
        key_file = data / "private" / "key"
    with scratch.temporary() as folder:  # its owner's alone
        archive = folder / "archive"
        _link(paths, base, archive)
        out = folder / "index"
        indexing.build(
            archive,
            out,
            run.plugin,
            workers=workers,
            engine=engine,
            key_file=key_file,
            patient_from=_facts(run).get("patient_from") if inside else None,
            reader=_over(recorded_reader(run), reader),
            follow_links=True,  # the archive is made of links
        )
        if data is not None:
            _add_columns(out / ITEMS, data / ITEMS)
        yield _only(Index.open(out), {path.relative_to(base).as_posix() for path in partial})


def _only(index: Index, named: set[str]) -> Index:
    """An index without the items of a group that none of the named files is part of.

    A file is part of the item of its own name, or else of those that are read from it.

    Args:
        index: of all files.
        named: files that were given and are read with a group of others in their folders.
    """
    if not named:
        return index
    stem_of = {path: str(PurePosixPath(path).with_suffix("")) for path in named}
    folders = {str(PurePosixPath(path).parent) for path in named}
    files_of, called = {}, {}
    for item in [*index.items["id"], *index.rejects["id"]]:
        files_of[item] = {file_of(file) for file in index.files(item)}
        key = index.locate(item).rpartition("#")[0] or index.locate(item)
        called[item] = str(PurePosixPath(key).with_suffix(""))
    own = set(called.values()) & set(stem_of.values())
    without = {path for path, stem in stem_of.items() if stem not in own}
    dropped = [
        item
        for item, files in files_of.items()
        if called[item] not in own
        and not files & without
        and {str(PurePosixPath(file).parent) for file in files or {called[item]}} & folders
    ]
    keep = ~pl.col("id").is_in(dropped)
    return replace(index, items=index.items.filter(keep), rejects=index.rejects.filter(keep))


def named(samples: Samples, index: Index) -> Samples:
    """The samples with the label ``record``: the path of each one's recording."""
    name_of = dict(index.paths.select("id", "key").iter_rows())
    record = np.array([name_of[item] for item in samples.items])
    return replace(samples, labels={**samples.labels, "record": record})


def saved(plugin: Plugin, records: Sequence[object], folder: Path) -> list[Path] | None:
    """Recordings as paths: those that are Python objects are written into ``folder`` by the plugin.

    Returns:
        a path each; None if the plugin does not know one of them.

    Raises:
        UsageError: if one cannot be written.
    """
    save = None if plugin.save is None else resolve(plugin.save)
    paths = []
    for n, record in enumerate(records):
        if isinstance(record, str | Path):
            path: Path | None = Path(record)
        else:
            path = None if save is None else save(record, folder, f"recording-{n + 1}")
        if path is None:
            return None
        paths.append(path)
    return paths


@contextmanager
def read_once(
    plugin: Plugin,
    records: Sequence[Path],
    *,
    reader: Mapping[str, Any] | None = None,
    workers: int = 1,
) -> Iterator[Index]:
    """As `indexed`, of no run: the pseudonyms are of this index alone and end with it.

    Raises:
        UsageError: if a path does not exist, or holds nothing for this plugin; for reader settings
            unknown to the plugin.
    """
    if _is_index(records):
        raise UsageError(f"{records[0]} is an index: give the recordings themselves.")
    paths, partial = _wanted(plugin, records)
    base = _common(paths)
    with scratch.temporary() as folder:  # its owner's alone
        archive = folder / "archive"
        _link(paths, base, archive)
        out = folder / "index"
        indexing.build(archive, out, plugin, workers=workers, reader=reader, follow_links=True)
        yield _only(Index.open(out), {path.relative_to(base).as_posix() for path in partial})


def _link(paths: Sequence[Path], base: Path, archive: Path) -> None:
    """Links in ``archive`` to paths below ``base``, at the same relative places."""
    for path in paths:
        link = archive / path.relative_to(base)
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(path, target_is_directory=path.is_dir())


def _add_columns(items: Path, index_items: Path) -> None:
    """Add the missing columns of the run's index to new items, empty: they are in no table of it.

    Without an index at its recorded path, no column is added.
    """
    if index_items.is_file():
        frame = pl.read_parquet(items, glob=False)
        schema = pl.scan_parquet(index_items, glob=False).collect_schema()
        lacking = {name: kind for name, kind in schema.items() if name not in frame.columns}
        frame = frame.with_columns(pl.lit(None, kind).alias(n) for n, kind in lacking.items())
        with manifest.replacing(items) as temporary:
            frame.write_parquet(temporary)


def assigned(run: Trained, records: Sequence[Path]) -> bool:
    """True if the run's index takes patients from a table or paths, and these records cannot."""
    facts = _facts(run)
    by_path = facts.get("patient_from") is not None
    if _is_index(records) or (facts.get("table") is None and not by_path):
        return False
    return not by_path or _base(run, _wanted(run.plugin, records)[0]) != _archive(run)


def _is_index(records: Sequence[Path]) -> bool:
    return len(records) == 1 and (records[0] / "index.json").is_file()


def _data(run: Trained) -> Path | None:
    """Its index; None without its private folder, which holds the path."""
    origin = recalled(run.path)
    return None if origin is None else origin.data


def _facts(run: Trained) -> dict[str, Any]:
    """``index.json`` of the run's index; empty if it is missing."""
    data = _data(run)
    path = None if data is None else data / "index.json"
    return {} if path is None or not path.is_file() else read_json(path, "Index it again.")


def recorded_reader(run: Trained) -> dict[str, Any] | None:
    """The reader settings of the run's index (``medcl index --set reader.…``), None without any."""
    data = _data(run)
    if data is None or not (data / "private" / "archive.json").is_file():
        return None
    return reader_settings(data / "private")


def _over(
    index: Mapping[str, Any] | None, override: Mapping[str, Any] | None
) -> Mapping[str, Any] | None:
    """Reader settings of new files, which override those of the run's index.

    Settings of single files (``reader.files``) would take precedence, but concern other files.
    """
    if override is None:
        return index
    return {name: value for name, value in (index or {}).items() if name != "files"} | {**override}


def _wanted(plugin: Plugin, records: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """The given files and folders, with the files that are read with them.

    Files inside another given folder are left out.

    Returns:
        all of them, and those of the given files whose companions form a larger group.
    """
    groups: dict[Path, dict[str, Unit]] = {}
    named: dict[Path, None] = {}
    partial = []
    for record in records:
        files, of_groups = _files(plugin, record.absolute(), groups)
        named |= dict.fromkeys(files)
        partial += of_groups
    folders = {path for path in named if path.is_dir()}
    kept = [path for path in named if folders.isdisjoint(path.parents)]
    return kept, [path for path in partial if path in kept]


def _grouped(plugin: Plugin, folder: Path) -> dict[str, Unit]:
    """How a plugin groups the files of a folder: file → its unit.

    Of its subfolders only those are listed that are called like a file, as slides have them.
    """
    files = [path for path in sorted(folder.iterdir()) if path.is_file()]
    stems = {path.stem for path in files}
    stats = [_stat(path, folder) for path in files]
    for below in (path for path in sorted(folder.iterdir()) if path.is_dir()):
        if below.name in stems:
            stats += [_stat(path, folder) for path in sorted(below.rglob("*")) if path.is_file()]
    return {file.path: unit for unit in plugin.units(stats) for file in unit.files}


def _files(
    plugin: Plugin, record: Path, groups: dict[Path, dict[str, Unit]]
) -> tuple[list[Path], list[Path]]:
    """A folder; or a file and the files that the plugin reads with it.

    These are the files of the same stem; where no recording can be read from them, those of its
    unit in its folder. In the second case the file is in the second list too.
    """
    if record.is_dir():
        return [record], []
    siblings = (
        sorted(record.parent.glob(f"{_escaped(record.stem)}.*")) if record.parent.is_dir() else []
    )
    if not record.is_file():  # a record's name, without suffix
        siblings = [
            p for p in sorted(record.parent.glob(f"{_escaped(record.name)}.*")) if p.is_file()
        ]
        if not siblings:
            raise UsageError(f"{record} does not exist. Give recordings, or folders of them.")
        each = [_files(plugin, path, groups) for path in siblings]
        together = dict.fromkeys([*siblings, *(path for files, _ in each for path in files)])
        return list(together), [path for _, of_groups in each for path in of_groups]
    stats = {path: _stat(path, path.parent) for path in siblings if path.is_file()}
    units = (set(unit.files) for unit in plugin.units(list(stats.values())))
    unit = next((files for files in units if stats[record] in files), {stats[record]})
    alone = [path for path, stat in stats.items() if stat in unit]
    if record.parent not in groups:
        groups[record.parent] = _grouped(plugin, record.parent)
    group = groups[record.parent].get(record.name)
    if group is None or {file.path for file in group.files} <= {path.name for path in alone}:
        return alone, []
    if _is_whole(plugin, record, alone):
        return alone, []
    return [record.parent / file.path for file in group.files], [record]


def _is_whole(plugin: Plugin, record: Path, files: Sequence[Path]) -> bool:
    """Whether a recording can be read from these files alone; nothing but headers is read."""
    with scratch.temporary() as folder:
        for path in files:
            (folder / path.name).symlink_to(path)
        for unit in plugin.units([_stat(path, path.parent) for path in files]):
            if any(file.path == record.name for file in unit.files):
                found = scan_unit(plugin.scan, folder, unit)
                return bool(found.records)
    return False


def _stat(path: Path, folder: Path) -> FileStat:
    return FileStat(path.relative_to(folder).as_posix(), path.stat().st_size, 0)


def _escaped(name: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def _base(run: Trained, paths: Sequence[Path]) -> Path:
    """The root of record keys: the run's archive if it holds all paths, else their common folder.

    A single folder is treated as a copy of the archive, so that its patients are recognised.
    """
    archive = _archive(run)
    if archive is not None and all(path.is_relative_to(archive) for path in paths):
        return archive
    return _common(paths)


def _common(paths: Sequence[Path]) -> Path:
    """The deepest folder that holds all of them."""
    return Path(os.path.commonpath([path if path.is_dir() else path.parent for path in paths]))


def _archive(run: Trained) -> Path | None:
    """The archive of the run's index, if known."""
    data = _data(run)
    facts = None if data is None else data / "private" / "archive.json"
    bound = {} if facts is None or not facts.is_file() else read_json(facts, "Index it again.")
    archive = Path(str(bound.get("archive", "")))
    return roots.moved(archive) if archive.is_absolute() else None
