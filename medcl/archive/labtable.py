"""Laboratory tables of any delimiter and encoding, or Excel's; columns are known by usual names.

Identifiers are text (007 stays 007); other columns are numbers, flags or text. The columns of
items, patients and sites are identified by name, by an option, or by content.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import polars as pl

from medcl.archive import identity, split_tables, workbook
from medcl.errors import UsageError
from medcl.plugin import Codes

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
# Other names of the same, of a word for it with what may stand before and behind.
_NUMBER = (
    r"(?:id|identifier|no|nr|num|number|nummer|code|key|name|barcode|uid|uuid|index|idx|hash|"
    r"pseudonym|studyid)(?:anon|anonymi[sz]ed|pseudo|pseudonymi[sz]ed|deid|deidentified|hash(?:ed)?)?"
)
_PATIENT = re.compile(
    r"(?:anon|anonymi[sz]ed|pseudo|pseudonymi[sz]ed|deid|deidentified|bcr|tcga|gdc|icgc|dicom|"
    r"cases?|research|study|unique|hospital|local|internal|global|cohort|center|site|trial)?"
    r"(?:patient(?:en)?|pat|pt|case|subject|subj|participant|donor|individual|person|volunteer|"
    rf"animal|mouse|paciente)(?:submitter)?{_NUMBER}|"
    r"tcga(?:case|patient|participant)|(?:id|nr|no|numero)(?:patient|paciente|case|subject)|"
    rf"mrn(?:hash)?|medicalrecord{_NUMBER}|nh[si](?:no|nr|number)|hospital(?:no|nr|number)|"
    r"casessubmitterid|pseudonym|(?:pseudo|anon|deid)id|fall(?:nr|nummer)"
)
_PERSON = frozenset(  # each may be a class or a number of them, too
    {"case", "cases", "donor", "pid", "person", "individual", "pat", "pt", "patients", "paciente"}
    | {"submitterid", "cohortpatient"}
)
_SITE = re.compile(
    r"(?:(?:tissue)?source|submitting|collecti(?:ng|on)|recruiting|acquisition|study|scanning|"
    r"medical|contributing|participating|treating|providing|data)?"
    r"(?!hospitalid$)"  # of a patient as often as of a site
    r"(?:site|hospital|cent(?:er|re)|institution|institute|clinic|klinik|zentrum|facility)"
    r"(?:id|no|nr|code|name)?|tss(?:code)?"
)
# Names of patients or items in other columns than the chosen ones: never a label.
_IDENTIFIERS = frozenset(
    {*KEYS, *PATIENTS, "dirid", "mrn", "name", "birthdate", "studyid", "hadmid", "stayid", "cartid"}
    - {"key"}
)

# What stands for a patient or site that is not known.
_NOBODY = frozenset(
    {"na", "nan", "none", "null", "unknown", "unk", "missing", "notavailable", "unbekannt"}
    | {"notreported", "anonymous", "anon", "nn", "nat"}
)

_FILES = ("filename", "filepath")  # filename_hr: another version, never a label

_DELIMITERS = (",", ";", "\t", "|")
_SUFFIX = re.compile(r"\.[a-z0-9]*[a-z][a-z0-9]*$", re.IGNORECASE)  # "1.2.840.7" has none
_UUID = re.compile(  # which the GDC puts behind a barcode: TCGA-…-DX1.UUID.svs
    r"\.[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}(?=\.|$)", re.IGNORECASE
)
_SHORTENED = re.compile(r"\d(?:[.,]\d+)?e\+\d\d", re.IGNORECASE)  # 1.20E+15, of a spreadsheet
_TWO_SUFFIXES = re.compile(r"(?<=[^/.])\.[a-z]{2,6}\.[a-z][a-z0-9]{1,6}$", re.IGNORECASE)
_COMMA = re.compile(r"[+-]?\d+,\d+")
_FLOAT = re.compile(r"\d+\.0")
_WHOLE = re.compile(r"[+-]?\d+")
_DATE = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([T ]\d{1,2}:\d{2}.*)?")
_MOST_TEXTS = 50
"""Different values of a column of dates or sentences: beyond that it is no label."""
_SEPARATOR = re.compile(r"\ufeff?\"?sep=.\"?", re.IGNORECASE)
_LEAST_DIGITS = 5  # of a number that may name an item: shorter ones may be grades


@dataclass(frozen=True)
class LabTable:
    """A table with the roles of its columns.

    Attributes:
        name: of its file, for messages.
        text: column → values as in the file.
        frame: the same, parsed to numbers and flags.
        key, patient, site: the columns of these roles, or None.
        notes: automatic decisions, for the user.
        also: further columns that name the same items' files in other versions (PTB-XL's
            ``filename_lr`` and ``filename_hr``).
    """

    name: str
    text: Mapping[str, list[str | None]]
    frame: pl.DataFrame
    key: str | None
    patient: str | None
    site: str | None
    notes: tuple[str, ...] = ()
    also: tuple[str, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """The columns that are neither a role nor another identifier."""
        roles = {self.key, self.patient, self.site}
        return tuple(
            name
            for name in self.frame.columns
            if name not in (*roles, *self.also)
            and plain(name) not in _IDENTIFIERS
            and not _PATIENT.fullmatch(plain(name))
            and not plain(name).startswith(_FILES)
            and not _is_prose(self.text.get(name, ()))
        )

    @property
    def prose(self) -> tuple[str, ...]:
        """The columns of dates or sentences: they may say who somebody is, and are no labels."""
        return tuple(name for name, values in self.text.items() if _is_prose(values))


def plain(name: str) -> str:
    """A column's name without case, blanks and punctuation: ``Case ID`` → ``caseid``."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


