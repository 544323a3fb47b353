"""Whether an archive is as it was when it was indexed: then nothing is opened and nothing written.

::

    IDX/private/scan/files.parquet   path, size, time of every file of the archive
    IDX/private/scan/result.json     what the tables were made of, and the counts

The files are compared as two tables; of a million, that takes a second.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from medcl import manifest
from medcl.archive.walk import Walked
from medcl.errors import MedclError
from medcl.reading import read_json, read_table
from medcl.strings import storable

_FILES, _RESULT = "files.parquet", "result.json"
_REMEDY = "Run the same medcl index again: it writes it anew."


class Snapshot:
    """What an index was made of, to be compared with what it would be made of now."""

    def __init__(self, folder: Path, walked: Walked, made_of: Mapping[str, Any]) -> None:
        """Take note of an archive.

        Args:
            folder: of the record, in the private part of the index.
            walked: the archive's files.
            made_of: whatever else determines the tables.
        """
        self._folder = folder
        self._files = pl.DataFrame(
            {
                "path": pl.Series([storable(file.path) for file in walked.files], dtype=pl.String),
                "size": pl.Series([file.size for file in walked.files], dtype=pl.Int64),
                "time": pl.Series([file.mtime_ns for file in walked.files], dtype=pl.Int64),
            }
        )
        refused = [(reject.key, reject.code) for reject in walked.rejects]
        self._made_of = manifest.digest(manifest.as_json(made_of), refused)

    def known(self, out: Path) -> dict[str, Any] | None:
        """The counts of the index ``out``, if it was made of the same and is whole; else None."""
        if not all(path.is_file() for path in (self._folder / _RESULT, *_tables(out))):
            return None
        try:
            result = read_json(self._folder / _RESULT, _REMEDY)
            if result["made_of"] != self._made_of or result["tables"] != _hashes(out):
                return None
            for path in _tables(out):
                manifest.check(path, _REMEDY)
            same = self._files.equals(read_table(self._folder / _FILES, _REMEDY))
        except (MedclError, KeyError):  # damaged: it is made anew
            return None
        counts: dict[str, Any] = result["counts"]
        return counts | {"notes": tuple(counts["notes"])} if same else None

    def begin(self) -> None:
        """The archive is indexed: until `finish`, no record holds."""
        (self._folder / _RESULT).unlink(missing_ok=True)
        with manifest.replacing(self._folder / _FILES) as temporary:
            self._files.write_parquet(temporary)
        del self._files  # much, of a million

    def finish(self, out: Path, counts: Mapping[str, Any]) -> None:
        """Record the finished index ``out``."""
        result = {"made_of": self._made_of, "tables": _hashes(out), "counts": dict(counts)}
        manifest.write_text(self._folder / _RESULT, json.dumps(result) + "\n")


def _tables(out: Path) -> list[Path]:
    private = out / "private"
    return [
        *(out / name for name in ("index.json", "items.parquet", "rejects.parquet")),
        *(private / name for name in ("paths.parquet", "sites.parquet")),
    ]


def _hashes(out: Path) -> list[list[str]]:
    """Of the tables, as their folders' manifests list them."""
    listed = {folder: manifest.load(folder) for folder in (out, out / "private")}
    found = []
    for path in _tables(out):
        record = listed[path.parent]
        found.append(list(record.files.get(path.name, ())) if record is not None else [])
    return found
