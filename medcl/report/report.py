"""One self-contained HTML page about a run.

The page loads no external resources: pictures are data URIs, and a Content-Security-Policy forbids
everything else. Every value is escaped by the template engine.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from medcl import version
from medcl.embeddings import knn
from medcl.io.atomic import write_text
from medcl.io.cells import safe_frame
from medcl.metrics.bootstrap import Interval
from medcl.metrics.table import direction, show
from medcl.probe.result import PRETRAINED, ProbeResult, Score
from medcl.report import cards, model_card, plots, prototypes, samples, test_examples
from medcl.report.cards import Absent
from medcl.report.finish import csv_uri, finished
from medcl.run import Run

if TYPE_CHECKING:
    from jinja2 import Environment

MONITORS = {
    "loss": "Training loss.",
    "knn": "Nearest neighbours between two halves of the training patients: balanced accuracy.",
    "linear": "Logistic regression between two halves of the training patients: balanced accuracy.",
    "spread": "Spread of the embeddings: 1 is healthy, 0 collapsed.",
    "effective_rank": "Dimensions that the embeddings really use.",
    "rankme": "Dimensions of the embeddings as they are (RankMe).",
    "lidar": "Dimensions that tell samples apart, and not their views (LiDAR).",
    "alignment": "Distance of positive pairs: lower is closer.",
    "uniformity": "Uniformity on the sphere: lower is more uniform, 0 collapsed.",
    "embedding_std": "Standard deviation of a training batch's unit embeddings: 0 collapsed.",
    "lr": "Learning rate.",
}
"""Columns of metrics.csv with explanations, in page order; others follow by name."""


@dataclass(frozen=True)
class Panel:
    """A small plot."""

    name: str
    about: str
    image: str
    csv: str


@dataclass(frozen=True)
class Figures:
    """The probe, ready for the page."""

    result: ProbeResult
    linear: list[Score]
    knn: list[Score]
    best: Score
    sentences: list[tuple[str, str]]  # "gain", "loss" or "none", and the words
    curve: str | None


def write(run: Run, out: Path, *, probe: Path | None = None) -> Path:
    """Write the report of a run; missing parts are named with the command that makes them.

    Args:
        run: the run; it may be unfinished or not probed.
        out: the HTML file.
        probe: the folder of the probe; None for the run's own.

    Returns:
        ``out``.
    """
    folder = probe or run.path / "probe"
    result = cards.probe_result(folder)
    task = result.task if isinstance(result, ProbeResult) else run.recipe.probe.task
    method = cards.method_card(run)
    test_predictions = (
        test_examples.of_probe(run, folder, result.task)
        if isinstance(result, ProbeResult)
        else None
    )
    seen = cards.pretrained_on(run)
    data = cards.data_card(
        cards.place(run.path),
        run.recipe.plugin,
        cards.split(run),
        seen,
        prepare=run.recipe.prepare,
        became=cards.became(run),
    )
    page = (
        environment()
        .get_template("report.html.j2")
        .render(
            run=run.path.name,
            method=method,
            model=model_card.of_run(method, data, result),
            data=data,
            probe=result if isinstance(result, Absent) else probe_figures(result),
            localisation=cards.localisation(run),
            panels=panels(run),
            map=samples.embedding_map(run, task),
            examples=samples.examples(run),
            test_predictions=test_predictions,
            curves=test_examples.curves_of_probe(folder)
            if isinstance(result, ProbeResult)
            else None,
            prototypes=prototypes.prototypes(run),
            reproduce=cards.reproduce(run, result),
            neighbours=knn.K,
            version=version.__version__,
            written=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        )
    )
    write_text(out, finished(page))
    return out


def environment() -> Environment:
    """The template engine of all pages: autoescaped, undefined values raise an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    engine = Environment(
        loader=PackageLoader("medcl.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    engine.filters |= {"figure": figure, "share": share, "show": show}
    engine.tests["absent"] = lambda value: isinstance(value, Absent)
    return engine


def probe_figures(result: ProbeResult) -> Figures:
    """The probe's scores by classifier, the verdict by sentence, and the curve."""
    linear = [s for s in result.scores if s.classifier == "linear"]
    return Figures(
        result=result,
        linear=linear,
        knn=[s for s in result.scores if s.classifier == "knn"],
        best=next(s for s in linear if s.representation == PRETRAINED),
        sentences=[
            (direction(d.metrics[result.headline], result.headline), result.sentence(d))
            for d in result.differences
            if d.classifier == "linear"
        ],
        curve=plots.label_curve(result) if result.curve else None,
    )


def panels(run: Run) -> list[Panel] | Absent:
    """A small plot for each column of metrics.csv that holds numbers."""
    table = cards.training_curves(run)
    if isinstance(table, Absent):
        return table
    steps = table.select(pl.col("step").cast(pl.Int64))
    known = [name for name in MONITORS if name in table.columns]
    others = sorted(set(table.columns) - set(MONITORS) - {"step"})
    drawn = [n for n in known + others if table[n].drop_nulls().drop_nans().len()]
    return [
        Panel(
            name,
            MONITORS.get(name, ""),
            plots.line(table, name),
            csv_uri(safe_frame(steps.hstack([table[name]]).drop_nulls()).write_csv()),
        )
        for name in drawn
    ]


def figure(interval: Interval, signed: bool = False) -> tuple[str, str]:
    """A figure and its interval, split for layout: ``0.912`` and ``[0.871, 0.940]``."""
    value, _, bounds = show(interval, signed=signed).partition(" ")
    return value, bounds


def share(count: int, row: list[int]) -> int:
    """Percent of a row of counts, for shading a cell."""
    return round(100 * count / sum(row)) if sum(row) else 0
