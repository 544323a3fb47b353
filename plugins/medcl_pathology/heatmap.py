"""What each tile of a slide counted for: as a picture, for QuPath, as a pyramid, and the top tiles.

Coordinates are top left corners x, y in full-size pixels, ``tile`` is the side of a tile in the
same unit, and scores lie in 0 … 1. The functions are pure: they take arrays and a slide, and write
what they are told to.

GeoJSON counts pixels from where QuPath's picture begins: the corner of what was scanned, where the
slide's header tells it (MRXS, SCN, BIF, see `medcl_pathology.reader.About.bounds`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medcl.errors import MedclError
from medcl.io.atomic import replacing, write_text
from medcl.plugin import file_of
from medcl_pathology.bag import spacing
from medcl_pathology.findings import GIVE_MPP
from medcl_pathology.layouts import ARRAYS
from medcl_pathology.outlines import feature_collection
from medcl_pathology.overview import overview
from medcl_pathology.reader import BadSlide, Slide, open_slide
from medcl_pathology.tiles import Grid, read_tile

_SIDE = 1600  # pixels: the longer side of the overlay
_PER_TILE = 8  # pixels of a tile in the pyramid
_LARGEST = 16384  # pixels: the longer side of the pyramid
_MOST = 20000  # tiles in the GeoJSON, the highest scores first
_BANDS = 5

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]


def explain(
    files: Sequence[Path],
    coords: NDArray[np.float64],
    tile: float | None,
    scores: NDArray[np.float64],
    out: Path,
    *,
    unit: str = "px",
) -> list[Path]:
    """All there is to see of an item's scores; see `medcl.plugin.Plugin.explain`.

    Of a slide, or a bag with its slide beside: ``heatmap.png``, ``heatmap.geojson``,
    ``heatmap.tif`` and ``top.png``. Of a bag alone: the first two, on white; of one whose
    coordinates are in µm (``unit`` "um") and whose slide's scale is not known, the first.

    Raises:
        MedclError: if the scores do not fit the coordinates, the slide cannot be read, or pixels
            cannot be told, after the picture was drawn.
    """
    if len(coords) != len(scores) or not len(scores):
        raise MedclError(f"There are {len(scores)} scores for {len(coords)} places.")
    if not np.isfinite(scores).all():
        raise MedclError("Some scores are NaN or infinite: there is nothing to draw.")
    side = float(tile) if tile else spacing(coords)
    slide = _slide(files)
    if unit == "um" and slide is not None and slide.about.mpp is not None:
        scale = np.array(slide.about.mpp)
        coords, side, unit = coords / scale, side / float(scale[0]), "px"
    out.mkdir(parents=True, exist_ok=True)
    made = [out / "heatmap.png", out / "heatmap.geojson"]
    if slide is None or unit != "px":
        width, height = (int(v) for v in np.ceil(coords.max(axis=0) + side))
        down = max(width, height) / _SIDE if max(width, height) > _SIDE else 1.0
        shape = (max(round(height / down), 1), max(round(width / down), 1))
        picture = np.full((*shape, 3), 255, dtype=np.uint8)
    else:
        down = max(max(slide.about.levels[0]) / _SIDE, 1.0)
        picture = overview(slide, down)
        width, height = slide.about.levels[0]
    scaled = (width / picture.shape[1], height / picture.shape[0])
    _save(made[0], overlay(picture, *heat(coords, side, scores, picture.shape[:2], scaled)))
    if unit != "px":
        why = (
            "are columns and rows of tiles: write corners in pixels of the full-size image"
            if unit == "tiles"
            else "are in µm, and how large the slide's pixels are is not known, so that QuPath's "
            f"cannot be told. {GIVE_MPP}"
        )
        raise MedclError(f"heatmap.png alone was made: the bag's coordinates {why}")
    origin = origin_of(slide)
    write_text(made[1], json.dumps(geojson(coords - origin, side, scores)))
    if slide is not None:
        made += [out / "heatmap.tif", out / "top.png"]
        pyramid(made[2], slide, coords, side, scores)
        _save(made[3], top(slide, coords, side, scores))
    return made


def origin_of(slide: Slide | None) -> NDArray[np.float64]:
    """Where QuPath's picture of a slide begins (x, y): it crops to what was scanned."""
    bounds = None if slide is None else slide.about.bounds
    return np.array((0.0, 0.0) if bounds is None else bounds[:2], dtype=np.float64)


def heat(
    coords: NDArray[np.float64],
    side: float,
    scores: NDArray[np.float64],
    shape: tuple[int, ...],
    scale: tuple[float, float],
) -> tuple[Floats, Floats]:
    """The mean score at each pixel of a picture (H, W), and how many tiles lie there.

    ``scale`` is how many full-size pixels a pixel of the picture is, along x and y.
    """
    total = np.zeros(shape[:2], dtype=np.float64)
    count = np.zeros(shape[:2], dtype=np.float64)
    first = np.floor(coords / scale).astype(np.int64)
    last = np.maximum(np.ceil((coords + side) / scale - 1e-6).astype(np.int64), first + 1)
    for (x0, y0), (x1, y1), score in zip(
        first.clip(0).tolist(), last.tolist(), scores.tolist(), strict=True
    ):
        total[y0:y1, x0:x1] += score
        count[y0:y1, x0:x1] += 1
    return (total / np.maximum(count, 1)).astype(np.float32), count.astype(np.float32)


