"""Records of a large archive, packed: a few hundred bytes each, where the objects take a thousand.

A record is bytes until it is looked at, and what is looked at is a new object each time.
"""

from __future__ import annotations

import marshal
from collections.abc import Collection, Iterator, Sequence
from itertools import compress
from typing import Any, SupportsIndex, overload

from medcl.plugin import FileStat, Record

_Shape = tuple[tuple[str, ...], ...]
_PLAIN = (str, int, float, bool, type(None))


class Records(Sequence[Record]):
    """A sequence to which records are added, each with its files as they were when it was read."""

    def __init__(self) -> None:
        self._rows: list[bytes] = []
        self._shapes: list[_Shape] = []
        """The names of values: a row has the position of its own here."""
        self._known: dict[_Shape, int] = {}

    def add(self, record: Record, files: Sequence[FileStat]) -> None:
        """Add a record whose ``files`` are those of ``record.files``, in that order."""
        stats = [number for file in files for number in (file.size, file.mtime_ns)]
        self._rows.append(self._packed(record, stats))

    def key(self, position: int) -> str:
        """The key of a record, which is quicker than all of it."""
        key: str = marshal.loads(self._rows[position])[0]
        return key

    def files(self, position: int) -> tuple[FileStat, ...]:
        """The files of a record, with their sizes and times."""
        key, files, stats, *_ = marshal.loads(self._rows[position])
        return tuple(map(FileStat, _files(key, files), stats[::2], stats[1::2]))

    def remove(self, positions: Collection[int]) -> None:
        """Remove some; those behind them move up."""
        gone = set(positions)
        self._rows = list(compress(self._rows, (n not in gone for n in range(len(self)))))

    def drained(self) -> Iterator[Record]:
        """The records in turn, of which nothing is kept in memory then."""
        rows, self._rows = self._rows[::-1], []
        while rows:
            yield self._unpacked(rows.pop())

    def __setitem__(self, position: int, record: Record) -> None:
        """Replace a record by one of the same files."""
        stats = marshal.loads(self._rows[position])[2]
        self._rows[position] = self._packed(record, stats)

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Record]:
        return map(self._unpacked, self._rows)

    @overload
    def __getitem__(self, where: SupportsIndex) -> Record: ...
    @overload
    def __getitem__(self, where: slice) -> Sequence[Record]: ...
    def __getitem__(self, where: Any) -> Any:
        found = self._rows[where]
        return [*map(self._unpacked, found)] if isinstance(where, slice) else self._unpacked(found)

    def _packed(self, record: Record, stats: Sequence[int]) -> bytes:
        r = record
        shape = (tuple(r.fields), tuple(r.labels), tuple(r.private))
        at = self._known.setdefault(shape, len(self._shapes))
        if at == len(self._shapes):
            self._shapes.append(shape)
        files = None if r.files == (r.key,) else r.files
        values = (*r.fields.values(), *r.labels.values(), *r.private.values())
        head: tuple[Any, ...] = (r.key, files, stats, r.patient, r.site, r.group, r.findings, at)
        try:
            return marshal.dumps(head + values)
        except ValueError:  # of a table: times, decimals, which become text in the index
            plain = tuple(v if type(v) in _PLAIN else str(v) for v in values)
            return marshal.dumps(head + plain)

    def _unpacked(self, row: bytes) -> Record:
        key, files, _, patient, site, group, findings, at, *values = marshal.loads(row)
        rest = iter(values)
        fields, labels, private = (dict(zip(names, rest)) for names in self._shapes[at])  # noqa: B905
        own = _files(key, files)
        return Record(key, own, patient, site, fields, labels, findings, private, group)


def _files(key: str, files: tuple[str, ...] | None) -> tuple[str, ...]:
    return (key,) if files is None else files
