"""Which samples may stand in for which: those that show the same place of the same body."""

from __future__ import annotations

import numpy as np
from scipy.spatial import KDTree

MOST = 8
"""Partners kept for a sample, the nearest ones."""
_TIE = 1e-6


def near(groups: np.ndarray, items: np.ndarray, places: np.ndarray, reach: float) -> np.ndarray:
    """The positive partners of every sample, by where it lies.

    Of each other item of its group, a sample has one partner: the nearest. Where none of them is in
    reach, the nearest samples of its own item are partners.

    Args:
        groups: (N,) codes; places are compared within a group only.
        items: (N,) codes.
        places: (N, K); samples with a NaN have no partner.
        reach: how far away a partner may be.

    Returns:
        (N, P) positions, P ≤ 8; −1 where a sample has fewer, after the others.
    """
    found: list[list[tuple[float, int]]] = [[] for _ in range(len(groups))]
    known = np.flatnonzero(np.isfinite(places).all(axis=1))
    for members in _runs(known, groups[known]):
        parts = _runs(members, items[members])
        trees = [KDTree(places[part]) for part in parts]
        for other, tree in zip(parts, trees, strict=True):
            for part in parts:
                if part is other:
                    continue
                away, at = _nearest(tree, places[part], 1, reach)
                for row, (distance,), (where,) in zip(part, away, at, strict=True):
                    if np.isfinite(distance):
                        found[row].append((float(distance), int(other[where])))
        for part, tree in zip(parts, trees, strict=True):
            lonely = np.array([row for row in part if not found[row]], dtype=np.int64)
            _beside(lonely, part, tree, places, reach, found)
    most = min(max((len(one) for one in found), default=0), MOST)
    out = np.full((len(groups), most), -1, dtype=np.int64)
    for mine, one in zip(out, found, strict=True):
        chosen = [position for _, position in sorted(one)[:MOST]]
        mine[: len(chosen)] = chosen
    return out


def _runs(rows: np.ndarray, codes: np.ndarray) -> list[np.ndarray]:
    """Rows (N,) cut into those of each code."""
    order = np.argsort(codes, kind="stable")
    cuts = np.flatnonzero(np.diff(codes[order])) + 1
    return np.split(rows[order], cuts) if len(rows) else []


def _nearest(
    tree: KDTree, places: np.ndarray, count: int, reach: float
) -> tuple[np.ndarray, np.ndarray]:
    """Distances (M, count), infinite where there are fewer in reach, and positions in the tree."""
    away, at = tree.query(places, k=[*range(1, count + 1)], distance_upper_bound=reach)
    return np.asarray(away), np.asarray(at)


def _beside(
    lonely: np.ndarray,
    part: np.ndarray,
    tree: KDTree,
    places: np.ndarray,
    reach: float,
    found: list[list[tuple[float, int]]],
) -> None:
    """Add to ``lonely`` rows of an item the nearest others of it: both neighbours of a slice."""
    if not len(lonely) or len(part) < 2:
        return
    away, at = _nearest(tree, places[lonely], min(3, len(part)), reach)
    for row, distances, positions in zip(lonely, away, at, strict=True):
        others = [
            (float(d), int(part[p]))
            for d, p in zip(distances, positions, strict=True)
            if np.isfinite(d) and part[p] != row
        ]
        nearest = min((d for d, _ in others), default=0.0)
        found[row] += [pair for pair in others if pair[0] <= nearest + _TIE]


def drawn(partners: np.ndarray, anchors: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """One partner of each anchor (B,), at random; the anchor itself where it has none."""
    if not partners.shape[1]:
        return anchors
    mine = partners[anchors]  # (B, P)
    count = (mine >= 0).sum(axis=1)
    pick = np.floor(random.random(len(anchors)) * count).astype(np.int64)
    return np.where(count > 0, np.take_along_axis(mine, pick[:, None], axis=1)[:, 0], anchors)
