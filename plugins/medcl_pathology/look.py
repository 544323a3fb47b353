"""What was found on a slide, to be looked at: its tissue in GeoJSON, and a thumbnail with it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from medcl.io.atomic import replacing, write_text
from medcl_pathology.heatmap import origin_of
from medcl_pathology.outlines import polygons, tissue_geojson
from medcl_pathology.overview import overview
from medcl_pathology.reader import open_slide
from medcl_pathology.tissue import ARTEFACTS, DAB

_SIDE = 1024  # pixels: the longer side of the thumbnail


def look(files: Sequence[Path], held: Mapping[str, NDArray[np.generic]], out: Path) -> list[Path]:
    """``tissue.geojson`` for QuPath, see `medcl_pathology.heatmap`, and ``tissue.png``.

    The picture shows outlines and tiles. Of plain tiles and bags there is nothing to see.
    """
    if "mask" not in held:
        return []
    out.mkdir(parents=True, exist_ok=True)
    mask = np.asarray(held["mask"]) > 0
    scale = (float(held["mask_scale"][0]), float(held["mask_scale"][1]))
    made = [out / "tissue.geojson", out / "tissue.png"]
    slide = open_slide(files[0])
    write_text(made[0], json.dumps(tissue_geojson(mask, scale, origin_of(slide))))
    down = max(max(slide.about.levels[0]) / _SIDE, 1.0)
    image = Image.fromarray(overview(slide, down))
    draw = ImageDraw.Draw(image)
    _, span_x, span_y, _ = np.asarray(held["grid"]).tolist()
    for x, y in (np.asarray(held["coords"]) / down).tolist():
        draw.rectangle((x, y, x + span_x / down, y + span_y / down), outline=(60, 60, 60))
    for rings in polygons(mask):
        for ring in rings:
            points = [tuple(point) for point in (ring * scale / down).tolist()]
            draw.line(points, fill=(0, 160, 80), width=3)
    draw.text((8, 8), _said(held), fill=(0, 90, 45))
    with replacing(made[1]) as temporary:
        image.save(temporary, "png")
    return made


def _said(held: Mapping[str, NDArray[np.generic]]) -> str:
    """What was taken for tissue, and by which sign."""
    share = (
        f"{float((np.asarray(held['mask']) > 0).mean()):.0%} tissue, {len(held['coords'])} tiles"
    )
    shares = np.asarray(held["left_out"]).tolist() if "left_out" in held else []
    gone = [f"{n} {s:.0%}" for n, s in zip(ARTEFACTS, shares, strict=False) if s >= 0.01]
    share += f"; left out: {', '.join(gone)}" if gone else ""
    brown = float(np.asarray(held["dab"])) if "dab" in held else 0.0
    return f"{share}; DAB in {brown:.0%} of what is stained" if brown >= DAB else share
