"""Predictions of test recordings from fractions of the labels; each is stored, and made once.

::

    OUT/scores/<problem>/<row>.<hash>/<fraction>.<draw>.npy   (T, C) float32
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medcl.benchmark.contract import FOLD, PATIENT, Benchmark, Problem
from medcl.embeddings import linear
from medcl.errors import UsageError
from medcl.io.atomic import replacing
from medcl.labels.target import Target
from medcl.probe.label_efficiency import subsets

FEW, SEVERAL = 10, 3
"""Draws of labelled patients: of fractions below 5 %, and of the others but all."""


@dataclass(frozen=True)
class Part:
    """Training and test rows of the table, of one judged fold."""

    train: NDArray[np.int64]
    test: NDArray[np.int64]


@dataclass(frozen=True)
class Asked:
    """A problem on a set: its labels, the parts to fit and test on, and `Benchmark.most`."""

    problem: Problem
    target: Target
    patients: NDArray
    parts: tuple[Part, ...]
    most: int | None = None

    @property
    def tested(self) -> NDArray[np.int64]:
        """The test rows, in the order of the predictions."""
        return np.concatenate([part.test for part in self.parts])


def asked(
    benchmark: Benchmark, problem: Problem, *, fit: Sequence[int] = (), judge: Sequence[int] = ()
) -> Asked:
    """The parts of a problem; ``fit`` and ``judge`` are folds in place of the official ones.

    Raises:
        UsageError: for folds that are not there, or that share a patient with each other.
    """
    target = problem.target(benchmark.table)
    fold, patients = benchmark.table[FOLD].to_numpy(), benchmark.table[PATIENT].to_numpy()
    judged, fitted = tuple(judge) or benchmark.judged, tuple(fit) or benchmark.fitted
    known = set(fold.tolist())
    if absent := (set(judged) | set(fitted)) - known:
        raise UsageError(f"{benchmark.name} has no fold {sorted(absent)}: it has {sorted(known)}.")
    if both := set(judged) & set(fitted):
        raise UsageError(f"Folds {sorted(both)} cannot be both fitted and judged.")
    each = [(f,) for f in sorted(known)] if not judged else [judged]
    parts = []
    for tested in each:
        inside = np.isin(fold, tested) & target.known
        others = (np.isin(fold, fitted) if fitted else ~np.isin(fold, tested)) & target.known
        others &= ~np.isin(patients, patients[inside])
        if not inside.any() or not others.any():
            raise UsageError(f"{benchmark.name}: nothing to fit or test on in fold {list(tested)}.")
        parts.append(Part(np.flatnonzero(others), np.flatnonzero(inside)))
    return Asked(problem, target, patients, tuple(parts), benchmark.most)


def draws(fraction: float) -> int:
    """How often labelled patients are drawn."""
    if fraction >= 1:
        return 1
    return FEW if fraction < 0.05 else SEVERAL


def labelled(part: Part, of: Asked, fraction: float, draw: int) -> NDArray[np.int64]:
    """The training rows whose patients a draw labels, thinned."""
    rows = part.train
    if fraction < 1:
        (subset,) = subsets(of.target.at(rows), of.patients[rows], [fraction], seed=draw)
        rows = rows[subset.positions]
    if of.most is None:
        return rows
    return rows[thinned(of.target.y[rows], of.patients[rows], of.most, seed=draw)]


def thinned(y: NDArray, patients: NDArray, most: int, *, seed: int) -> NDArray[np.int64]:
    """Positions of at most so many rows of each class and patient, drawn under ``seed``.

    Args:
        y: (N,) class codes.
        patients: (N,).
        most: of each class and patient.
        seed: of the draw.
    """
    order = np.random.default_rng(seed).permutation(len(y))
    frame = pl.DataFrame({"at": order, "y": y[order], "patient": patients[order]})
    kept = frame.group_by("y", "patient", maintain_order=True).head(most)
    return np.sort(kept["at"].to_numpy())


def predicted(
    x: Callable[[int], tuple[NDArray[np.float32], ...]],
    of: Asked,
    fractions: Sequence[float],
    folder: Path,
    *,
    initialisations: int = 1,
) -> Iterator[tuple[float, int, int, NDArray[np.float32]]]:
    """A linear classifier's predictions of all test rows: fraction, draw, patients, scores.

    Args:
        x: draw → groups of features (N, D₁), (N, D₂) … of all rows.
        of: the problem.
        fractions: of labelled training patients.
        folder: where predictions are stored, and taken from.
        initialisations: of the encoder: at least as many draws are made.
    """
    for fraction in sorted(fractions, reverse=True):
        for draw in range(max(draws(fraction), initialisations)):
            path = folder / f"{fraction:g}.{draw}.npy"
            sizes = [labelled(part, of, fraction, draw) for part in of.parts]
            people = round(np.mean([len(np.unique(of.patients[rows])) for rows in sizes]))
            if path.is_file():
                yield fraction, draw, people, np.load(path, allow_pickle=False)
                continue
            columns, blocks = linear.concatenated(x(draw))
            scores = np.concatenate(
                [
                    linear.fit(
                        columns[rows], of.target.at(rows), of.patients[rows], blocks=blocks
                    ).predict(columns[part.test])
                    for rows, part in zip(sizes, of.parts, strict=True)
                ]
            )
            with replacing(path) as temporary, temporary.open("wb") as handle:
                np.save(handle, scores)
            yield fraction, draw, people, scores
