"""Checks of units, scan and assemble on a real archive: opened files, errors, identifiers."""

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
    """The files, units and records of the archive.

    Attributes:
        files: all of the archive.
        units: the scanned ones.
        records: of these units, as ``scan`` returned them.
    """

    files: Sequence[FileStat] = ()
    units: Sequence[Unit] = ()
    records: list[Record] = field(default_factory=list)


def check_archive(plugin: Plugin, archive: Path, scratch: Path, ledger: Ledger) -> bool:
    """Check ``units``, ``scan`` and ``assemble``. Returns True if an index can be made.

    It sets ``ledger.names`` to the archive's identifiers.

    Args:
        plugin: to check.
        archive: a folder with its files.
        scratch: a folder for damaged copies.
        ledger: collects the findings.
    """
    scanned = Scanned(files=walk(archive).files)
    fine = ledger.run("units", lambda: _units(plugin, archive, scanned), "by name and size alone")
    if not fine or not scanned.units:
        return False
    fine = ledger.run(
        "scan", lambda: _scan(plugin, archive, scanned), "opens its unit's files alone"
    )
    names = Identifiers.of(scanned.records)
    ledger.names = names
    ledger.run(
        "scan", lambda: _private(scanned.records, names), "no identifier in fields and labels"
    )
    for damage in DAMAGED:
        labels = {"empty": "empty files", "cut": "files cut in half", "noise": "files of noise"}
        ledger.run(
            "scan",
            partial(_damaged, plugin, archive, scanned, names, scratch / damage, damage),
            f"{labels[damage]}: costs the unit, says why",
        )
    if plugin.assemble is not None:
        fine &= ledger.run(
            "assemble", lambda: _assemble(plugin, archive, scanned.records), "opens nothing"
        )
    return fine and bool(scanned.records)


def _units(plugin: Plugin, archive: Path, scanned: Scanned) -> Iterator[str]:
    with opening(archive) as opened:
        units = list(plugin.units(scanned.files))
    if opened.read or opened.written:
        yield "opens files: it is to group them by name and size alone"
    wrong = {type(unit).__name__ for unit in units if not isinstance(unit, Unit)}
    if wrong:
        yield f"gives a {wrong.pop()}, not a Unit"
        return
    if not units:
        yield "takes none of the archive's files: is this its sample?"
        return
    listed = set(scanned.files)
    if any(not unit.files for unit in units):
        yield "gives a unit without files"
    if any(set(unit.files) - listed for unit in units):
        yield "gives a file that is not among those it was given"
    keys = [unit.key for unit in units]
    if len(set(keys)) < len(keys):
        yield "gives two units of one key"
    backwards = list(plugin.units(scanned.files[::-1]))
    if {(u.key, frozenset(u.files)) for u in units} != {
        (u.key, frozenset(u.files)) for u in backwards
    }:
        yield "groups the files in another way when they come in another order"
    units.sort(key=lambda unit: unit.key)
    step = max(1, len(units) // MOST_UNITS)
    scanned.units = units if plugin.assemble is not None else units[::step][:MOST_UNITS]


def _scan(plugin: Plugin, archive: Path, scanned: Scanned) -> Iterator[str]:
    rejected: list[str] = []
    keys: set[str] = set()
    for unit in scanned.units:
        with opening(archive) as opened:
            outcomes = list(plugin.scan(archive, unit))
        own = {file_of(file.path) for file in unit.files}
        if opened.written:
            yield "opens a file of the archive for writing: the archive is only read"
        if opened.read - own:
            yield "opens a file that is not of its unit, so that a change of it goes unnoticed"
        if outcomes != list(plugin.scan(archive, unit)):
            yield "gives another outcome the second time"
        for outcome in outcomes:
            plain = checked(outcome, archive, unit)
            if isinstance(plain, Reject):
                if plain.code == "bad-record":
                    yield plain.reason.removeprefix("The plugin broke its contract: ")
                elif isinstance(outcome, Reject):
                    rejected.append(f"{plain.code}: {plain.reason}")
                else:
                    rejected.append(plain.reason)
                continue
            if plain.key in keys:
                yield "gives two records of one key, in different units"
            keys.add(plain.key)
            scanned.records.append(plain)
        pickle.loads(pickle.dumps(outcomes))  # between processes
    if not scanned.records:
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
    plugin: Plugin, archive: Path, scanned: Scanned, names: Identifiers, scratch: Path, damage: str
) -> Iterator[str]:
    """Scan units of damaged files: the only allowed failure is a reject."""
    noise = bytes((n * 7919 + n * n * 31) % 256 for n in range(4096))
    for unit in (scanned.units[0], scanned.units[-1]):
        stats = []
        for file in unit.files:
            path = scratch / file_of(file.path)
            path.parent.mkdir(parents=True, exist_ok=True)
            match damage:
                case "empty":
                    path.write_bytes(b"")
                case "noise":
                    path.write_bytes(noise)
                case _:
                    _half(archive / file_of(file.path), path)
            stats.append(FileStat(file.path, path.stat().st_size, path.stat().st_mtime_ns))
        damaged = Unit(unit.key, tuple(stats))
        try:
            outcomes = list(plugin.scan(scratch, damaged))
        except Exception as error:  # allowed: the index makes a reject of it
            text = public(str(error), scratch, damaged)
            yield Note(
                f"raises {type(error).__name__} for {damage} files: a Reject says what to do"
            )
            if names.within(text):
                yield f"its {type(error).__name__} for {damage} files names a patient or site"
            continue
        for outcome in outcomes:
            if isinstance(outcome, Record) and damage == "empty":
                yield "takes a unit of empty files for a record"
            if isinstance(outcome, Reject):
                yield from _reason(outcome, scratch, damaged, names)
    shutil.rmtree(scratch, ignore_errors=True)


def _half(source: Path, to: Path) -> None:
    """Copy the first half, at most 1 MiB."""
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
        outcomes = list(plugin.assemble(records))
    if opened.read or opened.written:
        yield "opens files of the archive: put the values that it needs into Record.private"
    wrong = {
        type(outcome).__name__ for outcome in outcomes if not isinstance(outcome, Record | Reject)
    }
    if wrong:
        yield f"yields a {wrong.pop()}, neither Record nor Reject"
        return
    if outcomes != list(plugin.assemble(records)):
        yield "gives another outcome the second time"
    if not any(isinstance(outcome, Record) for outcome in outcomes):
        yield "leaves no record"
