"""What each tile of a slide counted for: as pictures, for QuPath, as pyramids, and the top tiles.

Ranks within the slide show where to look, and raw values how much it matters: attention may be
nearly even, and ranks never look so. Each picture has a colour bar and says the class and which of
the two it shows; so does the description of a pyramid, whose pixels are the slide's alone.

Coordinates are top left corners x, y in full-size pixels, ``tile`` is the side of a tile in the
same unit, and scores lie in 0 … 1. The functions are pure: they take arrays and a slide, and write
what they are told to.

GeoJSON counts pixels from where QuPath's picture begins: the corner of what was scanned, where the
slide's header tells it (MRXS, SCN, BIF, see `medcl_pathology.reader.About.bounds`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

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
    raw: NDArray[np.float64] | None = None,
    named: str = "",
) -> list[Path]:
    """All there is to see of an item's scores; see `medcl.plugin.Plugin.explain`.

    Of a slide, or a bag with its slide beside: ``heatmap.png``, ``heatmap.geojson``,
    ``heatmap.tif`` and ``top.png``. Of a bag alone: the first two, on white; of one whose
    coordinates are in µm (``unit`` "um") and whose slide's scale is not known, or are columns and
    rows ("tiles"), the first. With ``raw`` (I,), of which ``scores`` are then the ranks, also
    ``raw.png`` and ``raw.tif``, and both numbers are in the GeoJSON. ``named`` is the class.

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
    of = f"{named}: " if named else ""
    first = Bar(f"{of}score", 0.0, 1.0, ("0", "1"))
    if raw is not None:
        first = Bar(f"{of}rank within the slide", 0.0, 1.0, ("lowest", "highest"))
    maps = [("heatmap", scores, first)]
    if raw is not None:
        maps.append(("raw", raw, _raw_bar(raw, of)))
    for name, values, bar in maps:
        shown = heat(coords, side, bar.unit(values), picture.shape[:2], scaled)
        _save(out / f"{name}.png", with_bar(overlay(picture, *shown), bar))
    made = [out / "heatmap.png", *([out / "raw.png"] if raw is not None else [])]
    if unit != "px":
        why = (
            "are columns and rows of tiles: write corners in pixels of the full-size image"
            if unit == "tiles"
            else "are in µm, and how large the slide's pixels are is not known, so that QuPath's "
            f"cannot be told. {GIVE_MPP}"
        )
        raise MedclError(f"heatmap.png alone was made: the bag's coordinates {why}")
    made.insert(1, out / "heatmap.geojson")
    text = json.dumps(geojson(coords - origin_of(slide), side, scores, raw=raw, named=named))
    write_text(made[1], text)
    if slide is not None:
        for name, values, bar in maps:
            made.append(out / f"{name}.tif")
            pyramid(made[-1], slide, coords, side, bar.unit(values), about=bar.title)
        made.append(out / "top.png")
        _save(made[-1], top(slide, coords, side, scores))
    return made


def thumbnail(
    files: Sequence[Path],
    coords: NDArray[np.float64],
    tile: float | None,
    scores: NDArray[np.float64],
    *,
    unit: str = "px",
    longest: int = 480,
) -> Pixels:
    """An item at a glance with its scores over it, (H, W, 3); see `Plugin.thumbnail`.

    On white where the slide is not there. ``scores`` (I,) lie in 0 … 1.

    Raises:
        MedclError: if the slide cannot be read.
    """
    side = float(tile) if tile else spacing(coords)
    slide = _slide(files)
    if unit == "um" and slide is not None and slide.about.mpp is not None:
        scale = np.array(slide.about.mpp)
        coords, side, unit = coords / scale, side / float(scale[0]), "px"
    if slide is None or unit != "px":
        coords = coords - coords.min(axis=0)
        width, height = (float(v) for v in coords.max(axis=0) + side)
        down = max(width, height) / longest
        shape = (max(round(height / down), 1), max(round(width / down), 1))
        picture = np.full((*shape, 3), 255, dtype=np.uint8)
    else:
        width, height = slide.about.levels[0]
        picture = overview(slide, max(max(width, height) / longest, 1.0))
    scaled = (width / picture.shape[1], height / picture.shape[0])
    return overlay(picture, *heat(coords, side, scores, picture.shape[:2], scaled))


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


