"""A synthetic Leica SCN, after the public description of the format: no histology, no scanner.

OpenSlide reads it as ``leica``. What was scanned lies within a larger canvas, so that the header
has bounds: QuPath crops the picture to them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile


def scn(
    path: Path, image: np.ndarray, *, mpp: float, offset: tuple[int, int], canvas: tuple[int, int]
) -> Path:
    """Write ``image`` (H, W, 3) at ``offset`` (x, y) of a canvas (width, height), all in pixels."""
    height, width = image.shape[:2]
    small = np.ascontiguousarray(image[::16, ::16])
    nm = round(mpp * 1000)
    macro = np.full((64, 64, 3), 240, dtype=np.uint8)
    views = [
        _image("macro", (0, 0), (canvas[0] * nm, canvas[1] * nm), [(0, macro)], "0.5"),
        _image(
            "scan",
            (offset[0] * nm, offset[1] * nm),
            (width * nm, height * nm),
            [(1, image), (2, small)],
            "20",
        ),
    ]
    xml = (
        '<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01">'
        f'<collection name="synthetic" uuid="urn:uuid:0" sizeX="{canvas[0] * nm}" '
        f'sizeY="{canvas[1] * nm}">{"".join(views)}</collection></scn>'
    )
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        for n, pixels in enumerate((macro, image, small)):
            writer.write(
                pixels,
                tile=(256, 256),
                photometric="rgb",
                compression="jpeg",
                compressionargs={"level": 100},
                description=xml if n == 0 else None,
                metadata=None,
                software=None,
                resolution=(1e4 / mpp, 1e4 / mpp),
                resolutionunit=3,
            )
    return path


def _image(
    name: str,
    offset: tuple[int, int],
    size: tuple[int, int],
    levels: list[tuple[int, np.ndarray]],
    objective: str,
) -> str:
    first = levels[0][1]
    dimensions = "".join(
        f'<dimension sizeX="{pixels.shape[1]}" sizeY="{pixels.shape[0]}" r="{r}" ifd="{ifd}"/>'
        for r, (ifd, pixels) in enumerate(levels)
    )
    return (
        f'<image name="{name}" uuid="urn:uuid:{name}">'
        "<creationDate>2011-01-01T00:00:00</creationDate>"
        '<device model="Leica SCN400" version="1.4"/>'
        f'<pixels sizeX="{first.shape[1]}" sizeY="{first.shape[0]}">{dimensions}</pixels>'
        f'<view sizeX="{size[0]}" sizeY="{size[1]}" offsetX="{offset[0]}" offsetY="{offset[1]}" '
        'spacingZ="0"/><scanSettings><objectiveSettings>'
        f"<objective>{objective}</objective></objectiveSettings><illuminationSettings>"
        "<illuminationSource>brightfield</illuminationSource></illuminationSettings>"
        "</scanSettings></image>"
    )
