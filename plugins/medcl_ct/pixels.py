"""Where a volume's values come from: slices in HU one at a time, in any order, with their geometry.

Nothing here holds more than one slice of a DICOM series, so that 2,000 slices cost no more memory
than 20.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medcl.errors import MedclError
from medcl.plugin import MEMBER
from medcl_ct import archives, enhanced, header, kinds, nested, suv, tags
from medcl_ct.affine_files import Volume
from medcl_ct.kinds import ENHANCED
from medcl_ct.quiet import quiet
from medcl_ct.stacking import is_frame
from medcl_ct.units import VOLUMES

PADDING = -32768.0
"""Marks pixels outside of what was scanned, in the slices of a `Source`."""

_SMALL = 32 * 1024  # bytes
_PACKAGES = {
    "1.2.840.10008.1.2.4.5": "imagecodecs",  # .50, .51, .57 JPEG
    "1.2.840.10008.1.2.4.70": "imagecodecs",
    "1.2.840.10008.1.2.4.8": "imagecodecs",  # .80, .81 JPEG-LS
    "1.2.840.10008.1.2.4.9": "pylibjpeg-openjpeg",  # .90, .91 JPEG 2000
    "1.2.840.10008.1.2.4.20": "pylibjpeg-openjpeg",  # .201 – .203 HTJ2K
    "1.2.840.10008.1.2.5": "pylibjpeg-rle",
}


@dataclass(frozen=True)
class Source:
    """A volume as it was scanned.

    Attributes:
        positions: (N, 3) mm LPS, of each slice's first pixel, in order.
        orientation: (6,) directions of rows and of columns.
        spacing: of rows and of columns, in mm.
        shape: rows, columns.
        thickness: (N,) mm, or None.
        placed: whether the positions are real.
        slices: yields (n, HU (rows, columns) float32) for every n, in any order, once; of MR and
            PET what the rescale of the header gives.
        suv: of PET, by what its values are multiplied to be SUVbw; None where that is not told.
        volume: of a file that holds several, which one this is.
    """

    positions: NDArray[np.float64]
    orientation: NDArray[np.float64]
    spacing: tuple[float, float]
    shape: tuple[int, int]
    thickness: NDArray[np.float64] | None
    placed: bool
    slices: Callable[[], Iterator[tuple[int, NDArray[np.float32]]]]
    suv: float | None = None
    volume: int = 0


def open_source(root: Path, files: Sequence[str], volume: int = 0) -> Source:
    """The source that the files of an item are; of a file that holds several, the n-th volume.

    Raises:
        MedclError: if the geometry cannot be read.
    """
    if files[0].lower().endswith(VOLUMES):
        return _volume(nested.open_volume(root, files[0]))
    read: dict[str, tags.Tags] = {}
    small: dict[str, bytes] = {}
    factor: float | None = None
    for file, opener, size in open_each(root, files, small):
        read[file] = tags.read(
            opener, size, tags.PACKED_READ if MEMBER in file else tags.FIRST_READ
        )[0]
        if file == files[0] and kinds.of(read[file]) == "pet":
            factor = suv.of(opener)
    if len(files) == 1 and read[files[0]].get("SOPClassUID") in ENHANCED:
        return _frames(root, files[0], volume)
    return replace(_series(root, files, [read[file] for file in files], small), suv=factor)


def drawings(root: Path, files: Sequence[str]) -> list[Any]:
    """The pydicom datasets of an item's masks in DICOM, with their pixels.

    Raises:
        MedclError: if one cannot be read.
    """
    import pydicom

    found: dict[str, Any] = {}
    for file, opener, _ in open_each(root, files, {}):
        with opener() as handle, quiet():
            found[file] = pydicom.dcmread(BytesIO(handle.read()), force=True)
    return [found[file] for file in files]


def open_each(
    root: Path, files: Sequence[str], small: dict[str, bytes]
) -> Iterator[tuple[str, tags.Opener, int]]:
    """Each file, a way to open it, and its size: from a folder, or in one pass over an archive.

    Args:
        root: the archive's folder.
        files: what to read; may be members of archives.
        small: members that are no larger than their header is read at once: kept here, and not
            read again.

    Raises:
        MedclError: if a member is gone, or the archive is refused.
    """
    inside: dict[str, set[str]] = {}
    for file in files:
        path, _, member = file.partition(MEMBER)
        if member:
            inside.setdefault(path, set()).add(member)
        else:
            yield file, tags.open_path(root / path), (root / path).stat().st_size
    for path, wanted in inside.items():
        names = {name: f"{path}{MEMBER}{name}" for name in wanted}
        for file in names.values():
            if file in small:
                yield file, partial(BytesIO, small[file]), len(small[file])
        left = {name for name, file in names.items() if file not in small}
        try:
            for found in archives.fetch(root / path, tuple(left)) if left else ():
                file, opener = names[found.name], found.open
                if found.size <= _SMALL:
                    with found.open() as handle:
                        small[file] = handle.read()
                    opener = partial(BytesIO, small[file])
                left.discard(found.name)
                yield file, opener, found.size
        except archives.Refused as why:
            raise MedclError(f"{why.code}: {why.reason}") from None
        if left:
            raise MedclError(f"missing-member: {len(left)} slices are no longer in the archive.")


def _series(
    root: Path, files: Sequence[str], read: Sequence[tags.Tags], small: dict[str, bytes]
) -> Source:
    """One file a slice."""
    slices = []
    for file, found in zip(files, read, strict=True):
        one = header.interpret(found, file, str(PurePosixPath(file).parent), None)
        if not isinstance(one, header.Read):
            raise MedclError(f"{one.code}: {one.reason}")
        slices.append(one)
    first = slices[0].stack
    thickness = [one.slice.thickness for one in slices]
    placed = all(one.slice.position is not None for one in slices)
    if placed:
        positions = np.array([one.slice.position for one in slices], dtype=np.float64)
        exact = _orientation(read)
    else:
        step = thickness[0] or 1.0
        positions = np.arange(len(slices))[:, None] * np.array([0.0, 0.0, step])
        exact = np.array([1.0, 0, 0, 0, 1, 0])
    place = {file: n for n, file in enumerate(files)}

    def each() -> Iterator[tuple[int, NDArray[np.float32]]]:
        for file, opener, _ in open_each(root, files, small):
            yield place[file], _decoded(opener, first.shape)

    return Source(
        positions,
        exact,
        first.spacing,
        first.shape,
        None if None in thickness else np.array(thickness, dtype=np.float64),
        placed,
        each,
    )


def _orientation(read: Sequence[tags.Tags]) -> NDArray[np.float64]:
    """Directions of rows and columns (6,), the mean over slices, each made a unit vector."""
    every = np.array([one["ImageOrientationPatient"] for one in read], dtype=np.float64)
    directions = every.mean(axis=0).reshape(2, 3)
    unit: NDArray[np.float64] = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    return unit.ravel()


def _decoded(opener: tags.Opener, shape: tuple[int, int]) -> NDArray[np.float32]:
    """One slice's HU; padding marked. Rescale belongs to the slice, not to the series."""
    import pydicom

    with opener() as handle, quiet():
        dataset = pydicom.dcmread(handle, force=True)
        stored = decoded(dataset)
        if stored.shape != shape:
            raise MedclError(
                f"undecodable: a slice decodes to {stored.shape}, its header says {shape}."
            )
        slope = float(dataset.get("RescaleSlope") or 1)
        intercept = float(dataset.get("RescaleIntercept") or 0)
        return to_hu(stored, slope, intercept, dataset)


