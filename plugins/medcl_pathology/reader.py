"""Slides behind one small interface: OpenSlide where it can, tifffile where it cannot.

OpenSlide draws every region on a canvas; taking the blocks of a plain TIFF as they are is several
times as fast. So a slide that is read more than a few times is read that way, if both give the same
pixels.

Pixels are RGB, (rows, columns, 3) uint8; what a scanner left empty is white. Labels and macro
images are never read: they may show a patient's name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from medcl.errors import MedclError

if TYPE_CHECKING:
    from PIL.Image import Image

    from medcl_pathology.tiff import TiffSlide

_OPEN_AT_ONCE = 16
_PLAIN = ("aperio", "generic-tiff")  # others stitch blocks, or hide them in one large JPEG
_PAYS = 8  # regions of a slide from which on a second way into it is worth its opening
_PLAUSIBLE = (0.02, 40.0)  # µm; 72 dpi, which some software writes for "unknown", is 353

# OpenSlide's words for what is broken; others are for what it does not know. An attribute that it
# could not read ("Couldn't read PlanarConfiguration") is one that DICOM of this kind does not have.
_BROKEN = re.compile(
    r"(?-i:(?!Couldn't read [A-Z]\w+$))(?:short read|premature|truncat|end of file|corrupt|"
    r"couldn't read|could not read|cannot read|can't read|failed to read|i/o error|checksum|"
    r"bad magic|not enough data|damaged)",
    re.IGNORECASE,
)

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class About:
    """What a slide's header says.

    Attributes:
        vendor: as OpenSlide names it, or the kind of file.
        levels: (width, height) of each, the largest first.
        downsamples: of each level against the first, along x and y.
        mpp: µm per pixel of the first level along x and y, where it is known and plausible.
        objective: its magnification.
        channels: names, where it is no RGB image but one of channels (fluorescence, multiplex).
        bounds: x, y, width, height of what was scanned, in pixels of the first level, where the
            canvas is larger; QuPath crops a slide to it.
    """

    vendor: str
    levels: tuple[tuple[int, int], ...]
    downsamples: tuple[tuple[float, float], ...]
    mpp: tuple[float, float] | None
    objective: float | None
    has_label: bool = False
    has_macro: bool = False
    channels: tuple[str, ...] = ()
    bounds: tuple[int, int, int, int] | None = None


class Slide(Protocol):
    """An opened slide."""

    about: About

    def region(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        """Pixels of a level whose top left corner is (x, y) of that level; white outside."""
        ...

    def picture(self, level: int, x: int, y: int, width: int, height: int) -> Image:
        """The same as Pillow's, in RGB: to be resampled without copies between the two."""
        ...


