"""Who a recording is of, by where it lies."""

from __future__ import annotations

import csv
import posixpath
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath

# No bare s123: that is a study in MIMIC-IV, a session elsewhere. p1000 and p00 only group people.
_PERSON = re.compile(r"(patient|subject|subj|sub)[-_]?\d+|sub-\w+|p\d{5,}", re.IGNORECASE)
# Folders of partitioned tables (Hive's convention), as Spark, pyarrow and polars write them.
_PARTITION = re.compile(
    r"(?:patient|subject|participant|person|user)(?:_?id)?=(?P<who>.+)", re.IGNORECASE
)
_VERSION = re.compile(r"_(lr|hr)$")  # PTB-XL: one recording at two sampling rates
_RATE = re.compile(r"records\d+")  # in folders of these names

UNKNOWN = "patient-is-record-name"
"""The finding of a recording that stands for its own person."""


BY_FOLDER = "patient-is-folder"
"""The finding of a recording that names nobody, in a folder that is named after a person."""


def person(folder: PurePosixPath) -> str | None:
    """The deepest folder that is named after a person: a site or cohort may be above it."""
    for part in reversed(folder.parts):
        partition = _PARTITION.fullmatch(part)
        if partition:
            return partition["who"]
        if _PERSON.fullmatch(part):
            return part
    return None


def recorded(
    folder: PurePosixPath, name: str, fs: float, leads: Sequence[str], session: str | None = None
) -> str:
    """The record in place of a person: with its folder, for two people may have a ``visit1``.

    Args:
        folder: that it lies in.
        name: its own, without suffix.
        fs: its rate in Hz.
        leads: its channels.
        session: see `medcl_biosignals.readers.contract.Heading`: the files of one count as one. A
            path from the folder: ``..`` where an export has several folders.
    """
    if session is not None:
        return posixpath.normpath(folder / session)
    if name in ("201", "202") and fs == 360 and list(leads) == ["MLII", "V1"]:
        return "201"  # MIT-BIH 201 and 202 are the same man (Moody & Mark 2001)
    if _VERSION.search(name):
        name = _VERSION.sub("", name)
        folder = PurePosixPath(*(part for part in folder.parts if not _RATE.fullmatch(part)))
    return str(folder / name)


_PTBXL = "ptbxl_database.csv"


def is_ptbxl(name: str) -> bool:
    """Whether a record is named as PTB-XL names them: 2,116 of its patients have several."""
    return re.fullmatch(r"\d{5}_(lr|hr)", name) is not None


def patient_in_table(root: Path, record: PurePosixPath) -> str | None:
    """Whose a record is by a database's own table, above it in the archive; None without one.

    Args:
        root: the archive.
        record: path of the record in it, without suffix.
    """
    if not is_ptbxl(record.name):
        return None
    for folder in record.parents:
        table = root / folder / _PTBXL
        if table.is_file():
            people = _people(table, table.stat().st_mtime_ns)
            return people.get(int(record.name[:5]))
    return None


@lru_cache(maxsize=4)
def _people(table: Path, changed: int) -> dict[int, str]:
    """ECG number → patient, of PTB-XL's table."""
    with table.open(encoding="utf-8", errors="replace", newline="") as handle:
        rows = csv.DictReader(handle)
        if not {"ecg_id", "patient_id"} <= set(rows.fieldnames or ()):
            return {}
        return {
            int(float(row["ecg_id"])): f"{float(row['patient_id']):.0f}"
            for row in rows
            if row["ecg_id"] and row["patient_id"]
        }
