"""Masks in DICOM (SEG, RTSTRUCT): which image each belongs to, and their labels on its slices.

The names of segments and regions are free text, so that they stay in the index's private folder.
A structure of TotalSegmentator has its number (`medcl_ct.structures`), and the others are numbered
behind them in the order of their names.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medcl.errors import MedclError
from medcl.plugin import MEMBER, Record, Reject
from medcl_ct import structures
from medcl_ct.enhanced import Groups
from medcl_ct.quiet import quiet
from medcl_ct.stacking import SAME_VIEW, normal, places
from medcl_ct.tags import Opener, Tags

_SEG = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")  # the second: label maps
_RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"
_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR", "CLOSED_PLANAR_XOR")
_MOST = 255
_IN_PLANE = 0.5  # mm by which the points of one contour may leave its plane

_ALONE = "A mask or contours in DICOM whose image series is not here."


@dataclass(frozen=True)
class Owner:
    """An item's DICOM identity, for masks that refer to it."""

    patient: str
    series: str
    frame: str
    uids: frozenset[str]


def is_drawn(tags: Tags) -> bool:
    """Whether a DICOM file is a segmentation or a structure set."""
    sop, modality = tags.get("SOPClassUID", ""), tags.get("Modality", "")
    return sop in (*_SEG, _RTSTRUCT) or modality in ("SEG", "RTSTRUCT")


def record(file: str, tags: Tags, open_file: Opener) -> Record | Reject:
    """What a file of masks refers to, for `joined`."""
    import pydicom

    key = file.replace(MEMBER, "!")
    try:
        with open_file() as handle, quiet():
            dataset = pydicom.dcmread(handle, stop_before_pixels=True, force=True)
            names = _names(dataset)
            said = _references(dataset)
    except Exception as error:
        return Reject(key, "unreadable", f"Its masks cannot be read ({type(error).__name__}).")
    if not names:
        return Reject(key, "no-masks", "A segmentation or structure set that holds no structure.")
    if len(set(names.values())) + structures.LAST > _MOST:
        return Reject(key, "too-many-masks", f"It holds {len(names)} structures: over the limit.")
    said["names"] = sorted(set(names.values()))
    return Record(
        key, (file,), tags.get("PatientID") or "nobody", private={"drawn": json.dumps(said)}
    )


def joined(
    items: Sequence[Record], owners: Mapping[str, Owner], drawings: Sequence[Record]
) -> Iterator[Record | Reject]:
    """Items with the masks that refer to them; masks without an image are rejected.

    By the series that a mask names, and where it holds several volumes, by the slices too. By the
    frame of reference where it names no series and one item alone has that frame.

    Args:
        items: all of them.
        owners: the DICOM identity of those that have one, by key.
        drawings: from `record`.
    """
    given: dict[str, list[tuple[str, list[str], bool]]] = defaultdict(list)
    for drawing in sorted(drawings, key=lambda one: one.key):
        said = json.loads(str(drawing.private["drawn"]))
        found, by_frame = _owned(said, drawing.patient, owners)
        for key in found:
            given[key].append((drawing.files[0], said["names"], by_frame))
        if not found:
            yield Reject(drawing.key, "mask-alone", _ALONE)
    for item in items:
        masks = given.get(item.key, [])
        if not masks:
            yield item
            continue
        names = [name for _, some, _ in masks for name in some]
        extra = {"mask-names"} if any(structures.code(name) is None for name in names) else set()
        extra |= {"mask-by-frame"} if any(by_frame for *_, by_frame in masks) else set()
        yield replace(
            item,
            files=(*item.files, *(file for file, *_ in masks)),
            fields={**item.fields, "mask": True, "drawn": len(masks)},
            findings=tuple(sorted({*item.findings, *extra})),
        )


def _owned(
    said: Mapping[str, Any], patient: str, owners: Mapping[str, Owner]
) -> tuple[list[str], bool]:
    """Keys of the items that a mask refers to, and whether only their frame says so."""
    found = {key: one for key, one in owners.items() if one.series and one.series in said["series"]}
    by_frame = not found and not said["series"] and bool(said["frames"])
    if by_frame:
        found = {key: one for key, one in owners.items() if one.frame in said["frames"]}
    mine = {key: one for key, one in found.items() if one.patient == patient}
    found = mine or found
    if len({one.patient for one in found.values()}) > 1:
        return [], by_frame  # one UID for two patients: whose it is, nobody knows
    if by_frame:
        return (list(found) if len(found) == 1 else []), by_frame
    uids = set(said["uids"])
    shown = [key for key, one in found.items() if one.uids & uids]
    return shown or ([] if uids and len(found) > 1 else list(found)), by_frame


