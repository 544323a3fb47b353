"""From scanned units to the index's three tables, independent of the order of scanning.

``items`` and ``rejects`` hold pseudonyms only; ``paths`` maps them to the files and is private.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from medcl.archive import identity, scanning
from medcl.archive.assign import Assignment
from medcl.archive.joining import located
from medcl.archive.pseudonym import Pseudonyms
from medcl.archive.scanning import LABEL, Scanned
from medcl.plugin import FileStat, Record, Reject, Scalar
from medcl.strings import storable

REJECTS = pl.Schema([("id", pl.String), ("code", pl.String), ("reason", pl.String)])
SITES = pl.Schema([("site", pl.String), ("name", pl.String)])
PATHS = pl.Schema(
    [
        ("id", pl.String),
        ("key", pl.String),
        ("files", pl.List(pl.String)),
        ("sizes", pl.List(pl.Int64)),
        ("mtimes", pl.List(pl.Int64)),
        ("detail", pl.String),
    ]
)

Group = Callable[[Sequence[Record], Mapping[str, tuple[FileStat, ...]]], list[Record]]
Join = Callable[[Sequence[Record], Mapping[str, FileStat]], list[Record | Reject]]


class Tables(NamedTuple):
    """See the module's docstring."""

    items: pl.DataFrame
    rejects: pl.DataFrame
    paths: pl.DataFrame
    notes: tuple[str, ...] = ()
    sites: pl.DataFrame = pl.DataFrame(schema=SITES)
    ignored: Sequence[str] = ()
    """The files of no unit, or of those of which nothing came: a README, a licence."""


def build(
    scanned: Iterable[Scanned],
    rejects: Sequence[Reject],
    walked: Sequence[str],
    assignment: Assignment,
    pseudonyms: Pseudonyms,
    join: Join | None = None,
    group: Group | None = None,
    *,
    merge_spellings: bool = False,
) -> Tables:
    """Sort, assign patients and labels, reject duplicates, and replace every raw id.

    Args:
        scanned: the archive's units, sorted by key. They are read once, one by one.
        rejects: of before scanning (folders and files that could not be listed).
        walked: the paths of the archive's files, sorted.
        assignment: patients, sites and labels from outside the files.
        pseudonyms: the keyed hashes.
        join: makes items of the units' records, if they are not items as they are.
        group: puts copies together, see `medcl.archive.copies`.
        merge_spellings: patients whose ids differ in spelling only are one.
    """
    refused = list(rejects)
    stats: dict[str, tuple[FileStat, ...]] = {}
    details: dict[str, str] = {}
    taken = bytearray(len(walked))  # a million paths in a set would be 100 MB
    records: list[Record] = []
    keys: set[str] = set()

    def units() -> Iterator[tuple[Iterable[Record | Reject], tuple[FileStat, ...]]]:
        """The outcomes of each unit and its files; of joined records all, and all files."""
        pieces: list[Record] = []
        files: list[FileStat] = []
        for entry in scanned:
            refused.extend(entry.rejects)
            details.update(entry.details)
            for reject in entry.rejects:
                stats.setdefault(reject.key, entry.stats)
            if entry.records or entry.rejects:
                for file in entry.stats:
                    at = bisect_left(walked, file.path)
                    if at < len(walked) and walked[at] == file.path:
                        taken[at] = True
            if join is None:
                yield entry.records, entry.stats
            else:
                pieces += entry.records
                files += entry.stats
        if join is not None:
            joined = join(pieces, {file.path: file for file in files})
            del pieces
            yield joined, tuple(files)

    for outcomes, files in units():
        by_path = {file.path: file for file in files}
        for outcome in outcomes:
            if isinstance(outcome, Reject):
                refused.append(outcome)
            elif outcome.key in keys:
                reason = "An item of the same key was found before; the first is kept."
                refused.append(Reject(outcome.key, "duplicate", reason))
            else:
                keys.add(outcome.key)
                records.append(outcome)
                of = located(outcome, by_path)
                stats[outcome.key] = files if of == files else of  # one object for both
        del outcomes, files, by_path
    del keys
    usable: list[Record] = []
    for outcome in assignment.apply(records):
        if isinstance(outcome, Reject):
            refused.append(outcome)
        else:
            usable.append(outcome)
    del records
    usable, notes = identity.noticed(identity.merged(usable) if merge_spellings else usable)
    if group is not None:
        usable = group(usable, stats)
    sites = _sites(usable, pseudonyms)
    items = _items(usable, stats, pseudonyms)
    del usable
    return Tables(
        items,
        _rejects(refused, pseudonyms),
        _paths({*stats, *(reject.key for reject in refused)}, stats, details, pseudonyms),
        tuple(notes),
        sites,
        [path for path, of_use in zip(walked, taken, strict=True) if not of_use],
    )


