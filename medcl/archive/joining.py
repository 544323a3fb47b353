"""Records that a plugin joins across units, checked like those of a scan."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from medcl.archive.scanning import checked
from medcl.errors import MedclError
from medcl.io.failure import Failure
from medcl.plugin import MEMBER, FileStat, Record, Reject, Unit, file_of

Assemble = Callable[[Sequence[Record]], Iterable[Record | Reject]]


def join(
    assemble: Assemble, root: Path, records: Sequence[Record], stats: Mapping[str, FileStat]
) -> list[Record | Reject]:
    """The items and rejects that the plugin joins from an archive's records.

    Args:
        assemble: the plugin's.
        root: the archive.
        records: of all units.
        stats: path → file, of all units.

    Raises:
        MedclError: if the plugin raises: no item is known then.
    """
    try:
        return [_checked(outcome, root, stats) for outcome in assemble(records)]
    except Exception as error:
        failure = Failure.of(error)
        raise MedclError(f"The plugin could not join its records. {failure.reason}") from error


def _checked(outcome: object, root: Path, stats: Mapping[str, FileStat]) -> Record | Reject:
    """As `medcl.archive.scanning.checked`, against the item's own files."""
    if not isinstance(outcome, Record | Reject):
        raise MedclError(f"It yielded a {type(outcome).__name__}.")
    named = outcome.files if isinstance(outcome, Record) else (outcome.key.partition("#")[0],)
    files = tuple(stats[path] for path in sorted({file_of(name) for name in named} & stats.keys()))
    return checked(outcome, root, Unit(outcome.key, files))


def located(record: Record, stats: Mapping[str, FileStat]) -> tuple[FileStat, ...]:
    """A record's files in its own order, each under the record's name (and member) for it."""
    return tuple(
        replace(stats[file_of(path)], path=path) if MEMBER in path else stats[path]
        for path in record.files
    )
