"""A series or volume file → int16 HU in a fixed orientation and spacing, to be cut into samples.

Slices stream through: each is decoded, converted, resampled in its plane and put in its place; then
the volume is resampled across the slices. What is larger than a quarter of a gigabyte lies in a
temporary file meanwhile, so that memory does not grow with the number of slices.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, permutations
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from medcl.archive.array_set import SOURCE
from medcl.archive.policies import Policy, policies, refuse
from medcl.errors import MedclError, UsageError
from medcl_ct import benchmark, body, drawn, frame, grey, kinds, nested, volumes
from medcl_ct.findings import FINDINGS
from medcl_ct.kinds import Kind
from medcl_ct.pixels import PADDING, Source, drawings, open_source
from medcl_ct.resample import Grid, is_identity, over, uneven, weights
from medcl_ct.stacking import Regularity, normal, places, regularity
from medcl_ct.volumes import NOT_AIR

AIR = -1024
_BLANK = 1e-3  # of the pixels, which differ from others of their slice: with fewer nothing is shown
_CLASSES, _SKIPPED = 16, 4
"""Values of a mask, at most, and pixels from one that is looked at to the next."""
PLACES = 512
"""Voxels of each structure to which crops can be drawn."""
_IN_MEMORY = 256 * 1024 * 1024  # bytes of one array

Floats = NDArray[np.float64]
Image = NDArray[np.int16]


def prepare(
    root: Path,
    files: Sequence[str],
    fields: Mapping[str, object],
    *,
    spacing: tuple[float, float, float] = (0.0, 1.0, 1.0),
    policy: Mapping[str, Policy] | None = None,
    crop: Literal["body", "none"] = "body",
    air: Literal["keep", "cut"] = "keep",
    clip: tuple[int, int] | None = (-1024, 3071),
    modality: Kind = "ct",
) -> dict[str, np.ndarray]:
    """Decode a volume once, for training.

    Args:
        root: the archive.
        files: of the item, slices in order.
        fields: its row in the index; ``findings`` and ``source`` are used.
        spacing: of the result along (z, y, x) in mm; 0 keeps what it is.
        policy: finding → reject, resample, split or accept, over the defaults of
            `medcl_ct.findings`.
        crop: "body" cuts away the air around the patient, with a margin of 1 cm.
        air: "cut" sets the table and all else outside of the patient to air.
        clip: lowest and highest HU, or grey value; None keeps all that 16 bits hold.
        modality: "ct" prepares CT, in HU; "mr" and "pet" the others, as grey values from −1000 to
            1000 (`medcl_ct.grey`). Items of another kind are left out. A volume file that does not
            say what it is counts as what is asked for, if its values may be of that kind.

    Returns:
        for each part n (one, unless a policy splits): ``hu{n}`` (Z, Y, X) int16, indices rising
        towards the head, the back and the left; ``affine{n}`` (4, 4), (z, y, x, 1) → LPS mm; and
        ``mask{n}`` (Z, Y, X) uint8 where the item has a mask, and ``drawn{n}`` (M, 4) int32: for
        each of its values above 0, up to `PLACES` voxels that have it: value, z, y, x.
        ``findings`` are names of what was noticed on the way; ``volume`` (1,) which volume of a
        file with several it is, but for the first.

    Raises:
        UsageError: for a policy or spacing that makes no sense.
        MedclError: if a finding's policy is to reject, or the pixels cannot be decoded.
    """
    if min(spacing) < 0 or (clip is not None and clip[0] >= clip[1]):
        raise UsageError("prepare.spacing must not be below 0, and prepare.clip rise.")
    rules = policies(policy or {}, FINDINGS)
    known: Sequence[str] = fields.get("findings") or ()  # type: ignore[assignment]
    if fields.get("source") == SOURCE:
        refuse(known, rules, FINDINGS, "file")
        return benchmark.load(root, files[0], fields)
    kind = _kind(fields)
    kinds.refuse(kind or modality, modality)
    refuse(known, rules, FINDINGS, "series")
    images = files[: len(files) - int(fields.get("drawn") or 0)]  # type: ignore[call-overload]
    volume = int(fields.get("volume") or 0)  # type: ignore[call-overload]
    source = open_source(root, images, volume)
    noticed = [] if kind else ["modality-assumed"]
    regular = regularity(source.positions, source.orientation, source.thickness)
    refuse([name for name in regular.findings if name not in known], rules, FINDINGS, "series")
    plan = _plan(source, regular, spacing, rules)
    if modality == "pet" and source.suv is None and "no-suv" not in known:
        noticed.append("no-suv")
    scale = grey.scale(modality, source)
    staged, lowest, varied, blank = _stage(source, plan, clip, scale)
    if kind is None and modality != "ct" and (lowest - scale[1]) / scale[0] <= NOT_AIR:
        refuse(["like-hu"], rules, FINDINGS, "series")
    if modality != "ct" and fields.get("source") != "dicom" and _like_mask(source):
        refuse(["like-mask"], rules, FINDINGS, "series")
    if modality == "ct" and lowest > NOT_AIR:
        refuse(["not-hu"], rules, FINDINGS, "series")
    if varied < _BLANK:
        refuse(["blank"], rules, FINDINGS, "series")
    if blank:
        noticed.append("blank-slices")
    labels, found = _labels(root, files, images, source)
    noticed += sorted(found)
    masks = None if labels is None else _masks(labels, source, plan)
    arrays: dict[str, np.ndarray] = {}
    for n, part in enumerate(plan.parts):
        hu, affine = _upright(part.across(staged[part.first : part.last]), plan, part)
        covered = None if masks is None else _upright(masks[n], plan, part)[0]
        within = frame.inside(hu) if len(hu) > 1 else None
        if within is not None:
            noticed.append("black-frame")
            hu = _outside_is_air(hu, within, grey.BODY[modality])
        inside: tuple[slice, ...] = (slice(None),) * 3
        if crop == "body":
            inside = body.extent(hu, affine, grey.BODY[modality])
        if air == "cut":
            body.cut(hu, affine, AIR, grey.BODY[modality])
        arrays[f"hu{n}"] = _settled(hu[inside])
        arrays[f"affine{n}"] = _moved(affine, inside)
        if covered is not None:
            arrays[f"mask{n}"] = np.ascontiguousarray(covered[inside])
            arrays[f"drawn{n}"] = _drawn(arrays[f"mask{n}"])
    noticed = sorted(set(noticed))
    refuse(noticed, rules, FINDINGS, "series")
    if noticed:
        arrays["findings"] = np.array(noticed)
    if volume:
        arrays["volume"] = np.array([volume])
    return arrays


def _like_mask(source: Source) -> bool:
    """Whether values are few whole numbers: looked for at some pixels of each slice."""
    found: set[float] = set()
    for _, values in source.slices():
        found |= set(np.unique(values[::_SKIPPED, ::_SKIPPED]).tolist())
        if len(found) > _CLASSES:
            return False
    return len(found) > 1 and all(value >= 0 and value == int(value) for value in found)


def _kind(fields: Mapping[str, object]) -> Kind | None:
    """What the index says that an item is; indexes of before the other kinds hold CT alone."""
    said = fields.get("modality")
    if said is None and fields.get("source") == "dicom":
        return "ct"
    return next((kind for kind in kinds.KINDS if kind == said), None)


@dataclass(frozen=True)
class _Part:
    """A run of slices that makes one volume."""

    first: int
    last: int
    source: Grid
    target: Grid
    matrix: sparse.csr_array

    def across(self, staged: Image) -> Image:
        """Resample across the slices: (K, R, C) → (K′, R, C), a slice at a time."""
        if is_identity(self.matrix):
            return staged
        out = _room((self.target.count, *staged.shape[1:]))
        for n in range(self.target.count):
            span = slice(self.matrix.indptr[n], self.matrix.indptr[n + 1])
            total = np.zeros(staged.shape[1:], dtype=np.float32)
            for k, w in zip(self.matrix.indices[span], self.matrix.data[span], strict=True):
                total += np.float32(w) * staged[k]
            out[n] = np.rint(total)
        return out


@dataclass(frozen=True)
class _Plan:
    """Where everything goes.

    Attributes:
        axes: (3, 3) directions of slices, rows and columns (how their indices rise), LPS.
        order: (3,) which of these runs along the patient's z, y, x.
        rows, columns: the grids of the result in the plane.
        drift: (N, 2) where each slice's first row and column lie.
        parts: runs of slices.
    """

    axes: Floats
    order: tuple[int, ...]
    rows: Grid
    columns: Grid
    drift: Floats
    parts: tuple[_Part, ...]


def _plan(
    source: Source,
    regular: Regularity,
    spacing: tuple[float, float, float],
    rules: Mapping[str, Policy],
) -> _Plan:
    across, down = source.orientation[:3], source.orientation[3:]
    axes = np.stack([normal(source.orientation), down, across])
    order = max(
        permutations(range(3)),
        key=lambda p: abs(axes[p[0], 2]) + abs(axes[p[1], 1]) + abs(axes[p[2], 0]),
    )
    wanted: dict[int, float | None] = {
        axis: target or None for axis, target in zip(order, spacing, strict=True)
    }
    drift = source.positions @ np.stack([down, across]).T  # (N, 2)
    if "gantry-tilt" not in regular.findings or rules["gantry-tilt"] == "accept":
        drift = np.broadcast_to(drift[0], drift.shape)
    (low_row, low_column), (high_row, high_column) = drift.min(axis=0), drift.max(axis=0)
    sizes = [(n - 1) * step for n, step in zip(source.shape, source.spacing, strict=True)]
    return _Plan(
        axes,
        order,
        _cover(low_row, high_row, sizes[0], source.spacing[0], wanted[1]),
        _cover(low_column, high_column, sizes[1], source.spacing[1], wanted[2]),
        drift,
        _parts(source, regular, wanted[0], rules),
    )


def _cover(low: float, high: float, size: float, step: float, target: float | None) -> Grid:
    """Around all slices, however far they drift; on the pixels of the first if none does."""
    steps = np.ceil((high - low) / step - 1e-6)
    return over(float(low), float(low + steps * step + size), step, target)


def _parts(
    source: Source, regular: Regularity, target: float | None, rules: Mapping[str, Policy]
) -> tuple[_Part, ...]:
    where = places(source.positions, source.orientation)
    cuts = {0, len(where)}
    even = True
    for name in ("missing-slices", "non-uniform-spacing", "uneven-spacing"):
        if name in regular.findings:
            cuts |= set(regular.steps) if rules[name] == "split" else set()
            even &= rules[name] != "resample"
    if "mixed-thickness" in regular.findings and rules["mixed-thickness"] == "split":
        cuts |= set(regular.changes)
    parts = []
    for first, last in pairwise(sorted(cuts)):
        here = where[first:last]
        count = last - first
        if count == 1:
            thick = source.thickness[first] if source.thickness is not None else None
            one = Grid(float(here[0]), float(thick or regular.spacing or 1.0), 1)
            parts.append(_Part(first, last, one, one, weights(one, one)))
            continue
        step = (
            float((here[-1] - here[0]) / (count - 1)) if even else float(np.median(np.diff(here)))
        )
        grid = Grid(float(here[0]), step, count)
        new = over(float(here[0]), float(here[-1]), step, target if even else target or step)
        matrix = weights(grid, new) if even else uneven(here, new)
        parts.append(_Part(first, last, grid, new, matrix))
    return tuple(parts)


def _stage(
    source: Source, plan: _Plan, clip: tuple[int, int] | None, scale: tuple[float, float]
) -> tuple[Image, float, float, bool]:
    """All slices on the grid in the plane (N, R, C), and what their values are like.

    Args:
        source: the slices.
        plan: where they go.
        clip: lowest and highest value of the result.
        scale: slope and intercept of the grey values.

    Returns:
        the slices; the lowest value that is no padding; the share of pixels that differ from the
        first; whether a slice has one value only.
    """
    low, high = clip or (-32768, 32767)
    out = _room((len(source.positions), plan.rows.count, plan.columns.count))
    lowest, varied, blank, first = np.inf, np.zeros(len(source.positions)), False, 0.0
    made: tuple[Any, ...] = (None, None, None)
    for n, values in source.slices():
        padded = values == PADDING
        first = first if n else values[0, 0]
        varied[n] = (values != first).mean()
        blank |= bool((values == values[0, 0]).all())
        if scale != (1.0, 0.0):
            values = values * np.float32(scale[0]) + np.float32(scale[1])
        if not padded.all():
            lowest = min(lowest, float(values.min(where=~padded, initial=np.inf)))
        values[padded] = AIR
        at = tuple(plan.drift[n])
        if at != made[0]:
            made = (at, *_matrices(source, plan, at))
        out[n] = np.rint(np.clip(_in_plane(values, made[1], made[2]), low, high))
    return out, lowest, float(varied.mean()), blank


def _matrices(
    source: Source, plan: _Plan, at: tuple[float, float]
) -> tuple[sparse.csr_array, sparse.csr_array]:
    grids = [
        Grid(first, step, count)
        for first, step, count in zip(at, source.spacing, source.shape, strict=True)
    ]
    return weights(grids[0], plan.rows), weights(grids[1], plan.columns)


def _in_plane(
    values: NDArray[np.float32], rows: sparse.csr_array, columns: sparse.csr_array
) -> NDArray[Any]:
    """(R, C) → (R′, C′); what lies outside of the slice is air."""
    if is_identity(rows) and is_identity(columns):
        return values
    out: NDArray[Any] = (columns @ (rows @ values).T).T
    out[np.diff(rows.indptr) == 0] = AIR
    out[:, np.diff(columns.indptr) == 0] = AIR
    return out


def _labels(
    root: Path, files: Sequence[str], images: Sequence[str], source: Source
) -> tuple[NDArray[np.uint8] | None, set[str]]:
    """The map of labels (N, R, C) of an item, slices in order, and findings; None without a mask.

    Of two structures in one voxel the first holds.
    """
    if len(files) > len(images):
        grid = drawn.Grid(source.positions, source.orientation, source.spacing, source.shape)
        return drawn.labels(drawings(root, files[len(images) :]), grid)
    labels: NDArray[np.uint8] | None = None
    for file, code in volumes.masks(files):  # 0: a map of labels by itself
        values = _mask(root, file, files[0])
        if labels is None:
            labels = np.zeros(values.shape, dtype=np.uint8)
        labels[labels == 0] = (values if code == 0 else np.where(values > 0, code, 0))[labels == 0]
    return labels, set()


def _masks(labels: NDArray[np.uint8], source: Source, plan: _Plan) -> list[NDArray[np.uint8]]:
    """The labels of each part on the grid of the result, by the nearest voxel."""
    staged = np.zeros((len(labels), plan.rows.count, plan.columns.count), dtype=np.uint8)
    for n, one in enumerate(labels):
        found = [
            _nearest(Grid(float(first), step, count), target)
            for first, step, count, target in zip(
                plan.drift[n],
                source.spacing,
                labels.shape[1:],
                (plan.rows, plan.columns),
                strict=True,
            )
        ]
        (rows, rows_in), (columns, columns_in) = found
        staged[n] = one[np.ix_(rows, columns)] * np.outer(rows_in, columns_in)
    where = places(source.positions, source.orientation)
    return [
        staged[part.first : part.last][
            np.abs(where[part.first : part.last] - part.target.places[:, None]).argmin(axis=1)
        ]
        for part in plan.parts
    ]


def _drawn(mask: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Voxels of each value above 0, evenly spread over all that have it: (M, 4) value, z, y, x."""
    found = [np.empty((0, 4), dtype=np.int32)]
    for value in np.flatnonzero(np.bincount(mask.ravel(), minlength=1)[1:]) + 1:
        at = np.flatnonzero(mask == value)
        at = at[np.linspace(0, len(at) - 1, min(PLACES, len(at))).round().astype(np.int64)]
        where = np.stack(np.unravel_index(at, mask.shape), axis=1)
        found.append(np.column_stack([np.full(len(at), value), where]).astype(np.int32))
    return np.concatenate(found)


