"""Copies within an archive: links, and files of the same bytes, are one group before training.

An item that names no patient takes that of its copy; so the two never lie on both sides of a split.
Only files of the same sizes are opened: a few blocks of each, and whole where these are the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path

import polars as pl

from medcl.archive.columns import frame
from medcl.archive.records import Records
from medcl.archive.scanning import fingerprint
from medcl.io.atomic import replacing
from medcl.plugin import MEMBER, NO_PATIENT, Record, file_of
from medcl.strings import storable

COPY = "copy"
"""The finding of an item whose bytes are those of another of the same patient."""
OTHERS_COPY = "copy-of-another-patient"
"""The same, where another patient is said of each: one of the two is wrong."""

_BLOCK, _READERS, _LOOKED_AT, _QUEUED = 4096, 8, 8, 4096
_MARK_DIGITS = 32  # of a file's hash of name, size and time
_CHUNK = 1 << 20


def group(records: Records, root: Path, cache: Path) -> None:
    """In place: copies of one another are in one group and, as far as is known, of one patient.

    Args:
        records: with the patients that are known from outside.
        root: the archive.
        cache: a table of what earlier runs read, by the files' sizes and times.
    """
    own_files = _own_files(records)
    alike = _of_one_size(records, own_files)
    if alike.is_empty():
        return
    known = _read_cache(cache)

    def same(members: pl.DataFrame, *, whole: bool) -> pl.DataFrame:
        """Those that share their digest with another; "" is none."""
        of_kind = known.filter(whole=whole).drop("whole")
        found = members.join(of_kind, on="mark", how="left", maintain_order="left")
        todo = found.filter(pl.col("digest").is_null())
        made = _digests(root, (own_files(records[n].files) for n in todo["n"]), whole)
        todo = todo.with_columns(pl.Series("digest", made, pl.String))
        read.append(todo.select("mark", "digest", whole=pl.lit(whole)))
        found = pl.concat([found.drop_nulls("digest"), todo]).sort("n")
        return found.filter(pl.col("digest").ne("") & pl.col("digest").is_duplicated())

    read = [known.join(alike, on="mark", how="semi")]
    copied = same(same(alike, whole=False).drop("digest"), whole=True)
    if not all(made.is_empty() for made in read[1:]):
        with replacing(cache) as temporary:
            pl.concat(read).unique().sort("whole", "mark").write_parquet(temporary)
    if copied.is_empty():
        return
    for (members,) in copied.group_by("digest", maintain_order=True).agg("n").select("n").rows():
        one = _one_group(root, [records[n] for n in members])
        for n, record in zip(members, one, strict=True):
            records[n] = record
    whole = set(copied["n"])
    of_file = {file: n for n in sorted(whole) for file in records[n].files}
    for n, record in enumerate(records):
        leader = next((of_file[file] for file in record.files if file in of_file), None)
        if n not in whole and leader is not None:
            records[n] = _follows(record, records[leader])


def _follows(record: Record, other: Record) -> Record:
    """A record made of files of a copy too, as a slide's features are: of the same group."""
    nameless = NO_PATIENT in record.findings
    known = nameless and NO_PATIENT not in other.findings
    return replace(
        record,
        patient=other.patient if nameless else record.patient,
        site=record.site or (other.site if nameless else None),
        group=record.group or other.group,
        findings=tuple(f for f in record.findings if not (known and f == NO_PATIENT)),
    )


def _own_files(records: Records) -> Callable[[Sequence[str]], list[str]]:
    """A record's files → those that are its alone; none of one that is part of a file."""
    paths = ([file_of(file.path) for file in records.files(n)] for n in range(len(records)))
    rows = ((storable(f), at == 0) for files in paths for at, f in enumerate(dict.fromkeys(files)))
    every = frame(rows, pl.Schema({"file": pl.String(), "first": pl.Boolean()}))
    shared = _repeated(every["file"])
    several = _repeated(every.filter("first")["file"])

    def own(files: Sequence[str]) -> list[str]:
        if storable(file_of(files[0])) in several or any(MEMBER in file for file in files):
            return []
        return [file for file in files if storable(file) not in shared] or [files[0]]

    return own


def _repeated(values: pl.Series) -> set[str]:
    """The values that occur more than once."""
    return set(values.filter(values.is_duplicated()))


def _of_one_size(records: Records, own_files: Callable[[Sequence[str]], list[str]]) -> pl.DataFrame:
    """Position ``n`` and ``mark`` of the records whose files have the sizes of another's."""

    def sizes() -> Iterator[tuple[str | None]]:
        for n in range(len(records)):
            size = {stat.path: stat.size for stat in records.files(n)}
            found = sorted(size[file] for file in own_files(tuple(size)))
            yield (" ".join(map(str, found)) if sum(found) else None,)

    every = frame(sizes(), pl.Schema({"sizes": pl.String()}))["sizes"]
    positions = (every.is_duplicated() & every.is_not_null()).arg_true()
    marks = ((n, fingerprint(records[n].key, records.files(n))[:_MARK_DIGITS]) for n in positions)
    return frame(marks, pl.Schema({"n": pl.Int64(), "mark": pl.String()}))


def _digests(root: Path, files: Iterable[Sequence[str]], whole: bool) -> Iterator[str]:
    with ThreadPoolExecutor(_READERS) as pool:
        waiting = iter(files)
        while some := list(islice(waiting, _QUEUED)):
            yield from pool.map(lambda own: _digest(root, own, whole), some)


def _digest(root: Path, files: Sequence[str], whole: bool) -> str:
    """Of all bytes, or of blocks at the beginning, middle and end of some files."""
    digest = hashlib.blake2b(digest_size=16)
    try:
        for file in files if whole else files[:_LOOKED_AT]:
            with (root / file).open("rb") as handle:
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


_CACHE = pl.Schema([("mark", pl.String), ("digest", pl.String), ("whole", pl.Boolean)])


def _read_cache(path: Path) -> pl.DataFrame:
    with suppress(OSError, pl.exceptions.PolarsError):
        held = pl.read_parquet(path)
        if held.schema == _CACHE:
            return held
    return pl.DataFrame(schema=_CACHE)
