"""Patients, sites and labels from outside the files: a pattern on the paths, or a table.

There are no silent defaults: a path that does not match the pattern, or an item that a table of
patients does not list, is rejected, since a wrong patient leaks between training and test.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from medcl.archive import labtable
from medcl.archive.labtable import LabTable, cleaned, spellings, without_uuid
from medcl.errors import UsageError
from medcl.plugin import NO_PATIENT, Codes, Record, Reject


@dataclass
class Assignment:
    """The information from outside. Without pattern and table it changes nothing.

    Attributes:
        pattern: searched in the record key; group ``patient``, optionally ``site``.
        tables: as read; `settle` assigns their rows to items.
        key_given: True if the user named the column of keys.
        rows: table key → ``patient`` and ``site``, if a table has them, and label columns.
        columns: the names of these columns.
        spelled: other spellings of a key → the keys, see `by_spelling`.
        notes: automatic decisions, for the user.
    """

    pattern: re.Pattern[str] | None = None
    tables: tuple[LabTable, ...] = ()
    key_given: bool = False
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    columns: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    table_hash: str | None = None
    used: set[str] = field(default_factory=set)
    spelled: dict[str, list[str]] = field(default_factory=dict)

    @property
    def contents(self) -> list[Any]:
        """What the tables say, codes resolved, and which columns say it: equal if they are."""
        return [
            [
                hashlib.sha256(table.frame.write_ipc(None).getvalue()).hexdigest(),
                *(table.key, table.patient, table.site, table.also, list(table.labels)),
            ]
            for table in self.tables
        ]

    @property
    def unused(self) -> int:
        """Rows of the table that no record has used so far."""
        rows = {id(row) for row in self.rows.values()}  # one may have several keys
        return len(rows - {id(self.rows[key]) for key in self.used})

    def settle(self, known: Set[str], items: int | None = None) -> None:
        """Assign the tables' rows to items by all possible names of items, ``known``.

        Args:
            known: every name that an item may have in a table.
            items: how many they are.

        Raises:
            UsageError: for a table without a column of items, a repeated key, or two tables that
                both give the patient of an item.
        """
        if not self.tables:
            return
        tables = [
            labtable.settled(t, known, items=items, given=self.key_given) for t in self.tables
        ]
        self.rows, self.columns = joined(tables)
        self.notes = tuple(note for table in tables for note in (*table.notes, *_left_out(table)))
        self.spelled = by_spelling(self.rows, known)

    @property
    def says_nothing(self) -> bool:
        """Whether `apply` leaves every record as it is."""
        return self.pattern is None and not self.tables and not self.rows

    def apply(self, records: Sequence[Record]) -> Iterator[Record | Reject]:
        """Each record with its patient, site and labels, or the reason why it cannot be used."""
        fits: Counter[str] = Counter()
        if self.tables or self.rows:
            files = {_file(record) for record in records}
            self.settle({name for file in files for name in _names(file)}, len(files))
            fits.update(row for file in files for row in self._row(file))
        return (self._apply(record, fits) for record in records)

    def _apply(self, record: Record, fits: Counter[str]) -> Record | Reject:
        if self.pattern is not None:
            match = self.pattern.search(record.key)
            if match is None or not (match["patient"] or "").strip():
                reason = "The --patient-from pattern does not fit its path."
                return Reject(record.key, "no-patient", reason)
            groups = match.groupdict()
            record = _of(record, groups["patient"])
            record = replace(record, site=groups.get("site") or record.site)
        if not self.columns:
            return record
        part = record.key.rpartition("#")[2]
        exact = [n for n in (record.key, part, series(record.key)) if n in self.rows]
        person = [record.patient] if record.patient in self.rows else []
        names = exact or self._row(_file(record)) or person
        if not names:
            if "patient" not in self.columns:
                return record
            return Reject(record.key, "no-patient", "The table does not list it.")
        name = names[0]
        if name != record.key and fits[name] > 1:
            reason = f"The table's key fits {fits[name]} files; give their paths in the table."
            return Reject(record.key, "ambiguous-key", reason)
        self.used.add(name)
        return self._from_row(record, self.rows[name])

    def _from_row(self, record: Record, row: dict[str, Any]) -> Record | Reject:
        if "patient" in row:
            if not (row["patient"] or "").strip():
                return Reject(record.key, "no-patient", "The table gives it no patient.")
            record = _of(record, row["patient"])
        if row.get("site"):
            record = replace(record, site=row["site"])
        labels = {name: value for name, value in row.items() if name not in ("patient", "site")}
        return replace(record, labels={**record.labels, **labels})

    def _row(self, file: str) -> list[str]:
        """The table's key for a file: its path, the path without suffix, its name, its stem."""
        names = _names(file)
        exact = [name for name in names if name in self.rows]
        return (exact or [row for name in names for row in self.spelled.get(name, ())])[:1]


