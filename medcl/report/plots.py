"""The report's pictures, as data URIs: each a function of numbers, no global matplotlib state."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medcl.labels.target import ONE_CLASS
from medcl.metrics.kaplan_meier import KaplanMeier
from medcl.probe.result import PRETRAINED, RANDOM, ProbeResult, figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from medcl.audit.compare import Predictions

INK, GRID, ACCENT = "#1c2733", "#d8dee6", "#0b6e99"
COLOURS = ("#d1495b", "#2e8b57", "#b07d2b", "#7b5ea7", "#4f6d7a", "#a8577e")

STYLE: Any = {
    "font.size": 9,
    "axes.edgecolor": GRID,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "text.parse_math": False,  # a label may hold a dollar sign
    "svg.hashsalt": "medcl",  # the same numbers give the same bytes
    "figure.facecolor": "white",
}


@contextmanager
def style() -> Iterator[None]:
    """Context manager: the report's matplotlib style."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        yield


def svg(figure: Figure) -> str:
    """A figure as a data URI; text becomes outlines, so that it looks the same everywhere."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def png(figure: Figure, dpi: int = 110) -> str:
    """A figure with many points as a data URI."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def line(table: pl.DataFrame, column: str) -> str:
    """One column of metrics.csv over steps; rows without a value are skipped."""
    defined = table.select("step", column).drop_nulls().drop_nans()
    with style():
        figure, axes = _axes(3.6, 2.1)
        marker = "o" if len(defined) < 30 else ""
        axes.plot(
            defined["step"], defined[column], color=ACCENT, linewidth=1.4, marker=marker, ms=3
        )
        axes.set_xlabel("step")
        axes.set_ylabel(column.rpartition("/")[2].replace("_", " "))
        axes.margins(x=0.02)
        return svg(figure)


def label_curve(result: ProbeResult) -> str:
    """The headline measure by label fraction: mean over draws, and the range of the draws."""
    fractions = sorted({p.fraction for p in result.curve})
    with style():
        figure, axes = _axes(5.2, 3.7)
        for rep, colour in colours([s.representation for s in result.scores]).items():
            points = [p for p in result.curve if p.representation == rep]
            drawn = [figures(p.metrics[result.headline]) for p in points]
            where = [fractions.index(p.fraction) for p, d in zip(points, drawn, strict=True) if d]
            drawn = [d for d in drawn if d]
            mean = [float(np.mean(d)) for d in drawn]
            dashed = "--" if " + " in rep else "-"
            axes.plot(where, mean, dashed, color=colour, marker="o", ms=4, lw=1.6, label=rep)
            if " + " not in rep:
                low, high = [min(d) for d in drawn], [max(d) for d in drawn]
                axes.fill_between(where, low, high, color=colour, alpha=0.1, linewidth=0)
        axes.set_xticks(range(len(fractions)), [_point_label(result, f) for f in fractions])
        axes.set_xlabel("labelled part of the training patients")
        axes.set_ylabel(result.metric_names[result.headline])
        axes.margins(x=0.08)
        figure.legend(loc="outside upper left", ncols=2, frameon=False, fontsize=8)
        return svg(figure)


def reliability(bins: Sequence[tuple[float, float, int]]) -> str | None:
    """Share correct by probability: one dot per bin, sized by its number of predictions."""
    if not bins:
        return None
    confidence, right, count = (np.array(column) for column in zip(*bins, strict=True))
    with style():
        figure, axes = _axes(3.6, 3.4)
        axes.plot([0, 1], [0, 1], color=GRID, linewidth=1.2)
        size = 15 + 150 * count / count.max()
        axes.plot(confidence, right, color=ACCENT, linewidth=0.8)
        axes.scatter(confidence, right, s=size, color=ACCENT, linewidths=0, alpha=0.8)
        axes.set(
            xlabel="predicted probability",
            ylabel="share that came true",
            xlim=(0, 1.03),
            ylim=(-0.03, 1.03),
        )
        return svg(figure)


MOST_CURVES = 8


