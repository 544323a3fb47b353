"""Enhanced CT, MR and PET: volumes in one file, their geometry in functional groups."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medcl.errors import MedclError
from medcl.plugin import MEMBER, Record, Reject
from medcl_ct import header, kinds, suv
from medcl_ct.anatomy import box_of
from medcl_ct.header import Slice
from medcl_ct.passes import passes
from medcl_ct.quiet import quiet
from medcl_ct.stacking import SAME_VIEW, clusters, places, regularity
from medcl_ct.tags import Opener, Tags

_APART = (
    ("FrameContentSequence", "StackID"),
    ("CTReconstructionSequence", "ConvolutionKernel"),
    ("CTImageFrameTypeSequence", "FrameType"),
    ("MRImageFrameTypeSequence", "FrameType"),
    ("MRImageFrameTypeSequence", "ComplexImageComponent"),
    ("PETFrameTypeSequence", "FrameType"),
    ("MREchoSequence", "EffectiveEchoTime"),
    ("MRDiffusionSequence", "DiffusionBValue"),
    ("MRDiffusionSequence", "DiffusionDirectionality"),
)
"""Frames that differ in one of these are of different volumes, wherever they lie."""
_PHASES = (
    ("FrameContentSequence", "TemporalPositionIndex"),
    ("TemporalPositionSequence", "TemporalPositionTimeOffset"),
    ("CardiacSynchronizationSequence", "NominalPercentageOfCardiacPhase"),
    ("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime"),
    ("RespiratorySynchronizationSequence", "NominalPercentageOfRespiratoryPhase"),
)
_GEOMETRY = (
    ("PlanePositionSequence", "ImagePositionPatient", 3),
    ("PlaneOrientationSequence", "ImageOrientationPatient", 6),
    ("PixelMeasuresSequence", "PixelSpacing", 2),
)


@dataclass(frozen=True)
class Frames:
    """The frames of one volume of a file, in the order of their places.

    Attributes:
        order: (N,) which frame of the file is the n-th.
        positions: (N, 3) in mm, in that order.
        orientation: (6,).
        spacing: of rows and of columns, in mm.
        rescale: (N, 2) slope and intercept.
        thickness: (N,) in mm, or None.
        findings: names of `medcl_ct.findings`.
    """

    order: NDArray[np.int64]
    positions: NDArray[np.float64]
    orientation: NDArray[np.float64]
    spacing: tuple[float, float]
    rescale: NDArray[np.float64]
    thickness: NDArray[np.float64] | None
    findings: tuple[str, ...] = ()


class Groups:
    """The functional groups of a multi-frame dataset: what is said of each frame, or of all."""

    def __init__(self, dataset: Any) -> None:
        self._shared = (dataset.get("SharedFunctionalGroupsSequence") or [{}])[0]
        self._each = list(dataset.get("PerFrameFunctionalGroupsSequence") or [])

    def __len__(self) -> int:
        return len(self._each)

    def values(self, sequence: str, tag: str) -> list[Any]:
        """A tag of every frame; None where it is not told."""
        return [self._of(frame, sequence, tag) for frame in self._each]

    def numbers(self, sequence: str, tag: str, length: int) -> NDArray[np.float64]:
        """Vectors (N, length) of every frame.

        Raises:
            MedclError: if a frame lacks it, or has no finite numbers.
        """
        found = self.values(sequence, tag)
        try:
            numbers = np.array(found, dtype=np.float64).reshape(len(found), length)
        except (TypeError, ValueError):
            numbers = np.full((1, 1), np.nan)
        if not len(found) or not np.isfinite(numbers).all():
            raise MedclError("no-geometry: its frames do not say where they lie.")
        return numbers

    def _of(self, frame: Any, sequence: str, tag: str) -> Any:
        for source in (frame, self._shared):
            inside = source.get(sequence)
            value = inside[0].get(tag) if inside else None
            if value is not None and value != "":
                return value
        return None


def frames(dataset: Any) -> list[Frames]:
    """The volumes of a multi-frame dataset, told apart as the series of single slices are.

    First by what only a volume of its own has (stack, kernel, kind of frame, echo, diffusion
    weighting, orientation, size of pixels), then by passes and phases (`medcl_ct.passes`).

    Raises:
        MedclError: if frames do not say where they lie, or how their values become HU.
    """
    groups = Groups(dataset)
    if len(groups) != int(dataset.get("NumberOfFrames") or 0):
        raise MedclError("no-geometry: its frames do not say where they lie.")
    where, orientation, spacing = (groups.numbers(*wanted) for wanted in _GEOMETRY)
    if spacing.min() <= 0:
        raise MedclError("no-geometry: its frames have pixels of no size.")
    slices = _slices(groups, where)
    thickness = np.array([one.thickness or np.nan for one in slices])
    rescale = _rescale(
        groups, ct=kinds.of({"SOPClassUID": str(dataset.get("SOPClassUID"))}) == "ct"
    )
    apart = _apart(groups, orientation, spacing)
    found = []
    for code in range(apart.max() + 1):
        rows = np.flatnonzero(apart == code)
        facing = orientation[rows].mean(axis=0)
        parts, noticed = passes([slices[n] for n in rows], places(where[rows], facing))
        noticed |= {"mixed-series"} if apart.max() else set()
        for part in parts:
            at = rows[part]
            found.append(
                Frames(
                    at,
                    where[at],
                    facing,
                    (float(spacing[at, 0].mean()), float(spacing[at, 1].mean())),
                    rescale[at],
                    None if np.isnan(thickness[at]).any() else thickness[at],
                    tuple(sorted(noticed)),
                )
            )
    return found


def _slices(groups: Groups, where: NDArray[np.float64]) -> list[Slice]:
    """The frames as slices of a series, for what tells passes apart."""
    phases = [groups.values(*name) for name in _PHASES]
    phase = next(
        (values for values in phases if len(set(map(str, values))) > 1), [None] * len(where)
    )
    acquired = groups.values("FrameContentSequence", "FrameAcquisitionNumber")
    times = groups.values("FrameContentSequence", "FrameAcquisitionDateTime")
    thick = groups.values("PixelMeasuresSequence", "SliceThickness")
    # The order of frames in the file counts for passes only where nothing else tells them apart.
    told = any(len(set(map(str, values))) > 1 for values in (phase, acquired, times))
    return [
        Slice(
            "",
            "",
            tuple(where[n]),
            None if told else float(n),
            _float(acquired[n]),
            None,
            _float(thick[n]),
            phase=_float(phase[n]),
            time=header.seconds(str(times[n] or "")[8:]),
        )
        for n in range(len(where))
    ]


def _float(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None


def _rescale(groups: Groups, *, ct: bool) -> NDArray[np.float64]:
    """Slope and intercept (N, 2); of MR and PET, 1 and 0 where they are not told."""
    sequence = "PixelValueTransformationSequence"
    pairs = [
        [_float(value) for value in groups.values(sequence, name)]
        for name in ("RescaleSlope", "RescaleIntercept")
    ]
    if ct and any(None in values for values in pairs):
        raise MedclError("no-rescale: its frames do not say how their values become HU.")
    return np.array(
        [[1.0 if a is None else a, b or 0.0] for a, b in zip(*pairs, strict=True)], dtype=np.float64
    )


def _apart(
    groups: Groups, orientation: NDArray[np.float64], spacing: NDArray[np.float64]
) -> NDArray[np.int64]:
    """A code for each frame (N,), the same for those that may be of one volume."""
    columns = [
        np.unique([str(value) for value in groups.values(*name)], return_inverse=True)[1]
        for name in _APART
    ]
    columns.append(clusters(np.hstack([orientation, np.log(spacing)]), SAME_VIEW))
    rows = np.stack(columns, axis=1)
    return np.unique(rows, axis=0, return_inverse=True)[1].ravel().astype(np.int64)


def records(file: str, folder: str, tags: Tags, open_file: Opener) -> Iterator[Record | Reject]:
    """The items of a multi-frame file, one for each of its volumes: column ``volume``."""
    import pydicom

    key = file.replace(MEMBER, "/")
    read = header.interpret(tags, file, folder, None)
    if isinstance(read, Reject):
        yield Reject(key, read.code, read.reason)
        return
    try:
        with open_file() as handle, quiet():
            dataset = pydicom.dcmread(handle, stop_before_pixels=True)
            found = frames(dataset)
            known = suv.factor(dataset) is not None
    except MedclError as error:
        code, _, reason = str(error).partition(": ")
        yield Reject(key, code, f"In one file of several frames: {reason}")
        return
    except Exception as error:
        reason = f"Its functional groups cannot be read ({type(error).__name__})."
        yield Reject(key, "unreadable", reason)
        return
    extra = {"no-suv"} if read.stack.modality == "pet" and not known else set()
    for number, volume in enumerate(found):
        part = f"-{number}" if len(found) > 1 else ""
        yield _record(key, file, tags, read, volume, number, part, extra)


def _record(
    key: str,
    file: str,
    tags: Tags,
    read: header.Read,
    volume: Frames,
    number: int,
    part: str,
    extra: set[str],
) -> Record:
    stack = read.stack
    regular = regularity(volume.positions, volume.orientation, volume.thickness)
    box = box_of(
        volume.positions, volume.orientation, volume.spacing, stack.shape, volume.thickness
    )
    frame = stack.frame or stack.study
    return Record(
        f"{key}#{stack.series or PurePosixPath(key).name}{part}",
        (file,),
        stack.patient,
        read.site,
        {
            **header.fields(tags),
            "volume": number,
            "slices": len(volume.order),
            "rows": stack.shape[0],
            "columns": stack.shape[1],
            "pixel_mm": round(float(np.mean(volume.spacing)), 5),
            "spacing_mm": round(regular.spacing, 4),
            "mask": False,
        },
        header.labels(tags),
        tuple(sorted({*read.findings, *regular.findings, *volume.findings, *extra})),
        {
            "box": box.to_json(),
            "series": stack.series,
            "frame": stack.frame,
            "uid": read.slice.uid,
        },
        f"{stack.patient}\n{frame}" if frame else None,
    )
