"""NIfTI and NRRD: volumes in one file, with an affine instead of slices that know their place."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medcl.errors import MedclError
from medcl.plugin import MEMBER, Record, Reject, Scalar
from medcl_ct.stacking import normal, regularity
from medcl_ct.units import NIFTI, is_mask, stem

NOT_AIR = -200.0
"""HU: a volume without any lower value shows neither air nor lung, or is not in HU."""

_PERSON = re.compile(r"sub-[A-Za-z0-9]+|(patient|subject|case)[-_]?\d+", re.IGNORECASE)
_RATIO = 2000  # a mask packs well; a volume that claims more than that is made up
_FREE = 64 * 1024 * 1024


@dataclass(frozen=True)
class Volume:
    """A volume's header, and how to get at its values.

    Attributes:
        shape: (columns, rows, slices), the file's order.
        affine: (4, 4), index in that order → LPS mm.
        placed: whether the file says so, or the affine is a guess.
        lowest: the lowest value that its numbers can stand for.
        data: the file's numbers, in its order; reads them.
        slope, intercept: number · slope + intercept = value.
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]
    placed: bool
    lowest: float
    data: Any
    slope: float = 1.0
    intercept: float = 0.0

    @property
    def spacing(self) -> tuple[float, float]:
        """Of rows and of columns, in mm."""
        lengths = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(lengths[1]), float(lengths[0])

    @property
    def orientation(self) -> NDArray[np.float64]:
        """Directions of rows and columns (6,), as DICOM gives them."""
        directions = self.affine[:3, :2] / np.linalg.norm(self.affine[:3, :2], axis=0)
        return directions.T.ravel()

    @property
    def order(self) -> NDArray[np.int64]:
        """Which slice of the file is the n-th along the normal: (N,)."""
        rising = self.affine[:3, 2] @ normal(self.orientation) > 0
        return np.arange(self.shape[2])[:: 1 if rising else -1]

    @property
    def positions(self) -> NDArray[np.float64]:
        """Of each slice's first pixel, in that order: (N, 3) in mm."""
        return self.affine[:3, 3] + self.order[:, None] * self.affine[:3, 2]


def open_volume(path: Path) -> Volume:
    """Read a volume's header; its values only when ``data`` is called.

    Raises:
        MedclError: ``code: reason``, if it is no plain volume of one value a voxel.
    """
    try:
        volume = _nifti(path) if path.name.lower().endswith(NIFTI) else _nrrd(path)
    except MedclError:
        raise
    except Exception as error:
        raise MedclError(
            f"unreadable: its header cannot be read ({type(error).__name__})."
        ) from error
    lengths = np.linalg.norm(volume.affine[:3, :3], axis=0)
    if min(volume.shape) < 1 or not np.isfinite(volume.affine).all() or lengths.min() <= 0:
        raise MedclError("no-spacing: its sizes or spacings are zero or not finite.")
    if abs(np.linalg.det(volume.affine[:3, :3] / lengths)) < 0.5:
        raise MedclError("no-spacing: its axes do not span a volume.")
    return volume


def scan(root: Path, files: Sequence[str]) -> Iterator[Record | Reject]:
    """A volume with its mask or data beside it: one item."""
    images = [file for file in files if not is_mask(file)]
    size = sum((root / file).stat().st_size for file in files)
    yield from records(files, partial(open_volume, root / (images or files)[0]), size)


def records(
    files: Sequence[str], opened: Callable[[], Volume], size: int
) -> Iterator[Record | Reject]:
    """The item that a volume and what goes with it are.

    The patient is the folder or name part that stands for a person (``sub-01``), or else the file,
    with the finding ``no-patient-id``: two files of one person would then be two patients.

    Args:
        files: the image, and its mask or data; may be members of an archive.
        opened: reads the image's header; raises MedclError where it cannot be.
        size: bytes of all files.
    """
    images = [file for file in files if not is_mask(file)]
    if not images:
        reason = "It is named like a mask, and the image that it belongs to is not beside it."
        yield from (Reject(shown(file), "mask-alone", reason) for file in files)
        return
    first = images[0]
    key = shown(first)
    try:
        volume = opened()
        _plausible(volume, size)
    except MedclError as error:
        code, _, reason = str(error).partition(": ")
        yield Reject(key, code, reason)
        return
    regular = regularity(volume.positions, volume.orientation)
    findings = [
        *regular.findings,
        *([] if volume.placed else ["no-affine"]),
        *(["not-hu"] if volume.lowest > NOT_AIR else []),
    ]
    name = PurePosixPath(key)
    people = [match[0] for part in name.parts if (match := _PERSON.match(part))]
    fields: dict[str, Scalar] = {
        "source": "nifti" if first.lower().endswith(NIFTI) else "nrrd",
        "slices": volume.shape[2],
        "rows": volume.shape[1],
        "columns": volume.shape[0],
        "pixel_mm": round(float(np.mean(volume.spacing)), 5),
        "spacing_mm": round(regular.spacing, 4),
        "mask": any(is_mask(file) for file in files),
    }
    if not people:
        findings.append("no-patient-id")
    patient = people[0] if people else stem(name.name).removesuffix("_ct")
    yield Record(
        key,
        (first, *(f for f in files if f != first)),
        patient,
        None,
        fields,
        {},
        tuple(findings),
    )


