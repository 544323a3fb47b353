"""Records that a plugin joins across units: checked as those of a scan are, found again by file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from medcl.archive.scanning import checked
from medcl.errors import MedclError
from medcl.io.failure import Failure
from medcl.plugin import FileStat, Record, Reject, Unit, file_of

Assemble = Callable[[Sequence[Record]], Iterable[Record | Reject]]


def join(
    assemble: Assemble, root: Path, records: Sequence[Record], stats: Mapping[str, FileStat]
) -> list[Record | Reject]:
    """What the plugin makes of an archive's records.

    Args:
        assemble: the plugin's.
        root: the archive.
        records: of all units.
        stats: path → file, of all units.

    Raises:
        MedclError: if the plugin raises: then nothing is known of any item.
    """
    try:
        return [_checked(found, root, stats) for found in assemble(records)]
    except Exception as error:
        failure = Failure.of(error)
        raise MedclError(f"The plugin could not join its records. {failure.reason}") from error


def _checked(found: object, root: Path, stats: Mapping[str, FileStat]) -> Record | Reject:
    """As `medcl.archive.scanning.checked`, against the item's own files."""
    if not isinstance(found, Record | Reject):
        raise MedclError(f"It yielded a {type(found).__name__}.")
    named = found.files if isinstance(found, Record) else (found.key.partition("#")[0],)
    known = tuple(stats[path] for path in sorted({file_of(name) for name in named} & stats.keys()))
    return checked(found, root, Unit(found.key, known))


def located(record: Record, stats: Mapping[str, FileStat]) -> tuple[FileStat, ...]:
    """A record's files in its own order, each under the name (and member) that it gives."""
    return tuple(replace(stats[file_of(path)], path=path) for path in record.files)