def spellings(key: str, *, folder: bool = False) -> tuple[str, ...]:
    """A table's key with and without its suffix; unless ``folder``, the same of its file name.

    Two suffixes go together where both are of letters: ``a.ome.tif``, ``a.svs.h5``, ``a.nii.gz``.
    """
    name = PurePosixPath(key).name
    variants = [key, _SUFFIX.sub("", key), *(() if folder else (name, _SUFFIX.sub("", name)))]
    twice = [_TWO_SUFFIXES.sub("", n) for n in variants[::2] if _TWO_SUFFIXES.search(n)]
    return tuple(dict.fromkeys([*variants, *twice, *map(without_uuid, variants)]))


def without_uuid(name: str) -> str:
    """A file's name without the UUID behind its barcode, where there is one."""
    return _UUID.sub("", name)


def cleaned(key: str | None) -> str:
    """A key with forward slashes, and without a leading ``./``."""
    return (key or "").strip().replace("\\", "/").removeprefix("./")


def read(
    path: Path, *, key: str | None = None, patient: str | None = None, codes: Codes | None = None
) -> LabTable:
    """Read a table.

    Args:
        path: Parquet; text delimited by commas, semicolons, tabs or bars; or a workbook of Excel.
        key: the column that names the items, if it is not one of `KEYS`.
        patient: the column that names the patients, if it is not one of `PATIENTS`.
        codes: see `medcl.plugin.Plugin.codes`.

    Raises:
        UsageError: if it cannot be read, has fewer than two columns, lacks a named column, or holds
            identifiers that a spreadsheet has shortened.
    """
    notes: tuple[str, ...] = ()
    if path.suffix.lower() in (".parquet", ".pq"):
        frame, text = _parquet(path)
    else:
        frame, text, notes = _delimited(path)
    if len(frame.columns) < 2:
        raise UsageError(
            f"The table {path} needs a column that names the items and one more; it has: "
            f"{', '.join(frame.columns)}. Columns are parted by a comma, semicolon, tab or bar."
        )
    for column, labels in codes(path, text).items() if codes else ():
        frame = frame.drop(column).with_columns(pl.Series(n, v) for n, v in labels.items())
        del text[column]
    key, patient = (_asked(path, frame, column) for column in (key, patient))
    key = key or _named(frame.columns, KEYS)
    others = [c for c in frame.columns if c != key]
    patient = patient or _named(others, PATIENTS) or _person(others, text, key)
    others = [c for c in others if c != patient]
    site = _named(others, SITES) or next((c for c in others if _SITE.fullmatch(plain(c))), None)
    text |= {name: _whole(text[name]) for name in (key, patient, site) if name is not None}
    for role, name in (("patients", patient), ("sites", site)):
        if name is None:
            continue
        text[name], changed = _spelt_once([_somebody(value) for value in text[name]])
        notes += (f"{path.name}: {changed} {role} are spelt in several ways, by upper and "
                  "lower case alone: each counts once.",) * (changed > 0)  # fmt: skip
    for name in (key, patient):
        _check_shortened(path, name, text)
    return LabTable(
        path.name, text, frame, key, patient, site, (*notes, *_alike(path, patient, text))
    )


def _somebody(value: str | None) -> str | None:
    """A patient or site, or None for a word that says that it is not known."""
    known = value is not None and identity.normal(value.strip()) not in _NOBODY
    return value if known and value.strip(" ?-.") else None  # type: ignore[union-attr]


