"""Enhanced CT: a whole volume in one file, its geometry in functional groups."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medcl.errors import MedclError
from medcl.plugin import MEMBER, Record, Reject
from medcl_ct import header
from medcl_ct.anatomy import box_of
from medcl_ct.quiet import quiet
from medcl_ct.stacking import SAME_PLACE, places, regularity
from medcl_ct.tags import Opener, Tags


@dataclass(frozen=True)
class Frames:
    """The frames of a file in the order of their places.

    Attributes:
        order: (N,) which frame of the file is the n-th.
        positions: (N, 3) in mm, in that order.
        orientation: (6,).
        spacing: of rows and of columns, in mm.
        rescale: (N, 2) slope and intercept.
        thickness: (N,) in mm, or None.
    """

    order: NDArray[np.int64]
    positions: NDArray[np.float64]
    orientation: NDArray[np.float64]
    spacing: tuple[float, float]
    rescale: NDArray[np.float64]
    thickness: NDArray[np.float64] | None


def frames(dataset: Any) -> Frames:
    """The geometry of a multi-frame dataset.

    Raises:
        MedclError: if frames lack a place, repeat one, or differ in orientation or pixel size.
    """
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [{}])[0]
    each = dataset.get("PerFrameFunctionalGroupsSequence") or []
    if not each:
        raise MedclError("no-geometry: its frames do not say where they lie.")

    def group(frame: Any, sequence: str, tag: str) -> Any:
        for source in (frame, shared):
            inside = source.get(sequence)
            value = inside[0].get(tag) if inside else None
            if value is not None:
                return value
        return None

    positions, orientations, spacings, rescale, thickness = [], [], [], [], []
    for frame in each:
        positions.append(group(frame, "PlanePositionSequence", "ImagePositionPatient"))
        orientations.append(group(frame, "PlaneOrientationSequence", "ImageOrientationPatient"))
        spacings.append(group(frame, "PixelMeasuresSequence", "PixelSpacing"))
        thickness.append(group(frame, "PixelMeasuresSequence", "SliceThickness"))
        transform = "PixelValueTransformationSequence"
        rescale.append(
            [group(frame, transform, name) for name in ("RescaleSlope", "RescaleIntercept")]
        )
    if None in positions or None in orientations or None in spacings:
        raise MedclError("no-geometry: its frames do not say where they lie.")
    if any(None in pair for pair in rescale):
        raise MedclError("no-rescale: its frames do not say how their values become HU.")
    where = np.array(positions, dtype=np.float64)
    orientation = np.array(orientations, dtype=np.float64)
    spacing = np.array(spacings, dtype=np.float64)
    if np.ptp(orientation, axis=0).max() > 1e-3 or np.ptp(spacing, axis=0).max() > 1e-4:
        raise MedclError("mixed-frames: its frames differ in orientation or pixel size.")
    along = places(where, orientation[0])
    order = np.argsort(along, kind="stable")
    if len(order) > 1 and np.diff(along[order]).min() <= SAME_PLACE:
        raise MedclError("repeated-frames: its frames show places several times, as phases do.")
    return Frames(
        order,
        where[order],
        orientation[0],
        (float(spacing[0, 0]), float(spacing[0, 1])),
        np.array(rescale, dtype=np.float64)[order],
        None if None in thickness else np.array(thickness, dtype=np.float64)[order],
    )


def record(file: str, folder: str, tags: Tags, open_file: Opener) -> Record | Reject:
    """The item that a multi-frame file is."""
    import pydicom

    key = file.replace(MEMBER, "/")
    read = header.interpret(tags, file, folder, None)
    if isinstance(read, Reject):
        return Reject(key, read.code, read.reason)
    try:
        with open_file() as handle, quiet():
            found = frames(pydicom.dcmread(handle, stop_before_pixels=True))
    except MedclError as error:
        code, _, reason = str(error).partition(": ")
        return Reject(key, code, f"Enhanced CT: {reason}")
    except Exception as error:
        reason = f"Its functional groups cannot be read ({type(error).__name__})."
        return Reject(key, "unreadable", reason)
    regular = regularity(found.positions, found.orientation, found.thickness)
    stack = read.stack
    box = box_of(found.positions, found.orientation, found.spacing, stack.shape, found.thickness)
    frame = stack.frame or stack.study
    return Record(
        f"{key}#{stack.series or PurePosixPath(key).name}",
        (file,),
        stack.patient,
        read.site,
        {
            **header.fields(tags),
            "slices": len(found.order),
            "rows": stack.shape[0],
            "columns": stack.shape[1],
            "pixel_mm": round(float(np.mean(found.spacing)), 5),
            "spacing_mm": round(regular.spacing, 4),
        },
        header.labels(tags),
        tuple(sorted({*read.findings, *regular.findings})),
        {"box": box.to_json()},
        f"{stack.patient}\n{frame}" if frame else None,
    )
