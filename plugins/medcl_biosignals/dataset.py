"""Prepared recordings → windows or beats, read whole batches at a time."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Literal

import numpy as np
import polars as pl

from medcl.archive.clinical import Category, table
from medcl.errors import MedclError, UsageError
from medcl.plugin import Arrays, Samples
from medcl.strings import Formatted, codes, encoded, smallest
from medcl_biosignals.aami import CLASSES
from medcl_biosignals.axes import axes
from medcl_biosignals.indices import INDICES, index
from medcl_biosignals.likeness import unlikeness
from medcl_biosignals.quality import BLOCK_SECONDS
from medcl_biosignals.rhythm import RATIOS, intervals, ratios
from medcl_biosignals.spans import COARSE, EVENT, RHYTHM, RHYTHMS, STAGE, STAGES, covering

_PEAKS, _INTERVALS, _AROUND = 64, 96, 30.0
"""The most beats of a window, the most intervals beside it, and within how many seconds of it."""
_PLAIN = (np.mean, np.median, np.std)
_STILL = 1e-6  # of a recording's deviation: a window that moves less is taken for still


def dataset(
    items: pl.DataFrame,
    arrays: Arrays,
    *,
    kind: Literal["window", "beat"] = "window",
    seconds: float = 10.0,
    stride: float = 5.0,
    quality: float = 0.0,
    minimum: Mapping[str, float] | None = None,
    complete: bool = False,
    pad: bool = False,
    paced: bool = False,
    unusual: float = 0.0,
    classes: tuple[str, ...] = CLASSES,
    rhythms: tuple[str, ...] = ("N", "AFIB"),
    stages: tuple[str, ...] = STAGES,
    events: tuple[str, ...] = (),
    cover: float = 0.5,
    scale: Literal["window", "robust", "record", "none"] = "window",
    missing: Literal["zero", "nan"] = "zero",
    categories: Mapping[str, Sequence[Category]] | None = None,
    numbers: Mapping[str, tuple[float, float]] | None = None,
) -> Samples:
    """The windows of a set of recordings.

    Args:
        items: rows of the index; ``id``, ``patient``, and ``label.paced`` are used.
        arrays: their prepared arrays.
        kind: "window": every ``stride`` seconds, never across a gap. "beat": centred on each beat;
            what lies beyond the recording's ends is zero.
        seconds: length of a window.
        stride: seconds between the starts of two windows; not used for beats.
        quality: leave out windows whose mean quality over the leads that are there is lower.
        minimum: leave out windows in which another index is lower, such as ``{template: 0.6}``; see
            `medcl_biosignals.indices`.
        complete: leave out windows in which any lead that is there has a gap, not only those in
            which all have one.
        pad: keep a recording that is shorter than a window, as one window with what is missing
            behind it.
        paced: keep recordings with paced beats. The AAMI standard leaves them out.
        unusual: beats only, 0 to below 1: the share of a patient's draws in pretraining that goes
            to beats by how early they come and how unlike their neighbours they are
            (`medcl_biosignals.likeness.unlikeness`), which needs no label. Most beats are normal
            ones that the encoder has learnt all about.
        classes: AAMI classes in the order of their label; beats of others get the label −1.
        rhythms: names of `medcl_biosignals.spans.RHYTHMS` in the order of their label;
            windows of another or of none get the label −1.
        stages: sleep stages (`medcl_biosignals.spans.STAGES`, and ``COARSE`` of watches) in the
            order of their label.
        events: classes of events: `medcl_biosignals.spans.EVENTS`, or those of your own tables
            beside the recordings. Empty: no label of events.
        cover: 0 to below 1: a window has the rhythm, stage or event that covers more of it.
        scale: "window": divide by the standard deviation of each window and lead, after its mean is
            taken off; "robust": the same with the median and the median absolute deviation, which
            an artefact moves less; "record": by that of the whole lead, which keeps how much larger
            one beat is than another; "none": as prepared, in its unit, the level included.
        missing: what stands for a lead that is absent, for its gaps, and beyond the recording's
            ends: zero, from which "window", "robust" and "record" then take the mean off; or NaN,
            which they leave out, and by which a method that is aware of it (`aim`) knows.
        categories: categorical columns of a clinical table, name → categories; see
            `medcl.archive.clinical.table`. Leave out what you want to predict later.
        numbers: its numeric columns, name → (centre, scale).

    Returns:
        samples with ``x`` (B, C, T) float32 and ``fs`` (B,); for beats also the label ``aami``,
        ``rr`` (B, 4), how early the beat is (see `medcl_biosignals.rhythm`), and ``likeness``
        (B, 6·C), how it compares with the beats beside it (see `medcl_biosignals.likeness`). For
        windows ``unit`` (B, C), what one of ``x`` is in the channel's unit; ``peaks`` (B, 64)
        int32, the positions of its beats, −1 behind the last; and ``intervals`` (B, 96) float32,
        the seconds between the recording's beats from 30 s before its centre to 30 s after, 0
        behind the last: what the hand-crafted features are measured by. With
        annotated rhythms, stages or events there are the labels ``rhythm``, ``stage`` and
        ``event``; with columns of a table ``table`` (B, columns), the categorical ones first, −1 or
        NaN where missing. `Samples.where` gives
        ``start`` and ``seconds`` of each window.

    Raises:
        UsageError: for an unknown class, rhythm or index, a window without length, or a share of
            unusual beats that is none, or where there are no beats.
        MedclError: if no window is left.
    """
    _known(classes, CLASSES, "dataset.classes")
    _known(rhythms, RHYTHMS, "dataset.rhythms")
    _known(stages, (*STAGES, *COARSE), "dataset.stages")
    if not 0 <= cover < 1:
        raise UsageError(f"dataset.cover = {cover:g}: give a share from 0 to below 1.")
    _known(tuple(minimum or ()), INDICES, "dataset.minimum")
    if seconds <= 0 or stride < 0 or (kind == "window" and stride == 0):
        raise UsageError("dataset.seconds and dataset.stride must be above zero.")
    if not 0 <= unusual < 1:
        raise UsageError(f"dataset.unusual = {unusual:g}: give a share from 0 to below 1.")
    if unusual and kind != "beat":
        raise UsageError("dataset.unusual needs beats: set dataset.kind=beat, or leave it out.")
    if not paced and "label.paced" in items.columns:
        items = items.filter(pl.col("label.paced").fill_null(False).not_())

    groups = {RHYTHM: rhythms, STAGE: stages, EVENT: events}
    heard: dict[str, list[np.ndarray]] = {group: [] for group in groups}
    starts, labels, beats_of = [], [], []
    fs, length = 0.0, 0
    for row in items.select("id", "patient").iter_rows(named=True):
        record = arrays(row["id"])
        fs = float(record["fs"][0])
        length = round(seconds * fs)
        total = record["x"].shape[1]
        beats = np.asarray(record["beats"])
        if kind == "beat":
            first = beats - length // 2
        else:
            last = max(total - length, 0) if pad else total - length
            first = np.arange(0, last + 1, max(round(stride * fs), 1))
        keep = _clear(first, length, np.asarray(record["gaps"]))
        if complete:
            keep &= _clear(first, length, _united(np.asarray(record["lost"])[:, 1:3]))
        for name, least in {"quality": quality, **(minimum or {})}.items():
            if name != "quality" or least > 0:
                keep &= _mean(index(record, name), first, length, record, fs) >= least
        first = first[keep]
        if kind == "beat":
            labels.append(_labels(np.asarray(record["aami"])[keep], classes))
            beats_of.append(np.flatnonzero(keep))
        for group, names in groups.items():
            heard[group].append(covering(record, group, names, first, length, cover))
        starts.append(first)
    if not any(map(len, starts)):
        raise MedclError(
            f"No {kind} of {seconds:g} s is left: the recordings are shorter, or dataset.quality = "
            f"{quality:g} or another minimum is too strict."
        )
    item = smallest(np.repeat(np.arange(len(starts)), [len(first) for first in starts]))
    start = smallest(np.concatenate(starts))
    owners, patients = encoded(items["id"], item), encoded(items["patient"], item)
    read = partial(
        read_windows,
        arrays=arrays,
        items=tuple(items["id"]),
        item=item,
        start=start,
        length=length,
        fs=fs,
        scale=scale,
        missing=missing,
        beat=smallest(np.concatenate(beats_of)) if kind == "beat" else None,
        early=_Remembered(),
        clinical=table(items, categories or {}, numbers or {}),
    )
    found = {"aami": np.concatenate(labels)} if kind == "beat" else {}
    for group, parts in heard.items():
        if any((label >= 0).any() for label in parts):
            found[group] = np.concatenate(parts)
    weights = None
    if unusual:
        beside = [
            _beside(record, _early(record, fs), beats)
            for record, beats in zip(map(arrays, items["id"]), beats_of, strict=True)
        ]
        weights = _weights(np.concatenate(beside), codes(patients), unusual)
    return Samples(
        ids=Formatted("{}:{}", owners, (start,)),
        items=owners,
        patients=patients,
        read=read,
        labels=found,
        weights=weights,
        where=partial(_where, start=start, fs=fs, seconds=seconds),
        axes=partial(axes, arrays=arrays, items=tuple(items["id"]), item=item, scale=scale),
    )


def _where(
    which: np.ndarray, *, start: np.ndarray, fs: float, seconds: float
) -> dict[str, np.ndarray]:
    """Start and length of windows in seconds from the recording's first sample.

    The start of a beat near the recording's beginning is negative.
    """
    first = start[which].astype(np.int64) / fs
    return {"start": first, "seconds": np.full(len(first), seconds)}


class _Remembered(dict[int, np.ndarray]):
    """What a process has computed of its recordings; other processes compute their own."""

    def __reduce__(self) -> tuple[type[_Remembered], tuple[()]]:
        return _Remembered, ()


def _beside(record: Mapping[str, np.ndarray], early: np.ndarray, beats: np.ndarray) -> np.ndarray:
    """How beats (B,) of a recording compare with those around them: ratios, then likeness."""
    return np.concatenate([early[beats], np.asarray(record["likeness"])[beats]], axis=1)


def _early(record: Mapping[str, np.ndarray], fs: float) -> np.ndarray:
    return ratios(intervals(np.asarray(record["beats"]), fs))


def _weights(beside: np.ndarray, owner: np.ndarray, unusual: float) -> np.ndarray:
    """Of a mean of one for each owner: 1 − ``unusual`` for all, the rest by unlikeness."""
    rr, likeness = beside[:, : len(RATIOS)], beside[:, len(RATIOS) :]
    unlike = unlikeness(rr, likeness).astype(np.float64) + 1e-6  # a patient of equal beats: evenly
    mean = np.bincount(owner, unlike) / np.bincount(owner)
    return 1 - unusual + unusual * unlike / mean[owner]


def read_windows(
    which: np.ndarray,
    *,
    arrays: Arrays,
    items: tuple[str, ...],
    item: np.ndarray,
    start: np.ndarray,
    length: int,
    fs: float,
    scale: str,
    beat: np.ndarray | None,
    early: _Remembered,
    clinical: np.ndarray | None = None,
    missing: str = "zero",
) -> dict[str, np.ndarray]:
    """Gather windows from their recordings, one slice a recording rather than one a window."""
    which = np.asarray(which)
    x: np.ndarray | None = None
    spread: np.ndarray | None = None
    near: np.ndarray | None = None
    unit: np.ndarray | None = None
    peaks = np.full((len(which), _PEAKS), -1, np.int32)
    between = np.zeros((len(which), _INTERVALS), np.float32)
    owner = item[which]
    order = np.argsort(owner, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(owner[order])) + 1):
        this = int(owner[rows[0]])
        record = arrays(items[this])
        if x is None or spread is None:
            x = np.empty((len(which), len(record["x"]), length), dtype=np.float32)
            spread = np.empty((len(which), len(record["x"]), 1), dtype=np.float32)
            unit = np.ones((len(which), len(record["x"])), dtype=np.float32)
        _cut(record["x"], start[which[rows]].astype(np.int64), x, rows)
        spread[rows] = _set_to_scale(x, rows, record, scale)
        assert unit is not None
        if scale in ("window", "robust"):
            unit[rows] = np.asarray(record["gain"], dtype=np.float64)
        if missing == "nan":
            _mark_missing(x, rows, start[which[rows]].astype(np.int64), record)
        if beat is not None:
            if this not in early:
                early[this] = _early(record, fs)
            mine = _beside(record, early[this], beat[which[rows]])
            if near is None:
                near = np.empty((len(which), mine.shape[1]), mine.dtype)
            near[rows] = mine
        else:
            at = start[which[rows]].astype(np.int64)
            beats = np.asarray(record["beats"])
            peaks[rows] = _inside(beats, at, length)
            between[rows] = _between(beats / fs, at / fs + length / fs / 2)
    assert x is not None
    assert unit is not None
    assert spread is not None
    least = _STILL * spread
    mean, median, std = (np.nanmean, np.nanmedian, np.nanstd) if missing == "nan" else _PLAIN
    with warnings.catch_warnings():  # of a lead of which nothing is there
        warnings.simplefilter("ignore", RuntimeWarning)
        if scale == "robust":
            x -= median(x, axis=-1, keepdims=True)
            spread = 1.4826 * median(np.abs(x), axis=-1, keepdims=True)
        elif scale != "none":
            x -= mean(x, axis=-1, keepdims=True)
        if scale == "window":
            spread = std(x, axis=-1, keepdims=True)
        if scale != "none":
            np.divide(x, spread, out=x, where=spread > least)
            unit *= np.where(spread > least, spread, 1)[..., 0]
    batch = {"x": x, "fs": np.full(len(x), fs, dtype=np.float32)}
    if beat is None:
        batch |= {"unit": unit, "peaks": peaks, "intervals": between}
    if near is not None:
        batch |= {"rr": near[:, : len(RATIOS)], "likeness": near[:, len(RATIOS) :]}
    if clinical is not None:
        batch["table"] = clinical[item[which]]
    return batch


def _inside(beats: np.ndarray, start: np.ndarray, length: int) -> np.ndarray:
    """The beats of windows that start at (B,), by their positions in them: (B, 64), −1 for none."""
    first = np.searchsorted(beats, start)
    at = first[:, None] + np.arange(_PEAKS)
    inside = np.append(beats, np.iinfo(np.int64).max)[np.minimum(at, len(beats))]
    return np.where(inside < start[:, None] + length, inside - start[:, None], -1)


def _between(seconds: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """The intervals between beats at ``seconds`` around windows (B,): (B, 96), 0 for none."""
    rr = np.append(np.diff(seconds), 0) if len(seconds) else np.zeros(1)
    first = np.searchsorted(seconds, centre - _AROUND)
    last = np.searchsorted(seconds, centre + _AROUND) - 1  # the interval ends inside too
    at = first[:, None] + np.arange(_INTERVALS)
    return np.where(at < last[:, None], rr[np.minimum(at, len(rr) - 1)], 0)


def _set_to_scale(
    x: np.ndarray, rows: np.ndarray, record: Mapping[str, np.ndarray], scale: str
) -> np.ndarray:
    """The robust deviation (1, C, 1) of a record in the units that its windows ``x[rows]`` have.

    They stay in those that are stored where each window is scaled by itself anyway; otherwise they
    are brought into the record's own, and with "none" get their level back.
    """
    gain = np.asarray(record["gain"], dtype=np.float64)[None, :, None]
    own = np.asarray(record["scale"], dtype=np.float64)[None, :, None]
    if scale in ("window", "robust"):
        return np.asarray(own / gain)
    if (gain != 1).any():
        x[rows] *= gain.astype(np.float32)
    if scale == "none" and np.any(record["offset"]):
        x[rows] += np.asarray(record["offset"], dtype=np.float32)[None, :, None]
    return own


def _cut(x: np.ndarray, start: np.ndarray, out: np.ndarray, rows: np.ndarray) -> None:
    """Copy windows of (C, T) into ``rows`` of (B, C, length); zero beyond the ends."""
    length, total = out.shape[2], x.shape[1]
    for row, first in zip(rows.tolist(), start.tolist(), strict=True):
        low, high = max(first, 0), min(first + length, total)
        if high - low < length:
            out[row] = 0
        if low < high:
            out[row, :, low - first : high - first] = x[:, low:high]


def _mark_missing(
    x: np.ndarray, rows: np.ndarray, start: np.ndarray, record: Mapping[str, np.ndarray]
) -> None:
    """NaN in the windows ``x[rows]``, in place, where their recording has no signal of a lead."""
    length, total = x.shape[2], record["x"].shape[1]
    lost = np.asarray(record["lost"])
    there = np.asarray(record["present"])
    for row, first in zip(rows.tolist(), start.tolist(), strict=True):
        x[row, :, : max(-first, 0)] = np.nan
        x[row, :, max(total - first, 0) :] = np.nan
        x[row, ~there] = np.nan
        for lead, begin, end, _ in lost[(lost[:, 1] < first + length) & (lost[:, 2] > first)]:
            x[row, lead, max(begin - first, 0) : max(end - first, 0)] = np.nan


def _clear(first: np.ndarray, length: int, gaps: np.ndarray) -> np.ndarray:
    """Which windows touch no gap: the last one to start before their end is over by their start."""
    if not len(gaps):
        return np.ones(len(first), dtype=bool)
    before = np.searchsorted(gaps[:, 0], first + length) - 1
    return (before < 0) | (gaps[np.maximum(before, 0), 1] <= first)


def _united(stretches: np.ndarray) -> np.ndarray:
    """Stretches (L, 2) that may overlap → the same, joined and in order."""
    joined: list[list[int]] = []
    for first, last in sorted(stretches.tolist()):
        if joined and first <= joined[-1][1]:
            joined[-1][1] = max(joined[-1][1], last)
        else:
            joined.append([first, last])
    return np.array(joined, dtype=np.int64).reshape(-1, 2)


def _mean(
    values: np.ndarray,
    first: np.ndarray,
    length: int,
    record: Mapping[str, np.ndarray],
    fs: float,
) -> np.ndarray:
    """Mean of an index over the blocks that each window covers, and the leads that are there."""
    blocks = values[np.asarray(record["present"])].mean(axis=0)
    total = np.concatenate([[0.0], blocks.cumsum()])
    size = BLOCK_SECONDS * fs
    left = np.clip(np.floor(first / size).astype(int), 0, len(blocks) - 1)
    right = np.clip(np.ceil((first + length) / size).astype(int), left + 1, len(blocks))
    return (total[right] - total[left]) / (right - left)


def _known(names: tuple[str, ...], known: tuple[str, ...], where: str) -> None:
    for name in names:
        if name not in known:
            raise UsageError(f"{where}: '{name}' is none of {', '.join(known)}.")


def _labels(aami: np.ndarray, classes: tuple[str, ...]) -> np.ndarray:
    """Indices into CLASSES → indices into ``classes``, −1 for what is not among them."""
    table = np.array([classes.index(c) if c in classes else -1 for c in CLASSES] + [-1])
    return table[aami].astype(np.int64)  # −1 picks the last entry