def _mask(root: Path, file: str, image: str) -> NDArray[np.uint8]:
    """One mask's values (N, R, C), slices in the order of their places."""
    mask, volume = nested.open_volume(root, file), nested.open_volume(root, image)
    if mask.shape != volume.shape or not np.allclose(mask.affine, volume.affine, atol=1e-2):
        raise MedclError("mask-misfit: the mask does not lie on the grid of its image.")
    data = np.asarray(mask.data())[:, :, mask.order]
    values = data.T * mask.slope + mask.intercept
    if values.min() < 0 or values.max() > 255 or not np.array_equal(values, np.rint(values)):
        raise MedclError("mask-misfit: a mask holds whole numbers from 0 to 255.")
    return values.astype(np.uint8)


def _nearest(source: Grid, target: Grid) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The nearest source cell of each of the target's, and whether it lies within the source."""
    at = (target.places - source.first) / source.step
    inside = (at >= -0.5 - 1e-6) & (at <= source.count - 0.5 + 1e-6)
    return np.clip(np.rint(at).astype(np.int64), 0, source.count - 1), inside


def _upright(values: NDArray[Any], plan: _Plan, part: _Part) -> tuple[NDArray[Any], Floats]:
    """(K, R, C) → (Z, Y, X), a view, and its affine."""
    grids = (part.target, plan.rows, plan.columns)
    affine = np.eye(4)
    affine[:3, :3] = (plan.axes * np.array([g.step for g in grids])[:, None]).T
    affine[:3, 3] = np.array([g.first for g in grids]) @ plan.axes
    values = values.transpose(plan.order)
    affine = affine[:, [*plan.order, 3]]
    for axis, toward in enumerate((2, 1, 0)):  # of LPS
        if affine[toward, axis] < 0:
            affine[:3, 3] += affine[:3, axis] * (values.shape[axis] - 1)
            affine[:3, axis] *= -1
            values = np.flip(values, axis)
    return values, affine