@runtime_checkable
class Channels(Slide, Protocol):
    """A slide that may be an image of channels: ``about.channels`` says so."""

    def channels(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[Any]:
        """All channels of a place, (C, height, width) as stored; 0 outside."""
        ...


class BadSlide(MedclError):
    """A slide that cannot be opened or read: a short code and the reason, without its name."""

    def __init__(self, reason: str, code: str = "unreadable") -> None:
        super().__init__(reason)
        self.code = code


def plausible(x: float | None, y: float | None) -> tuple[float, float] | None:
    """Both, if a microscope can have such pixels."""
    low, high = _PLAUSIBLE
    if x is None or y is None or not (low <= x <= high and low <= y <= high):
        return None
    return x, y


def open_slide(path: Path, *, careful: bool = False) -> Slide:
    """Open a slide, or take it from the few that this process keeps open.

    ``careful`` reads through OpenSlide alone where it can: slower, but it notices more damage.

    Raises:
        BadSlide: if no reader can.
    """
    return _opened(str(path), careful)


@lru_cache(maxsize=_OPEN_AT_ONCE)
def _opened(path: str, careful: bool) -> Slide:
    import openslide

    from medcl_pathology.omezarr import ZarrSlide, store_of
    from medcl_pathology.tiff import TiffSlide, check_whole, only_here

    if (store := store_of(Path(path))) is not None:
        return ZarrSlide(store)
    try:
        open(path, "rb").close()
    except OSError as error:
        raise BadSlide(f"It cannot be opened: {error.strerror}.") from None
    kind = openslide.OpenSlide.detect_format(path)
    # OpenSlide takes an OME-TIFF for a plain one, and sees neither its levels nor its scale; and
    # of a TIFF of channels it shows the first as grey.
    if kind is not None and not (kind == "generic-tiff" and only_here(path)):
        try:
            return OpenSlideSlide(path, careful=careful)
        except openslide.OpenSlideError as error:
            check_whole(path)  # says more, where it can
            words = str(error).removeprefix(f"Reading {path}: ").strip() or type(error).__name__
        with suppress(BadSlide):  # a compression that OpenSlide has not, and tifffile has
            slide = TiffSlide(path)
            slide.region(0, 0, 0, 1, 1)
            return slide
        if kind == "zeiss" and (found := _by_zeiss(path)) is not None:
            return found
        if _BROKEN.search(words):
            raise BadSlide(f"It is damaged or cut short: OpenSlide says “{words}”. Copy it again.")
        raise BadSlide(
            f"OpenSlide does not read it: “{words}”. Export it as a tiled TIFF or OME-TIFF"
            + (", or pip install 'medcl[czi]'." if kind == "zeiss" else "."),
            "unsupported",
        )
    return TiffSlide(path)


def _by_zeiss(path: str) -> Slide | None:
    """A CZI by Zeiss's own library, where it is installed and reads it."""
    from medcl_pathology.czi import CziSlide, installed

    if not installed():
        return None
    try:
        return CziSlide(path)
    except BadSlide as error:
        if error.code == "unsupported":
            raise
        return None


# A handle that two processes share reads at the other's position.
os.register_at_fork(after_in_child=_opened.cache_clear)


class OpenSlideSlide:
    """Everything that OpenSlide reads."""

    def __init__(self, path: str, *, careful: bool = False) -> None:
        import openslide

        self._careful = careful
        self._path, self._slide = path, openslide.OpenSlide(path)
        self._reads = 0
        self._direct: dict[int, tuple[TiffSlide, int] | None] = {}
        known = self._slide.properties
        images = set(self._slide.associated_images)
        width, height = self._slide.dimensions
        self.about = About(
            vendor=str(known.get("openslide.vendor", "unknown")),
            levels=tuple(self._slide.level_dimensions),
            downsamples=tuple((width / w, height / h) for w, h in self._slide.level_dimensions),
            mpp=plausible(
                _number(known.get("openslide.mpp-x")), _number(known.get("openslide.mpp-y"))
            ),
            objective=_number(known.get("openslide.objective-power")),
            has_label="label" in images,
            has_macro="macro" in images,
            bounds=_bounds(known),
        )

    def region(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        """See `Slide.region`.

        Raises:
            BadSlide: if a block is damaged.
        """
        self._reads += 1
        if (direct := self.direct(level)) is not None:
            blocks, theirs = direct
            with suppress(BadSlide):  # OpenSlide may read it yet
                return blocks.region(theirs, x, y, width, height)
        return np.asarray(self._drawn(level, x, y, width, height))

    def picture(self, level: int, x: int, y: int, width: int, height: int) -> Image:
        """See `Slide.picture`.

        Raises:
            BadSlide: if a block is damaged.
        """
        self._reads += 1
        if (direct := self.direct(level)) is not None:
            blocks, theirs = direct
            with suppress(BadSlide):
                return blocks.picture(theirs, x, y, width, height)
        return self._drawn(level, x, y, width, height)

    def direct(self, level: int) -> tuple[TiffSlide, int] | None:
        """The file as blocks, and this level's number there; none before it pays, or if unlike.

        Where a level is not a whole number of times smaller, OpenSlide begins a fraction of a pixel
        beside the place, and blends; there it is blocks from the first region on or never, since
        what a tile looks like must not depend on how many were read before.
        """
        if self._careful or self.about.vendor not in _PLAIN:
            return None
        if self._reads < _PAYS and self._whole_steps(level):
            return None
        if level not in self._direct:
            self._direct[level] = self._alike(level)
        return self._direct[level]

    def _whole_steps(self, level: int) -> bool:
        return all(down == round(down) for down in self.about.downsamples[level])

    def _alike(self, level: int) -> tuple[TiffSlide, int] | None:
        """`direct`, if its pixels are OpenSlide's: all of them, but for a blend of under a grey."""
        from medcl_pathology.tiff import TiffSlide

        opened = next((known[0] for known in self._direct.values() if known is not None), None)
        size = np.array(self.about.levels[level])
        side = int(min(64, *size))
        try:
            blocks = opened or TiffSlide(self._path, wary=True)
            theirs = blocks.whole_level(*self.about.levels[level])
            if theirs is None:
                return None
            if self._whole_steps(level):
                places, allowed = [tuple(part * (size - side) // 4) for part in (1, 2, 3)], 0.0
            else:
                places, allowed = (
                    [tuple(self._exact(level, n, size[n] - side) for n in (0, 1))],
                    1.0,
                )
            for x, y in places:
                drawn = np.asarray(self._drawn(level, x, y, side, side), dtype=np.float32)
                if np.abs(drawn - blocks.region(theirs, x, y, side, side)).mean() > allowed:
                    return None
        except BadSlide:
            return None
        return blocks, theirs

    def _exact(self, level: int, axis: int, last: int) -> int:
        """The place at which OpenSlide begins most exactly when it is asked for it."""
        places = np.arange(last + 1)
        asked = np.rint(places * self.about.downsamples[level][axis])
        beside = np.abs(asked / self._slide.level_downsamples[level] - places)
        return int(places[::-1][beside[::-1].argmin()])  # far from the corner, which is often empty

    def _drawn(self, level: int, x: int, y: int, width: int, height: int) -> Image:
        """A region as OpenSlide draws it, on white.

        Raises:
            BadSlide: if a block is damaged.
        """
        import openslide
        from PIL.Image import fromarray

        down_x, down_y = self.about.downsamples[level]
        place = (round(x * down_x), round(y * down_y))
        try:
            image = self._slide.read_region(place, level, (width, height))
        except openslide.OpenSlideError as error:  # it would now refuse everything: open anew
            self._slide.close()
            self._slide = openslide.OpenSlide(self._path)
            raise BadSlide(f"A block of pixels is damaged ({type(error).__name__}).") from None
        if image.getchannel("A").getextrema()[0] == 255:
            return image.convert("RGB")
        rgba = np.asarray(image)
        share = rgba[..., 3:].astype(np.float32) / 255
        flat = rgba[..., :3] * share + 255 * (1 - share)
        return fromarray(np.asarray(np.rint(flat), dtype=np.uint8))


def _bounds(known: Mapping[str, str]) -> tuple[int, int, int, int] | None:
    """What was scanned, if the header says it."""
    try:
        x, y, width, height = (
            int(known[f"openslide.bounds-{name}"]) for name in ("x", "y", "width", "height")
        )
    except (KeyError, ValueError):
        return None
    return (x, y, width, height) if width > 0 and height > 0 else None


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if np.isfinite(value) and value > 0 else None
