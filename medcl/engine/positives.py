"""Positive partners: samples that show the same location of the same body."""

from __future__ import annotations

import numpy as np
from scipy.spatial import KDTree

MAX_PARTNERS = 8
"""A sample has at most this many partners, the nearest ones."""
_TIE = 1e-6


def near(groups: np.ndarray, items: np.ndarray, locations: np.ndarray, reach: float) -> np.ndarray:
    """The positive partners of every sample, by distance.

    In each other item of its group, the nearest sample within reach is a partner. If there is none
    in any item, the nearest samples of its own item are partners.

    Args:
        groups: (N,) codes; locations are compared only within a group.
        items: (N,) codes.
        locations: (N, K) coordinates; samples with a NaN have no partner.
        reach: largest distance of a partner, in the unit of ``locations``.

    Returns:
        (N, P) positions, P ≤ 8; padded with −1.
    """
    candidates: list[list[tuple[float, int]]] = [[] for _ in range(len(groups))]
    located = np.flatnonzero(np.isfinite(locations).all(axis=1))
    for members in _by_code(located, groups[located]):
        of_item = _by_code(members, items[members])
        trees = [KDTree(locations[rows]) for rows in of_item]
        for other, tree in zip(of_item, trees, strict=True):
            for rows in of_item:
                if rows is other:
                    continue
                distances, positions = _nearest(tree, locations[rows], 1, reach)
                for row, (distance,), (position,) in zip(rows, distances, positions, strict=True):
                    if np.isfinite(distance):
                        candidates[row].append((float(distance), int(other[position])))
        for rows, tree in zip(of_item, trees, strict=True):
            unpaired = np.array([row for row in rows if not candidates[row]], dtype=np.int64)
            _pair_within_item(unpaired, rows, tree, locations, reach, candidates)
    width = min(max((len(each) for each in candidates), default=0), MAX_PARTNERS)
    partners = np.full((len(groups), width), -1, dtype=np.int64)
    for row, each in zip(partners, candidates, strict=True):
        nearest = [position for _, position in sorted(each)[:MAX_PARTNERS]]
        row[: len(nearest)] = nearest
    return partners


def _by_code(rows: np.ndarray, codes: np.ndarray) -> list[np.ndarray]:
    """Rows (N,) split by code."""
    order = np.argsort(codes, kind="stable")
    cuts = np.flatnonzero(np.diff(codes[order])) + 1
    return np.split(rows[order], cuts) if len(rows) else []


def _nearest(
    tree: KDTree, locations: np.ndarray, count: int, reach: float
) -> tuple[np.ndarray, np.ndarray]:
    """Distances (M, count), infinite where fewer are within reach, and positions in the tree."""
    distances, positions = tree.query(
        locations, k=[*range(1, count + 1)], distance_upper_bound=reach
    )
    return np.asarray(distances), np.asarray(positions)


def _pair_within_item(
    unpaired: np.ndarray,
    rows: np.ndarray,
    tree: KDTree,
    locations: np.ndarray,
    reach: float,
    candidates: list[list[tuple[float, int]]],
) -> None:
    """Add candidates of their own item to ``unpaired`` rows: both neighbours of a slice, say."""
    if not len(unpaired) or len(rows) < 2:
        return
    nearest = _nearest(tree, locations[unpaired], min(3, len(rows)), reach)
    for row, distances, positions in zip(unpaired, *nearest, strict=True):
        others = [
            (float(d), int(rows[p]))
            for d, p in zip(distances, positions, strict=True)
            if np.isfinite(d) and rows[p] != row
        ]
        smallest = min((d for d, _ in others), default=0.0)
        candidates[row] += [pair for pair in others if pair[0] <= smallest + _TIE]


def drawn(partners: np.ndarray, anchors: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """One random partner of each anchor (B,); the anchor itself where it has none."""
    if not partners.shape[1]:
        return anchors
    candidates = partners[anchors]  # (B, P)
    count = (candidates >= 0).sum(axis=1)
    pick = np.floor(random.random(len(anchors)) * count).astype(np.int64)
    picked = np.take_along_axis(candidates, pick[:, None], axis=1)[:, 0]
    return np.where(count > 0, picked, anchors)
