"""Masks as polygons, in GeoJSON that QuPath opens: pixels of the full-size image, x before y."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Ring = NDArray[np.float64]  # (P, 2) x, y; closed: the last point is the first

_TURNS = {(1, 0): 0, (0, 1): 1, (-1, 0): 2, (0, -1): 3}


def polygons(mask: NDArray[np.bool_]) -> list[list[Ring]]:
    """Each piece of a mask as its outer ring and its holes, on the corners of pixels.

    Pieces are joined by sides, not by corners. The rings' areas (`area`) add up to the pixels.
    """
    label, count = ndimage.label(mask)
    found: list[list[Ring]] = []
    for n, where in enumerate(ndimage.find_objects(label), start=1):
        if n > count or where is None:
            continue
        rings = _rings(label[where] == n)
        offset = np.array([where[1].start, where[0].start], dtype=np.float64)
        rings = sorted((ring + offset for ring in rings), key=lambda ring: -abs(area(ring)))
        found.append(rings)
    return found


def area(ring: Ring) -> float:
    """Signed: positive for an outer ring, negative for a hole (Gauss's formula)."""
    x, y = ring[:, 0], ring[:, 1]
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2)


def _rings(piece: NDArray[np.bool_]) -> list[Ring]:
    """Walk along all sides between inside and outside, the inside on the same hand."""
    padded = np.pad(piece, 1)
    start: dict[tuple[int, int], list[tuple[int, int]]] = {}

    def add(sides: NDArray[np.bool_], a: tuple[int, int], b: tuple[int, int]) -> None:
        for y, x in np.argwhere(sides).tolist():
            start.setdefault((x + a[0], y + a[1]), []).append((x + b[0], y + b[1]))

    inside = padded[1:-1, 1:-1]
    add(inside & ~padded[:-2, 1:-1], (0, 0), (1, 0))  # top sides, to the right
    add(inside & ~padded[1:-1, 2:], (1, 0), (1, 1))  # right sides, down
    add(inside & ~padded[2:, 1:-1], (1, 1), (0, 1))  # bottom sides, to the left
    add(inside & ~padded[1:-1, :-2], (0, 1), (0, 0))  # left sides, up
    rings = []
    while start:
        first = next(iter(start))
        points, here, came = [first], first, None
        while True:
            after = start[here]
            choice = 0
            if len(after) > 1 and came is not None:  # two pixels touch at this corner: turn right
                turns = [(_TURNS[(p[0] - here[0], p[1] - here[1])] - came) % 4 for p in after]
                choice = turns.index(min(turns, key=lambda t: (t - 1) % 4))
            ahead = after.pop(choice)
            if not after:
                del start[here]
            way = _TURNS[(ahead[0] - here[0], ahead[1] - here[1])]
            if way == came:
                points[-1] = ahead  # straight on
            else:
                points.append(ahead)
            here, came = ahead, way
            if here == first:
                break
        rings.append(np.array(points, dtype=np.float64))
    return rings


def feature_collection(features: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What QuPath imports."""
    return {"type": "FeatureCollection", "features": list(features)}


def annotation(
    rings: Sequence[Ring], name: str, colour: tuple[int, int, int], measurements: dict[str, float]
) -> dict[str, Any]:
    """One QuPath annotation: a polygon with holes, its class, and measured values."""
    return {
        "type": "Feature",
        "geometry": {
            "type": "Polygon",
            "coordinates": [[[float(x), float(y)] for x, y in ring] for ring in rings],
        },
        "properties": {
            "objectType": "annotation",
            "classification": {"name": name, "color": list(colour)},
            "isLocked": False,
            "measurements": measurements,
        },
    }


def tissue_geojson(
    mask: NDArray[np.bool_],
    scale: tuple[float, float],
    origin: Sequence[float] | NDArray[np.float64] = (0.0, 0.0),
) -> dict[str, Any]:
    """A tissue mask as annotations; one of its pixels is ``scale`` (x, y) full-size ones.

    ``origin`` is where the picture begins that they are laid over, in full-size pixels.
    """
    factor, origin = np.array(scale), np.asarray(origin, dtype=np.float64)
    return feature_collection(
        [
            annotation(
                [ring * factor - origin for ring in rings],
                "Tissue",
                (0, 160, 80),
                {"Area px^2": float(sum(area(r) for r in rings) * factor.prod())},
            )
            for rings in polygons(mask)
        ]
    )