def overlay(picture: Pixels, mean: Floats, count: Floats, *, opacity: float = 0.5) -> Pixels:
    """Scores in colours over a picture (H, W, 3), where there are tiles."""
    share = np.where(count > 0, opacity, 0.0)[..., None]
    out = picture * (1 - share) + _colours(mean) * share
    return np.asarray(np.rint(out), dtype=np.uint8)


def geojson(
    coords: NDArray[np.float64], side: float, scores: NDArray[np.float64]
) -> dict[str, object]:
    """Tiles as QuPath objects: a score each, to be shown as a measurement map, and five classes."""
    features: list[dict[str, object]] = []
    bands = np.minimum((scores * _BANDS).astype(int), _BANDS - 1)
    colours = _colours((np.arange(_BANDS) + 0.5) / _BANDS).astype(int).tolist()
    for n in np.argsort(-scores, kind="stable")[:_MOST].tolist():
        x, y = (float(v) for v in coords[n])
        ring = [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]
        features.append(
            {
                "type": "Feature",
                "geometry": {"type": "Polygon", "coordinates": [ring]},
                "properties": {
                    "objectType": "tile",
                    "classification": {
                        "name": f"Score {bands[n] / _BANDS:.1f}-{(bands[n] + 1) / _BANDS:.1f}",
                        "color": colours[bands[n]],
                    },
                    "measurements": {"Score": float(scores[n])},
                },
            }
        )
    return feature_collection(features)


def pyramid(
    path: Path,
    slide: Slide,
    coords: NDArray[np.float64],
    side: float,
    scores: NDArray[np.float64],
) -> None:
    """The overlay as a pyramidal, tiled TIFF with its scale, that slide viewers open."""
    import tifffile

    width, height = slide.about.levels[0]
    down = max(side / _PER_TILE, max(width, height) / _LARGEST, 1.0)
    picture = overview(slide, down)
    scale = (width / picture.shape[1], height / picture.shape[0])
    level = overlay(picture, *heat(coords, side, scores, picture.shape, scale))
    levels = [level]
    while max(levels[-1].shape[:2]) > 512:
        image = Image.fromarray(levels[-1])
        levels.append(np.asarray(image.reduce(2)))
    with (
        replacing(path) as temporary,
        tifffile.TiffWriter(temporary, bigtiff=True) as writer,
    ):
        for n, pixels in enumerate(levels):
            extra: dict[str, Any] = {}
            if slide.about.mpp is not None:
                steps = [m * width / pixels.shape[1] for m in slide.about.mpp]
                extra = {"resolution": (1e4 / steps[0], 1e4 / steps[1]), "resolutionunit": 3}
            writer.write(
                pixels,
                photometric="rgb",
                tile=(256, 256),
                compression="deflate",
                subfiletype=int(n > 0),
                metadata=None,
                **extra,
            )


def top(
    slide: Slide,
    coords: NDArray[np.float64],
    side: float,
    scores: NDArray[np.float64],
    *,
    count: int = 16,
    pixels: int = 160,
) -> Pixels:
    """The tiles of the highest scores, row by row, with a bar in the score's colour below each."""
    best = np.argsort(-scores, kind="stable")[:count]
    columns = int(np.ceil(np.sqrt(len(best))))
    rows = -(-len(best) // columns)
    bar, gap = 8, 4
    out = np.full(
        (rows * (pixels + bar + gap) + gap, columns * (pixels + gap) + gap, 3), 255, dtype=np.uint8
    )
    grid = Grid(pixels, (side, side))
    for n, index in enumerate(best.tolist()):
        top_, left = divmod(n, columns)
        y, x = top_ * (pixels + bar + gap) + gap, left * (pixels + gap) + gap
        try:
            left_, above = (round(v) for v in coords[index].tolist())
            out[y : y + pixels, x : x + pixels] = read_tile(slide, left_, above, grid)
        except BadSlide:
            out[y : y + pixels, x : x + pixels] = 200  # damaged
        out[y + pixels : y + pixels + bar, x : x + pixels] = _colours(scores[index])
    return out


def _slide(files: Sequence[Path]) -> Slide | None:
    """The slide among an item's files, or None where it is a bag alone."""
    features = (*ARRAYS, ".data", ".csv")
    own = [file for file in files if not file_of(str(file)).lower().endswith(features)]
    return open_slide(own[0]) if own else None


def _colours(values: NDArray[np.floating] | float) -> NDArray[np.float64]:
    """0 … 1 → RGB in 0 … 255, of matplotlib's "turbo"."""
    from matplotlib import colormaps

    shown = colormaps["turbo"](np.asarray(values, dtype=np.float64))
    return np.asarray(shown)[..., :3] * 255


def _save(path: Path, pixels: Pixels) -> None:
    with replacing(path) as temporary:
        Image.fromarray(pixels).save(temporary, "png")
