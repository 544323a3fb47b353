"""The same network trained with labels alone, from random weights: the row without pretraining.

Each training is one of `medcl.finetune` (classifier ``full``), with its defaults: validation
patients, taken from the labelled ones, choose the epoch. Only predictions are kept, as those of
`medcl.benchmark.fitting` are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medcl import manifest
from medcl import recipe as recipes
from medcl.archive.index import Index
from medcl.benchmark.contract import KEY, PATIENT, Benchmark, Problem
from medcl.benchmark.fitting import SEVERAL, Asked, draws, labelled
from medcl.errors import MedclError
from medcl.finetune import finetune as tuning
from medcl.finetune import fold_training
from medcl.io import scratch
from medcl.io.atomic import replacing
from medcl.labels.activation import probabilities
from medcl.reading import read_table
from medcl.recipe import Recipe
from medcl.run import load_samples

_PART = "medcl.part"


def predicted(
    of: Asked,
    benchmark: Benchmark,
    recipe: Recipe,
    index: Path,
    fractions: Sequence[float],
    folder: Path,
    *,
    device: str = "auto",
) -> Iterator[tuple[float, int, int, NDArray[np.float32]]]:
    """Predictions of all test rows: fraction, draw, labelled patients, scores (T, C).

    Args:
        of: the problem.
        benchmark: the set.
        recipe: its preparation, samples and encoder.
        index: of the set's archive.
        fractions: of labelled training patients.
        folder: where predictions are stored, and taken from.
        device: of training.

    Raises:
        MedclError: if a training fails; says of which fraction.
    """
    settled = _with_labels(recipe, benchmark, of.problem)
    for fraction in sorted(fractions, reverse=True):
        for draw in range(min(draws(fraction), SEVERAL)):
            path = folder / f"{fraction:g}.{draw}.npy"
            sizes = [labelled(part, of, fraction, draw) for part in of.parts]
            people = round(np.mean([len(np.unique(of.patients[rows])) for rows in sizes]))
            if not path.is_file():
                try:
                    scores = np.concatenate(
                        [
                            _trained(settled, benchmark, of, index, rows, part.test, device, draw)
                            for rows, part in zip(sizes, of.parts, strict=True)
                        ]
                    )
                except MedclError as error:
                    raise MedclError(
                        f"Supervised training from {fraction:.0%} of the patients: {error}"
                    ) from error
                with replacing(path) as temporary, temporary.open("wb") as handle:
                    np.save(handle, scores)
            yield fraction, draw, people, np.load(path, allow_pickle=False)


def digest(recipe: Recipe) -> str:
    """A hash of what determines a training, beside its labels."""
    part = recipe.part("encoder").model_dump_json()
    return manifest.digest(part, dict(recipe.prepare), dict(recipe.dataset), dict(recipe.views))


def _with_labels(recipe: Recipe, benchmark: Benchmark, problem: Problem) -> Recipe:
    """The recipe with a classifier of the problem on its encoder, untrained."""
    raw: dict[str, Any] = recipe.model_dump(mode="json")
    several = problem.kind == "multilabel"
    raw |= {
        "name": f"{benchmark.name}/{problem.name}",
        "classifier": {"name": "full"},
        "finetune": {
            "kind": problem.kind,
            "label": None if several else problem.columns[0],
            "classes": list(problem.columns) if several else _names(benchmark, problem),
        },
        "optimizer": {},
        "dataset": {**raw["dataset"], **benchmark.dataset},
        "split": {},
    }
    return recipes.parse(raw, recorded=True)


def _names(benchmark: Benchmark, problem: Problem) -> list[str]:
    """Classes as the table's cells name them: 0 and 1, or names."""
    of_numbers = benchmark.table[problem.columns[0]].dtype != pl.String
    return ["0", "1"] if of_numbers else list(problem.classes)


def _trained(
    recipe: Recipe,
    benchmark: Benchmark,
    of: Asked,
    index: Path,
    train: NDArray[np.int64],
    test: NDArray[np.int64],
    device: str,
    draw: int,
) -> NDArray[np.float32]:
    """Scores (T, C) of the test rows by a network trained on the training rows."""
    part = np.full(len(benchmark.table), "", dtype=object)
    part[train], part[test] = "train", "test"
    table = benchmark.table.select(KEY, PATIENT, *of.problem.columns).with_columns(
        pl.Series(_PART, part.tolist(), dtype=pl.String)
    )
    table = table.filter(pl.col(_PART) != "")
    seeded = recipe.model_copy(update={"seed": draw})
    with scratch.temporary() as folder:
        labels, split = folder / "labels.parquet", folder / "split.parquet"
        table.drop(_PART).write_parquet(labels)
        table.select(KEY, PATIENT, pl.col(_PART).alias(tuning.SPLIT)).write_parquet(split)
        out = folder / "study"
        tuning.finetune(
            tuning.Source(seeded, index), out, labels=labels, split=split, device=device
        )
        (fold,) = sorted((out / fold_training.FOLDER).iterdir())
        found = read_table(fold / fold_training.PREDICTIONS, "Run medcl benchmark again.")
    columns = [name for name in found.columns if name.startswith(fold_training.SCORE)]
    p = probabilities(of.problem.kind, found.select(columns).to_numpy(), 1.0)
    key_of = dict(Index.open(index).paths.select("id", "key").iter_rows())
    row_of = {benchmark.table[KEY][int(row)]: n for n, row in enumerate(test)}
    samples = load_samples(recipe, index)
    item_of = dict(zip(samples.ids, samples.items, strict=True))
    rows = np.array([row_of[key_of[item_of[name]]] for name in found["id"]])
    total = np.zeros((len(test), p.shape[1]))
    np.add.at(total, rows, p)
    count = np.bincount(rows, minlength=len(test))
    return (total / count[:, None]).astype(np.float32)
