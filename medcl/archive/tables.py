"""From scanned units to the index's three tables, independent of the order of scanning.

``items`` and ``rejects`` hold pseudonyms only; ``paths`` maps them to the files and is private.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import polars as pl

from medcl.archive import identity, scanning
from medcl.archive.assign import Assignment
from medcl.archive.columns import frame, in_order
from medcl.archive.joining import located
from medcl.archive.pseudonym import Pseudonyms
from medcl.archive.records import Records
from medcl.archive.scanning import LABEL, Scanned
from medcl.plugin import FileStat, Record, Reject, Scalar
from medcl.strings import storable

ITEMS = pl.Schema(
    {name: pl.String() for name in ("id", "patient", "site", "group", "fingerprint")}
    | {"findings": pl.List(pl.String())}
)
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

Group = Callable[[Records], None]
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
    walked: list[str],
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
        walked: the paths of the archive's files, sorted. The list is emptied, as it is large.
        assignment: patients, sites and labels from outside the files.
        pseudonyms: the keyed hashes.
        join: makes items of the units' records, if they are not items as they are.
        group: puts copies together in place, see `medcl.archive.copies`.
        merge_spellings: patients whose ids differ in spelling only are one.
    """
    refused = list(rejects)
    of_rejects: dict[str, tuple[FileStat, ...]] = {}
    details: dict[str, str] = {}
    taken = bytearray(len(walked))  # a million paths in a set would be 100 MB
    records = Records()
    keys: set[str] = set()

    def units() -> Iterator[tuple[Iterable[Record | Reject], tuple[FileStat, ...]]]:
        """The outcomes of each unit and its files; of joined records all, and all files."""
        pieces: list[Record] = []
        files: list[FileStat] = []
        for entry in scanned:
            refused.extend(entry.rejects)
            details.update(entry.details)
            for reject in entry.rejects:
                of_rejects.setdefault(reject.key, entry.stats)
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
                records.add(outcome, located(outcome, by_path))
        del outcomes, files, by_path
    ignored = [path for path, of_use in zip(walked, taken, strict=True) if not of_use]
    walked.clear()
    lost = {reject.key: of_rejects.get(reject.key, ()) for reject in refused}
    of_rejects = {key: files for key, files in (lost | of_rejects).items() if key not in keys}
    del keys, lost
    paths = _paths(records, of_rejects, details, pseudonyms)
    if not assignment.says_nothing:
        unusable = []
        for n, outcome in enumerate(assignment.apply(records)):
            if isinstance(outcome, Reject):
                refused.append(outcome)
                unusable.append(n)
            else:
                records[n] = outcome
        records.remove(unusable)
    if merge_spellings:
        identity.merge(records)
    notes = identity.notice(records)
    if group is not None:
        group(records)
    items, sites = _items_and_sites(records, pseudonyms)
    return Tables(items, _rejects(refused, pseudonyms), paths, tuple(notes), sites, ignored)


def _items_and_sites(records: Records, pseudonyms: Pseudonyms) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Items in the order of their ids, and the sites' own names. The records are used up."""
    fields, labels = _Kinds(), _Kinds()
    names: dict[str, str] = {}

    def site(raw: str | None) -> str | None:
        if not raw:
            return raw
        key = pseudonyms.site(raw)
        names[key] = raw.strip()
        return key

    def own() -> Iterator[Sequence[Any]]:
        for n, r in enumerate(records):
            fields.see(r.fields)
            labels.see(r.labels)
            yield (
                pseudonyms.item(r.key),
                pseudonyms.patient(r.patient),
                site(r.site),
                r.group and pseudonyms.group(r.group),
                pseudonyms.fingerprint(scanning.fingerprint(r.key, records.files(n))),
                list(r.findings),
            )

    table = frame(own(), ITEMS)
    order = table["id"].arg_sort()
    table = in_order(table, order)
    of_fields, of_labels = fields.columns(), labels.columns()
    named = {n: kind.dtype for n, kind in of_fields.items()}
    named |= {LABEL + n: kind.dtype for n, kind in of_labels.items()}
    values = (
        (
            *(kind.plain(r.fields.get(name)) for name, kind in of_fields.items()),
            *(kind.plain(r.labels.get(name)) for name, kind in of_labels.items()),
        )
        for r in records.drained()
    )
    if named:
        table = table.hstack(in_order(frame(values, pl.Schema(named)), order))
    return table, pl.DataFrame({"site": list(names), "name": list(names.values())}, SITES)


def _rejects(rejects: Sequence[Reject], pseudonyms: Pseudonyms) -> pl.DataFrame:
    rows = [(pseudonyms.item(r.key), r.code, r.reason) for r in rejects]
    return pl.DataFrame(rows, schema=REJECTS, orient="row").sort("id", "code", "reason")


def _paths(
    records: Records,
    rejects: Mapping[str, tuple[FileStat, ...]],
    details: Mapping[str, str],
    pseudonyms: Pseudonyms,
) -> pl.DataFrame:
    """Of records, and of the keys of rejects that are none's, in the order of their ids."""
    of_records = ((records.key(n), records.files(n)) for n in range(len(records)))
    every = chain(of_records, rejects.items())
    rows = (
        (
            pseudonyms.item(key),
            storable(key),
            [storable(file.path) for file in files],
            [file.size for file in files],
            [file.mtime_ns for file in files],
            storable(details[key]) if key in details else None,
        )
        for key, files in every
    )
    table = frame(rows, PATHS)
    return in_order(table, table["id"].arg_sort())


class _Kind(NamedTuple):
    """The type of a column, and a value as one of it."""

    dtype: pl.DataType
    plain: Callable[[Scalar], Scalar]


class _Kinds:
    """The types that a column has: flags, integers, numbers, or else text; null where none is.

    An empty column is text, so that its type does not depend on the library that wrote it.
    """

    def __init__(self) -> None:
        self._kinds: dict[str, set[type]] = {}
        self._too_large: set[str] = set()

    def see(self, values: Mapping[str, Scalar]) -> None:
        """Take note of a record's values."""
        for name, value in values.items():
            kinds = self._kinds.setdefault(name, set())
            if value is None:
                continue
            kinds.add(type(value))
            if isinstance(value, int) and not -(2**63) <= value < 2**63:
                self._too_large.add(name)

    def columns(self) -> dict[str, _Kind]:
        """The columns by name, in its order."""
        return {name: self._column(name) for name in sorted(self._kinds)}

    def _column(self, name: str) -> _Kind:
        kinds, fits = self._kinds[name], name not in self._too_large
        if kinds == {bool}:
            return _Kind(pl.Boolean(), _same)
        if kinds == {int} and fits:
            return _Kind(pl.Int64(), _same)
        if kinds and kinds <= {int, float} and fits:
            return _Kind(pl.Float64(), lambda value: None if value is None else float(value))
        return _Kind(pl.String(), lambda value: None if value is None else str(value))


def _same(value: Scalar) -> Scalar:
    return value
