"""What a plugin says of a public set: its files, its folds, and what is asked of it.

A plugin's ``benchmarks`` name functions ``(folder) -> Benchmark``; ``folder`` is the set as its
authors' archive unpacks. They read tables of labels alone; recordings are read through the index.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from medcl.errors import UsageError
from medcl.labels.target import Target
from medcl.metrics.metrics import Kind, Measures
from medcl.metrics.table import called

KEY, PATIENT, FOLD = "key", "patient", "fold"

HANDCRAFTED, UNTRAINED, SUPERVISED, ENSEMBLE, BESIDE = (
    "handcrafted",
    "untrained",
    "supervised",
    "ensemble",
    " + handcrafted",
)
"""Rows of every scoreboard, or how their names begin and end; others are runs."""


@dataclass(frozen=True)
class Problem:
    """One question.

    Attributes:
        name: of the problem.
        kind: "binary", "multiclass" or "multilabel".
        classes: in their order; of two, the second is the positive one.
        columns: of the set's table: one column of class names, or for "multilabel" and "binary"
            columns of 1 and 0, one for each class (of two: for the second).
        metric: the set's own: "auroc", or a measure of classes such as "f1".
        over: the classes whose mean it is; empty for the macro figure.
    """

    name: str
    kind: Kind
    classes: tuple[str, ...]
    columns: tuple[str, ...]
    metric: str = "auroc"
    over: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        """The own metric's name."""
        name = called(self.kind, [self.metric])[self.metric]
        if self.over:
            return f"{name.removeprefix('macro ')} of {', '.join(self.over)}"
        return name

    def value(self, measures: Measures) -> np.ndarray:
        """The own metric (R,) of what `medcl.metrics.measures.measure` gave."""
        if not self.over:
            return measures[self.metric]
        rows = [self.classes.index(name) for name in self.over]
        return np.asarray(measures[f"class_{self.metric}"][rows].mean(axis=0))

    def target(self, table: pl.DataFrame) -> Target:
        """The labels of the table's rows; unknown where a cell is empty.

        Raises:
            UsageError: for a class that is not among the problem's.
        """
        if self.kind == "multilabel":
            columns = [table[name].cast(pl.Float64).to_numpy() for name in self.columns]
            return Target("multilabel", self.classes, np.stack(columns, axis=1))
        (column,) = self.columns
        if self.kind == "binary" and table[column].dtype != pl.String:
            return Target("binary", self.classes, table[column].fill_null(-1).to_numpy())
        code = {name: number for number, name in enumerate(self.classes)}
        names = table[column].to_list()
        if unknown := sorted({n for n in names if n is not None} - code.keys()):
            raise UsageError(f"Problem '{self.name}': the table names the classes {unknown} too.")
        return Target(self.kind, self.classes, np.array([code.get(n, -1) for n in names]))


@dataclass(frozen=True)
class Benchmark:
    """A public set.

    Attributes:
        name: of the set.
        about: one sentence: what it holds, and whether this is all of it.
        citation: the paper, with its doi.
        licence: of the data.
        archive: the folder to index.
        table: a row for each recording: ``key`` (as the index calls it), ``patient``, ``fold``
            (integer), and the columns of the problems.
        problems: asked of it.
        recipe: of the rows that need no run: hand-crafted, untrained and supervised.
        settings: over that recipe.
        judged: the folds to test on, fitted on ``fitted``; empty: each in turn, fitted on the rest.
        fitted: the folds to fit on; empty: all others.
        reader: what the index is to be told of the files.
        dataset: settings over the dataset section of every encoder's recipe.
        notes: for the reader of the figures.
    """

    name: str
    about: str
    citation: str
    licence: str
    archive: Path
    table: pl.DataFrame
    problems: tuple[Problem, ...]
    recipe: str
    settings: tuple[str, ...] = ()
    judged: tuple[int, ...] = ()
    fitted: tuple[int, ...] = ()
    reader: Mapping[str, Any] = field(default_factory=dict)
    dataset: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
