"""Units, scan and assemble on a real archive: what they open, what they say of whom."""

from __future__ import annotations

import pickle
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from medcl.archive.scanning import checked, public
from medcl.archive.walk import walk
from medcl.plugin import FileStat, Plugin, Record, Reject, Unit, file_of
from medcl.plugin_check.finding import Ledger, Note
from medcl.plugin_check.guards import opening
from medcl.plugin_check.privacy import Identifiers

MOST_UNITS = 24
"""Units that are scanned twice, spread over the archive."""
DAMAGED = ("empty", "cut", "noise")
_CODE = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


@dataclass
class Scanned:
    """What the archive gave.

    Attributes:
        files: all of the archive.
        units: those that were scanned.
        records: of these units, as ``scan`` gave them.
    """

    files: Sequence[FileStat] = ()
    units: Sequence[Unit] = ()
    records: list[Record] = field(default_factory=list)


def check_archive(plugin: Plugin, archive: Path, scratch: Path, ledger: Ledger) -> bool:
    """Check ``units``, ``scan`` and ``assemble``; whether an index can be made.

    ``ledger.names`` are the archive's afterwards.

    Args:
        plugin: whose.
        archive: a folder with its files.
        scratch: a folder for damaged copies.
        ledger: gets the findings.
    """
    seen = Scanned(files=walk(archive).files)
    fine = ledger.run("units", lambda: _units(plugin, archive, seen), "by name and size alone")
    if not fine or not seen.units:
        return False
    fine = ledger.run("scan", lambda: _scan(plugin, archive, seen), "opens its unit's files alone")
    names = Identifiers.of(seen.records)
    ledger.names = names
    ledger.run("scan", lambda: _private(seen.records, names), "no identifier in fields and labels")
    for how in DAMAGED:
        label = {"empty": "empty files", "cut": "files cut in half", "noise": "files of noise"}[how]
        ledger.run(
            "scan",
            partial(_damaged, plugin, archive, seen, names, scratch / how, how),
            f"{label}: costs the unit, says why",
        )
    if plugin.assemble is not None:
        fine &= ledger.run(
            "assemble", lambda: _assemble(plugin, archive, seen.records), "opens nothing"
        )
    return fine and bool(seen.records)


