"""A synthetic 3DHISTECH MIRAX slide, after OpenSlide's description of the format: no histology.

OpenSlide reads it as ``mirax``. Images that the scanner left out make the canvas larger than what
was scanned: the header has bounds, and QuPath crops the picture to them.
"""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
from PIL import Image

_ID = "0123456789ABCDEF0123456789ABCDEF"
CAMERA = 256  # side of an image, in pixels
LEVELS = 2


def mrxs(
    path: Path, image: np.ndarray, *, mpp: float, offset: tuple[int, int], canvas: tuple[int, int]
) -> Path:
    """Write ``image`` (H, W, 3) at ``offset`` of a canvas, in images of `CAMERA` pixels (x, y)."""
    folder = path.with_suffix("")
    folder.mkdir(parents=True)
    path.write_bytes(b"")
    rows, columns = (side // CAMERA for side in image.shape[:2])
    data, pages = bytearray(b"synthetic"), []
    for level in range(LEVELS):
        step = 2**level
        entries = []
        for row in range(0, rows, step):
            for column in range(0, columns, step):
                part = image[row * CAMERA :, column * CAMERA :][: CAMERA * step, : CAMERA * step]
                whole = np.full((CAMERA * step, CAMERA * step, 3), 255, np.uint8)
                whole[: part.shape[0], : part.shape[1]] = part
                packed = io.BytesIO()
                Image.fromarray(np.ascontiguousarray(whole[::step, ::step])).save(packed, "PNG")
                number = (offset[1] + row) * canvas[0] + offset[0] + column
                entries.append((number, len(data), packed.tell(), 0))
                data += packed.getvalue()
        pages.append(entries)
    (folder / "Data0000.dat").write_bytes(data)
    (folder / "Index.dat").write_bytes(_index(pages))
    (folder / "Slidedat.ini").write_text(_header(mpp, canvas), encoding="utf-8")
    return path


def _index(pages: list[list[tuple[int, int, int, int]]]) -> bytes:
    """The version, the slide's name, and a list of pages for each level, by places in the file."""
    start = len("01.02") + len(_ID)
    head = start + 8  # both roots
    at, places, bodies = head + 4 * len(pages), [], b""
    for entries in pages:
        places.append(at)
        body = struct.pack("<ii", 0, at + 8) + struct.pack("<ii", len(entries), 0)
        body += b"".join(struct.pack("<iiii", *entry) for entry in entries)
        bodies, at = bodies + body, at + len(body)
    roots = struct.pack("<ii", head, head)
    return f"01.02{_ID}".encode() + roots + struct.pack(f"<{len(places)}i", *places) + bodies


def _header(mpp: float, canvas: tuple[int, int]) -> str:
    levels = "\n".join(f"HIER_0_VAL_{n}_SECTION = LEVEL_{n}" for n in range(LEVELS))
    sections = "\n".join(
        f"""[LEVEL_{n}]
OVERLAP_X = 0
OVERLAP_Y = 0
MICROMETER_PER_PIXEL_X = {mpp * 2**n}
MICROMETER_PER_PIXEL_Y = {mpp * 2**n}
IMAGE_FORMAT = PNG
IMAGE_FILL_COLOR_BGR = 16777215
DIGITIZER_WIDTH = {CAMERA}
DIGITIZER_HEIGHT = {CAMERA}
IMAGE_CONCAT_FACTOR = {min(n, 1)}"""
        for n in range(LEVELS)
    )
    return f"""[GENERAL]
SLIDE_VERSION = 01.02
SLIDE_ID = {_ID}
IMAGENUMBER_X = {canvas[0]}
IMAGENUMBER_Y = {canvas[1]}
OBJECTIVE_MAGNIFICATION = 20
CameraImageDivisionsPerSide = 1
[HIERARCHICAL]
INDEXFILE = Index.dat
HIER_COUNT = 1
NONHIER_COUNT = 0
HIER_0_NAME = Slide zoom level
HIER_0_COUNT = {LEVELS}
{levels}
[DATAFILE]
FILE_COUNT = 1
FILE_0 = Data0000.dat
{sections}
"""