def _check_shortened(path: Path, column: str | None, text: Mapping[str, list[str | None]]) -> None:
    """Refuse numbers such as 1.20E+15: different people have become the same.

    Raises:
        UsageError: if identifiers are such.
    """
    if column is None:
        return
    count = sum(bool(v and _SHORTENED.fullmatch(v.strip())) for v in text[column])
    if count:
        raise UsageError(
            f"The table {path} holds {count:,} identifiers in column '{column}' that a spreadsheet "
            "has shortened (1.20E+15 for 1200000000000417): different ones look alike. Export the "
            "column as text."
        )


def _alike(path: Path, column: str | None, text: Mapping[str, list[str | None]]) -> tuple[str, ...]:
    """That patients may be fewer than they seem: 007 beside 7."""
    if column is None:
        return ()
    different = {value for value in text[column] if value}
    least = len({identity.normal(value) for value in different})
    if least == len(different):
        return ()
    return (
        f"{path.name}: {len(different):,} patients may be {least:,}: their ids differ in spaces, "
        "punctuation or leading zeros only. If they are the same people, spell each in one way.",
    )


def _person(
    columns: Sequence[str], text: Mapping[str, list[str | None]], key: str | None
) -> str | None:
    """The column that is called as patients are in less usual ways (``bcr_patient_barcode``).

    One of the name ``case`` may hold case and control: it has more than two values. One of the name
    ``submitter_id`` may hold the items.
    """
    named = [c for c in columns if _PATIENT.fullmatch(plain(c))]
    items = [_SUFFIX.sub("", cleaned(v)) for v in text[key]] if key is not None else []
    doubtful = [
        c
        for c in columns
        if plain(c) in _PERSON
        and len(set(text[c]) - {None, ""}) > 2
        and [cleaned(v) for v in text[c]] != items
    ]
    return next(iter([*named, *doubtful]), None)


def _spelt_once(values: list[str | None]) -> tuple[list[str | None], int]:
    """Each value as it is first spelt, whatever its case; and how many values had two spellings."""
    first: dict[str, str] = {}
    twice: set[str] = set()
    out: list[str | None] = []
    for value in values:
        if value is None:
            out.append(None)
            continue
        spelling = value.strip()
        known = first.setdefault(spelling.casefold(), spelling)
        twice |= {known} if known != spelling else set()
        out.append(known)
    return out, len(twice)


def _is_prose(values: Sequence[str | None]) -> bool:
    """Whether a column holds many different dates, or sentences."""
    different = {value for value in values if value and not value.startswith("{")}
    if len(different) <= _MOST_TEXTS:
        return False
    odd = sum(len(v.split()) > 2 or _DATE.fullmatch(v) is not None for v in different)
    return odd > len(different) / 2


def _whole(values: list[str | None]) -> list[str | None]:
    """Whole numbers as such: a column of them with gaps is often written as 15709.0."""
    if any(value and not _FLOAT.fullmatch(value.strip()) for value in values):
        return values
    return [value.strip().removesuffix(".0") if value else value for value in values]


def _asked(path: Path, frame: pl.DataFrame, column: str | None) -> str | None:
    """The column of this name, in another case if there is none in this one."""
    if column is None or column in frame.columns:
        return column
    alike = alike_columns(frame, column)
    if len(alike) != 1:
        raise UsageError(
            f"The table {path} has no column '{column}'; it has: {', '.join(frame.columns)}."
        )
    return alike[0]


def alike_columns(frame: pl.DataFrame, column: str) -> list[str]:
    """The columns of this name in any case; the one in this case alone, if there is one."""
    if column in frame.columns:
        return [column]
    return [name for name in frame.columns if name.lower() == column.lower()]


def settled(
    table: LabTable, names: Set[str], *, items: int | None = None, given: bool = False
) -> LabTable:
    """The table with its column of items identified by content, if the names do not.

    Args:
        table: as read.
        names: all possible names of items of the archive.
        items: their number: a table may be of a whole database, and the archive a part of it.
        given: True if the user named the column: then it stays.
    """
    table = _in_their_case(table, names)
    if given:
        return _with_owners(table)
    if table.key is not None and _fits(table, table.key, names):
        return _with_owners(_with_versions(table, names))
    candidates = [name for name in table.text if name not in (table.key, table.patient)]
    candidates = [name for name in candidates if _may_name(table.text[name])]
    counts = {name: _fits(table, name, names) for name in candidates}
    best = max(candidates, key=lambda name: counts[name], default=None)
    least = min(len(table.frame), len(table.frame) if items is None else items)
    if best is None or 2 * counts[best] < least or not counts[best]:
        return table
    note = f"{table.name}: column '{best}' names the items, judged by its values."
    site = None if table.site == best else table.site
    found = replace(table, key=best, site=site, notes=(*table.notes, note))
    return _with_owners(_with_versions(found, names))


