"""A synthetic Ventana BIF, after OpenSlide's description of the format: no histology, no scanner.

OpenSlide reads it as ``ventana``. The area that was scanned begins some tiles from the corner of
the file; OpenSlide 4 shows the area alone and gives no bounds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tifffile

TILE = 256
_XML = 700  # the tag of a directory's XML


def bif(path: Path, image: np.ndarray, *, mpp: float, offset: tuple[int, int]) -> Path:
    """Write ``image`` (H, W, 3) as an area that begins at tile ``offset`` (column, row)."""
    rows, columns = (side // TILE for side in image.shape[:2])
    left, top = (n * TILE for n in offset)
    canvas = np.full((top + rows * TILE, left + columns * TILE, 3), 255, dtype=np.uint8)
    canvas[top:, left:] = image[: rows * TILE, : columns * TILE]
    macro = np.full((64, 64, 3), 240, dtype=np.uint8)
    scan = f'<iScan Z-layers="1" Magnification="20" ScanRes="{mpp}"/>'
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        _write(writer, macro, "Label Image", scan)
        for level in (0, 1):
            step = 2**level
            told = f"level={level} mag={20 / step:g} quality=100"
            part = np.ascontiguousarray(canvas[::step, ::step])
            xml = _stitching(rows, columns, (left, top)) if level == 0 else None
            _write(writer, part, told, xml, tile=(TILE, TILE))
    return path


def _write(writer: Any, pixels: np.ndarray, told: str, xml: str | None, **options: Any) -> None:
    packet = [] if xml is None else [(_XML, 1, len(xml), xml.encode(), True)]
    writer.write(
        pixels,
        photometric="rgb",
        compression="deflate",
        description=told,
        metadata=None,
        software=None,
        extratags=packet,
        **options,
    )


def _stitching(rows: int, columns: int, origin: tuple[int, int]) -> str:
    """No tile overlaps its neighbours; rows are numbered from below, every second to the left."""
    numbers = {}
    for n in range(rows * columns):
        row, column = divmod(n, columns)
        column = columns - 1 - column if row % 2 else column
        numbers[rows - 1 - row, column] = n + 1
    joints = [
        (numbers[row, column], numbers[row, column + 1], "RIGHT")
        for row in range(rows)
        for column in range(columns - 1)
    ] + [
        (numbers[row, column], numbers[row - 1, column], "UP")
        for row in range(1, rows)
        for column in range(columns)
    ]
    told = "".join(
        f'<TileJointInfo FlagJoined="1" Confidence="100" Direction="{where}" Tile1="{one}" '
        f'Tile2="{two}" OverlapX="0" OverlapY="0"/>'
        for one, two, where in joints
    )
    return (
        f'<EncodeInfo Ver="2"><SlideStitchInfo><ImageInfo AOIScanned="1" AOIIndex="0" '
        f'Width="{TILE}" Height="{TILE}" NumRows="{rows}" NumCols="{columns}" Pos-X="0" '
        f'Pos-Y="0">{told}</ImageInfo></SlideStitchInfo><AoiOrigin><AOI0 OriginX="{origin[0]}" '
        f'OriginY="{origin[1]}"/></AoiOrigin></EncodeInfo>'
    )
