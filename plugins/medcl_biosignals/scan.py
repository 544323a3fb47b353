"""The files of a unit → one row of technical facts a recording, or the reason why it is none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from medcl.plugin import MEMBER, Record, Reject, Unit
from medcl.registry import checked
from medcl_biosignals.readers.choose import is_recorders, reader
from medcl_biosignals.readers.contract import BadSignal, Flaw, Settings
from medcl_biosignals.rows import Sides, row
from medcl_biosignals.units import HEADER
from medcl_biosignals.vocabulary import vocabulary as load_vocabulary
from medcl_biosignals.wfdb_scan import scan_wfdb, unnamed_matlab


def scan(
    root: Path,
    unit: Unit,
    *,
    fs: float | None = None,
    columns: Mapping[str, str] | None = None,
    time: str | None = None,
    time_unit: Literal["s", "ms", "us", "ns"] | None = None,
    rows: Literal["channels", "windows"] | None = None,
    units: str | None = None,
    delimiter: Literal["comma", "semicolon", "tab", "space", "pipe"] | None = None,
    decimal: Literal["point", "comma"] | None = None,
    subject: str | None = None,
    vocabulary: Mapping[str, Any] | None = None,
    files: Mapping[str, Mapping[str, Any]] | None = None,
) -> Iterator[Record | Reject]:
    """Read what a unit's files say of themselves; check what they claim.

    WFDB, EDF, DICOM, HDF5, NumPy and Parquet are not decoded; text has no header and is read.

    Args:
        root: the archive.
        unit: one of `medcl_biosignals.units.units`.
        fs: and the others: what the files do not say, as `Settings` explains them.
    """
    settings = settings_of(
        {
            "fs": fs,
            "columns": columns,
            "time": time,
            "time_unit": time_unit,
            "rows": rows,
            "units": units,
            "delimiter": delimiter,
            "decimal": decimal,
            "subject": subject,
            "vocabulary": vocabulary,
            "files": files,
        }
    )
    paths = [file.path for file in unit.files]
    wfdb = any(path.endswith((HEADER, ".dat", ".xyz")) for path in paths)
    if wfdb:
        yield from scan_wfdb(root, unit, settings)
    sides = [path for path in paths if path != unit.key]
    for file in unnamed_matlab(root, paths) if wfdb else [unit.key]:
        yield from _file(root, file, [] if wfdb else sides, settings)


def settings_of(given: Mapping[str, Any]) -> Settings:
    """What the index was told of the files, as `prepare` finds it among the fields.

    Raises:
        UsageError: for a vocabulary of another form, or an unknown setting of ``files``.
    """
    settings = Settings(**{name: value for name, value in given.items() if value is not None})
    load_vocabulary(settings.vocabulary)
    for pattern, own in settings.files.items():
        checked(scan, own, f"reader.files.{pattern}")
    return settings


def _file(root: Path, file: str, sides: list[str], settings: Settings) -> Iterator[Record | Reject]:
    """The recordings in one file; what lies beside it is of the one, where it holds one."""
    settings = settings.of(file)
    if not is_recorders(root / file):
        return
    try:
        for found in reader(root / file).headings(root / file, settings):
            key = f"{file}#{found.part}" if found.part else file
            name = f"{file}{MEMBER}{found.part}" if found.part else file
            if isinstance(found, Flaw):
                yield Reject(key, found.code, found.reason)
            else:
                beside = Sides(root, [] if found.part else sides)
                yield row(key, (name,), found, settings, sides=beside)
    except BadSignal as error:
        yield Reject(file, error.code, str(error))
