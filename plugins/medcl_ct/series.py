"""Slices from anywhere in an archive → volumes in order, each with what is wrong with it."""

from __future__ import annotations

import hashlib
import posixpath
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from medcl.plugin import MEMBER, Record, Reject, Scalar
from medcl_ct.anatomy import Box, box_of, grouped
from medcl_ct.header import Slice, Stack, from_json
from medcl_ct.stacking import SAME_PLACE, places, regularity


@dataclass(frozen=True)
class _Piece:
    """One slice with what its file said beside its place."""

    slice: Slice
    record: Record


def assemble(records: Sequence[Record]) -> Iterator[Record | Reject]:
    """Join slices into series; items that are whole already are passed on.

    A series is a SeriesInstanceUID of one patient. Where a series mixes kernels, sizes or
    orientations, or shows a place several times (phases, gates, acquisitions), each of them becomes
    an item of its own. Items of one frame of reference that show the same part of the body get the
    same group.
    """
    found: list[tuple[Record, Box | None]] = []
    series: dict[tuple[str, ...], dict[Stack, list[_Piece]]] = defaultdict(dict)
    for record in records:
        if "stack" not in record.private:
            box = record.private.get("box")
            found.append((record, Box.from_json(str(box)) if box else None))
            continue
        stack, slices = from_json(record.private)
        name = (stack.patient, stack.study, stack.series, stack.folder)
        pieces = series[name].setdefault(stack, [])
        pieces += [_Piece(piece, record) for piece in slices]
    for stacks in series.values():
        for outcome in _series(stacks):
            if isinstance(outcome, Reject):
                yield outcome
            else:
                found.append(outcome)
    yield from grouped(found)


def _series(stacks: dict[Stack, list[_Piece]]) -> Iterator[Reject | tuple[Record, Box | None]]:
    """The items of one series."""
    items: list[tuple[Stack, list[_Piece], list[str]]] = []
    for stack in sorted(stacks, key=repr):
        kept, copies = _without_copies(stacks[stack])
        for piece in copies:
            reason = "A slice of the same SOPInstanceUID was found before; the first is kept."
            yield Reject(_shown(piece.slice.file), "duplicate-slice", reason)
        extra = [*(["mixed-series"] if len(stacks) > 1 else [])]
        extra += ["duplicate-slices"] if copies else []
        passes = _passes(stack, kept)
        extra += ["repeated-positions"] if len(passes) > 1 else []
        items += [(stack, one, extra) for one in passes]
    for number, (stack, pieces, extra) in enumerate(items):
        part = f"-{_digest(stack, number, items)}" if len(items) > 1 else ""
        yield _item(stack, pieces, extra, part)


def _without_copies(pieces: Iterable[_Piece]) -> tuple[list[_Piece], list[_Piece]]:
    """Slices whose UID was not seen before (or is empty), and the others; by file name."""
    kept: list[_Piece] = []
    copies: list[_Piece] = []
    seen: set[str] = set()
    for piece in sorted(pieces, key=lambda p: p.slice.file):
        uid = piece.slice.uid
        (copies if uid and uid in seen else kept).append(piece)
        seen.add(uid)
    return kept, copies


def _passes(stack: Stack, pieces: list[_Piece]) -> list[list[_Piece]]:
    """Slices in order; several lists where places repeat: by acquisition, or else by number."""
    if any(piece.slice.position is None for piece in pieces):
        return [sorted(pieces, key=lambda p: _by_number(p.slice))]
    where = places(np.array([p.slice.position for p in pieces]), np.array(stack.orientation))
    order = np.lexsort((np.array([p.slice.instance or 0 for p in pieces]), where))
    ordered = [pieces[i] for i in order]
    at = np.concatenate([[0], np.cumsum(np.diff(where[order]) > SAME_PLACE)])  # place of each
    times = Counter(at.tolist())
    if max(times.values()) == 1:
        return [ordered]
    for split in (_acquisitions(ordered), _turns(at.tolist())):
        if all(max(Counter(at[split == s].tolist()).values()) == 1 for s in np.unique(split)):
            return [[ordered[i] for i in np.flatnonzero(split == s)] for s in np.unique(split)]
    raise AssertionError("every place has a first, a second, … slice")


def _acquisitions(pieces: Sequence[_Piece]) -> np.ndarray:
    return np.array([piece.slice.acquisition or 0 for piece in pieces])


def _turns(at: Sequence[int]) -> np.ndarray:
    """For each slice, how many slices of its place come before it."""
    seen: Counter[int] = Counter()
    turns = []
    for place in at:
        turns.append(seen[place])
        seen[place] += 1
    return np.array(turns)


def _by_number(piece: Slice) -> tuple[float, float, str]:
    last = float("inf")
    return (
        last if piece.location is None else piece.location,
        last if piece.instance is None else piece.instance,
        piece.file,
    )


def _item(
    stack: Stack, pieces: Sequence[_Piece], extra: Sequence[str], part: str
) -> tuple[Record, Box | None]:
    slices = [piece.slice for piece in pieces]
    findings = {name for piece in pieces for name in piece.record.findings} | set(extra)
    thickness = [s.thickness for s in slices]
    known = np.array(thickness, dtype=np.float64) if None not in thickness else None
    spacing, box = 0.0, None
    if "no-position" not in findings:
        positions = np.array([s.position for s in slices], dtype=np.float64)
        orientation = np.array(stack.orientation)
        regular = regularity(positions, orientation, known)
        spacing = regular.spacing
        findings |= set(regular.findings)
        box = box_of(positions, orientation, stack.spacing, stack.shape, known)
    elif len(slices) == 1:
        findings.add("single-slice")
    first = pieces[0].record
    fields: dict[str, Scalar] = {
        **first.fields,
        "thickness": None if known is None else float(np.median(known)),
        "slices": len(slices),
        "rows": stack.shape[0],
        "columns": stack.shape[1],
        "pixel_mm": round(float(np.mean(stack.spacing)), 5),
        "spacing_mm": round(spacing, 4),
    }
    frame = stack.frame or stack.study
    name = stack.series or f"series-{_hash((stack.patient, stack.study))}"
    record = Record(
        f"{_folder(slices)}#{name}{part}",
        tuple(s.file for s in slices),
        stack.patient,
        first.site,
        fields,
        first.labels,
        tuple(sorted(findings)),
        group=f"{stack.patient}\n{frame}" if frame else None,
    )
    return record, box


def _folder(slices: Sequence[Slice]) -> str:
    """Where all of them lie, with a slash at its end; nothing for the archive's own folder."""
    common = posixpath.commonpath([posixpath.dirname(_shown(s.file)) or "." for s in slices])
    return "" if common in ("", ".") else f"{common}/"


def _shown(file: str) -> str:
    return file.replace(MEMBER, "/")


def _digest(
    stack: Stack, number: int, items: Sequence[tuple[Stack, list[_Piece], list[str]]]
) -> str:
    """A short name for one item among those of its series: by what it is, then by its turn."""
    turn = sum(other == stack for other, _, _ in items[:number])
    return _hash((replace(stack, folder=""), turn))


def _hash(what: object) -> str:
    return hashlib.sha256(repr(what).encode("utf-8", "replace")).hexdigest()[:8]
