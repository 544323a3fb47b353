"""Near-duplicates among millions of 64-bit codes without comparing all pairs.

Multi-index hashing (Norouzi 2012, doi 10.1109/CVPR.2012.6248043): of two codes that differ in at
most r bits, at least one of four 16-bit parts differs in at most r // 4 bits. So each code is
looked up in four tables, under its own part and those within r // 4 bits of it. The search is exact
and takes about linear time.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import combinations

_PARTS, _BITS = 4, 16


class Codes:
    """The codes added so far, and the search for those within a radius of another."""

    def __init__(self, radius: int) -> None:
        self._radius = radius
        self._codes: list[int] = []
        self._tables: list[dict[int, list[int]]] = [defaultdict(list) for _ in range(_PARTS)]
        self._masks = _masks(min(radius // _PARTS, _BITS))

    def __len__(self) -> int:
        return len(self._codes)

    def add(self, code: int) -> int:
        """Add a code; returns its number."""
        number = len(self._codes)
        self._codes.append(code)
        for table, part in zip(self._tables, _parts(code), strict=True):
            table[part].append(number)
        return number

    def near(self, code: int) -> list[tuple[int, int]]:
        """(number, Hamming distance) of all codes within the radius, the nearest first."""
        candidates: set[int] = set()
        for table, part in zip(self._tables, _parts(code), strict=True):
            for mask in self._masks:
                numbers = table.get(part ^ mask)
                if numbers:
                    candidates.update(numbers)
        differ = ((number, (self._codes[number] ^ code).bit_count()) for number in candidates)
        return sorted(
            ((n, d) for n, d in differ if d <= self._radius), key=lambda pair: (pair[1], pair[0])
        )


def _parts(code: int) -> list[int]:
    return [(code >> (_BITS * n)) & 0xFFFF for n in range(_PARTS)]


def _masks(radius: int) -> list[int]:
    """All 16-bit words with at most ``radius`` ones."""
    return [
        sum(1 << bit for bit in bits)
        for ones in range(radius + 1)
        for bits in combinations(range(_BITS), ones)
    ]
