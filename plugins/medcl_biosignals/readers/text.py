"""How a text table is laid out: its encoding, delimiter, decimal sign, and where its data begin."""

from __future__ import annotations

import csv
import re
from collections import Counter
from dataclasses import dataclass

from medcl_biosignals.readers.contract import BadSignal, Settings
from medcl_biosignals.readers.measures import known_unit

DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "space": " ", "pipe": "|"}
MISSING = ("", "na", "n/a", "nan", "null", "none", "-", "--", "?", "inf", "-inf")
_ROWS = 200  # rows that are looked at
_POINT = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
_COMMA = re.compile(r"[+-]?(\d+,?\d*|,\d+)(e[+-]?\d+)?", re.IGNORECASE)
_TIME = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([T ]\d.*)?|\d{1,2}:\d{2}(:\d{2}([.,]\d+)?)?.*")


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
    """

    encoding: str
    delimiter: str
    decimal_comma: bool
    skip: int
    names: tuple[str, ...] | None
    width: int


def layout(head: bytes, settings: Settings) -> Layout:
    """Tell the layout from the beginning of a file.

    Args:
        head: its first bytes; the last line may be cut off.
        settings: what the user says of it counts.

    Raises:
        BadSignal: if it is no table of numbers.
    """
    encoding, text = _decoded(head)
    lines = text.splitlines()
    if len(lines) > 1 and len(head) > 1 << 15:
        lines = lines[:-1]
    used = [(n, line) for n, line in enumerate(lines) if line.strip() and line[:1] not in "#%"]
    if not used:
        raise BadSignal("empty-file", "the file holds no line of data")
    body = [line for _, line in used[len(used) // 2 :]][:_ROWS]  # a preamble is never half of it
    options = [
        (delimiter, comma)
        for delimiter in ([DELIMITERS[settings.delimiter]] if settings.delimiter else "\t;|, ")
        for comma in ([settings.decimal == "comma"] if settings.decimal else (False, True))
        if not (comma and delimiter == ",") or '"' in body[0]  # "0,5","0,7"
    ]
    scored = [(_score(body, *option), option) for option in options]
    score, (delimiter, comma) = max(scored, key=lambda pair: pair[0])
    if score <= 0:
        raise BadSignal("not-a-signal", "a text file that is no table of numbers")
    if not comma and _meant(used, body, delimiter, settings):
        comma, delimiter = True, ";"  # one column: never found
    width = Counter(len(cells(line, delimiter)) for line in body).most_common(1)[0][0]
    rows = [(n, row) for n, line in used for row in [cells(line, delimiter)] if len(row) == width]
    skip, first = rows[0]
    if any(_is_number(cell, comma) for cell in first):
        return Layout(encoding, delimiter, comma, skip, None, width)
    names = tuple(first)
    if len(rows) > 1 and _are_units(rows[1][1]):  # a line of units below, as PhysioNet writes it
        skip, units = rows[1]
        known = (known_unit(unit) not in ("", "other") for unit in units)
        names = tuple(
            f"{name} [{unit}]" if fits else name
            for name, unit, fits in zip(names, units, known, strict=True)
        )
    return Layout(encoding, delimiter, comma, skip + 1, names, width)


def _are_units(row: list[str]) -> bool:
    """Whether most cells but the first, that of the times, are units."""
    rest = row[1:] or row
    return sum(known_unit(cell) not in ("", "other") for cell in rest) > len(rest) / 2


def cells(line: str, delimiter: str) -> list[str]:
    """A line's cells, without quotes and blanks; several blanks in a row are one delimiter."""
    line = line.rstrip("\r\n")
    if '"' in line and delimiter != " ":
        parts = next(csv.reader([line], delimiter=delimiter), [])
    else:
        parts = line.split() if delimiter == " " else line.split(delimiter)
    return [part.strip().strip("\"'").strip() for part in parts]


def _decoded(head: bytes) -> tuple[str, str]:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16", head[: len(head) // 2 * 2].decode("utf-16", "replace")
    if b"\0" in head:
        raise BadSignal("not-a-signal", "a binary file under the name of a text table")
    for encoding in ("utf-8-sig", "cp1252"):
        try:
            return encoding, head.decode(encoding)
        except UnicodeDecodeError as error:
            if error.start > len(head) - 4 and encoding == "utf-8-sig":  # cut within a character
                return encoding, head.decode(encoding, "ignore")
    return "latin-1", head.decode("latin-1")


def _score(body: list[str], delimiter: str, comma: bool) -> float:
    """Share of cells that are numbers or times, where all lines have as many; more columns win."""
    rows = [cells(line, delimiter) for line in body]
    width, same = Counter(map(len, rows)).most_common(1)[0]
    fitting = [cell for row in rows if len(row) == width for cell in row]
    numbers = sum(_is_number(cell, comma) or _TIME.fullmatch(cell) is not None for cell in fitting)
    empty = sum(cell.lower() in MISSING for cell in fitting)
    if numbers == 0 or len(fitting) == empty:
        return 0.0
    share = numbers / (len(fitting) - empty)
    # A point is the rule: a comma must explain more cells to be taken for the decimal sign.
    return share * same / len(rows) + 1e-3 * min(width, 100) - (5e-4 if comma else 0)


def _meant(
    used: list[tuple[int, str]], body: list[str], delimiter: str, settings: Settings
) -> bool:
    """Whether 0,51 in a column of its own is one number: a header of one name, or 0,05."""
    if delimiter != "," or settings.delimiter or settings.decimal == "point":
        return False
    rows = [cells(line, ",") for line in body]
    if any(len(row) != 2 for row in rows) or not all(
        cell.lstrip("+-").isdigit() for row in rows for cell in row
    ):
        return False
    first = cells(used[0][1], ",")
    if len(first) == 1 and not _is_number(first[0], False):
        return True
    return any(len(row[1]) > 1 and row[1].startswith("0") for row in rows)


def _is_number(cell: str, comma: bool) -> bool:
    return (_COMMA if comma else _POINT).fullmatch(cell) is not None
