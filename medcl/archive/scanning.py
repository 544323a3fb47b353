"""Scan one unit in a worker: everything a plugin yields or raises becomes records and rejects."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path, PurePosixPath
from typing import Any

from medcl.io import storage
from medcl.io.failure import Failure
from medcl.io.room import is_full
from medcl.plugin import MEMBER, FileStat, Record, Reject, Scalar, Unit, file_of

CORE = ("id", "patient", "site", "group", "fingerprint", "findings")
LABEL = "label."
READER = "reader"
"""The key of the reader settings among the fields of ``prepare``."""
KEEP = "keep"
"""Column of a curated index: the parts of an item that are kept (`medcl.curate.curate`)."""
Scan = Callable[[Path, Unit], Iterable[Record | Reject]]


@dataclass(frozen=True)
class Scanned:
    """The result of a unit. ``details`` (reject key → traceback) stay in the private folder."""

    key: str
    fingerprint: str
    stats: tuple[FileStat, ...] = ()
    records: tuple[Record, ...] = ()
    rejects: tuple[Reject, ...] = ()
    details: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """One line."""
        plain = vars(self) | {  # dataclasses.asdict copies all values, one by one
            name: [_plainly(part) for part in getattr(self, name)]
            for name in ("stats", "records", "rejects")
        }
        return json.dumps(plain, separators=(",", ":"), default=dict)

    @classmethod
    def from_json(cls, line: str | bytes) -> Scanned:
        """The inverse of `to_json`."""
        raw = json.loads(line)
        return cls(
            raw["key"],
            raw["fingerprint"],
            tuple(FileStat(**stat) for stat in raw["stats"]),
            tuple(map(_record, raw["records"])),
            tuple(Reject(**reject) for reject in raw["rejects"]),
            raw["details"],
        )


def _record(raw: dict[str, Any]) -> Record:
    return Record(**raw | {name: tuple(raw[name]) for name in ("files", "findings")})


def _plainly(part: Any) -> dict[str, Any]:
    return {name: getattr(part, name) for name in _NAMES[type(part)]}


_NAMES = {kind: tuple(each.name for each in fields(kind)) for kind in (FileStat, Record, Reject)}


def fingerprint(key: str, files: Iterable[FileStat]) -> str:
    """Changes when a file is added, removed, renamed, resized or touched."""
    parts = [key, *sorted(f"{file.path}\0{file.size}\0{file.mtime_ns}" for file in files)]
    return hashlib.sha256("\0\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


def scan_unit(scan: Scan, root: Path, unit: Unit) -> Scanned:
    """Run a plugin's scan on a unit. Errors of the plugin or the files never propagate.

    A scan that raises is incomplete: its records are dropped, and the unit is a reject. On object
    storage a unit of which nothing but rejects came is downloaded and scanned again: its reader may
    need a file of this machine.

    Raises:
        UsageError: if the storage cannot be read: that is no property of the unit.
    """
    scanned = _scan_unit(scan, root, unit)
    if not isinstance(root, storage.RemotePath):
        return scanned
    paths = [file.path for file in unit.files]
    try:
        storage.check()
        if scanned.records or not scanned.rejects:
            return scanned
        for path in paths:
            os.fspath(root / path)
        return _scan_unit(scan, Path(str(root)), unit)
    finally:
        storage.release(root, paths)


def _scan_unit(scan: Scan, root: Path, unit: Unit) -> Scanned:
    records: list[Record] = []
    rejects: list[Reject] = []
    details: dict[str, str] = {}
    try:
        for outcome in scan(root, unit):
            valid = checked(outcome, root, unit)
            (records if isinstance(valid, Record) else rejects).append(valid)  # type: ignore[arg-type]
    except (Exception, SystemExit) as error:
        if is_full(error):  # of the disk that archives are unpacked to: not this unit's fault
            raise
        failure = Failure.of(error)
        code = "out-of-memory" if isinstance(error, MemoryError) else "unreadable"
        records = []
        rejects.append(Reject(unit.key, code, public(failure.reason, root, unit)))
        details[unit.key] = failure.detail
    return replace(_outline(unit), records=tuple(records), rejects=tuple(rejects), details=details)


def died(unit: Unit, failure: Failure) -> Scanned:
    """The result of a unit whose scan crashed its process."""
    reject = Reject(unit.key, "crashed", failure.reason)
    return replace(_outline(unit), rejects=(reject,), details={unit.key: failure.detail})


def _outline(unit: Unit) -> Scanned:
    return Scanned(unit.key, fingerprint(unit.key, unit.files), unit.files)


def checked(outcome: object, root: Path, unit: Unit) -> Record | Reject:
    """The plugin's record or reject in plain types, or a reject that names the broken contract."""
    if isinstance(outcome, Reject):
        return replace(outcome, reason=public(outcome.reason, root, unit))
    if not isinstance(outcome, Record):
        return _bad(unit.key, f"the plugin's scan yielded a {type(outcome).__name__}")
    if not outcome.key:
        return _bad(unit.key, "its key is empty")
    if not outcome.patient or not str(outcome.patient).strip():
        reason = "It names no patient; give patients with --patient-from or --table."
        return Reject(outcome.key, "no-patient", reason)
    foreign = {file_of(path) for path in outcome.files} - {file.path for file in unit.files}
    if foreign or not outcome.files:
        return _bad(outcome.key, "its files are not among those of its unit")
    for name in outcome.fields:
        if name in (*CORE, KEEP, READER) or name.startswith(LABEL):
            return _bad(outcome.key, f"its field '{name}' has a name that the index uses itself")
    try:
        fields = {name: _plain(value) for name, value in outcome.fields.items()}
        labels = {name: _plain(value) for name, value in outcome.labels.items()}
    except TypeError as error:
        return _bad(outcome.key, f"a field or label is a {error}, not a text, number or flag")
    findings = tuple(public(text, root, unit) for text in outcome.findings)
    return replace(
        outcome,
        files=tuple(outcome.files),
        patient=str(outcome.patient),
        site=None if outcome.site is None else str(outcome.site),
        group=None if outcome.group is None else str(outcome.group),
        fields=fields,
        labels=labels,
        findings=findings,
    )