def _in_their_case(table: LabTable, names: Set[str]) -> LabTable:
    """The table with the items' own names where its keys differ from them in case alone."""
    if table.key is None:
        return table
    values = table.text[table.key]
    astray = [v for v in values if v and names.isdisjoint(spellings(cleaned(v)))]
    if not astray:
        return table
    folded: dict[str, set[str]] = {}
    for name in names:
        folded.setdefault(name.casefold(), set()).add(name)
    theirs = {}
    for value in astray:
        same = (folded.get(s.casefold(), set()) for s in spellings(cleaned(value)))
        found: set[str] = next((some for some in same if some), set())
        if len(found) == 1:
            theirs[value] = next(iter(found))
    if not theirs:
        return table
    note = f"{table.name}: {len(theirs):,} keys name items in another case."
    renamed = [theirs.get(v, v) if v else v for v in values]
    return replace(table, text={**table.text, table.key: renamed}, notes=(*table.notes, note))


_MOST_ITEMS = 8  # on average, of a patient that no column names


def _with_owners(table: LabTable) -> LabTable:
    """The table with its column of patients identified by content, if no name tells it.

    Items are often named after their patient (``S17-0042_B2.svs`` of ``S17-0042``): a column whose
    values begin the names of their rows' items, hold digits, and are many, is the patient's. Of
    several, the one of the fewest values: blocks are of patients too.
    """
    if table.patient is not None or table.key is None:
        return table
    items = [PurePosixPath(cleaned(value)).name.casefold() for value in table.text[table.key]]
    counts: dict[str, int] = {}
    for name, values in table.text.items():
        owners = [(value or "").strip().casefold() for value in values]
        count = len(set(owners))
        many = count >= max(4, len(owners) / _MOST_ITEMS) and name not in (table.key, table.site)
        if many and count < len(owners) and all(map(_begins, items, owners)):
            counts[name] = count
    if not counts:
        return table
    best = min(counts, key=lambda name: counts[name])
    note = f"{table.name}: column '{best}' names the patients, judged by its values."
    text = {**table.text, best: _spelt_once(table.text[best])[0]}
    return replace(table, text=text, patient=best, notes=(*table.notes, note))


def _begins(item: str, owner: str) -> bool:
    """Whether an item is named after an owner, and goes on with another kind of letter."""
    rest = item.removeprefix(owner)
    digits = any(map(str.isdigit, owner))
    return digits and len(owner) > 2 and len(rest) < len(item) and not rest[:1].isalnum()


def _with_versions(table: LabTable, names: Set[str]) -> LabTable:
    """The table with the columns that name other versions of its items' files.

    Their files are named alike but for the last part (``00001_lr``, ``00001_hr``): a column that
    names other items, such as a control, is none.
    """
    own = [_but_version(value) for value in table.text[str(table.key)]]
    also = tuple(
        name
        for name, values in table.text.items()
        if name not in (table.key, table.patient)
        and None not in own
        and [_but_version(value) for value in values] == own
        and _fits(table, name, names)
    )
    return replace(table, also=also)


def _but_version(value: str | None) -> str | None:
    """The name of a file without the part behind its last underscore; None without one."""
    stem = _SUFFIX.sub("", PurePosixPath(cleaned(value)).name)
    return stem.rpartition("_")[0] or None


def _may_name(values: Sequence[str | None]) -> bool:
    """True if the values are unique, not empty, and no grades: with letters, or long numbers."""
    filled = [value.strip() for value in values if value and value.strip()]
    if len(set(filled)) != len(values):
        return False
    letters = any(any(map(str.isalpha, value)) for value in filled)
    return letters or all(v.isdigit() and len(v) >= _LEAST_DIGITS for v in filled)


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


