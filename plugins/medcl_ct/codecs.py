"""Decoders of JPEG, JPEG Lossless and JPEG-LS for pydicom, by imagecodecs, which is there anyhow.

pydicom itself brings none, and of the packages that it looks for, the one for JPEG Lossless is
under the GPL. Packages that it finds come first.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from pydicom import uid
from pydicom.pixels import get_decoder

_JPEG = (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1)
_LS = (uid.JPEGLSLossless, uid.JPEGLSNearLossless)

DECODER_DEPENDENCIES = dict.fromkeys((*_JPEG, *_LS), ("numpy", "imagecodecs"))
"""pydicom reads this."""


def is_available(syntax: str) -> bool:
    """Whether imagecodecs was built with what this needs; pydicom asks."""
    import imagecodecs

    return bool((imagecodecs.JPEGLS if syntax in _LS else imagecodecs.JPEG8).available)


def decode(source: bytes, runner: Any) -> bytearray:
    """One frame's pixels, in rows; pydicom calls it with its ``DecodeRunner``."""
    import imagecodecs

    if runner.transfer_syntax in _LS:
        image = imagecodecs.jpegls_decode(source)
    else:
        image = imagecodecs.jpeg8_decode(source)  # lossless too, by libjpeg-turbo
    runner.set_option("bits_allocated", 8 * image.dtype.itemsize)
    if image.ndim == 3:
        runner.set_option("planar_configuration", 0)
    return bytearray(image.tobytes())


@lru_cache(maxsize=1)
def register() -> None:
    """Tell pydicom; once a process."""
    for syntax in DECODER_DEPENDENCIES:
        get_decoder(syntax).add_plugin("imagecodecs", (__name__, "decode"))


@lru_cache(maxsize=64)
def missing(syntax: str) -> bool:
    """Whether pixels of a transfer syntax cannot be decoded here."""
    register()
    try:
        return not get_decoder(uid.UID(syntax)).is_available
    except NotImplementedError:  # pydicom's word for a syntax that it has no decoder for
        return True
