"""Tables in workbooks, as delimited text: fastexcel is optional, ``pip install medcl[excel]``."""

from __future__ import annotations

import zipfile
from pathlib import Path

import polars as pl

from medcl.errors import UsageError

SUFFIXES = (".xlsx", ".xls", ".xlsm", ".xlsb", ".ods")
DELIMITER = "\t"
_LARGEST = 1 << 30  # bytes of a workbook once it is unpacked


def as_text(path: Path) -> tuple[str, tuple[str, ...]]:
    """The first sheet that holds a table, its cells parted by `DELIMITER`; and what to tell.

    Raises:
        UsageError: without the library, or if the workbook is locked, damaged, or holds no table.
    """
    _check_size(path)
    try:
        import fastexcel  # noqa: F401
    except ImportError:
        raise UsageError(
            f"The table {path} is a workbook: save it as CSV, or pip install 'medcl[excel]'."
        ) from None
    try:
        sheets = pl.read_excel(path.read_bytes(), sheet_id=0, raise_if_empty=False)
    except Exception as error:  # calamine raises its own kinds
        raise UsageError(
            f"The workbook {path} is locked, cut off or damaged ({type(error).__name__}): save it "
            "as CSV."
        ) from None
    tables = {name: frame for name, frame in sheets.items() if frame.width > 1 and frame.height}
    if not tables:
        raise UsageError(f"The workbook {path} has no sheet with a table of two columns or more.")
    first, *others = tables
    notes = (f"{path.name}: sheet '{first}' was read, others not ({', '.join(others)}).",)
    return tables[first].write_csv(separator=DELIMITER), notes if others else ()


def _check_size(path: Path) -> None:
    """Refuse an archive that would unpack to more than any table needs."""
    try:
        with zipfile.ZipFile(path) as packed:
            size = sum(part.file_size for part in packed.infolist())
    except (zipfile.BadZipFile, OSError):  # .xls, or nothing: the reader says what
        return
    if size > _LARGEST:
        raise UsageError(f"The workbook {path} unpacks to more than 1 GB: save its table as CSV.")
