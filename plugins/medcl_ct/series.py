"""Slices from anywhere in an archive → volumes in order, each with what is wrong with it."""

from __future__ import annotations

import hashlib
import posixpath
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from medcl.plugin import MEMBER, Record, Reject, Scalar
from medcl_ct.anatomy import Box, box_of, grouped
from medcl_ct.copies import copies
from medcl_ct.drawn import Owner, joined
from medcl_ct.header import Slice, Stack, from_json
from medcl_ct.passes import passes
from medcl_ct.people import people
from medcl_ct.stacking import SAME_VIEW, clusters, places, regularity
from medcl_ct.units import VOLUMES, stem

_NO_SPACING = (0.0, 0.0)
_COPY = "A copy of a slice that is there: same SOPInstanceUID, place and pixels, or a damaged one."


@dataclass(frozen=True)
class _Piece:
    """One slice with what its file said beside its place."""

    slice: Slice
    record: Record


def assemble(records: Sequence[Record]) -> Iterator[Record | Reject]:
    """Join slices into series; items that are whole already are passed on.

    A series is a SeriesInstanceUID of one patient. Where a series mixes kernels, sizes, echoes or
    orientations, or holds several passes (`medcl_ct.passes`), each of them becomes an item of its
    own. Items of one frame of reference that show the same part of the body get the
    same group.
    """
    found: list[tuple[Record, Box | None]] = []
    owners: dict[str, Owner] = {}
    drawings: list[Record] = []
    series: dict[tuple[str, ...], dict[Stack, list[_Piece]]] = defaultdict(dict)
    for record in _named(records):
        if "drawn" in record.private:
            drawings.append(record)
            continue
        if "stack" not in record.private:
            if "series" in record.private:  # a volume in one file
                uid, frame = (str(record.private[name]) for name in ("series", "frame"))
                uids = frozenset([str(record.private["uid"])])
                owners[record.key] = Owner(record.patient, uid, frame, uids)
            placed = record.private.get("box")
            found.append((record, Box.from_json(str(placed)) if placed else None))
            continue
        stack, slices = from_json(record.private)
        name = (stack.patient, stack.study, stack.series, stack.folder)
        pieces = series[name].setdefault(stack, [])
        pieces += [_Piece(piece, record) for piece in slices]
    patients: dict[str, set[str]] = defaultdict(set)
    for patient, _, uid, _ in series:
        patients[uid].add(patient)
    for (_, _, uid, _), stacks in series.items():
        shared = bool(uid) and len(patients[uid]) > 1
        for outcome in _series(stacks, {"shared-series"} if shared else set()):
            if isinstance(outcome, Reject):
                yield outcome
                continue
            record, box, owner = outcome
            found.append((record, box))
            owners[record.key] = owner
    yield from joined(_doubted(list(grouped(found))), owners, drawings)


def _doubted(records: Sequence[Record]) -> list[Record]:
    """Records, with a finding where their patient has one sex here and another there."""
    sexes: dict[str, set[Scalar]] = defaultdict(set)
    for record in records:
        sexes[record.patient].add(record.labels.get("sex"))
    several = {patient for patient, found in sexes.items() if {"F", "M"} <= found}
    return [
        replace(record, findings=tuple(sorted({*record.findings, "two-sexes"})))
        if record.patient in several
        else record
        for record in records
    ]


def _named(records: Sequence[Record]) -> Iterator[Record]:
    """Records, where those of volume files have the patients that all their paths together say."""
    volumes = {r.key: stem(r.key) for r in records if r.key.lower().endswith(VOLUMES)}
    known = people(list(volumes.values()))
    for record in records:
        if record.key in volumes:
            patient, findings = known[volumes[record.key]]
            yield replace(record, patient=patient, findings=(*record.findings, *findings))
        else:
            yield record


