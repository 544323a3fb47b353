"""How a text table is laid out: its encoding, delimiter, decimal sign, and where its data begin."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path

from medcl_biosignals.readers.above import Preamble
from medcl_biosignals.readers.contract import BadSignal, Settings
from medcl_biosignals.readers.measures import dimension, known_unit
from medcl_biosignals.readers.preamble import preamble

DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "space": " ", "pipe": "|"}
MISSING = ("", "na", "n/a", "nan", "null", "none", "-", "--", "?", "inf", "-inf")
_ROWS = 200  # rows that are looked at
_SCORED = 100  # of them, every so many, to tell the delimiter and the decimal sign
_POINT = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
_COMMA = re.compile(r"[+-]?(\d+,?\d*|,\d+)(e[+-]?\d+)?", re.IGNORECASE)
_GROUPED = re.compile(r"[+-]?[1-9]\d{0,2}(?:([,.' \u00a0\u202f])\d{3})(?:\1\d{3})*(?:[.,]\d+)?")
_MARKS = ((",", "."), (".", ","), ("'", "."), (" ", ","), ("\u00a0", ","), ("\u202f", ","))
_PARTING = {mark for mark, _ in _MARKS}
_OF_DAY = (
    r"\d{1,3}:\d{1,2}(?::\d{1,2}(?:[.,:]\d+)?)?(?:\.\d+)?\s*(?:[AaPp]\.?\s?[Mm]\.?)?"
    r"\s*(?:Z|[A-Z]{3,4}|(?:UTC|GMT)?\s*[+-]\d{1,2}(?::?\d{2})?)?"
)
_DAY = (
    r"(?:[^\W\d]{2,9},?\s+)?(?:\d{1,4}(?:[-/.] ?| )(?:\d{1,2}|[^\W\d]{3,9}\.?)"
    r"(?:[-/.] ?| )\d{1,4}|\d{4}[-:]?[0-3]\d{2}(?=[T _:]\d)|"
    r"[^\W\d]{3,9}\.? \d{1,2},? \d{4})"
)
_TIME = re.compile(rf"\[?(?:{_DAY}(?:[T ,_:]+{_OF_DAY})?|{_OF_DAY}(?: +{_DAY})?)\]?")
_RECORDERS = ("phone timestamp;", "timestamp [ns];", "sensor timestamp")
_SEPARATOR = re.compile(r"\s*\"?sep=.{1,2}\"?\s*$", re.IGNORECASE)  # a hint for Excel
_LINES = re.compile(r"\r\n|\n|\r")


@dataclass(frozen=True)
class Layout:
    """How to read a text table.

    Attributes:
        encoding: as Python calls it.
        delimiter: one character.
        decimal_comma: whether 0,5 is a half.
        skip: lines before the data.
        names: of the columns, in units where those are in the name; None without a header.
        width: columns.
        said: what stands above the table.
        thousands: (column, what parts thousands in its numbers), where anything does.
    """

    encoding: str
    delimiter: str
    decimal_comma: bool
    skip: int
    names: tuple[str, ...] | None
    width: int
    said: Preamble = field(default_factory=Preamble)
    thousands: tuple[tuple[int, str], ...] = ()


def layout(head: bytes, settings: Settings, stem: str = "") -> Layout:
    """Tell the layout from the beginning of a file.

    Args:
        head: its first bytes; the last line may be cut off.
        settings: what the user says of it counts.
        stem: the file's name without suffix.

    Raises:
        BadSignal: if it is no table of numbers.
    """
    encoding, text = decoded(head)
    lines = _LINES.split(text) if "\r" in text else text.split("\n")
    if len(lines) > 1 and len(head) > 1 << 15:
        lines = lines[:-1]
    said = preamble(lines, stem)
    above = said.skip or 0
    used = [
        (n, line)
        for n, line in enumerate(lines)
        if n >= above
        and line.strip()
        and line[0] not in "#%"
        and not ("=" in line and _SEPARATOR.match(line))
    ]
    if not used:
        raise BadSignal("empty-file", "the file holds no line of data")
    body = [line for _, line in used[len(used) // 2 :]][:_ROWS]  # a preamble is never half of it
    options = [
        (delimiter, comma)
        for delimiter in ([DELIMITERS[settings.delimiter]] if settings.delimiter else "\t;|, ")
        for comma in ([settings.decimal == "comma"] if settings.decimal else (False, True))
        if not (comma and delimiter == ",") or '"' in body[0]  # "0,5","0,7"
    ]
    score, delimiter, comma = _best(body[:: max(1, len(body) // _SCORED)], options)
    if score <= 0:
        raise BadSignal("not-a-signal", "a text file that is no table of numbers")
    if not comma and _meant(used, body, delimiter, settings, said):
        comma, delimiter = True, ";"  # one column: never found
    split = lru_cache(maxsize=None)(partial(cells, delimiter=delimiter))  # lines are asked again
    width = Counter(len(split(line)) for line in body).most_common(1)[0][0]
    some = [line for _, line in used[1 : 1 + _ROWS]] + body
    thousands = _thousands([split(line) for line in some], comma)
    known = partial(Layout, encoding, delimiter, comma, said=said, thousands=thousands)
    if said.skip is not None:
        return known(said.skip, _padded(said, width), width)
    rows = ((n, row) for n, line in used if len(row := split(line)) == width)
    sample = used if len(used) <= 2 * _ROWS else used[:_ROWS] + used[len(used) // 2 :][:_ROWS]
    typical = [row for _, line in sample if len(row := split(line)) == width]
    few = typical[:: max(1, len(typical) // _SCORED)]
    skip, above_it = _first_data(rows, few, comma, dict(thousands))
    if not above_it:
        return known(skip, _of_comments(said, width), width)
    header = above_it[-1]
    units: list[str] | None = None
    if len(above_it) > 1 and _are_units(header):  # a line of units below, as PhysioNet writes it
        units, header = header, above_it[-2]
    if sum(_is_number(cell, comma) for cell in header) > len(header) / 2:
        return known(skip, None, width)
    names = tuple(header)
    if units is not None:
        fits = (known_unit(unit) not in ("", "other") for unit in units)
        names = tuple(
            f"{name} [{known_unit(unit)}]" if fit else name
            for name, unit, fit in zip(names, units, fits, strict=True)
        )
    return known(skip, names, width)


def _padded(said: Preamble, width: int) -> tuple[str, ...] | None:
    """The names that stand above a table, with their units, for all of its columns."""
    if said.names is None or len(said.names) > width:
        return None
    units = said.units or ("",) * len(said.names)
    units = tuple(u if known_unit(u) in ("", "other") else known_unit(u) for u in units)
    named = [f"{n} [{u}]" if n and u else n for n, u in zip(said.names, units, strict=True)]
    return (*named, *("",) * (width - len(named)))


def _of_comments(said: Preamble, width: int) -> tuple[str, ...] | None:
    """Names that comments give to a table without a header, if there are as many."""
    return _padded(said, width) if said.names is not None and len(said.names) == width else None


def _first_data(
    rows: Iterator[tuple[int, list[str]]],
    typical: list[list[str]],
    comma: bool,
    thousands: Mapping[int, str],
) -> tuple[int, list[list[str]]]:
    """Where the data begin, and the rows above.

    It is the first row from which on there are about as many numbers and times as in ``typical``
    rows. Rows are taken only until it is found: most tables begin within a few lines.

    Returns:
        the number of its line, and the rows before it.
    """

    def count(row: list[str]) -> int:
        return sum(
            _is_value(cell, comma)
            or (n in thousands and _groups(thousands[n]).fullmatch(cell) is not None)
            for n, cell in enumerate(row)
        )

    counts = sorted(map(count, typical))
    least = max(1.0, 0.6 * counts[len(counts) // 2])
    first: tuple[int, list[list[str]]] | None = None
    above: list[list[str]] = []
    run: list[int] = []  # the lines of the last rows that all hold enough
    for line, row in rows:
        first = first or (line, [])
        above.append(row)
        run = [*run, line] if count(row) >= least else []
        if len(run) == 3:
            break
    if run:
        return run[0], above[: -len(run)]
    assert first is not None  # the typical rows are among them
    return first


def _is_value(cell: str, comma: bool) -> bool:
    return _is_number(cell, comma) or _is_grouped(cell) or is_clock(cell)


def _is_grouped(cell: str) -> bool:
    """Whether thousands are parted in a number beyond doubt: 1,234.5 or 1,234,567, not 1,234."""
    if _GROUPED.fullmatch(cell) is None:
        return False
    marks = [c for c in cell if c in ",."]
    return len(marks) != 1 or any(c in cell for c in "' \u00a0\u202f")


def is_clock(cell: str) -> bool:
    """Whether a cell looks like a date or a time of day."""
    return _TIME.fullmatch(cell) is not None


def _thousands(rows: list[list[str]], comma: bool) -> tuple[tuple[int, str], ...]:
    """(column, mark) where 1,234.5 or 1.234,5 is one number.

    Without a decimal sign in the cell (1,234) it is taken for that only beside numbers of the same
    column that are too short for it (998, 999, 1,000), or too long (1,234,567).
    """
    found = []
    for at, column in enumerate(zip(*_rectangle(rows), strict=True)):
        signs = set().union(*column)
        if not signs & _PARTING:  # nothing there could part thousands
            continue
        filled = [cell for cell in column if cell.lower() not in MISSING]
        likely = ((mark, decimal) for mark, decimal in _MARKS if mark in signs)
        mark = next((m for m, d in likely if _parts_thousands(filled, m, d, comma)), None)
        if mark is not None:
            found.append((at, mark))
    return tuple(found)


def _parts_thousands(column: list[str], mark: str, decimal: str, comma: bool) -> bool:
    pattern = _groups(mark, decimal)
    doubtful = mark in ",." and (mark == ",") == comma and not any(decimal in c for c in column)
    grouped = short = twice = False
    for cell in column:
        if pattern.fullmatch(cell):
            grouped, twice = True, twice or cell.count(mark) > 1
        elif not doubtful:
            if not _is_number(cell, decimal == ","):
                return False
        elif cell.lstrip("+-").isdigit() and len(cell) < 5:
            short = True
        else:
            return False
    return grouped and (short or twice or not doubtful)


@lru_cache
def _groups(mark: str, decimal: str | None = None) -> re.Pattern[str]:
    tail = rf"(?:{re.escape(decimal)}\d+)?" if decimal else ""
    return re.compile(rf"[+-]?[1-9]\d{{0,2}}(?:{re.escape(mark)}\d{{3}})+{tail}")


def _rectangle(rows: list[list[str]]) -> list[list[str]]:
    width = Counter(map(len, rows)).most_common(1)[0][0]
    return [row for row in rows if len(row) == width]


def is_recorders(path: Path) -> bool:
    """Whether a text begins as a recorder or its program writes it, so that it is worth reading."""
    try:
        with path.open("rb") as handle:
            _, text = decoded(handle.read(1 << 14))
        lines = _LINES.split(text)
        said = preamble(lines, path.stem)
    except (BadSignal, OSError):
        return False
    first = next((line for line in lines if line.strip()), "").lower()
    return bool(said.form) or bool(_SEPARATOR.match(first)) or first.startswith(_RECORDERS)


def _are_units(row: list[str]) -> bool:
    """Whether most cells but the first, that of the times, are units."""
    rest = row[1:] or row
    known = sum(known_unit(cell) not in ("", "other") for cell in rest)
    return known > len(rest) / 2 or (dimension(known_unit(row[0])) == "time" and known > 0)


def cells(line: str, delimiter: str) -> list[str]:
    """A line's cells, without quotes and blanks; several blanks in a row are one delimiter."""
    line = line.rstrip("\r\n")
    if '"' in line and delimiter != " ":
        parts = next(csv.reader([line], delimiter=delimiter), [])
    else:
        parts = line.split() if delimiter == " " else line.split(delimiter)
    if '"' in line or "'" in line:
        return [part.strip().strip("\"'").strip() for part in parts]
    return [part.strip() for part in parts]


