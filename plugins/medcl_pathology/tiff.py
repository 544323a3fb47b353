"""TIFF where OpenSlide has no support: strips, one level, OME-TIFF; read block by block."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image, fromarray

from medcl_pathology.reader import About, BadSlide, Pixels, plausible

# It tells of every oddity of a header, with the file's name; what matters is raised here.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)

_JPEG = 7
_BLANK = bytes(32)  # rare in what a JPEG holds, sure where a disk lost a sector
_CACHE = 32 << 20  # bytes of decoded blocks that are kept, as OpenSlide keeps
_UM = {"µm": 1.0, "um": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6}


class TiffSlide:
    """A TIFF of 8-bit RGB or grey, whole or in planes, with or without a pyramid.

    With ``wary``, JPEG blocks that may be damaged count as damaged: for who can ask OpenSlide then.
    """

    def __init__(self, path: str, *, wary: bool = False) -> None:
        import tifffile

        self._wary = wary
        try:
            self._file = tifffile.TiffFile(path)
            series = self._file.series[0]
            self._levels = [_planes(level) for level in series.levels]
        except BadSlide:
            raise
        except Exception as error:  # tifffile raises many kinds on damaged files
            if _headless(path):
                raise BadSlide(
                    "It is cut short: its directory lies behind the end of the file. Copy it "
                    "again.",
                    "truncated",
                ) from None
            raise BadSlide(
                f"It is no slide or TIFF that can be read ({type(error).__name__})."
            ) from None
        _whole(self._file, self._levels)
        sizes = tuple((int(p[0].imagewidth), int(p[0].imagelength)) for p in self._levels)
        width, height = sizes[0]
        self.about = About(
            vendor="ome" if self._file.is_ome else "tiff",
            levels=sizes,
            downsamples=tuple((width / w, height / h) for w, h in sizes),
            mpp=_mpp(self._file, self._levels[0][0]),
            objective=None,
        )
        rows, columns = _block_size(self._levels[0][0])
        self._block = lru_cache(maxsize=max(_CACHE // (rows * columns * 3), 16))(self._decode)

    def region(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        """See `medcl_pathology.reader.Slide.region`.

        Raises:
            BadSlide: if a block is damaged.
        """
        planes = self._levels[level]
        out = np.full((height, width, 3), 255, dtype=np.uint8)
        for n, page in enumerate(planes):
            target = out if len(planes) == 1 else out[..., n : n + 1]
            for index, top, left in _touched(page, x, y, width, height):
                block = self._block(level, n, index)
                rows, columns = block.shape[:2]
                r0, r1 = max(top, y), min(top + rows, y + height, page.imagelength)
                c0, c1 = max(left, x), min(left + columns, x + width, page.imagewidth)
                if r0 < r1 and c0 < c1:
                    part = block[r0 - top : r1 - top, c0 - left : c1 - left]
                    target[r0 - y : r1 - y, c0 - x : c1 - x] = part
        return out

    def whole_level(self, width: int, height: int) -> int | None:
        """The level of that size, if it is one page of RGB tiles of which none was left out."""
        for n, (planes, size) in enumerate(zip(self._levels, self.about.levels, strict=True)):
            page = planes[0]
            rgb = len(planes) == 1 and page.samplesperpixel == 3
            if size == (width, height) and rgb and page.is_tiled and all(page.databytecounts):
                return n
        return None

    def picture(self, level: int, x: int, y: int, width: int, height: int) -> Image:
        """See `medcl_pathology.reader.Slide.picture`."""
        return fromarray(self.region(level, x, y, width, height))

    def _decode(self, level: int, plane: int, index: int) -> NDArray[np.uint8]:
        """One strip or tile, (rows, columns, 3) or (rows, columns, 1) of a plane or grey image."""
        page = self._levels[level][plane]
        handle = self._file.filehandle
        count = page.databytecounts[index]
        rows, columns = _block_size(page)
        samples = 3 if page.samplesperpixel >= 3 else 1
        if count == 0:  # left out by the scanner
            return np.full((rows, columns, samples), 255, dtype=np.uint8)
        try:
            handle.seek(page.dataoffsets[index])
            packed = handle.read(count)  # before page.decode is touched: that moves the handle
            if page.compression == _JPEG and _broken(packed, self._wary):
                raise ValueError("its data ends too soon, or part of it is blank")
            data = page.decode(packed, index, jpegtables=page.jpegtables)[0]
        except Exception as error:  # codecs raise many kinds on damaged blocks
            raise BadSlide(f"A block of pixels is damaged ({type(error).__name__}).") from None
        if data is None:
            return np.full((rows, columns, samples), 255, dtype=np.uint8)
        block: NDArray[np.uint8] = data[0][..., :samples]
        return 255 - block if page.photometric == 0 else block  # 0: white is zero


def _broken(packed: bytes, wary: bool) -> bool:
    """Whether a JPEG lacks its end or, if ``wary``, may have been blanked in between.

    The decoder fills in for what it cannot read and does not say so.
    """
    ends = packed.rstrip(b"\0\xff").endswith(b"\xff\xd9")  # what follows may be padding
    return not ends or (wary and _BLANK in packed.rstrip(b"\0"))


def _planes(level: Any) -> list[Any]:
    """The pages that hold a level: one of RGB or grey, or three of one colour each.

    Raises:
        BadSlide: for anything that is no 8-bit colour image.
    """
    pages = [page for page in level.pages if page is not None]
    first = pages[0]
    if first.dtype != np.uint8:
        raise BadSlide(f"Its pixels are {first.dtype}; slides hold 8 bits a colour.")
    if len(pages) > 1 and len(pages) != 3:
        raise BadSlide(f"It holds {len(pages)} planes and is no RGB image: export it as RGB.")
    if len(pages) == 1 and first.samplesperpixel not in (1, 3, 4):
        raise BadSlide(f"It holds {first.samplesperpixel} values a pixel and is no RGB image.")
    if first.samplesperpixel > 1 and first.planarconfig == 2:
        raise BadSlide("Its colours lie in separate planes of one page: export it as RGB.")
    if first.photometric == 3:
        raise BadSlide("Its colours are numbers of a palette: export it as RGB.")
    return pages


def _whole(file: Any, levels: list[list[Any]]) -> None:
    """Refuse a file whose blocks lie behind its end.

    Raises:
        BadSlide: if it was cut short.
    """
    size = file.filehandle.size
    ends = [
        np.asarray(page.dataoffsets, dtype=np.int64) + np.asarray(page.databytecounts)
        for pages in levels
        for page in pages
    ]
    beyond = sum(int((end > size).sum()) for end in ends)
    if beyond:
        total = sum(len(end) for end in ends)
        raise BadSlide(
            f"It is cut short: {beyond} of {total} blocks of pixels lie behind the end of the "
            "file. Copy it again.",
            "truncated",
        )


def _headless(path: str) -> bool:
    """Whether a file begins like a TIFF whose first directory is beyond its end."""
    with open(path, "rb") as handle:
        head = handle.read(16)
        size = handle.seek(0, 2)
    order: Literal["little", "big"] = "little" if head[:2] == b"II" else "big"
    if head[:2] not in (b"II", b"MM") or len(head) < 16:
        return False
    version = int.from_bytes(head[2:4], order)
    where = {42: head[4:8], 43: head[8:16]}.get(version)
    return where is not None and int.from_bytes(where, order) >= size


def check_whole(path: str) -> None:
    """`_whole` for a TIFF that another library reads; anything but a TIFF passes.

    Raises:
        BadSlide: if it was cut short.
    """
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            pages = [page for page in file.pages if hasattr(page, "dataoffsets")]
            _whole(file, [pages])
    except BadSlide:
        raise
    except Exception:  # no TIFF, or a dialect that tifffile does not know
        return


def is_ome(path: str) -> bool:
    """Whether a TIFF says that it is an OME-TIFF."""
    import tifffile

    with tifffile.TiffFile(path) as file:
        return bool(file.is_ome)


def _block_size(page: Any) -> tuple[int, int]:
    if page.is_tiled:
        return int(page.tilelength), int(page.tilewidth)
    return int(page.rowsperstrip or page.imagelength), int(page.imagewidth)


def _touched(page: Any, x: int, y: int, width: int, height: int) -> Iterator[tuple[int, int, int]]:
    """The blocks that a region touches: number, first row, first column."""
    rows, columns = _block_size(page)
    rows = min(rows, int(page.imagelength)) if not page.is_tiled else rows
    across = -(-int(page.imagewidth) // columns)
    down = -(-int(page.imagelength) // rows)
    for i in range(max(y // rows, 0), min(-(-(y + height) // rows), down)):
        for j in range(max(x // columns, 0), min(-(-(x + width) // columns), across)):
            yield i * across + j, i * rows, j * columns


def _mpp(file: Any, page: Any) -> tuple[float, float] | None:
    """From OME's XML, or from the resolution tags."""
    if file.is_ome and file.ome_metadata:
        found = [_ome_size(file.ome_metadata, axis) for axis in "XY"]
        return plausible(found[0], found[1])
    unit = {2: 25400.0, 3: 10000.0}.get(int(getattr(page, "resolutionunit", 1) or 1))
    try:
        across, down = page.get_resolution()
    except Exception:  # absent or 0/0
        return None
    if unit is None or not across or not down:
        return None
    return plausible(unit / across, unit / down)


def _ome_size(xml: str, axis: str) -> float | None:
    size = re.search(rf'PhysicalSize{axis}="([0-9.eE+-]+)"', xml)
    unit = re.search(rf'PhysicalSize{axis}Unit="([^"]+)"', xml)
    factor = _UM.get(unit[1] if unit else "µm")
    return float(size[1]) * factor if size and factor else None
