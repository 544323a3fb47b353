"""SCP-ECG statements in a table's cells → one label a statement, and the diagnostic superclasses.

PTB-XL (Wagner 2020, doi 10.1038/s41597-020-0495-6) writes ``{'NORM': 100.0, 'SR': 0.0}``: each
statement with its likelihood in percent, 0 where that is not known. What is written is there.
"""

from __future__ import annotations

import ast
import csv
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from medcl.plugin import Scalar

STATEMENTS = "scp_statements.csv"
"""PTB-XL's table of statements: it says which are diagnostic, and of which superclass."""
_CODE = re.compile(r"[A-Z0-9_?/+()-]{1,16}")
_LONGEST = 4096  # characters of a cell
_Labels = dict[str, Sequence[Scalar]]


def codes(table: Path, columns: Mapping[str, Sequence[str | None]]) -> Mapping[str, _Labels]:
    """Each column of statements → its labels (rows,): ``scp.NORM`` …, true, false, or None where
    a cell is empty or no mapping; with `STATEMENTS` beside the table ``superclass.MI`` … too.

    Args:
        table: the table.
        columns: name → cells.
    """
    found: dict[str, _Labels] = {}
    for name, cells in columns.items():
        filled = [cell for cell in cells if cell and cell.strip()]
        if not filled or not all(cell.lstrip().startswith("{") for cell in filled):
            continue
        rows = [statements(cell) for cell in cells]
        if all(row is None for row in rows):
            continue
        labels = _flags("scp", rows)
        classes = superclasses(table.parent / STATEMENTS)
        if classes:
            above = [
                None if row is None else frozenset(classes[c] for c in row if c in classes)
                for row in rows
            ]
            labels |= _flags("superclass", above, sorted(set(classes.values())))
        found[name] = labels
    return found


def statements(cell: str | None) -> frozenset[str] | None:
    """The statements of a cell, a Python or JSON mapping of plain values; None for what is none.

    Example:
        >>> sorted(statements("{'NORM': 100.0, 'SR': 0.0}"))
        ['NORM', 'SR']
    """
    text = (cell or "").strip()
    if not text.startswith("{") or len(text) > _LONGEST:
        return None
    try:
        held = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        try:
            held = json.loads(text)
        except (ValueError, RecursionError):
            return None
    if not isinstance(held, dict):
        return None
    return frozenset(code for code in held if isinstance(code, str) and _CODE.fullmatch(code))


def superclasses(path: Path) -> dict[str, str]:
    """Diagnostic statement → superclass (NORM, MI, STTC, CD, HYP), by PTB-XL's own table; empty
    without it."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as handle:
            rows = list(csv.DictReader(handle))
    except OSError:
        return {}
    return {
        code: above
        for row in rows
        for code, above in [(next(iter(row.values())), row.get("diagnostic_class"))]
        if code and above and _CODE.fullmatch(above) and row.get("diagnostic") in ("1", "1.0")
    }


def _flags(
    prefix: str, rows: Sequence[frozenset[str] | None], names: Sequence[str] | None = None
) -> _Labels:
    names = names or sorted({name for row in rows if row is not None for name in row})
    return {
        f"{prefix}.{name}": [None if row is None else name in row for row in rows] for name in names
    }