def _of(record: Record, patient: str) -> Record:
    """A record whose patient is known from outside."""
    doubts = (NO_PATIENT, "patient-is-", "several-records-a-patient")  # no longer true
    known = tuple(name for name in record.findings if not name.startswith(doubts))
    return replace(record, patient=patient, findings=known)


def series(key: str) -> str:
    """SERIES of a key ``FILE#SERIES-PART``, whose series has several items; else ""."""
    return key.rpartition("#")[2].rpartition("-")[0] if "#" in key else ""


def _file(record: Record) -> str:
    """The record's key without its ``#part`` (a file's own name may hold a ``#`` too)."""
    return record.key if record.key in record.files else record.key.rpartition("#")[0] or record.key


def _names(file: str) -> tuple[str, ...]:
    """A file's path and the path without suffix, then both from each folder down to the name.

    A database's own table has paths from its own top, which may lie below the archive's.
    """
    path = PurePosixPath(file)
    bare = path.parent / path.stem
    names = [file, str(bare)]
    for first in range(1, len(path.parts)):
        names += [str(PurePosixPath(*p.parts[first:])) for p in (path, bare)]
    return tuple(dict.fromkeys([*names, *map(without_uuid, names[-2:])]))


def load(
    patient_from: str | None = None,
    table: Path | Sequence[Path] | None = None,
    *,
    key_column: str | None = None,
    patient_column: str | None = None,
    codes: Codes | None = None,
) -> Assignment:
    """Read the pattern and the tables.

    Args:
        patient_from: a regular expression with a group named ``patient``, optionally one ``site``.
        table: CSV or Parquet with a column that names the items, such as ``key`` or ``slide_id``
            (see `medcl.archive.labtable`): the path in the archive, its name or stem, the part of a
            file or the series, or else the patient of the items. Columns of patient and site are
            optional; every other column becomes a label and is not hashed. Several tables are
            joined: one without items by its patients.
        key_column: the column that names the items, if it has another name.
        patient_column: the column that names the patients, if it has another name.
        codes: the plugin's, see `medcl.plugin.Plugin.codes`.

    Raises:
        UsageError: for a broken pattern, an unreadable table, or patients given by both.
    """
    assignment = Assignment(pattern=_pattern(patient_from), key_given=key_column is not None)
    if table is None:
        if key_column is not None or patient_column is not None:
            raise UsageError("--key-column and --patient-column say how to read a --table.")
        return assignment
    paths = [table] if isinstance(table, Path) else list(table)
    assignment.tables = tuple(_of_several(paths, key_column, patient_column, codes))
    patients = any(t.patient is not None and t.patient != t.key for t in assignment.tables)
    if patient_from is not None and patients:
        raise UsageError(
            f"Patients are given twice: by --patient-from and by {paths[0]}. Leave one of them out."
        )
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    assignment.table_hash = digests[0] if len(digests) == 1 else "+".join(digests)
    return assignment


def _of_several(
    paths: Sequence[Path], key: str | None, patient: str | None, codes: Codes | None
) -> list[LabTable]:
    """The tables; a named column applies to those tables that have it."""
    if len(paths) == 1:
        return [labtable.read(paths[0], key=key, patient=patient, codes=codes)]
    plain = [labtable.read(path) for path in paths]
    for asked in (key, patient):
        if asked is not None and not any(_has(table, asked) for table in plain):
            raise UsageError(f"None of the tables has a column '{asked}'.")
    return [
        labtable.read(
            path,
            key=key if _has(table, key) else None,
            patient=patient if _has(table, patient) else None,
            codes=codes,
        )
        for path, table in zip(paths, plain, strict=True)
    ]