def _references(dataset: Any) -> dict[str, list[str]]:
    """The series, slices and frames of reference that a mask names."""
    series: set[str] = set()
    uids: set[str] = set()
    frames = {str(dataset.get("FrameOfReferenceUID") or "")}
    for one in dataset.get("ReferencedSeriesSequence") or []:
        series.add(str(one.get("SeriesInstanceUID") or ""))
        uids |= _uids(one.get("ReferencedInstanceSequence"))
    for frame in dataset.get("ReferencedFrameOfReferenceSequence") or []:
        frames.add(str(frame.get("FrameOfReferenceUID") or ""))
        for study in frame.get("RTReferencedStudySequence") or []:
            for one in study.get("RTReferencedSeriesSequence") or []:
                series.add(str(one.get("SeriesInstanceUID") or ""))
                uids |= _uids(one.get("ContourImageSequence"))
    return {
        "series": sorted(series - {""}),
        "uids": sorted(uids - {""}),
        "frames": sorted(frames - {""}),
    }


def _uids(sequence: Any) -> set[str]:
    return {str(one.get("ReferencedSOPInstanceUID") or "") for one in sequence or []}


def _names(dataset: Any) -> dict[int, str]:
    """Number → name of each segment or region."""
    if dataset.get("SegmentSequence") is not None:
        return {
            int(one.SegmentNumber): str(one.get("SegmentLabel") or one.SegmentNumber)
            for one in dataset.SegmentSequence
            if int(one.SegmentNumber) > 0  # 0: the background of a label map
        }
    return {
        int(one.ROINumber): str(one.get("ROIName") or one.ROINumber)
        for one in dataset.get("StructureSetROISequence") or []
    }


def codes(names: Sequence[str]) -> dict[str, int]:
    """Name → its number in one map of labels."""
    known = {name: code for name in names if (code := structures.code(name)) is not None}
    others = sorted(set(names) - set(known))
    return known | {name: structures.LAST + 1 + n for n, name in enumerate(others)}


@dataclass(frozen=True)
class Grid:
    """The slices that masks are laid on: see `medcl_ct.pixels.Source`."""

    positions: NDArray[np.float64]
    orientation: NDArray[np.float64]
    spacing: tuple[float, float]
    shape: tuple[int, int]


def labels(datasets: Sequence[Any], grid: Grid) -> tuple[NDArray[np.uint8], set[str]]:
    """The map of labels (N, rows, columns) of all masks of an item, of which the first holds.

    Returns:
        the map; and of the findings ``sparse-contours`` (regions skip slices).

    Raises:
        MedclError: if a mask lies beside the slices or across them, or does not decode.
    """
    out = np.zeros((len(grid.positions), *grid.shape), dtype=np.uint8)
    named = [_names(dataset) for dataset in datasets]
    numbers = codes([name for names in named for name in names.values()])
    if max(numbers.values(), default=0) > _MOST:
        raise MedclError("mask-misfit: it has more structures than one map of labels can hold.")
    findings: set[str] = set()
    for dataset, names in zip(datasets, named, strict=True):
        code = {number: numbers[name] for number, name in names.items()}
        segments = dataset.get("SegmentSequence") is not None
        if segments:
            touched = _segments(dataset, code, grid, out)
        else:
            touched, sparse = _contours(dataset, code, grid, out)
            findings |= {"sparse-contours"} if sparse else set()
        if not touched:
            raise MedclError("mask-misfit: no slice of the image lies where the mask does.")
    return out, findings


def _segments(dataset: Any, code: Mapping[int, int], grid: Grid, out: NDArray[np.uint8]) -> bool:
    """Lay the frames of a SEG on slices, by the nearest voxel; whether one met a slice."""
    from medcl_ct.pixels import decoded

    groups = Groups(dataset)
    where = groups.numbers("PlanePositionSequence", "ImagePositionPatient", 3)
    facing = groups.numbers("PlaneOrientationSequence", "ImageOrientationPatient", 6)
    spacing = groups.numbers("PixelMeasuresSequence", "PixelSpacing", 2)
    if np.ptp(facing, axis=0).max() > SAME_VIEW or np.ptp(spacing, axis=0).max() > SAME_VIEW:
        raise MedclError("mask-misfit: its frames differ in orientation or pixel size.")
    axis = normal(facing[0])
    if abs(axis @ normal(grid.orientation)) < 1 - SAME_VIEW:
        raise MedclError("mask-misfit: the mask lies across the slices of its image.")
    kind = str(dataset.get("SegmentationType") or "BINARY").upper()
    half = float(dataset.get("MaximumFractionalValue") or 1) / 2 if kind == "FRACTIONAL" else 0.5
    segment = groups.values("SegmentIdentificationSequence", "ReferencedSegmentNumber")
    along = where @ axis
    slices = grid.positions @ axis  # (N,)
    reach = _reach(groups, along)
    touched = False
    for frame in range(len(groups)):
        near = [n for n in range(len(slices)) if _nearest(along, slices[n], reach, along[frame])]
        if not near:
            continue
        touched = True
        values = np.asarray(decoded(dataset, frame))
        for n in near:
            found = _sampled(values, where[frame], facing[0], spacing[0], grid, n)
            if kind == "LABELMAP":
                laid = np.zeros_like(out[n])
                for number, label in code.items():
                    laid[found == number] = label
            else:
                laid = np.where(found > half, code.get(int(segment[frame] or 0), 0), 0)
            free = out[n] == 0
            out[n][free] = laid[free]
    return touched


