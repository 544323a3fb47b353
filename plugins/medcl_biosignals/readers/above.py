"""What stands above a text table, in the form that all its readers give it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Preamble:
    """What a file says of its table outside of it.

    Attributes:
        fs: the rate in Hz.
        names: of all columns; "" for one that is no signal. None: the table's header says it.
        units: of the columns with names.
        skip: lines before the table (its header line included if ``names`` are given).
        form: as the index shows it; "" for a plain table.
        session: see `medcl_biosignals.readers.contract.Heading`.
        start: seconds since 1970, where that matters to align several files of a device.
    """

    fs: float | None = None
    names: tuple[str, ...] | None = None
    units: tuple[str, ...] | None = None
    skip: int | None = None
    form: str = ""
    session: str | None = None
    start: float | None = None


def number(text: str) -> float | None:
    """A cell as a number, with a decimal point or comma; None if it is none."""
    try:
        return float(text.strip().strip("\"'").replace(",", ".") if text.count(",") == 1 else text)
    except ValueError:
        return None


def cells_of(line: str) -> list[str]:
    """The cells of a line; a comma parts them only where nothing else does."""
    mark = next((mark for mark in "\t;" if mark in line), ",")
    return [cell.strip().strip('"') for cell in line.strip("\r\n").split(mark)]