def _has(table: LabTable, column: str | None) -> bool:
    """Whether a table has a column of this name, in any case."""
    return column is not None and len(labtable.alike_columns(table.frame, column)) == 1


def _left_out(table: LabTable) -> tuple[str, ...]:
    """That a table's columns of dates and sentences are no labels."""
    if not table.prose:
        return ()
    names = ", ".join(table.prose)
    return (f"{table.name}: no labels, since they hold dates or free text: {names}.",)


def joined(tables: Sequence[LabTable]) -> tuple[dict[str, dict[str, Any]], tuple[str, ...]]:
    """Rows by key, of all tables, and their columns.

    The rows of a table with patients but no items apply to all items of a patient, if another table
    gives the items' patients; otherwise its keys are the patients.

    Raises:
        UsageError: for a table without a column of items, or a repeated key.
    """
    rows: dict[str, dict[str, Any]] = {}
    columns: list[str] = []
    of_items = [table for table in tables if table.key is not None]
    for table in of_items:
        columns += _columns(table)
        for key, row in _rows(table, str(table.key)).items():
            rows[key] = rows.get(key, {}) | row
    for table in tables:
        if table.key is not None:
            continue
        if table.patient is None or not table.labels:
            raise UsageError(
                f"The table {table.name} needs a column 'key' (the path in the archive), or one "
                f"called slide_id, filename or the like; it has: {', '.join(table.frame.columns)}. "
                "Say which: --key-column NAME."
            )
        of_patient = _rows(table, table.patient)
        if any(other.patient is not None for other in of_items):
            for row in rows.values():
                row |= {**of_patient.get(cleaned(row.get("patient")), {}), **row}
        else:
            rows |= of_patient
        columns += [name for name in _columns(table) if name != "patient"]
    for table in of_items:
        for version in table.also:
            for raw, other in zip(table.text[str(table.key)], table.text[version], strict=True):
                rows.setdefault(cleaned(other), rows[cleaned(raw)])
    return rows, tuple(dict.fromkeys(columns))


def _columns(table: LabTable) -> list[str]:
    roles = {"patient": table.patient, "site": table.site}
    return [role for role, column in roles.items() if column is not None] + [*table.labels]


def _rows(table: LabTable, column: str) -> dict[str, dict[str, Any]]:
    """A table's rows by one of its columns; identical repeats count once."""
    roles = {"patient": table.patient, "site": table.site}
    held: dict[str, list[Any]] = {
        role: table.text[name]
        for role, name in roles.items()
        if name is not None and name != column
    }
    held |= {name: table.frame[name].to_list() for name in table.labels}
    found: dict[str, dict[str, Any]] = {}
    for n, raw in enumerate(table.text[column]):
        key, row = cleaned(raw), {name: values[n] for name, values in held.items()}
        if not key or found.get(key, row) != row:
            problem = "a key twice" if key else "a row without a key"
            raise UsageError(
                f"The table {table.name} has {problem} (row {n + 1}). Give each item once."
            )
        found[key] = row
    return found


def by_spelling(rows: Collection[str], known: Set[str]) -> dict[str, list[str]]:
    """A row's key without its suffix or folder → the rows' keys.

    Suffixes differ if features are extracted from slides (``a.svs``, ``a.h5``). Folders must match,
    unless no row's folder is in this archive: then the table has the files' earlier paths.
    """
    held: defaultdict[str, list[str]] = defaultdict(list)
    here = any("/" in key and known & set(spellings(key, folder=True)) for key in rows)
    for key in rows:
        for name in spellings(key, folder=here):
            if name != key:
                held[name].append(key)
    return {name: keys for name, keys in held.items() if len(keys) == 1}


def _pattern(patient_from: str | None) -> re.Pattern[str] | None:
    if patient_from is None:
        return None
    try:
        pattern = re.compile(patient_from)
    except re.error as error:
        raise UsageError(f"--patient-from is no regular expression: {error}.") from None
    if "patient" not in pattern.groupindex:
        raise UsageError(
            "--patient-from needs a group named patient, for example "
            r"'^(?P<site>[^/]+)/(?P<patient>[^/]+)/'."
        )
    return pattern
