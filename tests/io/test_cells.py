"""No writer of CSV gives a cell that a spreadsheet runs."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medcl.io.cells import safe, safe_frame

REPO = Path(__file__).parents[2]


@given(st.text(max_size=8) | st.sampled_from(["=1+1", "+A1", "-x", "@SUM(A1)", "\t=1", "\r=1"]))
def test_a_cell_is_a_number_or_no_formula(text: str) -> None:
    written = safe(text)
    assert written in (text, f"'{text}")
    if written[:1] in ("=", "+", "-", "@", "\t", "\r", "\n"):
        float(written)  # else it raises


@pytest.mark.parametrize("number", ["-1", "-0.5", "+3", "-1e-05", "-.5", "-nan", "-inf", "12", ""])
def test_numbers_stay(number: str) -> None:
    assert safe(number) == number


@pytest.mark.parametrize("text", ["-", "--1", "-1-1", "+1+cmd", "-1;2", "=-1", "- 1", "-1 000"])
def test_what_only_begins_like_a_number_does_not(text: str) -> None:
    assert safe(text) == f"'{text}"


def test_a_table(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {
            "=name": ["=HYPERLINK(1)", None, "plain"],
            "kind": pl.Series(["-a", "b", "-2"], dtype=pl.Categorical),
            "x": [-1.5, 2.0, None],
            "n": [-3, 4, 5],
        }
    )
    safe_frame(frame).write_csv(tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["'=name", "kind", "x", "n"],
        ["'=HYPERLINK(1)", "'-a", "-1.5", "-3"],
        ["", "b", "2.0", "4"],
        ["plain", "-2", "", "5"],
    ]


def test_every_writer_of_csv_uses_it() -> None:
    """Whoever adds one: write `safe` cells, or numbers under names of our own."""
    not_safe_cells = {
        "medcl/engine/journal.py",  # numbers alone
        "medcl/archive/workbook.py",  # text that is read again, and no file
    }
    pattern = re.compile(r"write_csv|csv\.writer|DictWriter|to_csv|savetxt")
    for room in ("medcl", "plugins", "cli"):
        for path in (REPO / room).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            name = path.relative_to(REPO).as_posix()
            if pattern.search(text) and name not in not_safe_cells:
                assert "medcl.io.cells import" in text, name
