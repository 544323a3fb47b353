"""Which items show the same part of one body: two kernels, two phases, a reformatted series."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from medcl.plugin import Record
from medcl_ct.stacking import normal

SHARED = 0.5  # of the smaller box


@dataclass(frozen=True)
class Box:
    """An axis-aligned box in the scanner's space, in mm."""

    low: NDArray[np.float64]  # (3,)
    high: NDArray[np.float64]  # (3,)

    def to_json(self) -> str:
        """As `medcl.plugin.Record.private` holds it."""
        return json.dumps([self.low.tolist(), self.high.tolist()])

    @classmethod
    def from_json(cls, text: str) -> Box:
        """The inverse of `to_json`."""
        return cls(*map(np.array, json.loads(text)))

    @property
    def volume(self) -> float:
        """In mm³."""
        return float(np.prod(self.high - self.low))

    def shares(self, other: Box) -> float:
        """The part of the smaller box that lies in both."""
        inner = np.minimum(self.high, other.high) - np.maximum(self.low, other.low)
        return float(np.prod(np.maximum(inner, 0))) / max(min(self.volume, other.volume), 1e-9)


def box_of(
    positions: NDArray[np.float64],
    orientation: NDArray[np.float64],
    spacing: tuple[float, float],
    shape: tuple[int, int],
    thickness: NDArray[np.float64] | None,
) -> Box:
    """The box around slices: positions (N, 3) of first pixels, spacing and shape (row, column)."""
    across = orientation[:3] * spacing[1] * shape[1]
    down = orientation[3:] * spacing[0] * shape[0]
    half = 0.5 * normal(orientation) * (1.0 if thickness is None else max(thickness.max(), 1.0))
    corners = [
        positions + a * across + b * down + c * half
        for a in (0, 1)
        for b in (0, 1)
        for c in (-1, 1)
    ]
    points = np.concatenate(corners)
    return Box(points.min(axis=0), points.max(axis=0))


def grouped(found: Sequence[tuple[Record, Box | None]]) -> Iterator[Record]:
    """Make each record's group, a frame of reference so far, one of a part of the body in it."""
    frames: dict[str, list[tuple[Record, Box]]] = defaultdict(list)
    for record, box in found:
        if box is None or record.group is None:
            yield replace(record, group=None)
        else:
            frames[record.group].append((record, box))
    for frame, members in frames.items():
        members.sort(key=lambda member: member[0].key)
        root = list(range(len(members)))
        for i, (_, box) in enumerate(members):
            for j in range(i):
                if root[i] != root[j] and box.shares(members[j][1]) >= SHARED:
                    old, new = max(root[i], root[j]), min(root[i], root[j])
                    root = [new if r == old else r for r in root]
        for (record, _), r in zip(members, root, strict=True):
            yield replace(record, group=f"{frame}\n{members[r][0].key}")
