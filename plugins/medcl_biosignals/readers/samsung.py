"""Samsung Health's export: tables of measured values, and JSON files with the minutes of each row.

A table's first line names the kind of data, the second its columns, and each row ends in one more
comma than there are columns. Rows may name a JSON file of the same export that holds their bins.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from medcl_biosignals.readers import values
from medcl_biosignals.readers.contract import (
    BadSignal,
    Flaw,
    Heading,
    Recording,
    Settings,
    Span,
)
from medcl_biosignals.readers.json_text import loaded, number

_FIRST = re.compile(r"\ufeff?\"?com\.samsung\.s?health\.[a-z0-9_.]+\"?,\d+(,\d*)?,?")
_BINS = ".binning_data.json"
_VALUES = {
    # kind of data, by the end of its name: column (and key of a bin) → name and unit
    "heart_rate": {"heart_rate": ("HR", "bpm")},
    "oxygen_saturation": {"spo2": ("SpO2", "%")},
    "respiratory_rate": {"average": ("RR", "bpm"), "respiratory_rate": ("RR", "bpm")},
    "stress": {"score": ("stress", "")},
    "skin_temperature": {"temperature": ("TEMP", "degC"), "mean": ("TEMP", "degC")},
    "body_temperature": {"temperature": ("TEMP", "degC")},
    "hrv": {"rmssd": ("RMSSD", "ms"), "sdnn": ("SDNN", "ms")},
    "blood_pressure": {"systolic": ("SBP", "mmHg"), "diastolic": ("DBP", "mmHg")},
    "blood_glucose": {"glucose": ("glucose", "")},
}
_SURE = ("heart_rate", "spo2", "respiratory_rate", "rmssd")
"""Keys of bins that say by themselves what is measured; a "mean" may be of anything."""
_Found = dict[tuple[str, str], tuple[list[float], list[float]]]


def is_samsung(name: str, head: bytes) -> bool:
    """Whether a file begins like a table of the export, or is named like the bins of one."""
    if name.lower().endswith(_BINS):
        return True
    lines = head.decode("utf-8", "replace").splitlines()
    return bool(lines) and _FIRST.fullmatch(lines[0].strip()) is not None


def headings(path: Path, settings: Settings) -> Iterator[Heading | Flaw]:
    """The values of a table, with the bins of its rows; or those of one file of bins.

    Bins that a table of the archive names are read with it, and not a second time.
    """
    if path.name.lower().endswith(_BINS) and _has_table(path):
        return
    held, noticed = _held(path)
    session = "../../.." if path.parent.parent.parent.name == "jsons" else ""
    yield replace(values.heading(held, "Samsung Health", noticed), session=session)


def read(path: Path, part: str, settings: Settings, span: Span | None = None) -> Recording:
    """Its samples."""
    return values.part(_held(path)[0], span)


def _has_table(bins: Path) -> bool:
    """Whether a table of the export to which the bins belong lies beside ``jsons``."""
    kind, jsons = bins.parent.parent, bins.parent.parent.parent
    return jsons.name == "jsons" and any(
        file.name.startswith(f"{kind.name}.") and file.suffix.lower() == ".csv"
        for file in jsons.parent.iterdir()
    )


def _held(path: Path) -> tuple[Recording, tuple[str, ...]]:
    found: _Found = {}
    noticed: list[str] = []
    if path.name.lower().endswith(_BINS):
        _add_bins(path, _kind_of_bins(path), found)
    else:
        noticed = _add_rows(path, found)
    if not found:
        raise BadSignal(
            "no-signals",
            "a part of a Samsung Health export that holds no values measured over time",
        )
    held, more = values.recording(
        values.Series(name, unit, np.array(times), np.array(row))
        for (name, unit), (times, row) in found.items()
    )
    return held, (*noticed, *more)


def _kind_of_bins(path: Path) -> str | None:
    """The kind of data by a file's name, or by the folder of its kind; None if neither says it."""
    names = (path.name.lower().removesuffix(_BINS), path.parent.name, path.parent.parent.name)
    return next((k for k in (name.rpartition(".")[2] for name in names) if k in _VALUES), None)


def _add_rows(path: Path, found: _Found) -> list[str]:
    """The values of a table's rows, or of their bins where those are at hand."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as handle:
        lines = csv.reader(handle)
        package = (next(lines, None) or [""])[0]
        header = [name.rpartition(".")[2] for name in next(lines, None) or []]
        rows = [dict(zip(header, row, strict=False)) for row in lines]
    kind = package.rpartition(".")[2]
    known = _VALUES.get(kind, {})
    folder = path.parent / "jsons" / package
    missing = False
    for row in rows:
        named = Path(row.get("binning_data") or row.get("binning") or "").name
        if named.endswith(".json"):
            places = (folder / named[:1] / named, folder / named)
            bins = next((place for place in places if place.is_file()), None)
            if bins is not None:
                _add_bins(bins, kind, found)
                continue
            missing = True
        began = _utc(row.get("start_time") or "")
        _add(found, known, row, began)
    return ["bins-missing"] if missing else []


def _add_bins(path: Path, kind: str | None, found: _Found) -> None:
    """``[{"heart_rate": 76.0, "start_time": 1611144000000, "end_time": …}, …]``, in UTC."""
    if kind is not None:
        known = _VALUES.get(kind, {})
    else:
        known = {key: pair for each in _VALUES.values() for key, pair in each.items()}
        known = {key: known[key] for key in _SURE}
    rows = loaded(path)
    for row in rows if isinstance(rows, list) else []:
        if isinstance(row, Mapping):
            _add(found, known, row, number(row.get("start_time")) / 1000)


def _add(
    found: _Found,
    known: Mapping[str, tuple[str, str]],
    row: Mapping[str, object],
    began: float,
) -> None:
    for column, channel in known.items():
        value = number(row.get(column) if row.get(column) != "" else None)
        if np.isfinite(value) and value > 0:  # 0 stands for what could not be measured
            times, held = found.setdefault(channel, ([], []))
            times.append(began)
            held.append(value)


def _utc(text: str) -> float:
    """The start of a row: milliseconds since 1970, or a date and time in UTC."""
    if text.isdigit():
        return int(text) / 1000
    return values.moment(text)
