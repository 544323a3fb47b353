"""Where the tissue is, at low magnification, and what only looks like it.

Each step is a function of an overview (H, W, 3) uint8 that gives a mask (H, W) bool: `tissue` finds
what is coloured like stained tissue; `border`, `pen`, `blur` and `fold` find what is to be left
out. `segment` puts them together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]
Artefact = Literal["border", "pen", "blur", "fold"]
ARTEFACTS: tuple[Artefact, ...] = ("border", "pen", "blur", "fold")
Method = Literal["auto", "saturation", "hed", "density"]

_BROWN = (12.0, 50.0)  # degrees of hue: DAB; eosin and blood are below 12 or above 330
DAB = 0.03  # share of brown in what is stained from which a slide counts as stained with DAB

# Ruifrok 2001: how haematoxylin, eosin and DAB absorb red, green and blue.
HED = np.array([[0.650, 0.704, 0.286], [0.072, 0.990, 0.105], [0.268, 0.570, 0.776]])


def segment(
    rgb: NDArray[np.uint8],
    *,
    method: Method = "auto",
    reject: Sequence[Artefact] = ("border", "pen", "blur", "fold"),
    closing: float = 2.0,
    smallest: float = 16.0,
    holes: float = 64.0,
) -> tuple[Mask, Mapping[str, float]]:
    """The tissue of an overview, and how much of it each rejection took away (shares).

    Args:
        rgb: (H, W, 3).
        method: see `tissue`.
        reject: what to leave out.
        closing: gaps of up to twice this many pixels are closed.
        smallest: pieces of fewer pixels are dropped.
        holes: holes of fewer pixels are filled.
    """
    brown = dab(rgb) >= DAB
    found = tissue(rgb, method=method)
    total = max(int(found.sum()), 1)
    taken: dict[str, float] = {}
    steps: dict[str, Any] = {"border": border, "pen": partial(pen, blue=0.55 if brown else 0.35)}
    coloured = "pen" in reject and _is_stain(steps["pen"](rgb) & found, total)
    if coloured:  # green, blue or red, and no ink
        reject = [name for name in reject if name != "pen"]
    if brown or coloured or _counterstain(saturation_smooth(rgb)) is not None:
        reject = [name for name in reject if name != "fold"]  # what the marker darkens is no fold
    for name in ("border", "pen"):  # these may be dark or colourful enough to pass for tissue
        if name in reject:
            gone = steps[name](rgb)
            taken[name] = float((found & gone).sum()) / total
            found &= ~gone
    if "blur" in reject:
        gone = blur(rgb, found)
        taken["blur"] = float((found & gone).sum()) / total
        found &= ~gone
    if "fold" in reject:
        gone = fold(rgb, found)
        taken["fold"] = float((found & gone).sum()) / total
        found &= ~gone
    if closing > 0:
        edge = int(np.ceil(closing)) + 1  # as if the overview went on: closing eats no border
        padded = np.pad(found, edge, mode="edge")
        found = ndimage.binary_closing(padded, _disk(closing))[edge:-edge, edge:-edge]
        for name in ("border", "pen"):
            if name in reject:
                found &= ~steps[name](rgb)
    found = ~_drop_small(~_drop_small(found, smallest), holes)
    return found, taken


def tissue(rgb: NDArray[np.uint8], *, method: Method = "auto") -> Mask:
    """What is stained.

    "saturation" or "hed": Otsu's threshold (1979) on saturation, or on haematoxylin and eosin;
    where it would fall within the noise of empty glass, nothing is tissue. "density": all that is
    darker than the glass by a little, whatever its colour. "auto": "density" where DAB is seen,
    since its brown is so strong that Otsu parts it from the tissue around; else "saturation", where
    of two groups below the threshold the higher is tissue too: what another strong stain (AEC, fast
    red, PAS, teal, …) leaves.
    """
    if method == "density" or (method == "auto" and dab(rgb) >= DAB):
        values = density(rgb)
        return np.asarray(values > np.percentile(values, 0.5) + 0.03)
    if method == "hed":
        values, least, most = np.asarray(stains(rgb)[..., :2].sum(axis=-1)), 0.06, 0.12
    else:
        values, least, most = saturation(rgb), 0.06, 0.25
    values = np.asarray(ndimage.median_filter(values, size=3), dtype=np.float32)
    threshold = float(np.clip(otsu(values), least, most))
    lower = _counterstain(values) if method == "auto" else None
    return np.asarray(values > (threshold if lower is None else min(lower, threshold)))


_PARTED = 0.85  # share of the variance between two groups: 0.64 of a normal, 0.75 of a uniform one
_LEAST_SHARE = 0.2  # of the tissue above the first threshold: less is pale tissue of H&E
_LEAST_GAP = 8.0  # of the groups' means, in deviations of the lower


def _counterstain(values: NDArray[Any]) -> float | None:
    """A second threshold below Otsu's, where what lies below is two groups too; else None.

    Then the upper group of all is a strong stain alone, and the middle one pale tissue.
    """
    below = values[values <= np.clip(otsu(values), 0.06, 0.25)]
    if below.size < 2 or float(below.std()) == 0:
        return None
    threshold = otsu(below)
    high, low = below[below > threshold], below[below <= threshold]
    if len(high) < _LEAST_SHARE * (values.size - below.size) or not len(low):
        return None
    share, gap = len(high) / below.size, float(high.mean() - low.mean())
    between = share * (1 - share) * gap**2 / float(below.var())
    clear = between > _PARTED and gap > _LEAST_GAP * float(low.std()) and threshold >= 0.03
    return threshold if clear else None


_MANY_PIECES = 12


def _is_stain(ink: Mask, total: int) -> bool:
    """Whether what is coloured like ink is a stain: a third of the tissue, or many small pieces."""
    count = int(ink.sum())
    if count > 0.35 * total:
        return True
    label, pieces = ndimage.label(ink)
    largest = int(np.bincount(label.ravel())[1:].max()) if pieces else 0
    return pieces >= _MANY_PIECES and largest < 0.5 * count and count > 0.02 * total


def saturation_smooth(rgb: NDArray[np.uint8]) -> Floats:
    """`saturation` without single odd pixels."""
    return np.asarray(ndimage.median_filter(saturation(rgb), size=3), dtype=np.float32)


def density(rgb: NDArray[np.uint8]) -> Floats:
    """Mean optical density of red, green and blue, without single odd pixels: (H, W)."""
    values = -np.log10(np.maximum(rgb.astype(np.float32), 1) / 255).mean(axis=-1)
    return np.asarray(ndimage.median_filter(values, size=3), dtype=np.float32)


def dab(rgb: NDArray[np.uint8]) -> float:
    """How much of what is stained is brown, 0 … 1: above a few per cent, DAB (IHC)."""
    hue, pure = _hue(rgb), saturation(rgb)
    dark = -np.log10(np.maximum(rgb.astype(np.float32), 1) / 255).mean(axis=-1)
    stained = (dark > 0.12) & (pure > 0.12)
    brown = stained & (hue >= _BROWN[0]) & (hue <= _BROWN[1]) & (pure > 0.25)
    return float(brown.sum()) / max(int(stained.sum()), 1)


def saturation(rgb: NDArray[np.uint8]) -> Floats:
    """(max − min) / max of red, green and blue, 0 for black: (H, W)."""
    high = rgb.max(axis=-1).astype(np.float32)
    return (high - rgb.min(axis=-1)) / np.maximum(high, 1)


def stains(rgb: NDArray[np.uint8]) -> Floats:
    """Haematoxylin, eosin and the rest, by Ruifrok's matrix, in optical density: (H, W, 3)."""
    density = -np.log10(np.maximum(rgb.astype(np.float32), 1) / 255)
    unit = HED / np.linalg.norm(HED, axis=1, keepdims=True)
    out: Floats = (density @ np.linalg.inv(unit)).astype(np.float32)
    return out


