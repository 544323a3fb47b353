"""Several passes over one part of a body in one series: breath-holds, phases, gates, cine.

Their slices may share places, or lie between each other's, half a step off; ordered by place alone
they become one volume that never was. What tells passes apart are numbers that rise with time. None
of them can be trusted alone: some scanners count every slice as an acquisition of its own, some
count contiguous blocks. So a number parts slices only where what it parts covers the same places,
and only if the parts are as regular as what they came from.
"""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import lgamma, log

import numpy as np
from numpy.typing import NDArray

from medcl_ct.header import Slice
from medcl_ct.stacking import NON_UNIFORM, SAME_PLACE, clusters

Rows = NDArray[np.int64]
Floats = NDArray[np.float64]

_OF_THICKNESS = 0.02  # two slices nearer than this show the same place
_HOLE = 2.5  # steps: what is missing within a pass is a hole up to here, and open space beyond
_IRREGULAR = 0.4  # of neighbouring steps may differ in a part
_FILLED = 0.6
"""Of the places of a part: two numbers that are dealt out by chance leave each half of them."""
_SHREDS = 4  # slices in a stretch of even spacing, at least, for a series that lost some
_BY_CHANCE = 1e-4
"""Numbers without sense look like passes this often, at most, where slices are parted by them."""
_FEWEST = 3  # slices in a part, at least, for a doubt, or for a stretch of time or phase

_APART = 4.0  # times: gaps between passes are longer than those within, where a label has both


def passes(
    slices: Sequence[Slice], where: Floats, *, by_turns: bool = False
) -> tuple[list[list[int]], set[str]]:
    """Part slices into passes, each in the order of its places.

    Args:
        slices: of one stack, all with a position.
        where: (N,) their places along the normal, in mm.
        by_turns: whether slices of one pass may be taken out of their order in space: then numbers
            that count slices or time part only slices that share places.

    Returns:
        positions in ``slices``, by pass; and of the findings ``repeated-positions`` (there is more
        than one pass) and ``ambiguous-passes`` (which slice belongs to which is not certain).
    """
    thick = [s.thickness for s in slices if s.thickness]
    same = max(SAME_PLACE, _OF_THICKNESS * min(thick, default=0.0))
    order = np.argsort(where, kind="stable")
    counting = not by_turns or _repeats(where[order], same)
    labels = list(_labels(slices, counting=counting))
    findings: set[str] = set()
    parts: list[Rows] = []
    for rows in _parted(order, where, labels, same):
        if _repeats(where[rows], same):
            turns, certain = _turns(slices, where, rows, same)
            findings |= set() if certain else {"ambiguous-passes"}
            parts += turns
        else:
            findings |= _doubts(rows, slices, where, labels, same) if counting else set()
            parts.append(rows)
    if len(parts) > 1:
        findings.add("repeated-positions")
    return [part.tolist() for part in parts], findings


def _labels(slices: Sequence[Slice], *, counting: bool) -> Iterator[Rows]:
    """What may tell passes apart, the surest first: a code for each slice (N,), rising."""
    phase, time = [s.phase for s in slices], [s.time for s in slices]
    phases, instance = _stretches(phase), [s.instance for s in slices]
    counted = (
        _values([s.acquisition for s in slices]),
        _stretches(time),
        None if _recurring(instance) else _values(instance),
        _values(time),
    )
    told = (_values(phase) if phases is None else phases, *(counted if counting else ()))
    for label in (*told, _values([posixpath.dirname(s.file) for s in slices])):
        if label is not None:
            yield label


def _stretches(found: Sequence[float | None]) -> Rows | None:
    """Numbers as the stretches (N,) that they lie in, where long gaps are between them.

    So a trigger time that varies a little within a phase is one phase, and one breath-hold is one
    stretch of time. Of all gaps that leave no stretch too short for a pass these stand out most;
    None where there are none.
    """
    if None in found or len(set(found)) < 4:
        return None
    numbers = np.array(found, dtype=np.float64)
    gaps = np.sort(np.diff(np.unique(numbers)))
    ratio = gaps[1:] / gaps[:-1]
    for n in np.argsort(-ratio, kind="stable"):  # two numbers may by chance be very near
        if ratio[n] < _APART:
            return None
        codes = clusters(numbers[:, None], float(gaps[1 + n]) * (1 - 1e-9))
        if np.bincount(codes).min() >= _FEWEST:
            return codes
    return None


def _values(found: Sequence[float | str | None]) -> NDArray[np.int64] | None:
    """A label as codes that rise with it (N,); None where it is not told of every slice."""
    if None in found or len(set(found)) < 2:
        return None
    return np.unique(np.array(found), return_inverse=True)[1].astype(np.int64)


def _parted(
    rows: Rows, where: Floats, labels: Sequence[NDArray[np.int64]], same: float
) -> Iterator[Rows]:
    """Cut rows, in the order of their places, by the first label that cuts them for certain."""
    for label in labels:
        parts = chained(rows, where, label, same)
        if (
            len(parts) > 1
            and _sensible(parts, rows, where, same)
            and (_repeats(where[rows], same) or not _by_chance(rows, where, label, same))
        ):
            for part in parts:
                yield from _parted(part, where, labels, same)
            return
    yield rows


