"""Finished scans, one JSON line per unit, so that a kill loses only the units in flight.

A line truncated by the kill is dropped when the journal is opened again. The journal contains raw
patient ids and paths: it is in the index's private folder.
"""

from __future__ import annotations

import errno
import json
import os
import time
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from medcl.archive.scanning import Scanned, fingerprint
from medcl.io import room
from medcl.io.atomic import opener, replacing
from medcl.plugin import Unit

_SYNC_EVERY = 2.0  # seconds; a kill loses no written line, a power cut at most this


class Journal:
    """The finished scans of some units. They stay on disk: in memory is where each line begins."""

    def __init__(self, path: Path, made_by: dict[str, Any], units: Mapping[str, Unit]) -> None:
        """Open it; lines of other units, of changed ones and of other versions are removed.

        Args:
            path: the file; made if there is none.
            made_by: what determines how units are read.
            units: key → unit, as the archive is now.
        """
        self._path, self._units = path, units
        self._places: dict[str, int] = {}
        if not self._read(made_by):
            self._rewrite(made_by)
        descriptor = opener(str(path), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._handle: BinaryIO = os.fdopen(descriptor, "ab", buffering=0)
        self._end = self._handle.seek(0, os.SEEK_END)
        self._synced = time.monotonic()

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def read_once(self) -> Iterator[Scanned]:
        """The entries, in the order of the units, of which nothing is kept in memory then."""
        places = array("q", (self._places[key] for key in self._units if key in self._places))
        self._units, self._places = {}, {}
        with self._path.open("rb") as lines:
            for place in places:
                lines.seek(place)
                yield Scanned.from_json(lines.readline())

    def add(self, entry: Scanned) -> None:
        """Append one finished unit. It is written at once, and flushed to disk every 2 s."""
        line = entry.to_json().encode() + b"\n"
        with room.told(self._path, needs=len(line)):
            if self._handle.write(line) != len(line):  # the rest of the line did not fit
                raise OSError(errno.ENOSPC, "No space left on device")
        self._places[entry.key] = self._end
        self._end += len(line)
        if time.monotonic() - self._synced > _SYNC_EVERY:
            self._sync()

    def close(self) -> None:
        """Flush to disk and close."""
        self._sync()
        self._handle.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self, made_by: dict[str, Any]) -> bool:
        """Find the lines of the units. False if there are others too, or no journal."""
        if not self._path.exists():
            return False
        _drop_torn_tail(self._path)
        with self._path.open("rb") as lines:
            header = next(lines, b"")
            if header != _header(made_by):
                return False
            place, clean = len(header), True
            for line in lines:
                key = self._key(line)
                clean &= key is not None and key not in self._places
                if key is not None:
                    self._places[key] = place  # the newest line of a unit counts
                place += len(line)
        return clean and bool(self._places)

    def _key(self, line: bytes) -> str | None:
        """The unit of a line, if it is as it was; a damaged line is of none."""
        try:
            entry = Scanned.from_json(line)
        except (ValueError, KeyError, TypeError):
            return None
        unit = self._units.get(entry.key)
        same = unit is not None and entry.fingerprint == fingerprint(unit.key, unit.files)
        return entry.key if same else None

    def _rewrite(self, made_by: dict[str, Any]) -> None:
        """Keep the lines that were found."""
        places, self._places = self._places, {}
        with replacing(self._path) as temporary, temporary.open("wb") as out:
            out.write(_header(made_by))
            if not places:
                return
            with self._path.open("rb") as lines:
                for key, place in places.items():
                    lines.seek(place)
                    self._places[key] = out.tell()
                    out.write(lines.readline())

    def _sync(self) -> None:
        os.fsync(self._handle.fileno())
        self._synced = time.monotonic()


def _header(made_by: dict[str, Any]) -> bytes:
    return json.dumps(made_by, sort_keys=True).encode() + b"\n"


def _drop_torn_tail(path: Path) -> None:
    """Truncate the file after its last complete line."""
    with path.open("r+b") as handle:
        end = handle.seek(0, os.SEEK_END)
        position = end
        while position > 0:
            start = max(0, position - 65536)
            handle.seek(start)
            newline = handle.read(position - start).rfind(b"\n")
            if newline >= 0:
                if start + newline + 1 < end:
                    handle.truncate(start + newline + 1)
                return
            position = start
        handle.truncate(0)