def _series(
    stacks: dict[Stack, list[_Piece]], known: set[str]
) -> Iterator[Reject | tuple[Record, Box | None, Owner]]:
    """The items of one series, of which some findings are known."""
    items: list[tuple[Stack, list[_Piece], set[str]]] = []
    stacks = _joined(stacks)
    for stack in sorted(stacks, key=repr):
        pieces = sorted(stacks[stack], key=lambda p: p.slice.file)
        out, extra = copies([piece.slice for piece in pieces])
        for n in sorted(out):
            yield Reject(_shown(pieces[n].slice.file), "duplicate-slice", _COPY)
        extra |= known | ({"mixed-series"} if len(stacks) > 1 else set())
        found, noticed = _passes(stack, [p for n, p in enumerate(pieces) if n not in out])
        items += [(stack, one, extra | noticed) for one in found]
    for number, (stack, pieces, extra) in enumerate(items):
        part = f"-{_digest(stack, number, items)}" if len(items) > 1 or known else ""
        uids = frozenset(piece.slice.uid for piece in pieces)
        owner = Owner(stack.patient, stack.series, stack.frame, uids)
        yield *_item(stack, pieces, extra, part), owner


def _joined(stacks: dict[Stack, list[_Piece]]) -> dict[Stack, list[_Piece]]:
    """Stacks whose orientation and pixel size differ by less than matters are one, the mean."""
    alike: dict[Stack, list[Stack]] = defaultdict(list)
    for stack in sorted(stacks, key=repr):
        alike[replace(stack, orientation=stack.orientation[:0], spacing=_NO_SPACING)].append(stack)
    joined: dict[Stack, list[_Piece]] = {}
    for plain, members in alike.items():
        for placed in (True, False):
            some = [stack for stack in members if bool(stack.orientation) == placed]
            if not some:
                continue
            values = np.array(
                [(*s.orientation, *np.log(np.maximum(s.spacing, 1e-9))) for s in some]
            )
            codes = clusters(values, SAME_VIEW)
            for code in np.unique(codes):
                here = [stack for stack, c in zip(some, codes, strict=True) if c == code]
                pieces = [piece for stack in here for piece in stacks[stack]]
                counts = [len(stacks[stack]) for stack in here]
                mean = here[0]
                if len(here) > 1:
                    directions = np.average([s.orientation for s in here], axis=0, weights=counts)
                    spacing = np.average([s.spacing for s in here], axis=0, weights=counts)
                    mean = replace(
                        plain,
                        orientation=tuple(directions.tolist()),
                        spacing=(float(spacing[0]), float(spacing[1])),
                    )
                joined[mean] = pieces
    return joined


def _passes(stack: Stack, pieces: list[_Piece]) -> tuple[list[list[_Piece]], set[str]]:
    """Slices in order; several lists where they are of several passes; and what is said of it."""
    if any(piece.slice.position is None for piece in pieces):
        return [sorted(pieces, key=lambda p: _by_number(p.slice))], set()
    where = places(np.array([p.slice.position for p in pieces]), np.array(stack.orientation))
    # The slices of MR are taken by turns, every second or fourth: their numbers part nothing.
    by_turns = stack.modality == "mr"
    found, noticed = passes([piece.slice for piece in pieces], where, by_turns=by_turns)
    return [[pieces[n] for n in one] for one in found], noticed


def _by_number(piece: Slice) -> tuple[float, float, str]:
    last = float("inf")
    return (
        last if piece.location is None else piece.location,
        last if piece.instance is None else piece.instance,
        piece.file,
    )


def _item(
    stack: Stack, pieces: Sequence[_Piece], extra: set[str], part: str
) -> tuple[Record, Box | None]:
    slices = [piece.slice for piece in pieces]
    findings = {name for piece in pieces for name in piece.record.findings} | extra
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
        "mask": False,
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
    stack: Stack, number: int, items: Sequence[tuple[Stack, list[_Piece], set[str]]]
) -> str:
    """A short name for one item among those of its series: by what it is, then by its turn."""
    turn = sum(other == stack for other, _, _ in items[:number])
    return _hash((replace(stack, folder=""), turn))


def _hash(what: object) -> str:
    return hashlib.sha256(repr(what).encode("utf-8", "replace")).hexdigest()[:8]
