"""Which slices of a stack are copies of one another."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence

import numpy as np

from medcl_ct.header import Slice
from medcl_ct.stacking import SAME_PLACE, clusters


def copies(slices: Sequence[Slice]) -> tuple[set[int], set[str]]:
    """Slices that are there several times: what to leave out, and whether some of it differs.

    A copy has the same SOPInstanceUID, the same place and the same pixels. Some anonymisers write
    one UID into all slices, so that the UID by itself says nothing. Where it does name one place
    only, and the numbers of its slices are the same too, they are one slice of which a copy was
    damaged: the fullest is kept.

    Returns:
        positions in ``slices``; and of the findings ``duplicate-slices``, ``copies-differ`` (in
        pixels, from what is kept) and ``repeated-uid`` (one UID for several places).
    """
    by_uid: dict[str, list[int]] = defaultdict(list)
    for n in sorted(range(len(slices)), key=lambda n: slices[n].file):
        if slices[n].uid:
            by_uid[slices[n].uid].append(n)
    out: set[int] = set()
    findings: set[str] = set()
    for named in by_uid.values():
        if len(named) < 2:
            continue
        places = _by_place(slices, named)
        findings |= {"repeated-uid"} if len(places) > 1 else set()
        for here in places:
            alone = len(places) == 1 and len({_numbers(slices[n]) for n in here}) == 1
            for same in [here] if alone else _by_pixels(slices, here):
                out |= set(sorted(same, key=lambda n: _worth(slices[n]))[1:])
                if len({slices[n].pixels for n in same}) > 1:
                    findings.add("copies-differ")
    return out, findings | ({"duplicate-slices"} if out else set())


def _by_place(slices: Sequence[Slice], chosen: Sequence[int]) -> list[list[int]]:
    found: dict[Hashable, list[int]] = defaultdict(list)
    positions = [slices[n].position for n in chosen]
    if None in positions:
        for n in chosen:
            found[slices[n].location, slices[n].instance].append(n)
    else:
        for n, place in zip(chosen, clusters(np.array(positions), SAME_PLACE), strict=True):
            found[int(place)].append(n)
    return list(found.values())


def _by_pixels(slices: Sequence[Slice], chosen: Sequence[int]) -> list[list[int]]:
    """By their checksum; where all that it saw is alike, by their numbers and size too."""
    found: dict[Hashable, list[int]] = defaultdict(list)
    for n in chosen:
        one = slices[n]
        found[one.pixels or (_numbers(one), one.size)].append(n)
    return list(found.values())


def _numbers(one: Slice) -> tuple[float | None, ...]:
    return one.instance, one.acquisition, one.phase, one.time


def _worth(one: Slice) -> tuple[bool, int, str]:
    """Lower for what shows something, and is longer."""
    return one.pixels == 0, -one.size, one.file
