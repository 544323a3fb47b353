"""Tables of other programs: Excel workbooks (each sheet a recording), Feather and Arrow files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from medcl_biosignals.readers import tabular
from medcl_biosignals.readers.contract import (
    BadSignal,
    Flaw,
    Heading,
    Recording,
    Settings,
    Span,
)
from medcl_biosignals.readers.parquet import table_of

EXCEL = (".xlsx", ".xls", ".xlsm", ".xlsb", ".ods")


def headings(path: Path, settings: Settings) -> Iterator[Heading | Flaw]:
    """A heading for each sheet that holds signals."""
    sheets = _sheets(path)
    flaws: list[Flaw] = []
    found = False
    for name, frame in sheets.items():
        try:
            for made in tabular.headings_of(
                table_of(frame, settings, _form(path), path.stem), settings
            ):
                inner = made.part
                outer = name if len(sheets) > 1 else ""
                part = f"{outer}#{inner}" if outer and inner else outer or inner
                yield made.__class__(**{**vars(made), "part": part})
                found = True
        except BadSignal as error:
            flaws.append(Flaw(name if len(sheets) > 1 else "", error.code, str(error)))
    if not found:  # of several sheets some are often notes
        yield from flaws[:1]


def read(path: Path, part: str, settings: Settings, span: Span | None = None) -> Recording:
    """The samples of one sheet."""
    sheets = _sheets(path)
    outer, _, inner = part.partition("#") if len(sheets) > 1 else ("", "", part)
    name = outer or next(iter(sheets))
    if name not in sheets:
        raise BadSignal("changed", "the part that was indexed is no longer in the file")
    return tabular.read_of(
        table_of(sheets[name], settings, _form(path), path.stem), inner, settings, span
    )


def _form(path: Path) -> str:
    return "Excel" if path.suffix.lower() in EXCEL else "Feather"


def _sheets(path: Path) -> dict[str, pl.DataFrame]:
    if path.suffix.lower() not in EXCEL:
        try:
            with path.open("rb") as handle:  # a path could be taken for a pattern
                return {"": pl.read_ipc(handle)}
        except (pl.exceptions.PolarsError, OSError) as error:
            raise BadSignal(
                "bad-signal", f"the file is cut off, or no Feather file ({type(error).__name__})"
            ) from None
    try:
        import fastexcel  # noqa: F401
    except ImportError:
        raise BadSignal(
            "needs-a-package", "Excel workbooks need fastexcel: pip install 'medcl[signals]'"
        ) from None
    try:
        return dict(pl.read_excel(path.read_bytes(), sheet_id=0, raise_if_empty=False))
    except Exception as error:  # calamine raises its own kinds
        raise BadSignal(
            "bad-signal", f"the workbook is locked, cut off or damaged ({type(error).__name__})"
        ) from None