def shown(file: str) -> str:
    """A file's path, or that of a member as if its archive were a folder."""
    return file.replace(MEMBER, "/")


def _plausible(volume: Volume, size: int) -> None:
    """Refuse a header that claims far more voxels than the file can hold."""
    voxels = int(np.prod([int(n) for n in volume.shape], dtype=object))
    if voxels > _RATIO * size + _FREE:
        raise MedclError(
            f"implausible-size: {voxels:,} voxels are claimed by a file of {size:,} bytes."
        )


def _nifti(path: Path) -> Volume:
    import nibabel as nib

    image: Any = nib.load(path)
    shape = tuple(int(n) for n in image.shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    kind = np.dtype(image.get_data_dtype())
    if len(shape) != 3 or kind.kind not in "iuf":
        raise MedclError(f"not-3d: it has the sizes {shape}, not those of one volume.")
    proxy = image.dataobj
    placed = bool(image.header["qform_code"] or image.header["sform_code"])
    slope, intercept = float(proxy.slope), float(proxy.inter)
    return Volume(
        shape,
        np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.affine,
        placed,
        _lowest(kind) * slope + intercept,
        lambda: np.asanyarray(proxy.get_unscaled()).reshape(shape),
        slope,
        intercept,
    )


def _nrrd(path: Path) -> Volume:
    import nrrd

    header = nrrd.read_header(str(path))
    shape = tuple(int(n) for n in header["sizes"])
    kind = _nrrd_type(str(header["type"]))
    if len(shape) != 3 or kind.kind not in "iuf":
        raise MedclError(f"not-3d: it has the sizes {shape}, not those of one volume.")
    for name in (header.get("data file"), header.get("datafile")):
        if name and (PurePosixPath(name).name != name or not (path.parent / name).is_file()):
            raise MedclError("missing-data: its data file is not beside its header.")
    affine = np.eye(4)
    directions, origin = header.get("space directions"), header.get("space origin")
    placed = directions is not None and origin is not None and header.get("space") is not None
    if directions is not None:
        affine[:3, :3] = np.array(directions, dtype=np.float64).T
    elif header.get("spacings") is not None:
        affine[:3, :3] = np.diag(np.array(header["spacings"], dtype=np.float64))
    if origin is not None:
        affine[:3, 3] = origin
    space = str(header.get("space", "left-posterior-superior")).lower()
    space = {"lps": "left-posterior-superior", "ras": "right-anterior-superior"}.get(space, space)
    signs = [-1.0 if word in space else 1.0 for word in ("right", "anterior", "inferior")]
    return Volume(
        shape,
        np.diag([*signs, 1.0]) @ affine,
        placed,
        _lowest(kind),
        lambda: nrrd.read(str(path))[0],
    )


def _nrrd_type(name: str) -> np.dtype[Any]:
    """A NRRD type by any of its names: ``short``, ``signed short int``, ``int16_t`` …"""
    words = [word for word in name.lower().split() if word not in ("signed", "int")] or ["int"]
    unsigned = words[0] == "unsigned"
    plain = "".join(words[unsigned:]).removesuffix("_t") or "int"
    sizes = {"char": "int8", "short": "int16", "int": "int32", "long": "int64", "longlong": "int64"}
    sizes |= {"ushort": "uint16", "uchar": "uint8", "uint": "uint32", "float": "float32"}
    plain = sizes.get(plain, plain)
    return np.dtype(f"u{plain}" if unsigned else "float64" if plain == "double" else plain)


def _lowest(kind: np.dtype[Any]) -> float:
    return float(np.iinfo(kind).min) if kind.kind in "iu" else -np.inf