@dataclass(frozen=True)
class Bar:
    """A colour bar: what it shows, and which values are its ends."""

    title: str
    low: float
    high: float
    ends: tuple[str, str]

    def unit(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values as 0 … 1 between the ends."""
        span = self.high - self.low
        return ((values - self.low) / span).clip(0, 1) if span > 0 else np.zeros_like(values)


_SATURATED = 99.5  # per cent: a few tiles may have most of the attention


def _raw_bar(raw: NDArray[np.float64], of: str) -> Bar:
    """Of raw values: from 0, or the least, to nearly the most."""
    low, high = min(float(raw.min()), 0.0), float(np.percentile(raw, _SATURATED))
    high = high if high > low else float(raw.max())
    above = "≥ " if raw.max() > high else ""
    return Bar(f"{of}raw score of a tile", low, high, (f"{low:.3g}", f"{above}{high:.3g}"))


def with_bar(picture: Pixels, bar: Bar) -> Pixels:
    """A picture with its title and a colour bar below."""
    width, strip, margin = max(picture.shape[1], 260), 12, 6
    out = np.full((picture.shape[0] + 58, width, 3), 255, dtype=np.uint8)
    out[: picture.shape[0], : picture.shape[1]] = picture
    top_ = picture.shape[0] + 24
    colours = _colours(np.linspace(0, 1, width - 2 * margin))
    out[top_ : top_ + strip, margin : width - margin] = np.rint(colours).astype(np.uint8)
    image = Image.fromarray(out)
    draw = ImageDraw.Draw(image)
    draw.text((margin, top_ - 18), _ascii(bar.title), fill=(20, 30, 40))
    draw.text((margin, top_ + strip + 4), _ascii(bar.ends[0]), fill=(20, 30, 40))
    right = _ascii(bar.ends[1])
    start = width - margin - draw.textlength(right)
    draw.text((start, top_ + strip + 4), right, fill=(20, 30, 40))
    return np.asarray(image)


def _ascii(text: str) -> str:
    """What Pillow's own font can draw."""
    return text.replace("≥", ">=").encode("latin-1", "replace").decode("latin-1")


def geojson(
    coords: NDArray[np.float64],
    side: float,
    scores: NDArray[np.float64],
    *,
    raw: NDArray[np.float64] | None = None,
    named: str = "",
) -> dict[str, object]:
    """Tiles as QuPath objects, with measurements to be shown as a map, and five classes.

    The measurement is "Score", in 0 … 1; with ``raw`` it is called "Rank", and "Raw" is beside it.
    """
    features: list[dict[str, object]] = []
    bands = np.minimum((scores * _BANDS).astype(int), _BANDS - 1)
    colours = _colours((np.arange(_BANDS) + 0.5) / _BANDS).astype(int).tolist()
    what = "Score" if raw is None else "Rank"
    of = f"{named}: {what.lower()}" if named else what
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
                        "name": f"{of} {bands[n] / _BANDS:.1f}-{(bands[n] + 1) / _BANDS:.1f}",
                        "color": colours[bands[n]],
                    },
                    "measurements": {
                        what: float(scores[n]),
                        **({} if raw is None else {"Raw": float(raw[n])}),
                    },
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
    *,
    about: str = "",
) -> None:
    """The overlay as a pyramidal, tiled TIFF with its scale, that slide viewers open.

    ``about`` is its description: what the colours show.
    """
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
            if n == 0 and about:
                extra["description"] = f"medcl: {about}".encode()  # tags hold ASCII, or bytes
            if slide.about.mpp is not None:
                steps = [m * width / pixels.shape[1] for m in slide.about.mpp]
                extra |= {"resolution": (1e4 / steps[0], 1e4 / steps[1]), "resolutionunit": 3}
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
