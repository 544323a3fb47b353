"""Tables as laboratories keep them: any delimiter and encoding, and columns by their usual names.

Identifiers are text (007 stays 007); other columns are numbers, flags or text. Which column names
the items, the patients and the sites is told by the columns' names, by an option, or by content.
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
# Names of a person or item beyond the chosen columns: never a label.
_IDENTIFIERS = frozenset({*KEYS, *PATIENTS, "dirid", "mrn", "name", "birthdate"} - {"key"})

_DELIMITERS = (",", ";", "\t", "|")
_SUFFIX = re.compile(r"\.[a-z0-9]*[a-z][a-z0-9]*$", re.IGNORECASE)  # "1.2.840.7" has none
_COMMA = re.compile(r"[+-]?\d+,\d+")
_WHOLE = re.compile(r"[+-]?\d+")


@dataclass(frozen=True)
class LabTable:
    """A table with its roles told.

    Attributes:
        name: of its file, for messages.
        text: (column → values) as they stand in the file.
        frame: the same with numbers and flags.
        key, patient, site: the columns of these roles, None where there is none.
        notes: what was decided that a reader could not guess.
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
    """A table's key, and it without its suffix; unless ``folder``, its file's name likewise."""
    name = PurePosixPath(key).name
    found = (key, _SUFFIX.sub("", key), *(() if folder else (name, _SUFFIX.sub("", name))))
    return tuple(dict.fromkeys(found))


def cleaned(key: str | None) -> str:
    """A key with forward slashes, and no ``./`` before it."""
    return (key or "").strip().replace("\\", "/").removeprefix("./")


def read(path: Path, *, key: str | None = None, patient: str | None = None) -> LabTable:
    """Read a table.

    Args:
        path: Parquet; or text with commas, semicolons, tabs or bars between the columns.
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
    for asked in (key, patient):
        if asked is not None and asked not in frame.columns:
            raise UsageError(
                f"The table {path} has no column '{asked}'; it has: {', '.join(frame.columns)}."
            )
    key = key or _named(frame.columns, KEYS)
    patient = patient or _named([c for c in frame.columns if c != key], PATIENTS)
    site = _named([c for c in frame.columns if c not in (key, patient)], SITES)
    return LabTable(path.name, text, frame, key, patient, site)


def settled(table: LabTable, known: Set[str], *, given: bool = False) -> LabTable:
    """The table with the column of items told by content, where names do not tell it.

    Args:
        table: as read.
        known: every way to name an item of the archive.
        given: whether the user named the column: then it stays.
    """
    if given or (table.key is not None and _fits(table, table.key, known)):
        return table
    others = [name for name in table.text if name not in (table.key, table.patient)]
    others = [name for name in others if _may_name(table.text[name])]
    counts = {name: _fits(table, name, known) for name in others}
    best = max(others, key=lambda name: counts[name], default=None)
    if best is None or 2 * counts[best] < len(table.frame):
        return table
    note = f"{table.name}: column '{best}' names the items, by what it holds."
    site = None if table.site == best else table.site
    return LabTable(
        table.name, table.text, table.frame, best, table.patient, site, (*table.notes, note)
    )


def _may_name(values: Sequence[str | None]) -> bool:
    """Whether each value comes once and is a word: numbers may be grades and name an item too."""
    told = [value for value in values if value and value.strip()]
    return len(set(told)) == len(values) and any(any(map(str.isalpha, v)) for v in told)


def _fits(table: LabTable, column: str, known: Set[str]) -> int:
    values = {cleaned(value) for value in table.text[column]} - {""}
    return sum(not known.isdisjoint(spellings(value)) for value in values)


def _named(columns: Iterable[str], names: Sequence[str]) -> str | None:
    """The column of the best name; one that is spelled like it exactly goes before others."""
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
    held = {name: text[name].to_list() for name in text.columns}
    if delimiter != ",":
        frame = frame.with_columns(
            pl.Series(name, [None if v is None else float(v.replace(",", ".")) for v in values])
            for name, values in held.items()
            if _decimal_commas(values)
        )
    return frame, held


def _decoded(data: bytes) -> str:
    """Text of UTF-8 or UTF-16, with or without a mark; else of Windows' western code page."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", "replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def _delimiter(text: str) -> str:
    """What parts the columns: what parts the first lines into the most, all alike."""
    lines = text.splitlines()[:20]

    def width(delimiter: str) -> int:
        widths = {len(row) for row in csv.reader(lines, delimiter=delimiter) if row}
        return widths.pop() if len(widths) == 1 else 0

    def heads(delimiter: str) -> int:
        return len(next(csv.reader(lines[:1], delimiter=delimiter), []))

    return max(_DELIMITERS, key=lambda d: (width(d), heads(d)))


def _decimal_commas(values: Sequence[str | None]) -> bool:
    told = [value.strip() for value in values if value and value.strip()]
    whole = all(_COMMA.fullmatch(v) or _WHOLE.fullmatch(v) for v in told)
    return whole and any("," in v for v in told)


def _unreadable(path: Path, error: Exception) -> UsageError:
    first = str(error).splitlines()[0] if str(error) else type(error).__name__
    return UsageError(f"The table {path} cannot be read as CSV or Parquet: {first}")