def otsu(values: NDArray[Any], bins: int = 256) -> float:
    """The threshold that parts values into the two groups of least variance (Otsu 1979)."""
    low, high = float(values.min()), float(values.max())
    if high <= low:
        return high
    counts, edges = np.histogram(values, bins=bins, range=(low, high))
    middle = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    sums = np.cumsum(counts * middle)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_low, mean_high = sums / below, (sums[-1] - sums) / above
        between = below * above * (mean_low - mean_high) ** 2
    between = np.where(np.isfinite(between), between, -1)
    best = np.flatnonzero(between >= between.max() * (1 - 1e-9))  # all across an empty gap
    return float(edges[1:][best].mean())


def border(rgb: NDArray[np.uint8], dark: float = 0.2) -> Mask:
    """Black that reaches the edge of the picture: what lies outside of the scanned area."""
    black = rgb.max(axis=-1) < dark * 255
    label, count = ndimage.label(black)
    edge = np.concatenate([label[0], label[-1], label[:, 0], label[:, -1]])
    found = np.isin(label, np.unique(edge[edge > 0])) if count else black & False
    return np.asarray(ndimage.binary_dilation(found, iterations=1) if found.any() else found)


def pen(rgb: NDArray[np.uint8], blue: float = 0.35) -> Mask:
    """Green, blue (of at least that purity), red and black marker ink, with a margin.

    No stain of tissue is green or cyan; blue and red ink are purer than haematoxylin and eosin;
    black ink is dark without a colour, and drawn in strokes, where pigment is in grains.
    """
    hue, value, pure = _hue(rgb), rgb.max(axis=-1) / 255, saturation(rgb)
    green = (hue > 65) & (hue < 195) & (pure > 0.2)
    azure = (hue >= 195) & (hue < 245) & (pure > blue)
    red = ((hue < 15) | (hue > 345)) & (pure > 0.75) & (value > 0.5)
    black = (value < 0.3) & (rgb.max(axis=-1).astype(int) - rgb.min(axis=-1) < 25)
    ink = ndimage.binary_opening(green | azure | red | black, np.ones((2, 2), dtype=bool))
    return np.asarray(ndimage.binary_dilation(ink, iterations=2) if ink.any() else ink)


