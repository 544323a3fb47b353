"""Patients, sites and labels from outside the files: a pattern on the paths, or a table.

Nothing is defaulted in silence: a path that the pattern does not fit, or an item that a table of
patients does not list, is rejected, since a wrong patient leaks between training and test.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import polars as pl

from medcl.errors import UsageError
from medcl.plugin import NO_PATIENT, Record, Reject
from medcl.registry import did_you_mean

_TEXT = ("key", "patient", "site")


@dataclass
class Assignment:
    """What is known from outside. Without pattern and table it changes nothing.

    Attributes:
        pattern: searched in the record key; group ``patient``, optionally ``site``.
        rows: table key → its other columns.
        columns: the table's columns, without the key.
    """

    pattern: re.Pattern[str] | None = None
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    columns: tuple[str, ...] = ()
    table_hash: str | None = None
    used: set[str] = field(default_factory=set)

    @property
    def unused(self) -> int:
        """Rows of the table that no record asked for so far."""
        return len(self.rows) - len(self.used)

    def apply(self, records: list[Record]) -> list[Record | Reject]:
        """Each record with what is known of it, or the reason why it cannot be used."""
        fits = Counter(row for file in {_file(r) for r in records} for row in self._row(file))
        return [self._apply(record, fits) for record in records]

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
        path = PurePosixPath(file)
        bare = path.parent / path.stem
        # A database's own table has paths from its own top, which may lie below the archive's.
        names = [file, str(bare)]
        for first in range(1, len(path.parts)):
            names += [str(PurePosixPath(*p.parts[first:])) for p in (path, bare)]
        return [name for name in names if name in self.rows][:1]


def _of(record: Record, patient: str) -> Record:
    """A record whose patient is known from outside."""
    doubts = (NO_PATIENT, "patient-is-")  # no longer true
    known = tuple(name for name in record.findings if not name.startswith(doubts))
    return replace(record, patient=patient, findings=known)


def series(key: str) -> str:
    """What a part of ``FILE#SERIES-PART`` is part of: one of several items of a series; else ""."""
    return key.rpartition("#")[2].rpartition("-")[0] if "#" in key else ""


def _file(record: Record) -> str:
    """The record's key without its ``#part`` (a file's own name may hold a ``#`` too)."""
    return record.key if record.key in record.files else record.key.rpartition("#")[0] or record.key


def load(
    patient_from: str | None = None,
    table: Path | None = None,
    *,
    key_column: str | None = None,
    patient_column: str | None = None,
) -> Assignment:
    """Read the pattern and the table.

    Args:
        patient_from: a regular expression with a group named ``patient``, optionally one ``site``.
        table: CSV or Parquet with a column ``key``: the path in the archive, its name or stem, the
            part of a file or the series, or else the patient whose items they all are. With any of
            ``patient``, ``site`` (in any case); every other column becomes a label and is not
            hashed. Text may be UTF-8, UTF-16 or Latin-1, its columns parted by ``,``, ``;``, tabs
            or ``|``.
        key_column: the column that stands for ``key`` in a table that others made.
        patient_column: the one that stands for ``patient``.

    Raises:
        UsageError: for a broken pattern, an unreadable table, one without ``key``, a repeated key,
            or patients given by both.
    """
    assignment = Assignment(pattern=_pattern(patient_from))
    if table is None:
        if key_column is not None or patient_column is not None:
            raise UsageError("--key-column and --patient-column say how to read a --table.")
        return assignment
    frame = _read(table, {"key": key_column, "patient": patient_column})
    if "key" not in frame.columns or len(frame.columns) < 2:
        raise UsageError(
            f"The table {table} needs a column 'key' (the path in the archive) and one more; "
            f"it has: {', '.join(frame.columns)}."
        )
    if patient_from is not None and "patient" in frame.columns:
        raise UsageError(
            f"Patients are given twice: by --patient-from and by {table}. Leave one of them out."
        )
    for row in frame.iter_rows(named=True):
        key = (row.pop("key") or "").strip().replace("\\", "/").removeprefix("./")
        if key in assignment.rows or not key:
            problem = "a key twice" if key else "a row without a key"
            line = len(assignment.rows) + 1
            raise UsageError(f"The table {table} has {problem} (row {line}). Give each item once.")
        assignment.rows[key] = row
    assignment.columns = tuple(name for name in frame.columns if name != "key")
    assignment.table_hash = hashlib.sha256(table.read_bytes()).hexdigest()
    return assignment


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


def _read(table: Path, given: Mapping[str, str | None]) -> pl.DataFrame:
    """The table: identifiers as text (007 stays 007), labels as text, numbers or flags."""
    try:
        if table.suffix.lower() in (".parquet", ".pq"):
            frame = pl.read_parquet(table, glob=False)
            frame = frame.rename(_renamed(frame.columns, given, table))
        else:
            frame = _read_text(table, given)
    except (OSError, pl.exceptions.PolarsError) as error:
        first = str(error).splitlines()[0]
        raise UsageError(f"The table {table} cannot be read as CSV or Parquet: {first}") from None
    as_text = [
        pl.col(name).cast(pl.String)
        for name, kind in frame.schema.items()
        if name in _TEXT or not (kind.is_numeric() or kind == pl.Boolean)
    ]
    frame = frame.with_columns(as_text)
    if "patient" in frame.columns and frame["patient"].drop_nulls().str.contains(r"^\d+\.0$").all():
        frame = frame.with_columns(pl.col("patient").str.strip_suffix(".0"))  # numbers with gaps
    return frame


def _read_text(table: Path, given: Mapping[str, str | None]) -> pl.DataFrame:
    raw = table.read_bytes()
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = raw.decode("utf-16", "replace")
    else:
        try:
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = raw.decode("cp1252", "replace")
    first = text.partition("\n")[0]
    separator = max(",;\t|", key=first.count) if any(c in first for c in ",;\t|") else ","
    source = text.encode()
    names = pl.read_csv(source, n_rows=0, separator=separator).columns
    renamed = _renamed(names, given, table)
    kinds = {old: pl.String for old in names if renamed.get(old, old) in _TEXT}
    frame = pl.read_csv(
        source, schema_overrides=kinds, infer_schema_length=None, separator=separator
    )
    return frame.rename(renamed)


def _renamed(names: Sequence[str], given: Mapping[str, str | None], table: Path) -> dict[str, str]:
    """Column → what it stands for: as it was given, or by its name in another case."""
    renamed: dict[str, str] = {}
    for role in _TEXT:
        wanted = given.get(role)
        lower = [name for name in names if name.lower() == (wanted or role).lower()]
        exact = [name for name in names if name == (wanted or role)]
        if wanted is not None and not lower:
            raise UsageError(
                f"The table {table} has no column '{wanted}'. {did_you_mean(wanted, names)}"
            )
        if lower:
            renamed[(exact or lower)[0]] = role
    clash = [n for n in names if n not in renamed and n in renamed.values()]
    return renamed | {name: f"{name}_" for name in clash}