def _sites(records: Sequence[Record], pseudonyms: Pseudonyms) -> pl.DataFrame:
    """A site's key and its own name: for the private folder."""
    names = {pseudonyms.site(r.site): r.site.strip() for r in records if r.site}
    return pl.DataFrame({"site": list(names), "name": list(names.values())}, SITES)


def _items(
    records: Sequence[Record], stats: Mapping[str, tuple[FileStat, ...]], pseudonyms: Pseudonyms
) -> pl.DataFrame:
    ids = np.array([pseudonyms.item(r.key) for r in records], dtype=np.str_)
    order = np.argsort(ids, kind="stable")
    records = [records[n] for n in order]
    marks = (pseudonyms.fingerprint(scanning.fingerprint(r.key, stats[r.key])) for r in records)
    columns: dict[str, pl.Series] = {
        "id": _text("id", map(str, ids[order])),
        "patient": _text("patient", (pseudonyms.patient(r.patient) for r in records)),
        "site": _text("site", (r.site and pseudonyms.site(r.site) for r in records)),
        "group": _text("group", (r.group and pseudonyms.group(r.group) for r in records)),
        "fingerprint": _text("fingerprint", marks),
        "findings": _series("findings", (list(r.findings) for r in records), pl.List(pl.String())),
    }
    for name in sorted({name for r in records for name in r.fields}):
        columns[name] = _column(name, [r.fields.get(name) for r in records])
    for name in sorted({name for r in records for name in r.labels}):
        columns[LABEL + name] = _column(LABEL + name, [r.labels.get(name) for r in records])
    return pl.DataFrame(columns)


def _rejects(rejects: Sequence[Reject], pseudonyms: Pseudonyms) -> pl.DataFrame:
    rows = [(pseudonyms.item(r.key), r.code, r.reason) for r in rejects]
    return pl.DataFrame(rows, schema=REJECTS, orient="row").sort("id", "code", "reason")


def _paths(
    keys: Iterable[str],
    stats: Mapping[str, tuple[FileStat, ...]],
    details: Mapping[str, str],
    pseudonyms: Pseudonyms,
) -> pl.DataFrame:
    ids = {pseudonyms.item(key): key for key in keys}
    names = [ids[item] for item in sorted(ids)]
    of = [stats.get(key, ()) for key in names]
    columns = (
        sorted(ids),
        map(storable, names),
        ([storable(file.path) for file in files] for files in of),
        ([file.size for file in files] for files in of),
        ([file.mtime_ns for file in files] for files in of),
        (storable(details[key]) if key in details else None for key in names),
    )
    return pl.DataFrame(
        [_series(*each) for each in zip(PATHS.names(), columns, PATHS.dtypes(), strict=True)]
    )


_CHUNK = 4_096  # rows that are Python objects at a time: a list takes polars kilobytes meanwhile


def _series(name: str, values: Iterable[Any], dtype: pl.DataType) -> pl.Series:
    """A column of values that need not be in memory together."""
    column, rest = pl.Series(name, [], dtype), iter(values)
    while chunk := list(islice(rest, _CHUNK)):
        column.append(pl.Series(name, chunk, dtype))
    return column.rechunk()


def _text(name: str, values: Iterable[Any]) -> pl.Series:
    return _series(name, values, pl.String())


def _column(name: str, values: Sequence[Scalar]) -> pl.Series:
    """One type per column: flags, integers, numbers, or else text; null where a record has none.

    An empty column is text, so that its type does not depend on the library that wrote it.
    """
    present = [value for value in values if value is not None]
    kinds = {type(value) for value in present}
    fits = all(-(2**63) <= value < 2**63 for value in present if isinstance(value, int))
    if kinds == {bool}:
        return pl.Series(name, values, dtype=pl.Boolean)
    if kinds == {int} and fits:
        return pl.Series(name, values, dtype=pl.Int64)
    if kinds and kinds <= {int, float} and fits:
        return pl.Series(name, [None if v is None else float(v) for v in values], dtype=pl.Float64)
    return _text(name, [None if v is None else str(v) for v in values])
