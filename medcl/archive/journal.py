"""Finished scans, one JSON line per unit, so that a kill loses only the units in flight.

A line truncated by the kill is dropped when the journal is opened again. The journal contains raw
patient ids and paths: it is in the index's private folder.
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from medcl.archive.scanning import Scanned
from medcl.io import room
from medcl.io.atomic import opener, replacing

_SYNC_EVERY = 2.0  # seconds; a kill loses no written line, a power cut at most this


def read(path: Path, made_by: dict[str, object]) -> dict[str, Scanned]:
    """Unit key → its newest entry; empty if there is none, or another plugin version made it."""
    if not path.exists():
        return {}
    _drop_torn_tail(path)
    finished: dict[str, Scanned] = {}
    with path.open("rb") as lines:
        if next(lines, b"") != _header(made_by).encode():
            return {}
        for line in lines:
            try:
                entry = Scanned.from_json(line)
            except (ValueError, KeyError, TypeError):  # a damaged line: its unit is scanned again
                continue
            finished[entry.key] = entry
    return finished


def rewrite(path: Path, made_by: dict[str, object], entries: Iterable[Scanned]) -> None:
    """Replace the journal by these entries."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as handle:
        handle.write(_header(made_by))
        for entry in entries:
            handle.write(entry.to_json() + "\n")


class Appender:
    """An open journal. Each entry is written at once, and flushed to disk every 2 s."""

    def __init__(self, path: Path) -> None:
        self._path = path
        descriptor = opener(str(path), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._handle: BinaryIO = os.fdopen(descriptor, "ab", buffering=0)
        self._synced = time.monotonic()

    def add(self, entry: Scanned) -> None:
        """Append one finished unit."""
        line = entry.to_json().encode() + b"\n"
        with room.told(self._path, needs=len(line)):
            if self._handle.write(line) != len(line):  # the rest of the line did not fit
                raise OSError(errno.ENOSPC, "No space left on device")
        if time.monotonic() - self._synced > _SYNC_EVERY:
            self._sync()

    def close(self) -> None:
        """Flush to disk and close."""
        self._sync()
        self._handle.close()

    def _sync(self) -> None:
        os.fsync(self._handle.fileno())
        self._synced = time.monotonic()

    def __enter__(self) -> Appender:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _header(made_by: dict[str, object]) -> str:
    return json.dumps(made_by, sort_keys=True) + "\n"


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
