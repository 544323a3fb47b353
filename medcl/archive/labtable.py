"""Laboratory tables of any delimiter and encoding, with columns identified by their usual names.

Identifiers are text (007 stays 007); other columns are numbers, flags or text. The columns of
items, patients and sites are identified by name, by an option, or by content.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import polars as pl

from medcl.errors import UsageError

# In order of preference; compared without case, blanks and punctuation.
KEYS = (
    "key", "slideid", "slidename", "slide", "filename", "filepath", "file", "path", "bagname",
    "bagid", "wsiid", "wsi", "recordname", "recordid", "imageid",
)  # fmt: skip
PATIENTS = (
    "patient", "patientid", "patientnumber", "caseid", "subjectid", "subject", "participantid",
    "participant", "casesubmitterid",
)  # fmt: skip
SITES = ("site", "siteid", "hospital", "center", "centre", "centerid", "centreid", "institution")
# Names of patients or items in other columns than the chosen ones: never a label.
_IDENTIFIERS = frozenset({*KEYS, *PATIENTS, "dirid", "mrn", "name", "birthdate"} - {"key"})

_DELIMITERS = (",", ";", "\t", "|")
_SUFFIX = re.compile(r"\.[a-z0-9]*[a-z][a-z0-9]*$", re.IGNORECASE)  # "1.2.840.7" has none
_COMMA = re.compile(r"[+-]?\d+,\d+")
_FLOAT = re.compile(r"\d+\.0")
_WHOLE = re.compile(r"[+-]?\d+")


@dataclass(frozen=True)
class LabTable:
    """A table with the roles of its columns.

    Attributes:
        name: of its file, for messages.
        text: column → values as in the file.
        frame: the same, parsed to numbers and flags.
        key, patient, site: the columns of these roles, or None.
        notes: automatic decisions, for the user.
    """

    name: str
    text: Mapping[str, list[str | None]]
    frame: pl.DataFrame
    key: str | None
    patient: str | None
    site: str | None
    notes: tuple[str, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """The columns that are neither a role nor another identifier."""
        roles = {self.key, self.patient, self.site}
        return tuple(
            name
            for name in self.frame.columns
            if name not in roles and plain(name) not in _IDENTIFIERS
        )


def plain(name: str) -> str:
    """A column's name without case, blanks and punctuation: ``Case ID`` → ``caseid``."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


def spellings(key: str, *, folder: bool = False) -> tuple[str, ...]:
    """A table's key with and without its suffix; unless ``folder``, the same of its file name."""
    name = PurePosixPath(key).name
    variants = (key, _SUFFIX.sub("", key), *(() if folder else (name, _SUFFIX.sub("", name))))
    return tuple(dict.fromkeys(variants))


def cleaned(key: str | None) -> str:
    """A key with forward slashes, and without a leading ``./``."""
    return (key or "").strip().replace("\\", "/").removeprefix("./")


def read(path: Path, *, key: str | None = None, patient: str | None = None) -> LabTable:
    """Read a table.

    Args:
        path: Parquet; or text delimited by commas, semicolons, tabs or bars.
        key: the column that names the items, if it is not one of `KEYS`.
        patient: the column that names the patients, if it is not one of `PATIENTS`.

    Raises:
        UsageError: if it cannot be read, has fewer than two columns, or lacks a named column.
    """
    frame, text = _parquet(path) if path.suffix.lower() in (".parquet", ".pq") else _delimited(path)
    if len(frame.columns) < 2:
        raise UsageError(
            f"The table {path} needs a column that names the items and one more; it has: "
            f"{', '.join(frame.columns)}. Columns are parted by a comma, semicolon, tab or bar."
        )
    key, patient = (_asked(path, frame, column) for column in (key, patient))
    key = key or _named(frame.columns, KEYS)
    patient = patient or _named([c for c in frame.columns if c != key], PATIENTS)
    site = _named([c for c in frame.columns if c not in (key, patient)], SITES)
    text |= {name: _whole(text[name]) for name in (key, patient, site) if name is not None}
    return LabTable(path.name, text, frame, key, patient, site)


def _whole(values: list[str | None]) -> list[str | None]:
    """Whole numbers as such: a column of them with gaps is often written as 15709.0."""
    if any(value and not _FLOAT.fullmatch(value.strip()) for value in values):
        return values
    return [value.strip().removesuffix(".0") if value else value for value in values]


def _asked(path: Path, frame: pl.DataFrame, column: str | None) -> str | None:
    """The column of this name, in another case if there is none in this one."""
    if column is None or column in frame.columns:
        return column
    alike = [name for name in frame.columns if name.lower() == column.lower()]
    if len(alike) != 1:
        raise UsageError(
            f"The table {path} has no column '{column}'; it has: {', '.join(frame.columns)}."
        )
    return alike[0]