def chained(rows: Rows, where: Floats, label: NDArray[np.int64], same: float) -> list[Rows]:
    """Groups of one label in its order, joined to runs until they turn back, and runs to parts
    until they cover the same places."""
    groups = _groups(rows, where, label)
    if len(groups) == 1 or _disjoint(groups, where, same):
        return [rows]
    parts: list[Rows] = []
    for run in _runs(groups, where, same):
        run = run[np.argsort(where[run], kind="stable")]
        if parts and not _overlap(where[parts[-1]], where[run], same):
            both = np.concatenate([parts[-1], run])
            parts[-1] = both[np.argsort(where[both], kind="stable")]
        else:
            parts.append(run)
    return parts


def _groups(rows: Rows, where: Floats, label: NDArray[np.int64]) -> list[Rows]:
    """The rows of each value of a label, in its order; in that of their places within."""
    order = rows[np.lexsort((where[rows], label[rows]))]
    return np.split(order, 1 + np.flatnonzero(np.diff(label[order])))


def _by_chance(rows: Rows, where: Floats, label: NDArray[np.int64], same: float) -> bool:
    """Whether numbers of no sense, one for each slice, may well make as few runs as these do.

    Of n! orders of slices at most r^n are made of r rising runs, and 2^r times as many of runs that
    rise or fall.
    """
    groups = _groups(rows, where, label)
    if len(groups) < len(rows):
        return False
    runs, count = sum(1 for _ in _runs(groups, where, same)), len(rows)
    return runs * log(2) + count * log(runs) - lgamma(count + 1) > log(_BY_CHANCE)


def _runs(groups: Sequence[Rows], where: Floats, same: float) -> Iterator[Rows]:
    """Groups that follow each other in one direction."""
    runs, forward = [[groups[0]]], 0.0
    for before, group in pairwise(groups):
        up = where[group[0]] - where[before[-1]] > same
        down = where[before[0]] - where[group[-1]] > same
        way = float(up) - float(down)
        if way == 0.0 or way == -forward:
            runs.append([group])
            forward = 0.0
        else:
            runs[-1].append(group)
            forward = way
    for run, after in pairwise(runs):
        if _turned_early(run, after, where):
            after.insert(0, run.pop())
    for run in runs:
        yield np.concatenate(run)


def _turned_early(run: Sequence[Rows], after: Sequence[Rows], where: Floats) -> bool:
    """Whether the group at which the way turns begins the next run, by its step or its length."""
    if len(run) < 3 or len(after) < 2:
        return False
    here = np.array([where[group[0]] for group in (*run[-3:], *after[:2])])
    steps = np.abs(np.diff(here))
    if steps.min() <= 0.0 or _differing(steps[3:], steps[2:3]):
        return False
    return bool(_differing(steps[1:2], steps[:1])) or len(run) == len(after) + 2


def _disjoint(groups: Sequence[Rows], where: Floats, same: float) -> bool:
    """Whether each group, in order of place within itself, lies beyond the one before it."""
    low = np.array([where[group[0]] for group in groups])
    high = np.array([where[group[-1]] for group in groups])
    return bool((low[1:] - high[:-1] > same).all() or (low[:-1] - high[1:] > same).all())


def _overlap(there: Floats, new: Floats, same: float) -> bool:
    """Whether two sets of places, in order, cover the same part of a line, but for open space."""
    both = ((there, new), (new, there))
    return any(_inside(points, _covered(of), same) for of, points in both)


def _covered(places: Floats) -> list[tuple[float, float]]:
    """From and to, in mm, of stretches without a hole that is larger than some lost slices."""
    steps = np.diff(places)
    far = steps > _HOLE * np.median(steps) if len(steps) else np.zeros(0, dtype=bool)
    cuts = 1 + np.flatnonzero(far)
    return [(float(part[0]), float(part[-1])) for part in np.split(places, cuts)]


def _inside(points: Floats, covered: Sequence[tuple[float, float]], same: float) -> bool:
    return any(bool(((points >= a - same) & (points <= b + same)).any()) for a, b in covered)


def _sensible(parts: Sequence[Rows], rows: Rows, where: Floats, same: float) -> bool:
    """Whether slices are better off apart."""
    if 2 * len(parts) > len(rows):
        return False
    apart = [where[part] for part in parts]
    if len(parts) > 2 * _stacked(apart):
        return False
    bad, pairs = _irregular(apart, same)
    few = bad <= _IRREGULAR * pairs or _filled(apart, same) >= _FILLED
    if _repeats(where[rows], same):
        return few
    smallest = min(map(len, parts))
    if 3 * len(parts) > len(rows):
        return False
    return (smallest >= 2 and bad <= _irregular([where[rows]], same)[0]) or (smallest > 2 and few)


