"""Beats, rates and quality of a prepared recording as tables, for ``medcl beats``."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from medcl.errors import UsageError
from medcl_biosignals.aami import CLASSES
from medcl_biosignals.hrv import FREQUENCY, TIME, frequency_domain, normal, time_domain
from medcl_biosignals.quality import BLOCK_SECONDS

Table = dict[str, NDArray]


_DAY = 86400.0


def beats(
    record: Mapping[str, np.ndarray],
    *,
    window: float = 300.0,
    night: tuple[float, float] = (22.0, 6.0),
) -> dict[str, Table]:
    """Tables of a prepared ECG, PPG or arterial pressure: one row a beat, a window, a recording.

    Args:
        record: the arrays that `medcl_biosignals.prepare` gives.
        window: seconds of a window; the last one may be shorter.
        night: hours of the day at which it begins and ends.

    Returns:
        "beats": ``start`` seconds from the recording's first sample; ``rr`` seconds since the beat
        before (NaN for the first); ``nn`` whether that interval is one of normal beats
        (`medcl_biosignals.hrv.normal`); ``class`` of AAMI, empty where beats are detected rather
        than annotated; ``quality`` 0–1 at the beat. "windows" and "records": ``start``,
        ``seconds``, ``beats``, ``nn`` intervals, ``quality``, the measures of
        `medcl_biosignals.hrv`. "nights": the same of each night that the recording reaches into,
        as far as it does, where the file says at what time of day it begins (EDF, WFDB). Quality is
        the mean of the channels that are there.

    Raises:
        UsageError: for a window without length, or hours that are none.
    """
    if not window > 0:
        raise UsageError("beats: window must be above zero seconds.")
    if not all(0 <= hour <= 24 for hour in night) or night[0] == night[1]:
        raise UsageError("beats: night must be two hours of the day: beats.night=[22, 6].")
    fs = float(record["fs"][0])
    at = np.asarray(record["beats"]).astype(np.int64)
    classes = np.asarray(record["aami"])
    seconds = record["x"].shape[1] / fs
    present = np.asarray(record["present"])
    quality = np.asarray(record["quality"], dtype=np.float64)[present].mean(axis=0)
    rr = np.concatenate([[np.nan], np.diff(at) / fs])[: len(at)]
    kept = normal(at, fs, classes, np.asarray(record["gaps"]))
    nn = np.concatenate([[False], kept])[: len(at)]
    start = at / fs
    block = np.minimum((start / BLOCK_SECONDS).astype(int), len(quality) - 1)
    names = np.array(["", *CLASSES])
    each = {
        "start": start,
        "rr": rr,
        "nn": nn,
        "class": names[np.clip(classes + 1, 0, len(CLASSES))],
        "quality": quality[block],
    }
    edges = np.arange(0.0, max(seconds, window), window)
    spans = [(first, min(window, seconds - first)) for first in edges if first < seconds]
    rows = [_row(each, quality, first, length) for first, length in spans]
    whole = [_row(each, quality, 0.0, seconds)]
    tables = {"beats": each, "windows": _columns(rows), "records": _columns(whole)}
    if "clock" in record:
        spans = _nights(float(record["clock"][0]), seconds, night)
        if spans:
            tables["nights"] = _columns([_row(each, quality, a, b - a) for a, b in spans])
    return tables


def _nights(clock: float, seconds: float, night: tuple[float, float]) -> list[tuple[float, float]]:
    """Begin and end of each, in seconds from the recording's first sample at ``clock``."""
    length = (night[1] - night[0]) % 24 * 3600
    first = np.arange(night[0] * 3600 - clock - _DAY, seconds, _DAY)
    spans = [(max(a, 0.0), min(a + length, seconds)) for a in first]
    return [(a, b) for a, b in spans if b - a >= BLOCK_SECONDS]


def _row(each: Table, quality: NDArray, first: float, seconds: float) -> dict[str, float]:
    """The measures of ``seconds`` from ``first`` on."""
    inside = (each["start"] >= first) & (each["start"] < first + seconds)
    # The interval that ends with the first beat began before; it counts where the beat is.
    used = np.flatnonzero(inside & each["nn"])
    nn = each["rr"][used] * 1000
    follows = np.concatenate([[False], np.diff(used) == 1])[: len(used)]
    low = int(first / BLOCK_SECONDS)
    high = max(int(np.ceil((first + seconds) / BLOCK_SECONDS)), low + 1)
    return {
        "start": first,
        "seconds": seconds,
        "beats": int(inside.sum()),
        "nn": len(used),
        "quality": float(quality[low:high].mean()),
        **time_domain(nn, follows),
        **frequency_domain(nn, each["start"][used]),
    }


def _columns(rows: list[dict[str, float]]) -> Table:
    names = ("start", "seconds", "beats", "nn", "quality", *TIME, *FREQUENCY)
    whole = {"beats": np.int64, "nn": np.int64}
    return {
        name: np.array([row[name] for row in rows], dtype=whole.get(name, np.float64))
        for name in names
    }