def _reach(groups: Groups, along: NDArray[np.float64]) -> float:
    """How far a frame reaches to each side of its place, in mm."""
    told = [
        float(value)
        for name in ("SpacingBetweenSlices", "SliceThickness")
        for value in groups.values("PixelMeasuresSequence", name)[:1]
        if value is not None
    ]
    steps = np.diff(np.unique(np.round(along, 3)))
    between = float(steps.min()) if len(steps) else 0.0
    # Frames that are empty may be left out, so that what is told counts where it is smaller.
    return max(0.5 * min([step for step in (between, *told) if step > 0], default=1.0), 1e-2)


def _nearest(along: NDArray[np.float64], at: float, reach: float, frame: float) -> bool:
    """Whether a frame is the one that shows a slice: none is nearer, and it reaches it."""
    away = abs(frame - at)
    return bool(away <= reach + 1e-3 and away <= np.abs(along - at).min() + 1e-3)


def _sampled(
    values: NDArray[Any],
    first: NDArray[np.float64],
    facing: NDArray[np.float64],
    spacing: NDArray[np.float64],
    grid: Grid,
    n: int,
) -> NDArray[Any]:
    """A frame's values at the pixels of a slice; 0 beside it."""
    rows, columns = np.arange(grid.shape[0]), np.arange(grid.shape[1])
    right, down = grid.orientation[:3] * grid.spacing[1], grid.orientation[3:] * grid.spacing[0]
    start = grid.positions[n] - first
    found = []
    for direction, step in ((facing[3:], spacing[0]), (facing[:3], spacing[1])):  # rows, columns
        at = (
            start @ direction + (rows * (down @ direction))[:, None] + columns * (right @ direction)
        )
        found.append(np.rint(at / step).astype(np.int64))
    row, column = found
    inside = (row >= 0) & (row < values.shape[0]) & (column >= 0) & (column < values.shape[1])
    out = np.zeros(grid.shape, dtype=values.dtype)
    out[inside] = values[row[inside], column[inside]]
    return out


def _contours(
    dataset: Any, code: Mapping[int, int], grid: Grid, out: NDArray[np.uint8]
) -> tuple[bool, bool]:
    """Fill closed contours, slice by slice.

    A pixel is inside if its centre is, by the even-odd rule: a contour within another is a hole.

    Returns:
        whether a contour met a slice, and whether a region skips every other slice, or more.
    """
    axis = normal(grid.orientation)
    slices = places(grid.positions, grid.orientation)
    steps = np.diff(np.sort(slices))
    reach = 0.5 * float(np.median(steps)) if len(steps) else _IN_PLANE
    touched = sparse = False
    for region in dataset.get("ROIContourSequence") or []:
        filled: dict[int, NDArray[np.bool_]] = {}
        for contour in region.get("ContourSequence") or []:
            kind = str(contour.get("ContourGeometricType") or "").upper()
            points = np.array(contour.get("ContourData") or [], dtype=np.float64)
            if kind not in _CLOSED or len(points) < 9 or len(points) % 3:
                continue
            points = points.reshape(-1, 3)
            at = points @ axis
            if np.ptp(at) > 2 * _IN_PLANE:
                raise MedclError("mask-misfit: its contours lie across the slices of its image.")
            n = int(np.abs(slices - at.mean()).argmin())
            if abs(slices[n] - at.mean()) > reach + 1e-2:
                continue
            touched = True
            here = filled.setdefault(n, np.zeros(grid.shape, dtype=bool))
            here ^= _inside(points - grid.positions[n], grid)
        label = code.get(int(region.get("ReferencedROINumber") or -1), 0)
        for n, inside in filled.items():
            out[n][inside & (out[n] == 0)] = label
        sparse |= len(filled) > 1 and float(np.median(np.diff(sorted(filled)))) > 1
    return touched, sparse


def _inside(points: NDArray[np.float64], grid: Grid) -> NDArray[np.bool_]:
    """The pixels (rows, columns) whose centres lie in a polygon (M, 3), in mm from the first."""
    from matplotlib.path import Path

    column = points @ grid.orientation[:3] / grid.spacing[1]
    row = points @ grid.orientation[3:] / grid.spacing[0]
    low = [max(int(np.floor(at.min())), 0) for at in (row, column)]
    high = [
        min(int(np.ceil(at.max())) + 1, size)
        for at, size in zip((row, column), grid.shape, strict=True)
    ]
    out = np.zeros(grid.shape, dtype=bool)
    if low[0] >= high[0] or low[1] >= high[1]:
        return out
    y, x = np.mgrid[low[0] : high[0], low[1] : high[1]]
    within = Path(np.stack([column, row], axis=1)).contains_points(
        np.stack([x.ravel(), y.ravel()], 1)
    )
    out[low[0] : high[0], low[1] : high[1]] = within.reshape(y.shape)
    return out