def roc_and_pr(predictions: Predictions, threshold: NDArray | None = None) -> str | None:
    """ROC and precision-recall curves of test samples, side by side; None without classes.

    Of two classes the second, with a dot where the ``threshold`` (N,) lies; of more, each against
    the others, the most frequent `MOST_CURVES`; of labels, each.
    """
    from sklearn.metrics import precision_recall_curve, roc_curve

    kind, classes = predictions.target.kind, predictions.target.classes
    if kind not in (*ONE_CLASS, "multilabel"):
        return None
    truth = predictions.target.columns()  # (N, C)
    drawn = [1] if kind == "binary" else list(np.argsort(-np.nansum(truth, axis=0), kind="stable"))
    drawn = [c for c in drawn if len(np.unique(truth[np.isfinite(truth[:, c]), c])) == 2]
    if not drawn:
        return None
    with style():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7.4, 3.6), layout="constrained")
        roc, pr = figure.subplots(1, 2)
        roc.plot([0, 1], [0, 1], color=GRID, linewidth=1.2)
        for n, c in enumerate(drawn[:MOST_CURVES]):
            known = np.isfinite(truth[:, c])
            y, p = truth[known, c] == 1, predictions.probability[known, c]
            colour = (ACCENT, *COLOURS, INK)[n % MOST_CURVES]
            false, true, _ = roc_curve(y, p)
            precision, recall, _ = precision_recall_curve(y, p)
            roc.plot(false, true, color=colour, linewidth=1.4, label=classes[c])
            pr.plot(recall, precision, color=colour, linewidth=1.4, drawstyle="steps-post")
            pr.axhline(float(y.mean()), color=colour, linewidth=0.7, linestyle=":")
            if threshold is not None and kind == "binary":
                said = p >= threshold[known]
                sensitivity, share = said[y].mean(), said[~y].mean()
                roc.plot(share, sensitivity, "o", color=colour, ms=6)
                if said.any():
                    pr.plot(sensitivity, y[said].mean(), "o", color=colour, ms=6)
        box = {"xlim": (-0.02, 1.02), "ylim": (-0.02, 1.04)}
        roc.set(xlabel="1 − specificity", ylabel="sensitivity", **box)
        pr.set(xlabel="sensitivity (recall)", ylabel="PPV (precision)", **box)
        figure.legend(loc="outside upper left", ncols=4, frameon=False, fontsize=8)
        return svg(figure)


def survival(found: KaplanMeier, time: str) -> str:
    """Kaplan-Meier curves with their intervals; a tick marks the end of each curve."""
    with style():
        figure, axes = _axes(5.2, 3.4)
        for group, colour in zip(found.groups, (ACCENT, COLOURS[0]), strict=True):
            label = f"{group.name}: {group.patients} patients, {group.events} events"
            axes.step(group.time, group.survival, where="post", color=colour, label=label)
            axes.fill_between(
                group.time, group.low, group.high, step="post", color=colour, alpha=0.12, lw=0
            )
            axes.plot(group.time[-1], group.survival[-1], "|", color=colour, ms=8)
        axes.set(
            xlabel=f"{time} (unit of the labels)",
            ylabel="share without the event",
            ylim=(-0.02, 1.02),
        )
        axes.set_xlim(left=0)
        axes.legend(loc="best", frameon=False, fontsize=8)
        return svg(figure)


def _point_label(result: ProbeResult, fraction: float) -> str:
    point = next(p for p in result.curve if p.fraction == fraction)
    patients = "1 patient" if point.patients == 1 else f"{point.patients:.3g} patients"
    return f"{100 * fraction:g}%\n{patients}\n{point.samples:,.0f} samples"


def colours(representations: Sequence[str]) -> dict[str, str]:
    """A colour for each; a combination has the colour of its hand-crafted part."""
    names = list(dict.fromkeys(representations))
    single = [n for n in names if n not in (PRETRAINED, RANDOM) and " + " not in n]
    table = {PRETRAINED: ACCENT, RANDOM: "#8a94a0"}
    table |= {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(single)}
    return {n: table.get(n.removeprefix(f"{PRETRAINED} + "), INK) for n in names}


@dataclass(frozen=True)
class Dot:
    """A point of a map, in percent of its width and height, with its tooltip."""

    x: float
    y: float
    colour: str
    title: str


@dataclass(frozen=True)
class Scatter:
    """A map, drawn by the page itself, so that points have tooltips without a script."""

    dots: list[Dot]
    legend: list[tuple[str, str]]  # name, colour


def scatter(xy: NDArray, groups: Sequence[str], titles: Sequence[str], *, legend: bool) -> Scatter:
    """A map of points coloured by group.

    Args:
        xy: (N, 2).
        groups: (N,) names; the most frequent are drawn first, so that rare ones lie on top.
        titles: (N,) tooltips.
        legend: True to show names, at most twelve.
    """
    import matplotlib
    from matplotlib.colors import to_hex

    names, codes, counts = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    palette = matplotlib.colormaps["tab10" if len(names) <= 10 else "tab20"]
    colour = [to_hex(palette(code % palette.N)) for code in range(len(names))]
    span = np.maximum(np.ptp(xy, axis=0), 1e-9)
    percent = 2 + 96 * (xy - xy.min(axis=0)) / span
    order = np.argsort(-counts[codes], kind="stable")
    dots = [
        Dot(
            round(float(percent[n, 0]), 1),
            round(float(percent[n, 1]), 1),
            colour[codes[n]],
            titles[n],
        )
        for n in order
    ]
    shown = [(str(n), c) for n, c in zip(names, colour, strict=True)][:12]
    return Scatter(dots, shown if legend else [])