def _bad(key: str, problem: str) -> Reject:
    return Reject(key, "bad-record", f"The plugin broke its contract: {problem}.")


def _plain(value: Any) -> Scalar:
    """A Python scalar, as the journal returns it; NumPy scalars are unwrapped."""
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        value = value.item()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _utf8(str.__str__(value))
    for kind in (int, float):
        if isinstance(value, kind):
            return kind(value)
    raise TypeError(type(value).__name__)


def _utf8(text: str) -> str:
    """Replace lone surrogates of broken headers, which Parquet cannot hold."""
    return text.encode("utf-8", "replace").decode()


def public(text: str, root: Path, unit: Unit) -> str:
    """A text for display: one line, without the archive's path or the names of its files.

    Names of folders and files are often names or numbers of patients. They are hidden as whole
    words of any length and case: hiding too much is safer than showing a name.
    """
    names = {str(root), str(root.resolve())}
    for path in (PurePosixPath(part) for file in unit.files for part in file.path.split(MEMBER)):
        names |= {str(path), path.name, str(path.with_suffix(""))}
        names |= {*path.parent.parts, path.stem}
    lower = text.lower()
    present = sorted((n for n in names if n.lower() in lower), key=len, reverse=True)
    present = [name for name in present if any(map(str.isalnum, name))]
    pattern = "|".join(map(re.escape, present))
    whole = rf"(?<![^\W_])(?:{pattern})(?![^\W_])"  # "_" separates words
    hidden = re.sub(whole, "…", text, flags=re.IGNORECASE) if present else text
    return _utf8(" ".join(hidden.split()))