def to_hu(
    stored: NDArray[Any], slope: float, intercept: float, dataset: Any
) -> NDArray[np.float32]:
    """Stored values → HU, with the padding that the dataset names marked before the rescale."""
    values = stored.astype(np.float32)
    outside = np.zeros(stored.shape, dtype=bool)
    padding, limit = dataset.get("PixelPaddingValue"), dataset.get("PixelPaddingRangeLimit")
    if padding is not None:
        named = np.array([padding, padding if limit is None else limit], dtype=np.int64)
        # As the pixels are stored: headers name −2000 as 63536, and the other way round.
        low, high = np.sort(named.astype(stored.dtype))
        outside = (stored >= low) & (stored <= high)
    if slope != 1 or intercept != 0:
        values = values * np.float32(slope) + np.float32(intercept)
    if outside.any() and header.LUNG < values[outside].max() < header.BONE:
        outside = _touching(outside)  # tissue has that value too
    values[outside] = PADDING
    return values


def _touching(outside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The parts of a mask (R, C) that reach the border of the image."""
    from scipy import ndimage

    parts, _ = ndimage.label(outside)
    border = np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]])
    return np.isin(parts, np.setdiff1d(border, 0))


def decoded(dataset: Any, frame: int | None = None) -> NDArray[Any]:
    """A dataset's pixels, as they are stored.

    Raises:
        MedclError: that names the package to install, where a codec is missing.
    """
    from pydicom.pixels import get_decoder, pixel_array

    from medcl_ct import codecs

    codecs.register()
    syntax = _transfer_syntax(dataset)
    try:
        decoder: Any = get_decoder(syntax)
    except NotImplementedError:  # pydicom's, of a syntax that is none of pixels
        raise MedclError(f"undecodable: {_syntax(syntax)} is no way to store pixels.") from None
    if syntax.is_encapsulated and not decoder.is_available:
        package = next((p for start, p in _PACKAGES.items() if str(syntax).startswith(start)), None)
        how = f": pip install {package}" if package else ""
        raise MedclError(f"missing-codec: {_syntax(syntax)} needs a decoder{how}")
    try:
        with quiet():
            return np.asarray(pixel_array(dataset, index=frame))
    except Exception as error:
        raise MedclError(
            f"undecodable: the pixels of a slice do not decode as {_syntax(syntax)} "
            f"({type(error).__name__})."
        ) from error


def _transfer_syntax(dataset: Any) -> Any:
    """How the pixels are stored; where the file has no meta header, plainly, as its elements are.

    Raises:
        MedclError: if it has none, and its pixels are packed.
    """
    from pydicom import uid
    from pydicom.dataset import FileMetaDataset

    meta = getattr(dataset, "file_meta", None)
    if meta is not None and "TransferSyntaxUID" in meta:
        return meta.TransferSyntaxUID
    if "PixelData" in dataset and dataset["PixelData"].is_undefined_length:
        raise MedclError("undecodable: no transfer syntax says how its pixels are packed.")
    implicit, little = dataset.original_encoding
    plain = uid.ImplicitVRLittleEndian if implicit else uid.ExplicitVRLittleEndian
    dataset.file_meta = meta if meta is not None else FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = plain if little else uid.ExplicitVRBigEndian
    return dataset.file_meta.TransferSyntaxUID


def _syntax(uid: Any) -> str:
    return uid.name if uid.is_transfer_syntax else "an unknown transfer syntax"


def _frames(root: Path, file: str, volume: int) -> Source:
    """All slices in one file, which may hold other volumes too."""
    import pydicom

    dataset: Any = None
    for _, opener, _ in open_each(root, [file], {}):
        with opener() as handle, quiet():
            dataset = pydicom.dcmread(BytesIO(handle.read()))
            every = enhanced.frames(dataset)
    if volume >= len(every):
        raise MedclError("missing-volume: the file holds fewer volumes than when it was indexed.")
    found = every[volume]
    shape = (int(dataset.Rows), int(dataset.Columns))

    def each() -> Iterator[tuple[int, NDArray[np.float32]]]:
        for n, frame in enumerate(found.order):
            slope, intercept = found.rescale[n]
            yield n, to_hu(decoded(dataset, int(frame)), slope, intercept, dataset)

    return Source(
        found.positions,
        found.orientation,
        found.spacing,
        shape,
        found.thickness,
        True,
        each,
        suv.factor(dataset),
        volume,
    )


def _volume(volume: Volume) -> Source:
    if not is_frame(volume.orientation.tolist()):
        raise MedclError(
            "sheared: its rows and columns are not at a right angle. Resample it to a grid that is."
        )

    def each() -> Iterator[tuple[int, NDArray[np.float32]]]:
        data = volume.data()
        for n, at in enumerate(volume.order):
            values = np.asarray(data[:, :, at]).T.astype(np.float32)
            if volume.slope != 1 or volume.intercept != 0:
                values = values * np.float32(volume.slope) + np.float32(volume.intercept)
            values[~np.isfinite(values)] = PADDING
            yield n, values

    return Source(
        volume.positions,
        volume.orientation,
        volume.spacing,
        (volume.shape[1], volume.shape[0]),
        None,
        volume.placed,
        each,
    )
