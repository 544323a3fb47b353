"""Tables as labs keep them: workbooks, splits of CLAM, names and identifiers spelt otherwise."""

from __future__ import annotations

import csv
import io
import zipfile
from pathlib import Path

import polars as pl
import pytest

from medcl.archive import assign, labtable
from medcl.errors import UsageError
from medcl.plugin import Record, Reject

PEOPLE = [f"P{n // 2:03d}" for n in range(12)]
ITEMS = [f"H{n:02d}-{1000 + 7 * n}-A" for n in range(12)]
FILES = [f"sub/{item}.h5" for item in ITEMS]


def written(path: Path, head: list[str], *columns: list[str]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([head, *zip(*columns, strict=True)])
    return path


def applied(path: Path, files: list[str] = FILES) -> list[Record | Reject]:
    return list(assign.load(table=path).apply([Record(f, (f,), f) for f in files]))


def patients(path: Path, files: list[str] = FILES) -> list[str]:
    found = applied(path, files)
    assert all(isinstance(row, Record) for row in found), found
    return [row.patient for row in found if isinstance(row, Record)]


@pytest.mark.parametrize(
    "head",
    ["submitter_id", "patient_id_anon", "hospital_patient_id", "cohort_patient", "Patient ID",
     "case", "Patienten-ID", "patient_uuid_hash"],
)  # fmt: skip
def test_columns_of_patients_by_more_names(head: str, tmp_path: Path) -> None:
    table = written(tmp_path / "t.csv", [head, "slide_id", "label"], PEOPLE, ITEMS, ["a"] * 12)
    assert patients(table) == PEOPLE


def test_a_column_that_repeats_the_items_names_no_patient(tmp_path: Path) -> None:
    items = [f"{item}.svs" for item in ITEMS]
    head = ["submitter_id", "filename", "label"]
    assert (
        labtable.read(written(tmp_path / "t.csv", head, ITEMS, items, ["a"] * 12)).patient is None
    )


@pytest.mark.parametrize("spelt", [str.lower, str.upper, str.title])
def test_keys_in_another_case(spelt, tmp_path: Path) -> None:
    keys = [spelt(f"{item}.Svs") for item in ITEMS]
    files = [f"sub/{item}.h5" for item in map(str.swapcase, ITEMS)]
    table = written(tmp_path / "t.csv", ["slide_id", "patient", "label"], keys, PEOPLE, ["a"] * 12)
    assert patients(table, files) == PEOPLE


def test_a_case_that_tells_two_items_apart_is_kept(tmp_path: Path) -> None:
    table = written(tmp_path / "t.csv", ["key", "patient"], ["A1", "a1", "A2"], ["p", "q", "r"])
    assert patients(table, ["a1.h5", "A1.h5", "A2.h5"]) == ["q", "p", "r"]
    table = written(tmp_path / "t.csv", ["key", "patient"], ["Ab1", "A2"], ["p", "r"])
    found = applied(table, ["aB1.h5", "AB1.h5", "A2.h5"])
    assert [isinstance(row, Reject) for row in found] == [True, True, False]


def test_the_uuid_behind_a_barcode_may_be_missing_on_either_side(tmp_path: Path) -> None:
    names = [f"TCGA-AA-{n:04d}-01Z-00-DX1" for n in range(12)]
    long = [f"{name}.0{n:07x}-1a2b-4c3d-8e4f-123456789abc" for n, name in enumerate(names)]
    for ours, theirs in ((names, long), (long, names)):
        keys = [f"{name}.svs" for name in theirs]
        table = written(tmp_path / "t.csv", ["filename", "patient"], keys, PEOPLE)
        assert patients(table, [f"{name}.h5" for name in ours]) == PEOPLE


@pytest.mark.parametrize(
    "word", ["", "NA", "n/a", "unknown", "None", "?", "-", "nan", "Not Reported"]
)
def test_words_for_nobody_are_no_patient(word: str, tmp_path: Path) -> None:
    people = [word, word, *PEOPLE[2:]]
    table = written(tmp_path / "t.csv", ["slide_id", "patient", "site"], ITEMS, people, people)
    read = labtable.read(table)
    assert read.text["patient"][:2] == [None, None] == read.text["site"][:2]
    assert [isinstance(row, Reject) for row in applied(table)] == [True, True, *[False] * 10]


@pytest.mark.parametrize("column", ["patient", "slide_id"])
def test_identifiers_that_a_spreadsheet_shortened_are_refused(column: str, tmp_path: Path) -> None:
    short = [f"{1.2e15 + 10 * n:.2E}" for n in range(12)]
    columns = {"slide_id": ITEMS, "patient": PEOPLE, column: short}
    table = written(tmp_path / "t.csv", [*columns, "label"], *columns.values(), ["a"] * 12)
    with pytest.raises(UsageError, match=f"12 identifiers in column '{column}' .* shortened"):
        labtable.read(table)


def test_lost_leading_zeros_of_patients_are_told(tmp_path: Path) -> None:
    people = [f"00{n // 2 + 1}" if n % 2 else str(n // 2 + 1) for n in range(12)]
    read = labtable.read(written(tmp_path / "t.csv", ["slide_id", "patient"], ITEMS, people))
    assert "12 patients may be 6" in " ".join(read.notes)
    read = labtable.read(written(tmp_path / "t.csv", ["slide_id", "patient"], ITEMS, PEOPLE))
    assert not read.notes


def book(path: Path, **sheets: list[list[object]]) -> Path:
    openpyxl = pytest.importorskip("openpyxl")
    made = openpyxl.Workbook()
    made.remove(made.active)
    for name, rows in sheets.items():
        sheet = made.create_sheet(name)
        for row in rows:
            sheet.append(row)
    made.save(path)
    return path


def test_a_workbook_is_read_as_its_csv_is(tmp_path: Path) -> None:
    pytest.importorskip("fastexcel")
    head = ["Patient ID", "slide_id", "age", "grade", "label"]
    rows = [[f"00{n // 2}", s, 40.5 + n, n % 3, "a, b; c" if n % 2 else "gr\u00fcn"]
            for n, s in enumerate(ITEMS)]  # fmt: skip
    path = book(tmp_path / "t.xlsx", notes=[["read me"]], data=[head, *rows], more=[[1, 2], [3, 4]])
    read = labtable.read(path)
    assert (read.key, read.patient) == ("slide_id", "Patient ID")
    assert read.text["Patient ID"] == [row[0] for row in rows]
    assert read.frame["age"].to_list() == [row[2] for row in rows]
    assert read.frame["grade"].to_list() == [row[3] for row in rows]
    assert read.frame["label"].to_list() == [row[4] for row in rows]
    assert read.notes == ("t.xlsx: sheet 'data' was read, others not (more).",)
    assert patients(path) == [row[0] for row in rows]


def test_bad_workbooks_are_one_sentence(tmp_path: Path) -> None:
    pytest.importorskip("fastexcel")
    (tmp_path / "cut.xlsx").write_bytes(book(tmp_path / "t.xlsx", a=[[1, 2]]).read_bytes()[:800])
    with pytest.raises(UsageError, match="locked, cut off or damaged"):
        labtable.read(tmp_path / "cut.xlsx")
    with pytest.raises(UsageError, match="no sheet with a table"):
        labtable.read(book(tmp_path / "empty.xlsx", a=[["one"]]))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("xl/worksheets/sheet1.xml", b"x")
        bomb.infolist()[0].file_size = (1 << 32) - 2
    (tmp_path / "bomb.xlsx").write_bytes(packed.getvalue())
    with pytest.raises(UsageError, match="more than 1 GB"):
        labtable.read(tmp_path / "bomb.xlsx")


PARTS = ["train"] * 6 + ["validation"] * 2 + ["test"] * 4


def clams(path: Path, kind: str) -> Path:
    """``splits_0.csv`` or ``splits_0_bool.csv``, as pandas writes them in CLAM."""
    named = {"train": "train", "val": "validation", "test": "test"}
    if kind == "lists":
        held = {name: [i for i, p in zip(ITEMS, PARTS, strict=True) if p == part]
                for name, part in named.items()}  # fmt: skip
        frame = pl.DataFrame({n: v + [None] * (6 - len(v)) for n, v in held.items()})
        frame.with_row_index("").write_csv(path)
    else:
        flags = {name: ["True" if p == part else "False" for p in PARTS]
                 for name, part in named.items()}  # fmt: skip
        pl.DataFrame({"": ITEMS, **flags}).write_csv(path)
    return path


@pytest.mark.parametrize("kind", ["lists", "flags"])
def test_a_split_of_clam_gives_each_item_its_part(kind: str, tmp_path: Path) -> None:
    found = applied(clams(tmp_path / "splits_0.csv", kind))
    assert [row.labels["split"] for row in found if isinstance(row, Record)] == PARTS


def test_other_tables_with_such_columns_stay(tmp_path: Path) -> None:
    head = ["slide_id", "train", "test"]
    counts = [str(n) for n in range(12)]
    read = labtable.read(written(tmp_path / "t.csv", head, ITEMS, counts, counts))
    assert read.labels == ("train", "test")
