"""TIFF where OpenSlide has no support: strips, one level, OME-TIFF; read block by block."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image, fromarray

from medcl_pathology.channels import channel_names, check_colours
from medcl_pathology.reader import About, BadSlide, Pixels, plausible

# It tells of every oddity of a header, with the file's name; what matters is raised here.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)

_JPEG = 7
_BLANK = bytes(32)  # rare in what a JPEG holds, sure where a disk lost a sector
_CACHE = 32 << 20  # bytes of decoded blocks that are kept, as OpenSlide keeps
_UM = {"µm": 1.0, "um": 1.0, "μm": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6}


@dataclass(frozen=True)
class Plane:
    """Where one colour or channel of a level lies: a page, and the first of its blocks there."""

    page: Any
    first: int = 0


class TiffSlide:
    """A TIFF of 8-bit RGB or grey, whole or in planes, with or without a pyramid; or of channels.

    With ``wary``, JPEG blocks that may be damaged count as damaged: for who can ask OpenSlide then.
    """

    def __init__(self, path: str, *, wary: bool = False) -> None:
        import tifffile

        self._wary = wary
        try:
            self._file = tifffile.TiffFile(path)
            series = self._file.series[0]
            levels = [[_page(page) for page in level.pages if page is not None]
                      for level in series.levels]  # fmt: skip
            self.about, self._alpha, self._levels = self._described(levels)
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
        rows, columns = _block_size(self._levels[0][0].page)
        size = rows * columns * 3 * self._levels[0][0].page.dtype.itemsize
        self._block = lru_cache(maxsize=max(_CACHE // size, 16))(self._decode)

    def _described(
        self, levels: list[list[Any]]
    ) -> tuple[About, Literal["", "straight", "multiplied"], list[list[Plane]]]:
        first, file = levels[0][0], self._file
        channels = channel_names(file, levels[0])
        if not channels:
            for pages in levels:
                check_colours(pages)
        _whole(file, levels)
        sizes = tuple((int(p[0].imagewidth), int(p[0].imagelength)) for p in levels)
        width, height = sizes[0]
        mpp, objective = _scale(file, first)
        about = About(
            vendor="ome" if file.is_ome else "aperio" if file.is_svs else "tiff",
            levels=sizes,
            downsamples=tuple((width / w, height / h) for w, h in sizes),
            mpp=mpp,
            objective=objective,
            channels=channels,
        )
        return about, "" if channels else _alpha(first), [_planes(pages) for pages in levels]

    def region(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        """See `medcl_pathology.reader.Slide.region`; of channels, their mean as grey.

        Raises:
            BadSlide: if a block is damaged.
        """
        if self.about.channels:
            planes = self.channels(level, x, y, width, height)
            grey = planes.mean(axis=0) * (255 / _largest(planes.dtype))
            return np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, axis=-1)
        planes_ = self._levels[level]
        samples = len(planes_) if len(planes_) > 1 else _samples(planes_[0].page)
        raw = np.full((height, width, samples), 255, dtype=np.uint8)
        for n, plane in enumerate(planes_):
            target = raw if len(planes_) == 1 else raw[..., n : n + 1]
            self._fill(target, level, n, plane, x, y)
        if self._alpha:
            return _on_white(raw, self._alpha)
        return raw.repeat(3, axis=-1) if samples == 1 else raw

    def channels(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[Any]:
        """All channels of a place, (C, height, width) as stored; 0 outside.

        Raises:
            BadSlide: if a block is damaged.
        """
        planes = self._levels[level]
        count = len(self.about.channels)
        out = np.zeros((height, width, count), dtype=planes[0].page.dtype)
        for n, plane in enumerate(planes):
            target = out if len(planes) == 1 else out[..., n : n + 1]
            self._fill(target, level, n, plane, x, y)
        return np.moveaxis(out, -1, 0)

    def _fill(self, target: NDArray[Any], level: int, n: int, plane: Plane, x: int, y: int) -> None:
        """Copy what a plane has of a place into an array (rows, columns, samples)."""
        height, width = target.shape[:2]
        page = plane.page
        for index, top, left in _touched(page, x, y, width, height):
            block = self._block(level, n, plane.first + index)
            rows, columns = block.shape[:2]
            r0, r1 = max(top, y), min(top + rows, y + height, page.imagelength)
            c0, c1 = max(left, x), min(left + columns, x + width, page.imagewidth)
            if r0 < r1 and c0 < c1:
                part = block[r0 - top : r1 - top, c0 - left : c1 - left]
                target[r0 - y : r1 - y, c0 - x : c1 - x] = part

    def whole_level(self, width: int, height: int) -> int | None:
        """The level of that size, if it is one page of RGB tiles of which none was left out."""
        for n, (planes, size) in enumerate(zip(self._levels, self.about.levels, strict=True)):
            page = planes[0].page
            rgb = len(planes) == 1 and page.samplesperpixel == 3 and not self.about.channels
            if size == (width, height) and rgb and page.is_tiled and all(page.databytecounts):
                return n
        return None

    def picture(self, level: int, x: int, y: int, width: int, height: int) -> Image:
        """See `medcl_pathology.reader.Slide.picture`."""
        return fromarray(self.region(level, x, y, width, height))

    def _decode(self, level: int, plane: int, index: int) -> NDArray[Any]:
        """One strip or tile, (rows, columns, samples); of a plane or grey image, one sample."""
        page = self._levels[level][plane].page
        handle = self._file.filehandle
        count = page.databytecounts[index]
        rows, columns = _block_size(page)
        samples = 1 if page.planarconfig == 2 else page.samplesperpixel
        blank = 0 if self.about.channels else 255
        empty = np.full((rows, columns, samples), blank, dtype=page.dtype)
        if count == 0:  # left out by the scanner
            return empty
        try:
            handle.seek(page.dataoffsets[index])
            packed = handle.read(count)  # before page.decode is touched: that moves the handle
            if page.compression == _JPEG and _broken(packed, self._wary):
                raise ValueError("its data ends too soon, or part of it is blank")
            data = page.decode(packed, index, jpegtables=page.jpegtables)[0]
        except Exception as error:  # codecs raise many kinds on damaged blocks
            raise BadSlide(f"A block of pixels is damaged ({type(error).__name__}).") from None
        if data is None:
            return empty
        block: NDArray[Any] = data[0]
        if page.photometric == 0:  # white is zero; alpha, behind the grey, is as ever
            grey = _largest(block.dtype) - block[..., :1]
            block = np.concatenate((grey, block[..., 1:]), axis=-1)
        return block


def _largest(kind: np.dtype[Any]) -> Any:
    """The most that a pixel of a type can be; of decimals, 1."""
    return np.iinfo(kind).max if kind.kind in "iu" else 1.0


def _page(page: Any) -> Any:
    """A page with its own tags: tifffile lists later ones as frames, which lack them."""
    return page.aspage() if hasattr(page, "aspage") else page


def _samples(page: Any) -> int:
    return int(page.samplesperpixel)


def _planes(pages: list[Any]) -> list[Plane]:
    """The planes of a level: pages of one colour each, planes of a page, or all in one."""
    first = pages[0]
    if len(pages) == 1 and first.planarconfig == 2 and first.samplesperpixel > 1:
        each = len(first.dataoffsets) // first.samplesperpixel
        return [Plane(first, n * each) for n in range(first.samplesperpixel)]
    return [Plane(page) for page in pages]


def _alpha(page: Any) -> Literal["", "straight", "multiplied"]:
    """What a page's last sample says of the others; what is not said counts as in libtiff."""
    if page.samplesperpixel not in (2, 4):
        return ""
    kind = int(page.extrasamples[0]) if page.extrasamples else 0
    return "straight" if kind == 2 else "multiplied"