def blur(rgb: NDArray[np.uint8], inside: Mask, share: float = 0.05, window: int = 15) -> Mask:
    """Tissue without detail: local power of the Laplacian below ``share`` of the slide's median.

    It is judged at the overview's scale, so that only blur as wide as its pixels shows.
    """
    if not inside.any():
        return np.zeros_like(inside)
    grey = np.asarray(rgb, dtype=np.float32).mean(axis=-1)
    power = ndimage.laplace(grey) ** 2
    weight = ndimage.uniform_filter(inside.astype(np.float32), window)
    local = ndimage.uniform_filter(power * inside, window) / np.maximum(weight, 1e-3)
    usual = float(np.median(local[inside]))
    found = inside & (local < share * usual)
    return np.asarray(ndimage.binary_opening(found, _disk(2)))


def fold(rgb: NDArray[np.uint8], inside: Mask, excess: float = 2.0, least: float = 0.35) -> Mask:
    """Tissue that lies twice: more saturated and darker than the rest (Bautista 2009).

    Where saturation less brightness is above the tissue's median by ``excess`` times its spread
    (of the quartiles), and by ``least``, in pieces larger than a few pixels.
    """
    if not inside.any():
        return np.zeros_like(inside)
    mark = saturation(rgb) - np.asarray(rgb, dtype=np.float32).mean(axis=-1) / 255
    low, middle, high = np.percentile(mark[inside], [25, 50, 75])
    found = inside & (mark > middle + max(excess * float(high - low), least))
    return np.asarray(ndimage.binary_opening(found, _disk(1)))


def _hue(rgb: NDArray[np.uint8]) -> Floats:
    """In degrees; red 0, green 120, blue 240: (H, W)."""
    r, g, b = (rgb[..., n].astype(np.float32) for n in range(3))
    high, low = np.maximum(np.maximum(r, g), b), np.minimum(np.minimum(r, g), b)
    span = np.maximum(high - low, 1e-6)
    hue = np.where(
        high == r, (g - b) / span % 6, np.where(high == g, (b - r) / span + 2, (r - g) / span + 4)
    )
    return np.asarray(60 * hue, dtype=np.float32)


def _disk(radius: float) -> Mask:
    reach = int(np.ceil(radius))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    return np.asarray(x**2 + y**2 <= radius**2)


def _drop_small(mask: Mask, smallest: float) -> Mask:
    label, count = ndimage.label(mask)
    if not count:
        return mask
    sizes = np.bincount(label.ravel())
    keep = sizes >= smallest
    keep[0] = False
    return np.asarray(keep[label])