def _delimited(
    path: Path,
) -> tuple[pl.DataFrame, dict[str, list[str | None]], tuple[str, ...]]:
    """A table of text or a workbook: parsed, as text, and what to tell."""
    notes: tuple[str, ...] = ()
    try:
        packed = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from None
    if path.suffix.lower() in workbook.SUFFIXES or packed.startswith(b"PK\x03\x04"):
        lines, notes = workbook.as_text(path)
        delimiter = workbook.DELIMITER
    else:
        lines = _rows_alone(_decoded(packed))
        delimiter = _delimiter(lines)
    source = lines.encode()
    named = _headless(lines, delimiter)
    try:
        text, frame = (
            pl.read_csv(
                io.BytesIO(source),
                separator=delimiter,
                infer_schema_length=length,
                has_header=named is None,
                new_columns=named,
            )
            for length in (0, None)
        )
    except pl.exceptions.PolarsError as error:
        raise _unreadable(path, error) from None
    names = {name: name.strip() for name in text.columns}
    if len(set(names.values())) == len(names):
        text, frame = text.rename(names), frame.rename(names)
    numbering = [name for name in text.columns if _is_numbering(name, text[name].to_list())]
    text, frame = text.drop(numbering), frame.drop(numbering)
    as_text = [
        pl.col(name).cast(pl.String)
        for name, kind in frame.schema.items()
        if not (kind.is_numeric() or kind == pl.Boolean)
    ]
    frame, text = split_tables.long(frame.with_columns(as_text), text)
    values_by_column = {name: text[name].to_list() for name in text.columns}
    if delimiter != ",":
        frame = frame.with_columns(
            pl.Series(name, [None if v is None else float(v.replace(",", ".")) for v in values])
            for name, values in values_by_column.items()
            if _decimal_commas(values)
        )
    return frame, values_by_column, notes


def cells(path: Path) -> tuple[list[list[str]], str]:
    """The rows of a table of text as they are, the head first; and its delimiter.

    Raises:
        OSError: if it cannot be read.
    """
    lines = _rows_alone(_decoded(path.read_bytes()))
    delimiter = _delimiter(lines)
    return [row for row in csv.reader(io.StringIO(lines), delimiter=delimiter) if row], delimiter


def _rows_alone(text: str) -> str:
    """The lines that are rows of a table.

    Not Excel's first line ``sep=;``, comments before the head, and rows of delimiters alone, which
    are left of emptied cells; old Macintosh's line ends become usual ones.
    """
    if "\n" not in text:
        text = text.replace("\r", "\n")
    lines = text.split("\n")
    while lines and (_SEPARATOR.fullmatch(lines[0].strip()) or lines[0].startswith("#")):
        if len(lines) > 1 and lines[0].startswith("#") and not _comment(lines):
            break
        lines.pop(0)
    while lines and not lines[-1].strip(' \r,;|\t"'):
        lines.pop()
    return "\n".join(lines) + "\n"


def _comment(lines: Sequence[str]) -> bool:
    """Whether the first line is a remark: it has fewer cells than the next has."""
    delimiter = _delimiter("\n".join(lines[1:]))
    return lines[0].count(delimiter) < lines[1].count(delimiter)


def _headless(lines: str, delimiter: str) -> list[str] | None:
    """Names for the columns of a table whose first line is a row (``A00001,N``); else None.

    It is one if a cell of it is written as all others of its column are, digits where they have
    digits, and the others are values of their columns.
    """
    rows = [row for row in csv.reader(lines.splitlines(), delimiter=delimiter) if row]
    first, rest = rows[0] if rows else [], rows[1:]
    if len(rest) < 3 or any(len(row) != len(first) for row in rest):
        return None
    columns = list(zip(*rest, strict=True))
    alike = [
        any(map(str.isdigit, cell)) and all(_shape(value) == _shape(cell) for value in column)
        for cell, column in zip(first, columns, strict=True)
    ]
    among = [cell in column for cell, column in zip(first, columns, strict=True)]
    if not any(alike) or not all(a or b for a, b in zip(alike, among, strict=True)):
        return None
    key = alike.index(True)
    others = [n for n in range(len(first)) if n != key]
    return [
        "key" if n == key else "label" if len(others) == 1 else f"column_{n + 1}"
        for n in range(len(first))
    ]


_NAMELESS = re.compile(r"(unnamed: ?\d+|_duplicated_\d+|)(_level_\d+)?", re.IGNORECASE)


def _is_numbering(name: str, values: Sequence[str | None]) -> bool:
    """Whether a column without a name is empty or numbers the rows, as pandas writes its index."""
    if not _NAMELESS.fullmatch(name.strip()):
        return False
    filled = [value.strip() for value in values if value and value.strip()]
    return not filled or filled in (
        [str(n + first) for n in range(len(values))] for first in (0, 1)
    )


def _shape(cell: str) -> str:
    """``A00243`` → ``a0``."""
    return re.sub(r"[^\W\d_]", "a", re.sub(r"\d+", "0", cell.strip()))


def _decoded(data: bytes) -> str:
    """Text from UTF-8, or UTF-16 (by its byte order mark, or its zeros); else Windows-1252."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", "replace")
    for encoding, zeros in (("utf-16-le", data[1:64:2]), ("utf-16-be", data[0:64:2])):
        if len(data) > 8 and not zeros.strip(b"\0"):
            return data.decode(encoding, "replace")
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