def _on_white(raw: Pixels, alpha: str) -> Pixels:
    """Colours (H, W, 3) of pixels (H, W, 2 or 4), grey or red, green and blue, and last alpha.

    One rule for all ways into a slide: what is transparent is white.
    """
    share = raw[..., -1:].astype(np.float32) / 255
    colours = raw[..., :1].repeat(3, axis=-1) if raw.shape[-1] == 2 else raw[..., :3]
    shown = colours * share if alpha == "straight" else colours.astype(np.float32)
    return np.asarray(np.rint(shown + 255 * (1 - share)).clip(0, 255), dtype=np.uint8)


def _broken(packed: bytes, wary: bool) -> bool:
    """Whether a JPEG lacks its end or, if ``wary``, may have been blanked in between.

    The decoder fills in for what it cannot read and does not say so.
    """
    ends = packed.rstrip(b"\0\xff").endswith(b"\xff\xd9")  # what follows may be padding
    return not ends or (wary and _BLANK in packed.rstrip(b"\0"))


def _whole(file: Any, levels: Sequence[Sequence[Any]]) -> None:
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


def only_here(path: str) -> bool:
    """Whether OpenSlide would take a TIFF for less than it is.

    An OME-TIFF, one of channels, one whose colours lie in pages of their own, or grey with alpha,
    whose transparency OpenSlide shows as grey.
    """
    import tifffile

    with tifffile.TiffFile(path) as file:
        if file.is_ome:
            return True
        pages = [_page(page) for page in file.series[0].levels[0].pages if page is not None]
        grey_alpha = _samples(pages[0]) == 2
        return len(pages) > 1 or grey_alpha or bool(channel_names(file, pages))


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


def _scale(file: Any, page: Any) -> tuple[tuple[float, float] | None, float | None]:
    """µm per pixel and the objective's magnification: of OME's or Aperio's words, or the tags."""
    if file.is_ome and file.ome_metadata:
        found = [_ome_size(file.ome_metadata, axis) for axis in "XY"]
        objective = re.search(r'NominalMagnification="([0-9.]+)"', file.ome_metadata)
        return plausible(found[0], found[1]), float(objective[1]) if objective else None
    if file.is_svs:
        said = dict(re.findall(r"(AppMag|MPP)\s*=\s*([0-9.]+)", str(page.description)))
        size = float(said["MPP"]) if "MPP" in said else None
        return plausible(size, size), float(said["AppMag"]) if "AppMag" in said else None
    return _tagged(page), None


def _tagged(page: Any) -> tuple[float, float] | None:
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
