"""A prepared recording as strips to read: seconds, units, channels, gaps, quality and beats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medcl.io.atomic import replacing
from medcl_biosignals.axes import names, units
from medcl_biosignals.gaps import WHY
from medcl_biosignals.quality import BLOCK_SECONDS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STRIP = 10.0
"""Seconds of a strip; 25 mm/s on paper, with lines each 0.2 s (5 mm) and 0.04 s (1 mm)."""
_STRIPS = 3
_INCH = 25 / 25.4  # of paper a second
_LARGE, _SMALL = 0.2, 0.04
_GRID, _LOST, _BEAT = "#e8a0a0", "#bbbbbb", "#c00000"


def look(files: Sequence[Path], arrays: Mapping[str, np.ndarray], out: Path) -> list[Path]:
    """Draw a recording: ``signal.png``.

    An overview of the quality of each channel over the whole recording, with the strips below
    marked; and strips of ten seconds at 25 mm/s: from the beginning, where the quality is best, and
    where it is worst. Each has the channels one above the other in their units, grey where the
    signal is lost, and a mark at each beat.

    Args:
        files: the recording's; not used, for their names may identify a patient.
        arrays: what `medcl_biosignals.prepare` gives.
        out: the folder; created.

    Returns:
        the picture.
    """
    out.mkdir(parents=True, exist_ok=True)
    path = out / "signal.png"
    figure = drawn(arrays)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)
    return [path]


def drawn(arrays: Mapping[str, np.ndarray]) -> Figure:
    """The picture of `look`."""
    from matplotlib.figure import Figure

    fs, present = float(arrays["fs"][0]), np.asarray(arrays["present"])
    rows = np.flatnonzero(present)
    seconds = arrays["x"].shape[1] / fs
    starts = _starts(np.asarray(arrays["quality"])[rows].mean(axis=0), seconds)
    tall = 0.9 * len(rows) + 0.6
    heights = [0.4 + 0.2 * len(rows), *[tall] * len(starts)]
    figure = Figure(figsize=(STRIP * _INCH + 1.6, sum(heights) + 0.6), layout="constrained")
    axes = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    _overview(axes[0], arrays, rows, seconds, starts)
    for axis, (title, start) in zip(axes[1:], starts.items(), strict=True):
        _strip(axis, arrays, rows, start, f"{title}: from {start:g} s")
    return figure


def _starts(quality: NDArray, seconds: float) -> dict[str, float]:
    """Where strips begin, in seconds; one where the recording is no longer than that."""
    last = max(seconds - STRIP, 0.0)
    if last == 0:
        return {"The recording": 0.0}
    width = round(STRIP / BLOCK_SECONDS)
    mean = np.convolve(quality, np.ones(width) / width, mode="valid")[: int(last / 2) + 1]
    found = {
        "Beginning": 0.0,
        f"Best quality ({mean.max():.2f})": float(mean.argmax() * BLOCK_SECONDS),
        f"Worst quality ({mean.min():.2f})": float(mean.argmin() * BLOCK_SECONDS),
    }
    return {title: min(start, last) for title, start in list(found.items())[:_STRIPS]}


def _overview(
    axis: Axes,
    arrays: Mapping[str, np.ndarray],
    rows: NDArray[np.int64],
    seconds: float,
    starts: Mapping[str, float],
) -> None:
    """Quality of each channel over the recording."""
    shown = np.asarray(arrays["quality"])[rows]
    axis.imshow(
        shown, aspect="auto", cmap="RdYlGn", vmin=0, vmax=1, interpolation="nearest",
        extent=(0, shown.shape[1] * BLOCK_SECONDS, len(rows) - 0.5, -0.5),
    )  # fmt: skip
    axis.set_yticks(range(len(rows)), [names(arrays)[row] for row in rows], fontsize=7)
    axis.set_xlim(0, seconds)
    for start in starts.values():
        axis.axvspan(start, min(start + STRIP, seconds), fill=False, edgecolor="black")
    beats = len(arrays["beats"])
    axis.set_title(
        f"Quality (red 0, green 1) over {seconds:,.0f} s; {beats:,} beats", fontsize=9, loc="left"
    )
    axis.tick_params(labelsize=7)


def _strip(
    axis: Axes, arrays: Mapping[str, np.ndarray], rows: NDArray[np.int64], start: float, title: str
) -> None:
    fs = float(arrays["fs"][0])
    first = round(start * fs)
    last = min(first + round(STRIP * fs), arrays["x"].shape[1])
    t = np.arange(first, last) / fs
    labels, unit_of, lost = names(arrays), units(arrays), np.asarray(arrays["lost"])
    beats = np.asarray(arrays["beats"])
    beats = beats[(beats >= first) & (beats < last)]
    ticks = []
    for place, row in enumerate(rows):
        line = np.asarray(arrays["x"][row, first:last], dtype=np.float64)
        line = line * float(arrays["gain"][row])
        middle, span = float(np.median(line)), float(np.ptp(line)) or 1.0
        axis.plot(t, (line - middle) / (1.1 * span) - place, linewidth=0.7, color="black")
        ticks.append(f"{labels[row]}\n{span:.3g} {unit_of[row]} high")
        for channel, low, high, why in lost:
            if channel == row and low < last and high > first:
                edges = max(low, first) / fs, min(high, last) / fs
                axis.fill_between(edges, -place - 0.5, -place + 0.5, color=_LOST, linewidth=0)
                axis.text(edges[0], -place + 0.35, WHY[why], fontsize=6)
    axis.vlines(beats / fs, 0.5, 0.62, color=_BEAT, linewidth=1.2)
    axis.set_yticks(-np.arange(len(rows)), ticks, fontsize=7)
    axis.set_ylim(-len(rows) + 0.45, 0.65)
    axis.set_xlim(start, start + STRIP)
    axis.set_xticks(np.arange(start, start + STRIP + 1e-6, 1.0))
    for width, step in ((0.6, _LARGE), (0.2, _SMALL)):
        lines = start + step * np.arange(round(STRIP / step) + 1)
        axis.vlines(lines, -len(rows), 0.65, color=_GRID, linewidth=width, zorder=0)
    axis.set_title(f"{title}; beats are marked above, grey is lost", fontsize=9, loc="left")
    axis.set_xlabel("seconds, 25 mm/s", fontsize=7)
    axis.tick_params(labelsize=7)
