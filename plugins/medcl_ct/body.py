"""Where the patient is in a volume: for cropping, and for cutting away the table."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

BODY = -400  # HU: above lung and air, below fat
_COARSE = 3.0  # mm
_MARGIN = 10.0  # mm
_THIN = 6.0  # mm: what a table, its mattress and cables are thinner than

Image = NDArray[np.int16]


def extent(hu: Image, affine: NDArray[np.float64], threshold: float = BODY) -> tuple[slice, ...]:
    """The box around the largest thing denser than air, with a margin of 1 cm: three slices.

    Where there is no such thing, all of the volume.
    """
    steps = _steps(hu, affine)
    largest = _largest(hu[tuple(slice(None, None, s) for s in steps)] > threshold)
    if largest is None:
        return (slice(None),) * 3
    inside = []
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    for axis, (found, step) in enumerate(zip(ndimage.find_objects(largest)[0], steps, strict=True)):
        margin = int(np.ceil(_MARGIN / lengths[axis]))
        first = max(0, found.start * step - margin)
        last = min(hu.shape[axis], (found.stop - 1) * step + 1 + margin)
        inside.append(slice(first, last))
    inside[0] = slice(0, hu.shape[0])  # slices were chosen by those who scanned
    return tuple(inside)


def cut(hu: Image, affine: NDArray[np.float64], air: int, threshold: float = BODY) -> None:
    """Set all outside of the patient to air, in place, slice by slice.

    The patient of a slice is its largest part once thin things (a table, tubes) are opened away,
    with holes (lungs, bowel) filled.
    """
    step = _steps(hu, affine)[1:]
    lengths = np.linalg.norm(affine[:3, :3], axis=0)[1:] * step
    rounds = max(1, round(_THIN / 2 / float(lengths.mean())))
    for image in hu:
        coarse = image[:: step[0], :: step[1]] > threshold
        opened = ndimage.binary_opening(coarse, iterations=rounds)
        largest = _largest(opened)
        if largest is None:
            continue
        grown = ndimage.binary_dilation(largest > 0, iterations=rounds)
        filled = ndimage.binary_fill_holes(grown)
        fine = np.repeat(np.repeat(filled, step[0], axis=0), step[1], axis=1)
        image[~fine[: image.shape[0], : image.shape[1]]] = air


def _steps(hu: Image, affine: NDArray[np.float64]) -> tuple[int, ...]:
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    return tuple(max(1, int(_COARSE // length)) for length in lengths)


def _largest(mask: NDArray[np.bool_]) -> NDArray[Any] | None:
    """The largest connected part of a mask, as 0 and 1."""
    labels, count = ndimage.label(mask)
    if count == 0:
        return None
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    found: NDArray[Any] = (labels == sizes.argmax()).astype(np.int8)
    return found