def _outside_is_air(hu: NDArray[Any], within: tuple[slice, ...], body: float) -> NDArray[Any]:
    """A frame that would pass for body made air; one that is as dark as air stays as it is."""
    outside = np.ones(hu.shape, dtype=bool)
    outside[within] = False
    if not (hu[outside] > body).any():
        return hu
    out = _room(hu.shape)
    out[:] = hu
    out[outside] = AIR
    return out


def _moved(affine: Floats, inside: tuple[slice, ...]) -> Floats:
    """The affine of what was cut out of a volume."""
    out = affine.copy()
    out[:3, 3] += affine[:3, :3] @ np.array([part.start or 0 for part in inside])
    return out


def _room(shape: tuple[int, ...]) -> Image:
    """An array, in memory or, if it is large, in a temporary file that vanishes with it."""
    if 2 * int(np.prod(shape)) <= _IN_MEMORY:
        return np.empty(shape, dtype=np.int16)
    with tempfile.TemporaryFile() as handle:
        return np.memmap(handle, dtype=np.int16, mode="w+", shape=shape)


def _settled(values: Image) -> Image:
    """In the order of its axes, as it will lie on the disk; copied a slice at a time."""
    if values.flags.c_contiguous:
        return values
    out = _room(values.shape)
    for n, one in enumerate(values):
        out[n] = one
    return out
