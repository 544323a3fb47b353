"""A bag of features and what is known of it: what all readers of bags return."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medcl.errors import MedclError
from medcl.plugin import Scalar

FEATURES = ("features", "feats", "patch_embeddings", "embeddings", "x")
COORDS = ("coords", "coordinates")


class NoBag(MedclError):
    """A file that holds no bag: a short code and the reason."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


@dataclass(frozen=True)
class Heading:
    """What is known of a bag without reading its features.

    Attributes:
        part: which bag of the file; None where it holds one.
        instances, features: the shape.
        tile: side of a tile in the units of the coordinates, where the file says.
        unit: of the coordinates: "px" of the full-size image, "um", or "tiles": columns and rows of
            a grid, whose place in the image nothing tells.
        mpp: µm per full-size pixel, where the file says.
        encoder: what made the features, where the file says.
        patient: the key of the patient in the index that medcl embed made the bag of.
        untrained: whether that encoder had random weights.
    """

    part: str | None
    instances: int
    features: int
    labels: Mapping[str, Scalar] = field(default_factory=dict)
    tile: float | None = None
    unit: Literal["px", "um", "tiles"] = "px"
    mpp: float | None = None
    encoder: str | None = None
    patient: str | None = None
    untrained: bool = False


@dataclass(frozen=True)
class Bag:
    """The instances of a bag: features (I, F) float16 or float32, coords (I, 2) or None."""

    features: NDArray[Any]
    coords: NDArray[np.float32] | None = None


def check_finite(features: NDArray[Any]) -> None:
    """Refuse a bag with NaN.

    Raises:
        MedclError: that counts the instances; the caller names the bag.
    """
    bad = ~np.isfinite(features).all(axis=1)
    if bad.any():
        raise MedclError(
            f"nan-features: {int(bad.sum())} of its {len(features)} instances have NaN or "
            "infinite features. Make this bag anew; half precision overflows above 65504."
        )


def named(names: Any, wanted: tuple[str, ...]) -> str | None:
    """The first of the wanted names that is there, in whatever case."""
    by_lower = {str(name).lower(): str(name) for name in names}
    return next((by_lower[name] for name in wanted if name in by_lower), None)


def bag_of(features: NDArray[Any], coords: NDArray[Any] | None) -> Bag:
    """Both in plain shapes: some tools write an axis of 1 in front or between."""
    features = features.reshape(shape_of(features.shape))
    if features.dtype not in (np.float16, np.float32):
        features = features.astype(np.float32)
    return Bag(features, None if coords is None else places_of(coords, len(features)))


def spacing(coords: NDArray[Any]) -> float:
    """The side of tiles that lie side by side: the most frequent step between corners."""
    steps = np.concatenate([np.diff(np.unique(coords[:, axis])) for axis in (0, 1)])
    steps = steps[steps > 0]
    if not len(steps):
        return 1.0
    values, counts = np.unique(np.rint(steps), return_counts=True)
    return float(values[counts.argmax()])


def counts_tiles(coords: NDArray[Any]) -> bool:
    """Whether coordinates are columns and rows of a grid: no tile is one pixel wide."""
    whole = bool((coords == np.rint(coords)).all())
    return whole and len(coords) > 1 and bool(np.ptp(coords, axis=0).any()) and spacing(coords) <= 1


def places_of(coords: NDArray[Any], count: int) -> NDArray[np.float32]:
    """Coordinates of ``count`` instances, (count, 2), of an array of any kind.

    Raises:
        NoBag: if they do not fit.
    """
    try:
        if coords.dtype.names:  # STAMP once wrote a table of x and y
            coords = np.stack([coords[name] for name in coords.dtype.names[:2]], axis=1)
        places = coords.reshape(count, 2).astype(np.float32)
    except (ValueError, TypeError):
        raise NoBag("bad-coords", "Its coordinates do not fit its features.") from None
    if not np.isfinite(places).all():
        raise NoBag("bad-coords", "Some of its coordinates are NaN or infinite. Make it anew.")
    return places


def shape_of(shape: tuple[int, ...]) -> tuple[int, int]:
    """The shape (I, F) of features.

    Raises:
        NoBag: if it is another.
    """
    if len(shape) == 3 and 1 in shape[:2]:  # one bag of instances, or vectors of one row each
        shape = (shape[0] * shape[1], shape[2])
    if len(shape) != 2 or min(shape) < 1:
        raise NoBag("no-features", f"Its features have the shape {shape}; a bag's is (I, F).")
    return int(shape[0]), int(shape[1])