def decoded(head: bytes) -> tuple[str, str]:
    """(encoding, text) of the beginning of a file.

    Raises:
        BadSignal: if it is no text.
    """
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16", head[: len(head) // 2 * 2].decode("utf-16", "replace")
    if len(head) > 8 and not head[1:64:2].strip(b"\0"):  # without its mark in front
        return "utf-16-le", head[: len(head) // 2 * 2].decode("utf-16-le", "replace")
    if len(head) > 8 and not head[:64:2].strip(b"\0"):
        return "utf-16-be", head[: len(head) // 2 * 2].decode("utf-16-be", "replace")
    if b"\0" in head:
        raise BadSignal("not-a-signal", "a binary file under the name of a text table")
    for encoding in ("utf-8-sig", "cp1252"):
        try:
            return encoding, head.decode(encoding)
        except UnicodeDecodeError as error:
            if error.start > len(head) - 4 and encoding == "utf-8-sig":  # cut within a character
                return encoding, head.decode(encoding, "ignore")
    return "latin-1", head.decode("latin-1")


def _best(body: list[str], options: Iterable[tuple[str, bool]]) -> tuple[float, str, bool]:
    """(score, delimiter, decimal comma) of the option that explains most; of equals the first.

    The score is 0 where none explains anything. Delimiters that do not occur all leave the lines
    whole: they are scored once.
    """
    scores: dict[tuple[str, bool], float] = {}
    best = 0.0, ",", False
    rows_of: dict[str, list[list[str]]] = {}
    whole = "\n".join(body)
    blank = any(len(line.split()) > 1 for line in body)
    for delimiter, comma in options:
        parts = delimiter if (blank if delimiter == " " else delimiter in whole) else ""
        if parts not in rows_of:
            rows_of[parts] = [cells(line, delimiter) for line in body]
        if (parts, comma) not in scores:
            scores[parts, comma] = _score(rows_of[parts], comma)
        score = scores[parts, comma]
        if score > best[0]:
            best = score, delimiter, comma
    return best


def _score(rows: list[list[str]], comma: bool) -> float:
    """Share of cells that are numbers or times, where all lines have as many; more columns win."""
    width, same = Counter(map(len, rows)).most_common(1)[0]
    fitting = [cell for row in rows if len(row) == width for cell in row]
    others = [cell for cell in fitting if not _is_value(cell, comma)]
    numbers = len(fitting) - len(others)
    empty = sum(cell.lower() in MISSING for cell in others)
    if numbers == 0 or len(fitting) == empty:
        return 0.0
    share = numbers / (len(fitting) - empty)
    # A point is the rule: a comma must explain more cells to be taken for the decimal sign.
    return share * same / len(rows) + 1e-3 * min(width, 100) - (5e-4 if comma else 0)


def _meant(
    used: list[tuple[int, str]],
    body: list[str],
    delimiter: str,
    settings: Settings,
    said: Preamble,
) -> bool:
    """Whether 0,51 in a column of its own is one number: a header of one name, or 0,05."""
    if delimiter != "," or settings.delimiter or settings.decimal == "point":
        return False
    rows = []
    for line in body:
        row = cells(line, ",")
        if len(row) != 2 or not all(cell.lstrip("+-").isdigit() for cell in row):
            return False
        rows.append(row)
    if said.skip is not None and said.names is not None:
        return len(said.names) == 1
    first = cells(used[0][1], ",")
    if len(first) == 1 and not _is_number(first[0], False):
        return True
    return any(len(row[1]) > 1 and row[1].startswith("0") for row in rows)


def _is_number(cell: str, comma: bool) -> bool:
    return (_COMMA if comma else _POINT).fullmatch(cell) is not None
