"""From scanned units to the index's three tables, independent of the order of scanning.

``items`` and ``rejects`` hold pseudonyms only; ``paths`` maps them to the files and is private.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

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


def build(
    scanned: Iterable[Scanned],
    rejects: Sequence[Reject],
    assignment: Assignment,
    pseudonyms: Pseudonyms,
    join: Join | None = None,
    group: Group | None = None,
    *,
    merge_spellings: bool = False,
) -> Tables:
    """Sort, assign patients and labels, reject duplicates, and replace every raw id.

    Args:
        scanned: the archive's units.
        rejects: of before scanning (folders and files that could not be listed).
        assignment: patients, sites and labels from outside the files.
        pseudonyms: the keyed hashes.
        join: makes items of the units' records, if they are not items as they are.
        group: puts copies together, see `medcl.archive.copies`.
        merge_spellings: patients whose ids differ in spelling only are one.
    """
    refused = list(rejects)
    outcomes: list[Record | Reject] = []
    files: dict[str, FileStat] = {}
    stats: dict[str, tuple[FileStat, ...]] = {}
    details: dict[str, str] = {}
    for entry in sorted(scanned, key=lambda e: e.key):
        refused += entry.rejects
        details |= entry.details
        files |= {file.path: file for file in entry.stats}
        for reject in entry.rejects:
            stats.setdefault(reject.key, entry.stats)
        outcomes += entry.records
    if join is not None:
        outcomes = join([record for record in outcomes if isinstance(record, Record)], files)
    records: dict[str, Record] = {}
    for outcome in outcomes:
        if isinstance(outcome, Reject):
            refused.append(outcome)
        elif outcome.key in records:
            reason = "An item of the same key was found before; the first is kept."
            refused.append(Reject(outcome.key, "duplicate", reason))
        else:
            records[outcome.key] = outcome
            stats[outcome.key] = located(outcome, files)
    usable: list[Record] = []
    for outcome in assignment.apply(list(records.values())):
        if isinstance(outcome, Reject):
            refused.append(outcome)
        else:
            usable.append(outcome)
    usable, notes = identity.noticed(identity.merged(usable) if merge_spellings else usable)
    if group is not None:
        usable = group(usable, stats)
    keys = {record.key for record in usable} | {reject.key for reject in refused}
    return Tables(
        _items(usable, stats, pseudonyms),
        _rejects(refused, pseudonyms),
        _paths(keys, stats, details, pseudonyms),
        tuple(notes),
        _sites(usable, pseudonyms),
    )


def _sites(records: Sequence[Record], pseudonyms: Pseudonyms) -> pl.DataFrame:
    """A site's key and its own name: for the private folder."""
    names = {pseudonyms.site(r.site): r.site.strip() for r in records if r.site}
    return pl.DataFrame({"site": list(names), "name": list(names.values())}, SITES)


def _items(
    records: Sequence[Record], stats: Mapping[str, tuple[FileStat, ...]], pseudonyms: Pseudonyms
) -> pl.DataFrame:
    columns: dict[str, pl.Series] = {
        "id": _text("id", [pseudonyms.item(r.key) for r in records]),
        "patient": _text("patient", [pseudonyms.patient(r.patient) for r in records]),
        "site": _text("site", [r.site and pseudonyms.site(r.site) for r in records]),
        "group": _text("group", [r.group and pseudonyms.group(r.group) for r in records]),
        "fingerprint": _text(
            "fingerprint",
            [pseudonyms.fingerprint(scanning.fingerprint(r.key, stats[r.key])) for r in records],
        ),
        "findings": pl.Series(
            "findings", [list(r.findings) for r in records], dtype=pl.List(pl.String)
        ),
    }
    for name in sorted({name for r in records for name in r.fields}):
        columns[name] = _column(name, [r.fields.get(name) for r in records])
    for name in sorted({name for r in records for name in r.labels}):
        columns[LABEL + name] = _column(LABEL + name, [r.labels.get(name) for r in records])
    return pl.DataFrame(columns).sort("id")


def _rejects(rejects: Sequence[Reject], pseudonyms: Pseudonyms) -> pl.DataFrame:
    rows = [(pseudonyms.item(r.key), r.code, r.reason) for r in rejects]
    return pl.DataFrame(rows, schema=REJECTS, orient="row").sort("id", "code", "reason")


def _paths(
    keys: Iterable[str],
    stats: Mapping[str, tuple[FileStat, ...]],
    details: Mapping[str, str],
    pseudonyms: Pseudonyms,
) -> pl.DataFrame:
    rows = [
        (
            pseudonyms.item(key),
            storable(key),
            [storable(file.path) for file in stats.get(key, ())],
            [file.size for file in stats.get(key, ())],
            [file.mtime_ns for file in stats.get(key, ())],
            None if key not in details else storable(details[key]),
        )
        for key in keys
    ]
    return pl.DataFrame(rows, schema=PATHS, orient="row").sort("id")


def _text(name: str, values: Sequence[Any]) -> pl.Series:
    return pl.Series(name, values, dtype=pl.String)


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
