"""Prepared recordings → windows or beats, read whole batches at a time."""

from __future__ import annotations

from functools import partial
from typing import Literal

import numpy as np
import polars as pl

from medcl.errors import MedclError, UsageError
from medcl.plugin import Arrays, Samples
from medcl_biosignals.aami import CLASSES
from medcl_biosignals.quality import BLOCK_SECONDS
from medcl_biosignals.rhythm import RATIOS, intervals, ratios


def dataset(
    items: pl.DataFrame,
    arrays: Arrays,
    *,
    kind: Literal["window", "beat"] = "window",
    seconds: float = 10.0,
    stride: float = 5.0,
    quality: float = 0.0,
    paced: bool = False,
    classes: tuple[str, ...] = CLASSES,
    scale: Literal["window", "record"] = "window",
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
        paced: keep recordings with paced beats. The AAMI standard leaves them out.
        classes: AAMI classes in the order of their label; beats of others get the label −1.
        scale: divide by the standard deviation of each window and lead, or of the whole lead, which
            keeps how much larger one beat is than another. The window's mean is taken off first.

    Returns:
        samples with ``x`` (B, C, T) float32 and ``fs`` (B,); for beats also the label ``aami``,
        ``rr`` (B, 4), how early the beat is (see `medcl_biosignals.rhythm`), and ``likeness``
        (B, 6·C), how it compares with the beats beside it (see `medcl_biosignals.likeness`).

    Raises:
        UsageError: for an unknown class or a window without length.
        MedclError: if no window is left.
    """
    unknown = [c for c in classes if c not in CLASSES]
    if unknown:
        raise UsageError(f"dataset.classes: '{unknown[0]}' is none of {', '.join(CLASSES)}.")
    if seconds <= 0 or stride < 0 or (kind == "window" and stride == 0):
        raise UsageError("dataset.seconds and dataset.stride must be above zero.")
    if not paced and "label.paced" in items.columns:
        items = items.filter(pl.col("label.paced").fill_null(False).not_())

    ids, owners, patients = [], [], []
    starts, labels, beside = [], [], []
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
            first = np.arange(0, total - length + 1, max(round(stride * fs), 1))
        keep = _clear(first, length, np.asarray(record["gaps"]))
        if quality > 0:
            keep &= _quality(first, length, record, fs) >= quality
        first = first[keep]
        if kind == "beat":
            labels.append(_labels(np.asarray(record["aami"])[keep], classes))
            context = [ratios(intervals(beats, fs)), np.asarray(record["likeness"])]
            beside.append(np.concatenate(context, axis=1)[keep])
        starts.append(first)
        ids += [f"{row['id']}:{start}" for start in first.tolist()]
        owners += [row["id"]] * len(first)
        patients += [row["patient"]] * len(first)
    if not ids:
        raise MedclError(
            f"No {kind} of {seconds:g} s is left: the recordings are shorter, or dataset.quality = "
            f"{quality:g} is too strict."
        )
    counts = [len(first) for first in starts]
    read = partial(
        read_windows,
        arrays=arrays,
        items=tuple(items["id"]),
        item=np.repeat(np.arange(len(counts)), counts),
        start=np.concatenate(starts),
        length=length,
        fs=fs,
        scale=scale,
        beside=np.concatenate(beside) if kind == "beat" else None,
    )
    found = {"aami": np.concatenate(labels)} if kind == "beat" else {}
    return Samples(ids=ids, items=owners, patients=patients, read=read, labels=found)


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
    beside: np.ndarray | None,
) -> dict[str, np.ndarray]:
    """Gather windows from their recordings, one slice a recording rather than one a window."""
    which = np.asarray(which)
    x: np.ndarray | None = None
    spread: np.ndarray | None = None
    for owner in np.unique(item[which]):
        rows = np.flatnonzero(item[which] == owner)
        record = arrays(items[owner])
        if x is None or spread is None:
            x = np.empty((len(which), len(record["x"]), length), dtype=np.float32)
            spread = np.empty((len(which), len(record["x"]), 1), dtype=np.float32)
        x[rows] = _cut(record["x"], start[which[rows]], length)
        spread[rows] = np.asarray(record["scale"])[None, :, None]
    assert x is not None
    assert spread is not None
    x -= x.mean(axis=-1, keepdims=True)
    if scale == "window":
        spread = x.std(axis=-1, keepdims=True)
    np.divide(x, spread, out=x, where=spread > 1e-6)
    batch = {"x": x, "fs": np.full(len(x), fs, dtype=np.float32)}
    if beside is not None:
        near = beside[which]
        batch |= {"rr": near[:, : len(RATIOS)], "likeness": near[:, len(RATIOS) :]}
    return batch


def _cut(x: np.ndarray, start: np.ndarray, length: int) -> np.ndarray:
    """Windows (B, C, length) of (C, T); zero beyond the ends."""
    total = x.shape[1]
    if start.min() >= 0 and start.max() + length <= total:
        view = np.lib.stride_tricks.sliding_window_view(
            x, length, axis=1
        )  # (C, T-length+1, length)
        return view[:, start].transpose(1, 0, 2)
    at = start[:, None] + np.arange(length)  # (B, length)
    inside = (at >= 0) & (at < total)
    return x[:, np.clip(at, 0, total - 1)].transpose(1, 0, 2) * inside[:, None]


def _clear(first: np.ndarray, length: int, gaps: np.ndarray) -> np.ndarray:
    """Which windows touch no gap: the last one to start before their end is over by their start."""
    if not len(gaps):
        return np.ones(len(first), dtype=bool)
    before = np.searchsorted(gaps[:, 0], first + length) - 1
    return (before < 0) | (gaps[np.maximum(before, 0), 1] <= first)


def _quality(first: np.ndarray, length: int, record: object, fs: float) -> np.ndarray:
    """Mean quality of the blocks that each window covers, over the leads that are there."""
    blocks = np.asarray(record["quality"])[np.asarray(record["present"])].mean(axis=0)  # type: ignore[index]
    total = np.concatenate([[0.0], blocks.cumsum()])
    size = BLOCK_SECONDS * fs
    left = np.clip(np.floor(first / size).astype(int), 0, len(blocks) - 1)
    right = np.clip(np.ceil((first + length) / size).astype(int), left + 1, len(blocks))
    return (total[right] - total[left]) / (right - left)


def _labels(aami: np.ndarray, classes: tuple[str, ...]) -> np.ndarray:
    """Indices into CLASSES → indices into ``classes``, −1 for what is not among them."""
    table = np.array([classes.index(c) if c in classes else -1 for c in CLASSES] + [-1])
    return table[aami].astype(np.int64)  # −1 picks the last entry
