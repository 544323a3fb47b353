"""Copies within an archive: links, and files of the same bytes, are one group before training.

An item that names no patient takes that of its copy; so the two never lie on both sides of a split.
Only files of the same sizes are opened: a few blocks of each, and whole where these are the same.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from medcl.archive.scanning import fingerprint
from medcl.io.atomic import write_text
from medcl.plugin import MEMBER, NO_PATIENT, FileStat, Record, file_of

COPY = "copy"
"""The finding of an item whose bytes are those of another of the same patient."""
OTHERS_COPY = "copy-of-another-patient"
"""The same, where another patient is said of each: one of the two is wrong."""

_BLOCK, _READERS, _LOOKED_AT = 4096, 8, 8
_CHUNK = 1 << 20


def grouped(
    records: Sequence[Record], stats: Mapping[str, tuple[FileStat, ...]], root: Path, cache: Path
) -> list[Record]:
    """The records, copies of one another in one group and, as far as is known, of one patient.

    Args:
        records: with the patients that are known from outside.
        stats: record key → its files.
        root: the archive.
        cache: a JSON of what earlier runs read, by the files' sizes and times.
    """
    candidates = _of_one_size(records)
    sizes = defaultdict(list)
    for n, files in candidates.items():
        own = {stat.path: stat.size for stat in stats[records[n].key]}
        total = tuple(sorted(own.get(file, 0) for file in files))
        if sum(total):
            sizes[total].append(n)
    alike = [n for members in sizes.values() if len(members) > 1 for n in members]
    if not alike:
        return list(records)
    known = _read_cache(cache)
    marks = {n: fingerprint(records[n].key, stats[records[n].key]) for n in alike}

    def digested(members: Sequence[int], *, whole: bool) -> dict[int, str]:
        kind = "whole" if whole else "part"
        todo = [n for n in members if f"{kind} {marks[n]}" not in known]
        with ThreadPoolExecutor(_READERS) as pool:
            made = pool.map(lambda n: _digest(root, candidates[n], whole), todo)
            known.update({f"{kind} {marks[n]}": d for n, d in zip(todo, made, strict=True)})
        return {n: known[f"{kind} {marks[n]}"] for n in members}

    parts = _same(digested(alike, whole=False))
    clusters = _same(digested([n for members in parts for n in members], whole=True))
    kept = {f"{kind} {mark}" for kind in ("part", "whole") for mark in marks.values()}
    text = json.dumps({key: known[key] for key in sorted(known.keys() & kept)})
    write_text(cache, text)
    out = list(records)
    for members in clusters:
        for n, record in zip(members, _one_group(root, [out[n] for n in members]), strict=True):
            out[n] = record
    copied = {n for members in clusters for n in members}
    of_file = {file: out[n] for n in sorted(copied) for file in out[n].files}
    return [r if n in copied else _follows(r, of_file) for n, r in enumerate(out)]


def _follows(record: Record, of_file: Mapping[str, Record]) -> Record:
    """A record made of files of a copy too, as a slide's features are: of the same group."""
    other = next((of_file[file] for file in record.files if file in of_file), None)
    if other is None:
        return record
    nameless = NO_PATIENT in record.findings
    known = nameless and NO_PATIENT not in other.findings
    return replace(
        record,
        patient=other.patient if nameless else record.patient,
        site=record.site or (other.site if nameless else None),
        group=record.group or other.group,
        findings=tuple(f for f in record.findings if not (known and f == NO_PATIENT)),
    )


def _of_one_size(records: Sequence[Record]) -> dict[int, list[str]]:
    """Position → its own files, of the records that are whole files."""
    used = Counter(file for record in records for file in {file_of(f) for f in record.files})
    first = Counter(file_of(record.files[0]) for record in records)
    return {
        n: [file for file in record.files if used[file] == 1] or [record.files[0]]
        for n, record in enumerate(records)
        if first[file_of(record.files[0])] == 1 and not any(MEMBER in f for f in record.files)
    }


def _same(digests: Mapping[int, str]) -> list[list[int]]:
    """Positions of the same digest, where there are several; "" is none."""
    held: defaultdict[str, list[int]] = defaultdict(list)
    for n, digest in digests.items():
        held[digest].append(n)
    return [members for digest, members in held.items() if digest and len(members) > 1]


def _digest(root: Path, files: Sequence[str], whole: bool) -> str:
    """Of all bytes, or of blocks at the beginning, middle and end of some files."""
    digest = hashlib.blake2b(digest_size=16)
    try:
        for file in files if whole else files[:_LOOKED_AT]:
            with open(root / file, "rb") as handle:
                if whole:
                    while chunk := handle.read(_CHUNK):
                        digest.update(chunk)
                    continue
                size = handle.seek(0, 2)
                for place in (0, size // 2, max(size - _BLOCK, 0)):
                    handle.seek(place)
                    digest.update(handle.read(_BLOCK))
    except OSError:  # gone since the walk: it will be said when it is prepared
        return ""
    return digest.hexdigest()


def _one_group(root: Path, members: Sequence[Record]) -> list[Record]:
    """Copies with one group, and the patient of the first whose patient is known."""
    order = sorted(
        members,
        key=lambda r: (NO_PATIENT in r.findings, (root / r.files[0]).is_symlink(), r.key),
    )
    leader = order[0]
    group = leader.group or f"copy\0{leader.key}"
    out = []
    for record in members:
        if record is leader:
            out.append(replace(record, group=record.group or group))
            continue
        nameless = NO_PATIENT in record.findings
        other = not nameless and record.patient != leader.patient
        findings = (*record.findings, OTHERS_COPY if other else COPY)
        if nameless and NO_PATIENT not in leader.findings:
            findings = tuple(name for name in findings if name != NO_PATIENT)
        out.append(
            replace(
                record,
                patient=leader.patient if nameless else record.patient,
                site=record.site or (leader.site if nameless else None),
                group=record.group or group,
                findings=findings,
            )
        )
    return out


def _read_cache(path: Path) -> dict[str, str]:
    with suppress(OSError, ValueError):
        held = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(held, dict):
            return held
    return {}
