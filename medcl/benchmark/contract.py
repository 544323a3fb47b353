"""What a plugin says of a public set: its files, its folds, and what is asked of it.

A plugin's ``benchmarks`` name functions ``(folder) -> Benchmark``; ``folder`` is the set as its
authors' archive unpacks. They read tables of labels alone; recordings are read through the index.

A row of the table is what gets one label: a recording, or one of its beats, images or tiles. Where
a recording has several rows, the column ``at`` says where in it each lies, and `Benchmark.place`
where a sample does: both are joined by `Benchmark.rows`, whatever the recipe's windows are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medcl.errors import UsageError
from medcl.labels.target import Target
from medcl.metrics.metrics import Kind, Measures
from medcl.metrics.table import called
from medcl.plugin import Samples

KEY, PATIENT, FOLD, AT = "key", "patient", "fold", "at"

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
        table: a row for each recording, or for each part of one that has its own label: ``key`` of
            the recording (as the index calls it), ``patient``, ``fold`` (integer), the columns of
            the problems, and with ``place`` also ``at``.
        problems: asked of it.
        recipe: of the rows that need no run: hand-crafted, untrained and supervised.
        settings: over that recipe.
        files: the only ones of the archive to index, relative to it; empty: all.
        judged: the folds to test on, fitted on ``fitted``; empty: each in turn, fitted on the rest.
        fitted: the folds to fit on; empty: all others.
        reader: what the index is to be told of the files.
        dataset: settings over the dataset section of every encoder's recipe.
        place: samples → (N,) where each lies in its recording, in the unit of the column ``at``;
            None: a recording has one row, to which all its samples belong.
        reach: how far a sample may lie from the row that it belongs to, in that unit.
        relative: encoders' features are taken relative to those of the same recording
            (`medcl.embeddings.relative`), which needs no label.
        most: classifiers are fitted on at most so many rows of each class and patient; None: all.
        heads: name → settings over the recipe, whose classifier is trained whole, with labels: the
            rows of a set of bags, in place of encoders and hand-crafted features.
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
    files: tuple[str, ...] = ()
    judged: tuple[int, ...] = ()
    fitted: tuple[int, ...] = ()
    reader: Mapping[str, Any] = field(default_factory=dict)
    dataset: Mapping[str, Any] = field(default_factory=dict)
    place: Callable[[Samples], np.ndarray] | None = None
    reach: float = 0.0
    relative: bool = False
    most: int | None = None
    heads: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def rows(self, samples: Samples, keys: Sequence[str]) -> NDArray[np.int64]:
        """The row of the table that each sample belongs to (N,), −1 for none.

        Args:
            samples: of any recipe.
            keys: (N,) the recordings that they are of.
        """
        number = {key: n for n, key in enumerate(dict.fromkeys(self.table[KEY]))}
        owner = np.array([number.get(key, -1) for key in keys], np.int64)
        if self.place is None:
            return owner
        of_row = np.array([number[key] for key in self.table[KEY]])
        at = self.table[AT].cast(pl.Float64).to_numpy()
        where = np.asarray(self.place(samples), np.float64)
        length = max(at.max(), where.max()) - min(at.min(), where.min()) + self.reach + 1
        row, sample = of_row * length + at, owner * length + where  # one recording after the other
        order = np.argsort(row)
        right = np.searchsorted(row[order], sample)
        beside = order[[np.maximum(right - 1, 0), np.minimum(right, len(row) - 1)]]
        away = np.abs(row[beside] - sample)
        nearest = np.where(away[0] <= away[1], beside[0], beside[1])
        return np.where((away.min(axis=0) <= self.reach) & (owner >= 0), nearest, -1)