def settled(table: LabTable, names: Set[str], *, given: bool = False) -> LabTable:
    """The table with its column of items identified by content, if the names do not.

    Args:
        table: as read.
        names: all possible names of items of the archive.
        given: True if the user named the column: then it stays.
    """
    if given or (table.key is not None and _fits(table, table.key, names)):
        return table
    candidates = [name for name in table.text if name not in (table.key, table.patient)]
    candidates = [name for name in candidates if _may_name(table.text[name])]
    counts = {name: _fits(table, name, names) for name in candidates}
    best = max(candidates, key=lambda name: counts[name], default=None)
    if best is None or 2 * counts[best] < len(table.frame):
        return table
    note = f"{table.name}: column '{best}' names the items, judged by its values."
    site = None if table.site == best else table.site
    return LabTable(
        table.name, table.text, table.frame, best, table.patient, site, (*table.notes, note)
    )


def _may_name(values: Sequence[str | None]) -> bool:
    """True if the values are unique, not empty, and some has a letter: numbers may be grades."""
    filled = [value for value in values if value and value.strip()]
    return len(set(filled)) == len(values) and any(any(map(str.isalpha, v)) for v in filled)


def _fits(table: LabTable, column: str, names: Set[str]) -> int:
    values = {cleaned(value) for value in table.text[column]} - {""}
    return sum(not names.isdisjoint(spellings(value)) for value in values)


def _named(columns: Iterable[str], names: Sequence[str]) -> str | None:
    """The column of the preferred name; an exact spelling comes first."""
    columns = list(columns)
    rank = {name: n for n, name in enumerate(names)}
    fitting = [name for name in columns if plain(name) in rank]
    return min(fitting, key=lambda n: (rank[plain(n)], n != plain(n)), default=None)


def _parquet(path: Path) -> tuple[pl.DataFrame, dict[str, list[str | None]]]:
    try:
        frame = pl.read_parquet(path, glob=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise _unreadable(path, error) from None
    text = {name: frame[name].cast(pl.String, strict=False).to_list() for name in frame.columns}
    as_text = [
        pl.col(name).cast(pl.String)
        for name, kind in frame.schema.items()
        if not (kind.is_numeric() or kind == pl.Boolean)
    ]
    return frame.with_columns(as_text), text


def _delimited(path: Path) -> tuple[pl.DataFrame, dict[str, list[str | None]]]:
    try:
        lines = _decoded(path.read_bytes())
    except OSError as error:
        raise _unreadable(path, error) from None
    if lines.startswith("PK\x03\x04"):
        raise UsageError(f"The table {path} is a workbook: save it as CSV.")
    delimiter = _delimiter(lines)
    source = lines.encode()
    try:
        text = pl.read_csv(io.BytesIO(source), separator=delimiter, infer_schema_length=0)
        frame = pl.read_csv(io.BytesIO(source), separator=delimiter, infer_schema_length=None)
    except pl.exceptions.PolarsError as error:
        raise _unreadable(path, error) from None
    names = {name: name.strip() for name in text.columns}
    if len(set(names.values())) == len(names):
        text, frame = text.rename(names), frame.rename(names)
    as_text = [
        pl.col(name).cast(pl.String)
        for name, kind in frame.schema.items()
        if not (kind.is_numeric() or kind == pl.Boolean)
    ]
    frame = frame.with_columns(as_text)
    values_by_column = {name: text[name].to_list() for name in text.columns}
    if delimiter != ",":
        frame = frame.with_columns(
            pl.Series(name, [None if v is None else float(v.replace(",", ".")) for v in values])
            for name, values in values_by_column.items()
            if _decimal_commas(values)
        )
    return frame, values_by_column


def _decoded(data: bytes) -> str:
    """Text from UTF-8, or UTF-16 with a byte order mark; else from Windows-1252."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", "replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def _delimiter(text: str) -> str:
    """The delimiter that splits the first lines into the most columns, the same in each line."""
    lines = text.splitlines()[:20]

    def width(delimiter: str) -> int:
        widths = {len(row) for row in csv.reader(lines, delimiter=delimiter) if row}
        return widths.pop() if len(widths) == 1 else 0

    def heads(delimiter: str) -> int:
        return len(next(csv.reader(lines[:1], delimiter=delimiter), []))

    return max(_DELIMITERS, key=lambda d: (width(d), heads(d)))


def _decimal_commas(values: Sequence[str | None]) -> bool:
    filled = [value.strip() for value in values if value and value.strip()]
    numeric = all(_COMMA.fullmatch(v) or _WHOLE.fullmatch(v) for v in filled)
    return numeric and any("," in v for v in filled)


def _unreadable(path: Path, error: Exception) -> UsageError:
    first = str(error).splitlines()[0] if str(error) else type(error).__name__
    return UsageError(f"The table {path} cannot be read as CSV or Parquet: {first}")