def _units(plugin: Plugin, archive: Path, seen: Scanned) -> Iterator[str]:
    with opening(archive) as opened:
        units = list(plugin.units(seen.files))
    if opened.read or opened.written:
        yield "opens files: it is to group them by name and size alone"
    wrong = {type(unit).__name__ for unit in units if not isinstance(unit, Unit)}
    if wrong:
        yield f"gives a {wrong.pop()}, not a Unit"
        return
    if not units:
        yield "takes none of the archive's files: is this its sample?"
        return
    known = set(seen.files)
    if any(not unit.files for unit in units):
        yield "gives a unit without files"
    if any(set(unit.files) - known for unit in units):
        yield "gives a file that is not among those it was given"
    keys = [unit.key for unit in units]
    if len(set(keys)) < len(keys):
        yield "gives two units of one key"
    backwards = list(plugin.units(seen.files[::-1]))
    if {(u.key, frozenset(u.files)) for u in units} != {
        (u.key, frozenset(u.files)) for u in backwards
    }:
        yield "groups the files in another way when they come in another order"
    units.sort(key=lambda unit: unit.key)
    step = max(1, len(units) // MOST_UNITS)
    seen.units = units if plugin.assemble is not None else units[::step][:MOST_UNITS]


def _scan(plugin: Plugin, archive: Path, seen: Scanned) -> Iterator[str]:
    rejected: list[str] = []
    keys: set[str] = set()
    for unit in seen.units:
        with opening(archive) as opened:
            found = list(plugin.scan(archive, unit))
        own = {file_of(file.path) for file in unit.files}
        if opened.written:
            yield "opens a file of the archive for writing: the archive is only read"
        if opened.read - own:
            yield "opens a file that is not of its unit, so that a change of it goes unnoticed"
        if found != list(plugin.scan(archive, unit)):
            yield "gives another outcome the second time"
        for one in found:
            plain = checked(one, archive, unit)
            if isinstance(plain, Reject):
                if plain.code == "bad-record":
                    yield plain.reason.removeprefix("The plugin broke its contract: ")
                elif isinstance(one, Reject):
                    rejected.append(f"{plain.code}: {plain.reason}")
                else:
                    rejected.append(plain.reason)
                continue
            if plain.key in keys:
                yield "gives two records of one key, in different units"
            keys.add(plain.key)
            seen.records.append(plain)
        pickle.loads(pickle.dumps(found))  # between processes
    if not seen.records:
        yield f"gives no record of this archive{'; ' + rejected[0] if rejected else ''}"
    elif rejected:
        yield Note(f"rejects {len(rejected)} of the archive, first {rejected[0]}")


def _private(records: Sequence[Record], names: Identifiers) -> Iterator[str]:
    for record in records:
        for kind in ("fields", "labels"):
            for name, value in getattr(record, kind).items():
                if names.within(value) or names.within(name):
                    yield f"{kind}: '{name}' holds a patient, a site or the name of a file"
        if names.within(record.findings):
            yield "findings name a patient, a site or a file"


def _damaged(
    plugin: Plugin, archive: Path, seen: Scanned, names: Identifiers, scratch: Path, how: str
) -> Iterator[str]:
    """A unit whose files are damaged: it may be refused, and nothing else may happen."""
    noise = bytes((n * 7919 + n * n * 31) % 256 for n in range(4096))
    for unit in (seen.units[0], seen.units[-1]):
        stats = []
        for file in unit.files:
            path = scratch / file_of(file.path)
            path.parent.mkdir(parents=True, exist_ok=True)
            match how:
                case "empty":
                    path.write_bytes(b"")
                case "noise":
                    path.write_bytes(noise)
                case _:
                    _half(archive / file_of(file.path), path)
            stats.append(FileStat(file.path, path.stat().st_size, path.stat().st_mtime_ns))
        damaged = Unit(unit.key, tuple(stats))
        try:
            found = list(plugin.scan(scratch, damaged))
        except Exception as error:  # allowed: the index makes a reject of it
            text = public(str(error), scratch, damaged)
            yield Note(f"raises {type(error).__name__} for {how} files: a Reject says what to do")
            if names.within(text):
                yield f"its {type(error).__name__} for {how} files names a patient or site"
            continue
        for one in found:
            if isinstance(one, Record) and how == "empty":
                yield "takes a unit of empty files for a record"
            if isinstance(one, Reject):
                yield from _reason(one, scratch, damaged, names)
    shutil.rmtree(scratch, ignore_errors=True)


def _half(source: Path, to: Path) -> None:
    """The first half, of a large file its beginning."""
    size = min(source.stat().st_size // 2, 2**20)
    with source.open("rb") as file:
        to.write_bytes(file.read(size))


def _reason(reject: Reject, root: Path, unit: Unit, names: Identifiers) -> Iterator[str]:
    if not _CODE.fullmatch(reject.code):
        yield f"the code '{reject.code}' of a reject is no lower-case word to count by"
    if len(reject.reason.split()) < 3:
        yield f"the reason '{reject.reason}' of a reject is no sentence to act on"
    if names.within(public(reject.reason, root, unit)):
        yield f"the reason of the reject '{reject.code}' names a patient or site"


def _assemble(plugin: Plugin, archive: Path, records: Sequence[Record]) -> Iterator[str]:
    assert plugin.assemble is not None
    with opening(archive) as opened:
        made = list(plugin.assemble(records))
    if opened.read or opened.written:
        yield "opens files of the archive: what it has to know goes into Record.private"
    wrong = {type(one).__name__ for one in made if not isinstance(one, Record | Reject)}
    if wrong:
        yield f"yields a {wrong.pop()}, neither Record nor Reject"
        return
    if made != list(plugin.assemble(records)):
        yield "gives another outcome the second time"
    if not any(isinstance(one, Record) for one in made):
        yield "leaves no record"