def _stacked(parts: Sequence[Floats]) -> int:
    """How many parts lie over one place, at most: passes do, and what numbers cut up does not."""
    low, high = (np.sort([part[end] for part in parts]) for end in (0, -1))
    return int((1 + np.arange(len(low)) - np.searchsorted(high, low)).max())


def _irregular(parts: Sequence[Floats], same: float) -> tuple[int, int]:
    """How many steps differ from the one before, or from those of other parts; and of how many."""
    steps = [d[d > same] for part in parts for d in (np.diff(part),)]
    bad = sum(_differing(one[1:], one[:-1]) for one in steps)
    typical = np.array([np.median(one) for one in steps if len(one)])
    if len(typical):
        bad += _differing(typical, np.median(typical))
    return bad, sum(max(len(one) - 1, 0) for one in steps) + len(typical) - 1


def _filled(parts: Sequence[Floats], same: float) -> float:
    """The share of places of an even grid that the emptiest part has; 0 if it lies on no grid."""
    steps = [d[d > same] for part in parts for d in (np.diff(part),)]
    every = np.concatenate(steps)
    if not len(every):
        return 0.0
    times = every / np.median(every)
    if (np.abs(times - np.rint(times)) > NON_UNIFORM).any():
        return 0.0
    return min((len(one) + 1) / (one.sum() / np.median(every) + 1) for one in steps)


def _differing(a: Floats, b: Floats | np.floating) -> int:
    return int((np.abs(a - b) > NON_UNIFORM * np.minimum(a, b)).sum())


def _repeats(places: Floats, same: float) -> bool:
    """Whether places, in order, show one several times."""
    return bool((np.diff(places) <= same).any())


def _turns(
    slices: Sequence[Slice], where: Floats, rows: Rows, same: float
) -> tuple[list[Rows], bool]:
    """The first, second, … slice of each place; and whether that is certain to be one pass each."""
    places = np.split(rows, 1 + np.flatnonzero(np.diff(where[rows]) > same))
    turns: list[list[int]] = [[] for _ in range(max(map(len, places)))]
    ordered = True
    numbers = [slices[n].instance for n in rows]
    counted = len(set(numbers)) == len(numbers)  # or else they begin anew, nobody knows where
    for place in places:
        keys = [(*_time_of(slices[n], counted=counted), n) for n in place.tolist()]
        ordered &= len({key[:-1] for key in keys}) == len(keys)
        for turn, key in zip(
            turns, sorted(keys, key=lambda k: (k[:-1], slices[k[-1]].file)), strict=False
        ):
            turn.append(key[-1])
    even = len({len(place) for place in places}) == 1
    return [np.array(turn) for turn in turns], ordered and even


def _time_of(one: Slice, *, counted: bool) -> tuple[float, ...]:
    values = (one.phase, one.acquisition, one.instance if counted else None, one.time)
    return tuple(np.inf if value is None else value for value in values)


def _doubts(
    rows: Rows,
    slices: Sequence[Slice],
    where: Floats,
    labels: Sequence[NDArray[np.int64]],
    same: float,
) -> set[str]:
    """Whether slices that were left together look as if they were of several passes."""
    for label in labels:
        parts = chained(rows, where, label, same)
        many = len(parts) > 1 and min(map(len, parts)) >= _FEWEST
        if many and _sensible(parts, rows, where, same):  # but for chance: see `_by_chance`
            return {"ambiguous-passes"}
    if _begins_anew([slices[n].instance for n in rows]):
        return {"ambiguous-passes"}
    if len(rows) < 2 * _SHREDS:
        return set()
    steps = np.diff(where[rows])
    if _SHREDS * _differing(steps[1:], steps[:-1]) > 2 * len(rows):  # two for each stretch
        return {"ambiguous-passes"}
    for numbers in ([one.phase for one in slices], [one.acquisition for one in slices]):
        said = _values(numbers)  # nobody writes them but to part slices
        if said is None or len(set(said[rows].tolist())) == len(rows):
            continue  # a number for each slice counts slices
        sizes = sorted(len(part) for part in chained(rows, where, said, same))
        if 2 * len(sizes) <= len(rows) and len(sizes) > 1 and sizes[-2] > 2:
            return {"ambiguous-passes"}
    return set()


def _recurring(numbers: Sequence[float | None]) -> bool:
    """Whether most of several numbers occur again: they begin anew somewhere."""
    counts = Counter(numbers)
    return len(counts) >= _FEWEST and 2 * sum(n > 1 for n in counts.values()) >= len(counts)


def _begins_anew(numbers: Sequence[float | None]) -> bool:
    """Whether numbers of slices, in the order of their places, begin anew among each other.

    They may do so with every block of a body: then they rise or fall along each block.
    """
    if None in numbers or not _recurring(numbers):
        return False
    ways = np.sign(np.diff(np.array(numbers, dtype=np.float64)))
    turns = 2 * (max(Counter(numbers).values()) - 1)
    return bool((ways == 0).any() or np.count_nonzero(np.diff(ways)) > turns)
