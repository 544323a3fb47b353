"""Figures of stored predictions: the set's own metric and macro AUROC, paired with references."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medcl.benchmark.contract import HANDCRAFTED, SUPERVISED, UNTRAINED, Problem
from medcl.benchmark.fitting import Asked
from medcl.metrics.bootstrap import Interval, Resampled, bootstrap
from medcl.metrics.measures import measure
from medcl.metrics.metrics import Counted, Floats, Measures

OWN, AUROC = "own", "auroc"


@dataclass(frozen=True)
class Figure:
    """One row at one fraction of the labels.

    Attributes:
        problem: its name.
        row: the features.
        fraction: of labelled training patients.
        patients: so many, of one training part.
        draws: of labelled patients, or of initial weights.
        own: the set's own metric: mean over the draws, interval over test patients.
        auroc: macro AUROC, likewise.
        spread: standard deviation of the own metric over the draws; None of one, or undefined.
        against: reference row → difference of the own metric, on the same resamples.
    """

    problem: str
    row: str
    fraction: float
    patients: int
    draws: int
    own: Interval
    auroc: Interval
    spread: float | None
    against: dict[str, Interval] = field(default_factory=dict)


@dataclass(frozen=True)
class Scoreboard:
    """All figures of a set, what is needed to make them again, and how its rows are fitted."""

    benchmark: str
    about: str
    citation: str
    licence: str
    problems: list[dict[str, Any]]
    figures: list[Figure]
    notes: list[str]
    versions: dict[str, str]
    command: str = ""
    how: str = ""

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values, as in benchmark.json."""
        return asdict(self)

    def table(self, problem: str, metric: str = OWN) -> tuple[list[str], list[list[str]]]:
        """Columns and rows of one problem: a metric by fraction, `OWN` or `AUROC`."""
        mine = [f for f in self.figures if f.problem == problem]
        fractions = sorted({f.fraction for f in mine}, reverse=True)
        by = {(f.row, f.fraction): f for f in mine}
        rows = []
        for row in dict.fromkeys(f.row for f in mine):
            cells = [by.get((row, fraction)) for fraction in fractions]
            rows.append([row, *("–" if cell is None else shown(cell, metric) for cell in cells)])
        return ["features", *(f"{fraction:.0%} of patients" for fraction in fractions)], rows

    def ranked(self, problem: dict[str, Any]) -> tuple[list[str], list[list[str]]] | None:
        """`table` of macro AUROC, where the own metric is another."""
        if "AUROC" in problem["metric"]:
            return None
        return self.table(problem["name"], AUROC)

    def gains(self, problem: str) -> tuple[list[str], list[list[str]]]:
        """Columns and rows of one problem: differences to the references."""
        rows = [
            [f.row, than, f"{f.fraction:.0%}", difference(interval)]
            for f in self.figures
            if f.problem == problem
            for than, interval in f.against.items()
        ]
        return ["features", "than", "of patients", "difference"], rows

    def verdict(self, problem: str) -> list[str]:
        """A sentence for each pretrained encoder and fraction: is it better than what is free?"""
        (asked,) = (p for p in self.problems if p["name"] == problem)
        mine = [f for f in self.figures if f.problem == problem]
        by = {(f.row, f.fraction): f for f in mine}
        said = []
        for figure in mine:
            if figure.row.startswith((HANDCRAFTED, UNTRAINED, SUPERVISED)):
                continue
            compared = [
                f"{than} {by[than, figure.fraction].own.value:.3f}: {judged(gain)}"
                for than, gain in figure.against.items()
                if gain.value is not None and gain.low is not None
            ]
            if not compared:
                continue
            said.append(
                f"From {figure.patients:,} labelled patients, {figure.row} has {asked['metric']} "
                f"{shown(figure)}; {'; '.join(compared)}."
            )
        return said


def shown(figure: Figure, metric: str = OWN) -> str:
    """A figure with its interval, and of the own metric the spread of several draws."""
    interval = figure.own if metric == OWN else figure.auroc
    if interval.value is None:
        return "undefined"
    text = f"{interval.value:.3f}"
    if interval.low is not None:
        text += f" [{interval.low:.3f}, {interval.high:.3f}]"
    return text if figure.spread is None or metric != OWN else f"{text} ± {figure.spread:.3f}"


def difference(interval: Interval) -> str:
    """A signed difference with its interval."""
    if interval.value is None or interval.low is None:
        return "undefined"
    return f"{interval.value:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"


def judged(interval: Interval) -> str:
    """A difference in words, with its interval."""
    low, high = interval.low or 0, interval.high or 0
    word = "a gain" if low > 0 else "a loss" if high < 0 else "no measurable gain"
    return f"{word}, {difference(interval)}"


def figures(
    of: Asked,
    predictions: Mapping[str, Mapping[float, Sequence[tuple[int, NDArray[np.float32]]]]],
    *,
    references: Mapping[str, Sequence[str]],
    resamples: int = 1000,
    seed: int = 0,
) -> list[Figure]:
    """Figures of all rows.

    Args:
        of: the problem.
        predictions: row → fraction → labelled patients and scores (T, C) of each draw.
        references: row → the rows that it is compared with.
        resamples: of test patients.
        seed: of the resamples.
    """
    target, patients = of.target.at(of.tested), of.patients[of.tested]
    resampled: dict[tuple[str, float], Resampled] = {}
    out = []
    for row, by_fraction in predictions.items():
        for fraction, drawn in by_fraction.items():
            each = [
                bootstrap(
                    partial(_measures, of.problem, target.y, scores),
                    patients,
                    resamples=resamples,
                    seed=seed,
                )
                for _, scores in drawn
            ]
            mean = _mean(each)
            resampled[row, fraction] = mean
            values = np.array([float(one.values[OWN]) for one in each])
            several = len(values) > 1 and np.isfinite(values).all()
            out.append(
                Figure(
                    problem=of.problem.name,
                    row=row,
                    fraction=fraction,
                    patients=drawn[0][0],
                    draws=len(drawn),
                    own=mean.interval(OWN),
                    auroc=mean.interval(AUROC),
                    spread=float(values.std(ddof=1)) if several else None,
                )
            )
    for figure in out:
        mine = resampled[figure.row, figure.fraction]
        for than in references.get(figure.row, ()):
            if (than, figure.fraction) in resampled:
                other = resampled[than, figure.fraction]
                figure.against[than] = mine.minus(other, OWN)
    return out


def _measures(problem: Problem, y: NDArray, scores: Floats, weight: Counted) -> Measures:
    found = measure(problem.kind, y, scores, weight)
    return {OWN: problem.value(found), AUROC: found["auroc"]}


def _mean(each: Sequence[Resampled]) -> Resampled:
    """The mean over draws, resample by resample: all draws use the same test patients."""
    return Resampled(
        {name: np.mean([one.values[name] for one in each], axis=0) for name in (OWN, AUROC)},
        {name: np.mean([one.draws[name] for one in each], axis=0) for name in (OWN, AUROC)},
        each[0].patients,
    )
