"""A prepared recording as strips to read: seconds, units, channels, gaps, quality and beats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
"""Seconds of a strip."""
_STRIPS = 3
_MM = 1 / 25.4  # inches
_SPEED = 25.0  # mm a second: a large square is 0.2 s
_GAINS = (10.0, 5.0, 2.5, 1.0)  # mm a millivolt; the first by which no lead is taller than:
_TALLEST = 40.0  # mm
_ROW, _LEAST = 15.0, 10.0  # mm: height of what is not in mV; of any row
_BETWEEN = 5.0  # mm above each row, for beats and what is lost
_LARGE, _SMALL = 5.0, 1.0  # mm
_GRID, _LOST, _BEAT = "#e8a0a0", "#bbbbbb", "#c00000"


@dataclass(frozen=True)
class _Row:
    """A channel on paper: its samples in mm from the middle of its range, and how it is scaled."""

    channel: int
    line: NDArray[np.float64]
    height: float
    label: str


def look(files: Sequence[Path], arrays: Mapping[str, np.ndarray], out: Path) -> list[Path]:
    """Draw a recording: ``signal.png``.

    An overview of the quality of each channel over the whole recording, with the strips below
    marked; and strips of ten seconds at 25 mm/s on millimetre paper: from the beginning, where the
    quality is best, and where it is worst. Each has the channels one above the other, those in mV
    by one gain (10 mm/mV where they fit), others by their own range; grey where the signal is lost,
    and a mark at each beat.

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
    strips = [(title, start, _rows(arrays, rows, start)) for title, start in starts.items()]
    tall = [sum(row.height + _BETWEEN for row in held) * _MM for _, _, held in strips]
    heights = [0.4 + 0.2 * len(rows), *tall]
    width = STRIP * _SPEED * _MM
    margins = 1.3, 0.45, 0.3, 0.6  # inches: left, right, top, and below each picture
    figure = Figure(
        figsize=(
            margins[0] + width + margins[1],
            sum(heights) + margins[2] + margins[3] * len(heights),
        )
    )
    high = figure.get_figheight()
    bottom = high - margins[2]
    placed = []
    for height in heights:
        bottom -= height
        box = margins[0], bottom, width, height
        placed.append(
            figure.add_axes(
                (box[0] / figure.get_figwidth(), box[1] / high,
                 box[2] / figure.get_figwidth(), box[3] / high)
            )
        )  # fmt: skip
        bottom -= margins[3]
    _overview(placed[0], arrays, rows, seconds, starts)
    for axis, (title, start, held) in zip(placed[1:], strips, strict=True):
        _strip(axis, arrays, held, start, f"{title}: from {start:g} s")
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


def _span(arrays: Mapping[str, np.ndarray], start: float) -> tuple[int, int]:
    """The samples of the strip from ``start`` seconds on."""
    fs = float(arrays["fs"][0])
    first = round(start * fs)
    return first, min(first + round(STRIP * fs), arrays["x"].shape[1])


def _rows(arrays: Mapping[str, np.ndarray], rows: NDArray[np.int64], start: float) -> list[_Row]:
    """The channels of a strip: leads in mV by one gain, others each by its range."""
    first, last = _span(arrays, start)
    labels, unit = names(arrays), units(arrays)
    held = {}
    for row in rows.tolist():
        line = np.asarray(arrays["x"][row, first:last], np.float64) * float(arrays["gain"][row])
        for channel, low, high, _ in np.asarray(arrays["lost"]):
            if channel == row:
                line[max(low - first, 0) : max(high - first, 0)] = np.nan
        held[row] = line
    tall = {row: _range(line) for row, line in held.items()}
    highest = max((tall[row] for row in held if unit[row] == "mV"), default=0.0)
    gain = next((g for g in _GAINS if g * highest <= _TALLEST), _TALLEST / max(highest, 1e-9))
    found = []
    for row, line in held.items():
        if unit[row] == "mV":
            by, label = gain, f"{labels[row]}\n{gain:.3g} mm/mV"
        else:
            by = _ROW / tall[row] if tall[row] else 0.0
            label = f"{labels[row]}\n{tall[row]:.3g} {unit[row]} high"
        middle = (np.nanmax(line) + np.nanmin(line)) / 2 if np.isfinite(line).any() else 0.0
        found.append(_Row(row, (line - middle) * by, max(tall[row] * by, _LEAST), label))
    return found


def _range(line: NDArray[np.float64]) -> float:
    return float(np.nanmax(line) - np.nanmin(line)) if np.isfinite(line).any() else 0.0


def _strip(
    axis: Axes, arrays: Mapping[str, np.ndarray], rows: list[_Row], start: float, title: str
) -> None:
    fs = float(arrays["fs"][0])
    first, last = _span(arrays, start)
    t = np.arange(first, last) / fs
    beats = np.asarray(arrays["beats"])
    beats = beats[(beats >= first) & (beats < last)]
    top, ticks = 0.0, {}
    for row in rows:
        above, middle = top - _BETWEEN, top - _BETWEEN - row.height / 2
        axis.plot(t, row.line + middle, linewidth=0.8, color="black")
        ticks[middle] = row.label
        for channel, low, high, why in np.asarray(arrays["lost"]):
            if channel == row.channel and low < last and high > first:
                edges = max(low, first) / fs, min(high, last) / fs
                axis.fill_between(edges, above - row.height, above, color=_LOST, linewidth=0)
                axis.text(edges[0], above - 3, WHY[why], fontsize=6)
        top = above - row.height
    axis.vlines(beats / fs, -3.5, -1.0, color=_BEAT, linewidth=1.4)
    axis.set_yticks(list(ticks), list(ticks.values()), fontsize=7)
    axis.set_ylim(top, 0)
    axis.set_xlim(start, start + STRIP)
    axis.set_xticks(np.arange(start, start + STRIP + 1e-6, 1.0))
    for width, step in ((0.5, _LARGE), (0.15, _SMALL)):
        across = start + step / _SPEED * np.arange(round(STRIP * _SPEED / step) + 1)
        axis.vlines(across, top, 0, color=_GRID, linewidth=width, zorder=0)
        axis.hlines(
            -np.arange(0, -top, step), start, start + STRIP, color=_GRID, linewidth=width, zorder=0
        )
    axis.set_title(f"{title}; beats are marked above, grey is lost", fontsize=9, loc="left")
    axis.set_xlabel("seconds, 25 mm/s", fontsize=7)
    axis.tick_params(labelsize=7)
