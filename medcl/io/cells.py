"""Text in CSV that no spreadsheet takes for a formula.

A cell that begins with ``=``, ``+``, ``-``, ``@``, a tab or a line end is run by Excel and others
when the file is opened. Numbers, negative ones too, stay numbers; any other such text begins with
an apostrophe, as OWASP advises ("CSV Injection").
"""

from __future__ import annotations

import re

import polars as pl

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_NUMBER = re.compile(
    r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(nan|inf|infinity)", re.IGNORECASE
)


def safe(text: str) -> str:
    """A cell, as it may be written."""
    if text.startswith(_FORMULA) and not _NUMBER.fullmatch(text):
        return f"'{text}"
    return text


def safe_frame(frame: pl.DataFrame) -> pl.DataFrame:
    """A table whose names and texts may all be written to CSV."""
    texts = (pl.String, pl.Categorical, pl.Enum)
    columns = [
        column.cast(pl.String).map_elements(safe, pl.String) if column.dtype in texts else column
        for column in frame.iter_columns()
    ]
    return pl.DataFrame([column.alias(safe(column.name)) for column in columns])
