"""What the planes of a TIFF are: colours of light through stained tissue, or channels of their own.

Fluorescence and multiplexed images have channels with names (DAPI, CD8, …), however many they are:
three of them are no red, green and blue.
"""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import numpy as np

from medcl_pathology.reader import BadSlide

COLOURS = ({"r", "red"}, {"g", "green"}, {"b", "blue"})
_FLUORESCENT = re.compile(
    r'ContrastMethod="Fluorescence"|IlluminationType="Epifluorescence"|EmissionWavelength="|Fluor="'
)
_DEPTHS = ("uint8", "uint16", "float32")


def channel_names(file: Any, pages: list[Any]) -> tuple[str, ...]:
    """The channels of a TIFF's first image; none where it is RGB or grey.

    Args:
        file: tifffile's.
        pages: of its largest level.

    Raises:
        BadSlide: for channels of a kind that is not read.
    """
    first = pages[0]
    planes = len(pages) * int(first.samplesperpixel)
    if len(pages) == 1 and (int(first.photometric) not in (0, 1) or planes == 2):
        return ()  # RGB, a palette, …; two are grey and alpha
    names = _names(file, pages)
    if planes == 3 and not any(names) and not _fluorescent(file):
        return ()  # three planes that nothing is said of: colours
    if planes == 1 and (not any(names) or (first.dtype == np.uint8 and _plain(names))):
        return ()
    if planes == 3 and all(n.lower() in c for n, c in zip(names, COLOURS, strict=False)):
        return ()
    axes = str(file.series[0].axes)
    if planes > 1 and {"Z", "T"} & set(axes):
        raise BadSlide(f"It holds a stack ({axes}): export one plane.", "unsupported")
    if str(first.dtype) not in _DEPTHS:
        raise BadSlide(f"Its channels are {first.dtype}: 8 or 16 bits are read.", "unsupported")
    names = names if len(names) == planes else [""] * planes
    told = [name or f"channel {n + 1}" for n, name in enumerate(names)]
    return tuple(f"{t} ({n + 1})" if told.count(t) > 1 else t for n, t in enumerate(told))


def check_colours(pages: list[Any]) -> None:
    """Refuse a level that is no 8-bit colour or grey image.

    Raises:
        BadSlide: of code "unsupported".
    """
    first = pages[0]
    said = ""
    if first.dtype != np.uint8:
        said = f"Its pixels are {first.dtype}; slides hold 8 bits a colour."
    elif len(pages) not in (1, 3):
        said = f"It holds {len(pages)} planes and is no RGB image: export it as RGB."
    elif len(pages) == 1 and first.samplesperpixel not in (1, 2, 3, 4):
        said = f"It holds {first.samplesperpixel} values a pixel and is no RGB image."
    elif int(first.photometric) == 3:
        said = "Its colours are numbers of a palette: export it as RGB."
    elif int(first.photometric) in (5, 8, 9):
        said = "Its colours are those of print or of the eye (CMYK, Lab): export it as RGB."
    elif int(first.photometric) == 6 and int(first.compression) not in (6, 7, 33003, 33007, 50001):
        said = "Its colours are YCbCr without JPEG: export it as RGB."
    if said:
        raise BadSlide(said, "unsupported")


def _plain(names: list[str]) -> bool:
    """Whether the one channel of a grey image is called as software calls what it knows not."""
    return bool(re.fullmatch(r"(channel|c|image|gr[ae]y|brightfield)?[ _:]*\d*([ _:]\d+)*",
                             names[0].strip(), re.IGNORECASE))  # fmt: skip


def _fluorescent(file: Any) -> bool:
    return bool(file.is_ome and file.ome_metadata and _FLUORESCENT.search(file.ome_metadata))


def _names(file: Any, pages: list[Any]) -> list[str]:
    """What channels are called, in the order of the planes; "" for one without a name."""
    if file.is_ome and file.ome_metadata:
        return _of_ome(file.ome_metadata)
    found = [_of_page(str(page.description or "")) for page in pages]
    if not any(found) and file.is_imagej:
        labels = (file.imagej_metadata or {}).get("Labels") or []
        found = [str(label) for label in labels]
    return found


def _of_ome(xml: str) -> list[str]:
    """Of the first image. A channel of three samples is RGB, and no name of a channel."""
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError:
        return []
    for image in root.iter():
        if image.tag.rpartition("}")[2] != "Image":
            continue
        channels = [c for c in image.iter() if c.tag.rpartition("}")[2] == "Channel"]
        return [str(channel.get("Name") or channel.get("Fluor") or "") for channel in channels]
    return []


def _of_page(description: str) -> str:
    """QPTIFF says each page's channel in XML (PerkinElmer, Akoya)."""
    if "<PerkinElmer-QPI-ImageDescription" not in description:
        return ""
    for tag in ("Name", "Biomarker"):
        if found := re.search(rf"<{tag}>([^<]+)</{tag}>", description):
            return found[1].strip()
    return ""
