"""Files that hold a volume and an affine: NIfTI (also as a pair, and Analyze), NRRD, MetaImage."""

from __future__ import annotations

import gzip
import re
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medcl.errors import MedclError
from medcl_ct.stacking import normal
from medcl_ct.units import META, NIFTI, PAIR

SMALLEST, LARGEST = 0.02, 60.0
"""mm: voxels of a CT lie between; those of a file in another unit than it says do not."""
_SAME_AXES = 1e-2
_NRRD_UNITS = {"mm": 1.0, "millimeter": 1.0, "": 1.0, "nan": 1.0, "???": 1.0, "cm": 10.0, "m": 1e3}
_NRRD_UNITS |= {"um": 1e-3, "μm": 1e-3, "micron": 1e-3, "meter": 1e3, "microns": 1e-3}
_META_HEAD = 64 * 1024
_META_TYPES = (*(f"{u}Int{n}" for n in (8, 16, 32, 64) for u in ("U", "")), "Float32", "Float64")


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
        findings: names of `medcl_ct.findings` that its header gives rise to.
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]
    placed: bool
    lowest: float
    data: Any
    slope: float = 1.0
    intercept: float = 0.0
    findings: tuple[str, ...] = ()

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
        volume = {"nifti": _nifti, "nrrd": _nrrd, "metaimage": _metaimage}[kind(path.name)](path)
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
    if lengths.min() < SMALLEST or lengths.max() > LARGEST:
        found = (*volume.findings, "odd-spacing")
        return replace(volume, findings=found)
    return volume


def data_file(path: Path) -> str | None:
    """The file beside a header that holds its values, by what the header says; None if not told."""
    if path.name.lower().endswith((*META, ".nhdr")):
        with path.open("rb") as handle:
            head = handle.read(_META_HEAD)
        match = re.search(rb"(?im)^(?:ElementDataFile *=|data ?file:) *(.+?) *\r?$", head)
        return match[1].decode("utf-8", "replace") if match else None
    return None


def kind(name: str) -> Literal["nifti", "nrrd", "metaimage"]:
    """The format that a file of this name has."""
    name = name.lower()
    if name.endswith((*NIFTI, *PAIR)):
        return "nifti"
    return "metaimage" if name.endswith(META) else "nrrd"


def _nifti(path: Path) -> Volume:
    import nibabel as nib

    image: Any = nib.load(path) if _suffix_is_true(path) else _renamed(path)
    shape = tuple(int(n) for n in image.shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    kind = np.dtype(image.get_data_dtype())
    if len(shape) != 3 or kind.kind not in "iuf":
        raise MedclError(f"not-3d: it has the sizes {shape}, not those of one volume.")
    proxy, header = image.dataobj, image.header
    oriented = "qform_code" in header.keys()  # noqa: SIM118 – a structured array, not a mapping
    placed = oriented and bool(header["qform_code"] or header["sform_code"])
    affine, findings = image.affine.astype(np.float64), []
    scale = {"meter": 1000.0, "micron": 0.001}.get(
        header.get_xyzt_units()[0] if oriented else "", 1.0
    )
    if scale != 1.0:
        affine[:3] *= scale
        findings.append("converted-units")
    if oriented and header["qform_code"] and header["sform_code"]:
        findings += _disagreement(header.get_qform(), header.get_sform())
    slope, intercept = float(proxy.slope), float(proxy.inter)
    return Volume(
        shape,
        np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine,
        placed,
        _lowest(kind) * slope + intercept,
        lambda: np.asanyarray(proxy.get_unscaled()).reshape(shape),
        slope,
        intercept,
        tuple(findings),
    )


def _disagreement(q: NDArray[np.float64], s: NDArray[np.float64]) -> list[str]:
    """Whether the two places that a NIfTI gives are the same; medcl takes the sform."""
    lengths = np.linalg.norm(s[:3, :3], axis=0)
    if np.abs((q - s)[:3, :3] / lengths).max() > _SAME_AXES:
        return ["qform-sform"]
    return ["two-origins"] if np.abs((q - s)[:3, 3]).max() > lengths.min() else []


def _suffix_is_true(path: Path) -> bool:
    """Whether a file is packed by gzip if, and only if, it is named so."""
    with path.open("rb") as handle:
        return (handle.read(2) == b"\x1f\x8b") == path.name.lower().endswith(".gz")


def _renamed(path: Path) -> Any:
    """A single NIfTI file whose name says wrongly whether it is packed."""
    import nibabel as nib

    opened: Any = path.open("rb") if path.name.lower().endswith(".gz") else gzip.GzipFile(path)
    holder = nib.FileHolder(fileobj=opened)
    return nib.Nifti1Image.from_file_map({"header": holder, "image": holder})


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
    findings = []
    scales = {_NRRD_UNITS.get(str(unit).strip('" ').lower(), 0.0) for unit in _units(header)}
    scale = scales.pop()
    if scales or not scale:
        raise MedclError("no-spacing: its space units are not those of one length.")
    if scale != 1.0:
        affine[:3] *= scale
        findings.append("converted-units")
    space = str(header.get("space", "left-posterior-superior")).lower()
    space = {"lps": "left-posterior-superior", "ras": "right-anterior-superior"}.get(space, space)
    placed = placed and any(word in space for word in ("superior", "inferior"))
    signs = [-1.0 if word in space else 1.0 for word in ("right", "anterior", "inferior")]
    return Volume(
        shape,
        np.diag([*signs, 1.0]) @ affine,
        placed,
        _lowest(kind),
        lambda: nrrd.read(str(path))[0],
        findings=tuple(findings),
    )


def _units(header: Any) -> list[str]:
    """The units of a NRRD's three axes; millimetres where it says nothing."""
    units = header.get("space units")
    if units is None:
        units = header.get("units")
    if units is None:
        return ["mm"]
    return units.split() if isinstance(units, str) else [str(unit) for unit in units]


def _metaimage(path: Path) -> Volume:
    import SimpleITK as sitk

    data = data_file(path) or ""
    with path.open("rb") as handle:
        head = handle.read(_META_HEAD).partition(b"ElementDataFile")[0]
    if data != "LOCAL" and (PurePosixPath(data).name != data or not (path.parent / data).is_file()):
        raise MedclError("missing-data: its data file is not beside its header.")
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO("MetaImageIO")
    reader.ReadImageInformation()
    shape = tuple(int(n) for n in reader.GetSize())
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    kinds = {getattr(sitk, f"sitk{name}"): np.dtype(name.lower()) for name in _META_TYPES}
    kind = kinds.get(reader.GetPixelID())
    if len(shape) != 3 or kind is None or reader.GetNumberOfComponents() != 1:
        raise MedclError(f"not-3d: it has the sizes {shape}, not those of one volume.")
    axes = reader.GetDimension()
    affine = np.eye(4)
    directions = np.array(reader.GetDirection()).reshape(axes, axes)[:3, :3]
    affine[:3, :3] = directions * np.array(reader.GetSpacing()[:3])
    affine[:3, 3] = reader.GetOrigin()[:3]
    placed = any(word in head for word in (b"TransformMatrix", b"Rotation", b"Orientation"))
    return Volume(
        shape,
        affine,
        placed,
        _lowest(kind),
        lambda: sitk.GetArrayFromImage(reader.Execute()).reshape(shape[::-1]).T,
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
