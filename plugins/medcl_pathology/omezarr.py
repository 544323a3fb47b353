"""OME-Zarr (NGFF 0.4 on Zarr 2, 0.5 on Zarr 3): a pyramid in a folder of blocks.

The library is optional: ``pip install medcl[zarr]``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image, fromarray

from medcl_pathology.channels import COLOURS
from medcl_pathology.reader import About, BadSlide, Pixels, plausible
from medcl_pathology.units import ZARR

_MICROMETRES = {
    "micrometer": 1.0, "µm": 1.0, "um": 1.0, "nanometer": 1e-3, "nm": 1e-3, "millimeter": 1e3,
    "mm": 1e3, "centimeter": 1e4, "cm": 1e4, "meter": 1e6, "m": 1e6, "angstrom": 1e-4,
    "inch": 25_400.0,
}  # fmt: skip
_DEPTHS = ("uint8", "uint16", "float32")
_LARGEST_BLOCK = 1 << 28
"""Bytes of a block: it is decoded as a whole, and its size is what the header says."""
_LARGEST_HEADER = 16 << 20
_RGB = ({"FF0000"}, {"00FF00"}, {"0000FF"})


def installed() -> bool:
    """Whether the library is there."""
    from importlib.util import find_spec

    return find_spec("zarr") is not None


def store_of(path: Path) -> Path | None:
    """The folder ``….zarr`` that a file lies in, the outermost one; None of another file."""
    inside = [folder for folder in path.parents if folder.name.lower().endswith(ZARR)]
    return inside[-1] if inside else None


class ZarrSlide:
    """RGB of 8 bits, or an image of channels of 8 or 16 bits.

    Raises:
        BadSlide: if it is none, or of another kind.
    """

    def __init__(self, store: Path) -> None:
        if not installed():
            raise BadSlide("OME-Zarr needs a library: pip install 'medcl[zarr]'.", "unsupported")
        image, attributes = _image(store)
        try:
            scales = attributes["multiscales"][0]
            axes = [axis if isinstance(axis, dict) else {"name": axis} for axis in scales["axes"]]
            names = [str(axis["name"]).lower() for axis in axes]
            levels = [str(level["path"]) for level in scales["datasets"]]
            size = _pixel(scales, axes, names)
            self._arrays = [_array(image, level) for level in levels]
        except BadSlide:
            raise
        except Exception as error:  # whatever a damaged header makes of it
            raise BadSlide(
                f"It is no OME-Zarr image that can be read ({type(error).__name__})."
            ) from None
        self._names = names
        shapes = [dict(zip(names, array.shape, strict=False)) for array in self._arrays]
        if not {"x", "y"} <= set(names) or any(len(a.shape) != len(names) for a in self._arrays):
            raise BadSlide("It is no OME-Zarr image: its axes do not go with its arrays.")
        deep = [f"{n} {shapes[0][n]}" for n in names if n not in "xyc" and shapes[0][n] > 1]
        if deep:
            raise BadSlide(
                f"It holds a stack ({', '.join(deep)}): export one plane.", "unsupported"
            )
        count, kind = shapes[0].get("c", 1), str(self._arrays[0].dtype)
        if kind not in _DEPTHS:
            raise BadSlide(f"Its pixels are {kind}: 8 or 16 bits are read.", "unsupported")
        channels = _channels(attributes.get("omero"), count, kind)
        if not channels and kind != "uint8":
            raise BadSlide(f"Its pixels are {kind}; slides hold 8 bits a colour.", "unsupported")
        sizes = tuple((int(shape["x"]), int(shape["y"])) for shape in shapes)
        width, height = sizes[0]
        self.about = About(
            vendor="ome-zarr",
            levels=sizes,
            downsamples=tuple((width / w, height / h) for w, h in sizes),
            mpp=size,
            objective=None,
            channels=channels,
        )

    def channels(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[Any]:
        """All channels of a place, (C, height, width) as stored; 0 outside.

        Raises:
            BadSlide: if a block is damaged.
        """
        return self._read(level, x, y, width, height, 0)

    def region(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        """See `medcl_pathology.reader.Slide.region`; of channels, their mean as grey.

        Raises:
            BadSlide: if a block is damaged.
        """
        if self.about.channels:
            planes = self.channels(level, x, y, width, height)
            most = np.iinfo(planes.dtype).max if planes.dtype.kind in "iu" else 1.0
            grey = (planes.mean(axis=0) * (255 / most)).clip(0, 255).astype(np.uint8)
            return np.repeat(grey[..., None], 3, axis=-1)
        planes = self._read(level, x, y, width, height, 255)
        return np.ascontiguousarray(np.broadcast_to(np.moveaxis(planes, 0, -1), (height, width, 3)))

    def picture(self, level: int, x: int, y: int, width: int, height: int) -> Image:
        """See `medcl_pathology.reader.Slide.picture`."""
        return fromarray(self.region(level, x, y, width, height))

    def _read(
        self, level: int, x: int, y: int, width: int, height: int, outside: int
    ) -> NDArray[Any]:
        array, (full_w, full_h) = self._arrays[level], self.about.levels[level]
        x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + width, full_w), min(y + height, full_h)
        count = len(self.about.channels) or (3 if self._colours(array) == 3 else 1)
        out = np.full((count, height, width), outside, dtype=array.dtype)
        if x0 < x1 and y0 < y1:
            place = {"x": slice(x0, x1), "y": slice(y0, y1), "c": slice(None)}
            try:
                found = np.asarray(array[tuple(place.get(name, 0) for name in self._names)])
            except Exception as error:  # codecs raise many kinds on damaged blocks
                raise BadSlide(f"A block of pixels is damaged ({type(error).__name__}).") from None
            kept = [name for name in self._names if name in place]
            if "c" not in kept:
                found, kept = found[None], ["c", *kept]
            found = found.transpose([kept.index(name) for name in "cyx"])
            out[:, y0 - y : y1 - y, x0 - x : x1 - x] = found
        return out

    def _colours(self, array: Any) -> int:
        return int(array.shape[self._names.index("c")]) if "c" in self._names else 1


def _image(store: Path) -> tuple[Path, Mapping[str, Any]]:
    """The image's group and what NGFF says of it: of the store, or of its first image.

    Raises:
        BadSlide: if there is none.
    """
    for group in (store, store / "0"):
        found = _attributes(group)
        if found.get("multiscales"):
            return group, found
    raise BadSlide(
        "It is Zarr without an image of OME's form (multiscales): convert it with bioformats2raw.",
        "unsupported",
    )


def _attributes(group: Path) -> Mapping[str, Any]:
    """``attributes.ome`` of Zarr 3, or all of Zarr 2."""
    header = _json(group / "zarr.json")
    if header:
        attributes = header.get("attributes")
        attributes = attributes if isinstance(attributes, dict) else {}
        inner = attributes.get("ome")
        return inner if isinstance(inner, dict) else attributes
    return _json(group / ".zattrs")


def _json(path: Path) -> dict[str, Any]:
    """An object; empty if there is no such file or it is none.

    Raises:
        BadSlide: if the file is too large for a header.
    """
    try:
        if path.stat().st_size > _LARGEST_HEADER:
            raise BadSlide("Its header is too large to be one.")
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _array(image: Path, level: str) -> Any:
    """The array of a level.

    Raises:
        BadSlide: if it lies outside, its codec runs code, or a block is too large.
    """
    import zarr

    if PurePosixPath(level).is_absolute() or ".." in PurePosixPath(level).parts:
        raise BadSlide("A level of it lies in another folder: it is no image to be read.")
    folder = image / level
    if not folder.resolve().is_relative_to(image.resolve()):
        raise BadSlide("A level of it lies in another folder: it is no image to be read.")
    header = json.dumps(_json(folder / "zarr.json") or _json(folder / ".zarray")).lower()
    if "pickle" in header or '"|o"' in header:  # an object of Python may run any code
        raise BadSlide("Its pixels are pickled objects, which are never opened.", "unsupported")
    array = zarr.open_array(str(folder), mode="r")
    block = getattr(array, "shards", None) or array.chunks
    if int(np.prod(block, dtype=np.float64)) * array.dtype.itemsize > _LARGEST_BLOCK:
        raise BadSlide("A block of it is larger than 256 MiB: write it in smaller ones.",
                       "unsupported")  # fmt: skip
    return array


def _pixel(
    scales: Mapping[str, Any], axes: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> tuple[float, float] | None:
    """µm of a full-size pixel along x and y: its scalings, in the units of the axes."""
    steps = np.ones(len(names))
    of_level = scales["datasets"][0].get("coordinateTransformations") or []
    of_all = scales.get("coordinateTransformations") or []
    scaled = [t for t in (*of_level, *of_all) if t.get("type") == "scale"]
    if not scaled:
        return None
    for one in scaled:
        steps = steps * np.asarray(one["scale"], dtype=float)
    found = []
    for name in "xy":
        at = names.index(name)
        factor = _MICROMETRES.get(str(axes[at].get("unit") or "").lower())
        found.append(None if factor is None else float(steps[at]) * factor)
    return plausible(found[0], found[1])


def _channels(omero: Any, count: int, kind: str) -> tuple[str, ...]:
    """Names of the channels; none of one grey plane, or of red, green and blue."""
    listed = omero.get("channels") if isinstance(omero, dict) else None
    told = [c if isinstance(c, dict) else {} for c in listed] if isinstance(listed, list) else []
    names = [str(c.get("label") or "") for c in told] if len(told) == count else [""] * count
    if count == 3 and kind == "uint8":
        colours = [str(c.get("color") or "").upper().lstrip("#")[:6] for c in told]
        by_name = all(n.lower() in c for n, c in zip(names, COLOURS, strict=False))
        by_colour = len(told) == 3 and all(n in c for n, c in zip(colours, _RGB, strict=True))
        plain = all(n.lower() in ("", *"012", *(f"channel {k}" for k in range(4))) for n in names)
        if by_name or (by_colour and plain) or not told:
            return ()
    if count == 1 and kind == "uint8" and not any(names):
        return ()
    shown = [name or f"channel {n + 1}" for n, name in enumerate(names)]
    return tuple(f"{t} ({n + 1})" if shown.count(t) > 1 else t for n, t in enumerate(shown))
