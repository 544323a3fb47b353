"""Zeiss CZI that OpenSlide does not read (several dimensions, JPEG XR): by Zeiss's own library.

pylibCZIrw is optional and under the LGPL: ``pip install medcl[czi]``.
"""

from __future__ import annotations

import re
from contextlib import ExitStack
from typing import Any

import numpy as np
from PIL.Image import Image, fromarray

from medcl_pathology.reader import About, BadSlide, Pixels, plausible

_WHITE = (1.0, 1.0, 1.0)
_KINDS = ("Bgr24", "Gray8")


def installed() -> bool:
    """Whether Zeiss's library is there."""
    from importlib.util import find_spec

    return find_spec("pylibCZIrw") is not None


class CziSlide:
    """A CZI of 8-bit colour or grey, as one level: the library leaves pixels out where it shrinks.

    Raises:
        BadSlide: if it cannot be opened, or is of another kind.
    """

    def __init__(self, path: str) -> None:
        from pylibCZIrw import czi  # type: ignore[import-untyped,unused-ignore]

        self._opened = ExitStack()
        try:
            self._file: Any = self._opened.enter_context(czi.open_czi(path))
            box = self._file.total_bounding_rectangle
            kinds = set(self._file.pixel_types.values())
            planes = self._file.total_bounding_box
            text = str(self._file.raw_metadata)
        except Exception as error:  # the library raises many kinds on damaged files
            raise BadSlide(f"It is no CZI that can be read ({type(error).__name__}).") from None
        if not kinds or "Invalid" in kinds:
            raise BadSlide("It is no CZI that can be read: it holds no pixels.")
        if len(kinds) != 1 or not kinds <= set(_KINDS):
            raise BadSlide(
                f"Its pixels are {', '.join(sorted(map(str, kinds)))}; slides hold 8 bits a "
                "colour: export it as an OME-TIFF of named channels.",
                "unsupported",
            )
        deep = [f"{name} {b - a}" for name, (a, b) in planes.items() if name in "ZTC" and b - a > 1]
        if deep:
            raise BadSlide(
                f"It holds a stack ({', '.join(deep)}): export one plane.", "unsupported"
            )
        self._left, self._top = int(box.x), int(box.y)
        power = re.search(r"<NominalMagnification>([0-9.]+)</NominalMagnification>", text)
        self.about = About(
            vendor="zeiss",
            levels=((int(box.w), int(box.h)),),
            downsamples=((1.0, 1.0),),
            mpp=plausible(_micrometres(text, "X"), _micrometres(text, "Y")),
            objective=float(power[1]) if power else None,
        )

    def region(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        """See `medcl_pathology.reader.Slide.region`.

        Raises:
            BadSlide: if a block is damaged.
        """
        place = (self._left + x, self._top + y, width, height)
        try:
            read = self._file.read(roi=place, background_pixel=_WHITE)
        except Exception as error:
            raise BadSlide(f"A block of pixels is damaged ({type(error).__name__}).") from None
        found = np.asarray(read, dtype=np.uint8)[..., ::-1]  # blue comes first
        return np.ascontiguousarray(np.broadcast_to(found, (height, width, 3)))  # grey is one value

    def picture(self, level: int, x: int, y: int, width: int, height: int) -> Image:
        """See `medcl_pathology.reader.Slide.picture`."""
        return fromarray(self.region(level, x, y, width, height))


def _micrometres(xml: str, axis: str) -> float | None:
    """The size of a pixel along an axis: CZI gives metres."""
    found = re.search(rf'<Distance Id="{axis}">\s*<Value>([0-9.eE+-]+)</Value>', xml)
    return float(found[1]) * 1e6 if found else None
