"""Rows that are trained whole, with labels: a network from random weights, or a set's own heads.

Each training is one of `medcl.finetune`; of a network with its defaults (classifier ``full``):
validation patients, taken from the labelled ones, choose the epoch. Only predictions are kept, as
those of `medcl.benchmark.fitting` are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medcl import manifest
from medcl import recipe as recipes
from medcl.benchmark.contract import PATIENT
from medcl.benchmark.fitting import SEVERAL, Asked, draws, labelled
from medcl.benchmark.sources import Sources, pooled
from medcl.embeddings.embeddings import usable
from medcl.errors import MedclError
from medcl.finetune.fold_training import PREDICTIONS, SCORE, Work
from medcl.finetune.study import study
from medcl.io import scratch
from medcl.io.atomic import replacing
from medcl.labels.activation import probabilities
from medcl.reading import read_table
from medcl.recipe import Recipe


def predicted(
    of: Asked,
    sources: Sources,
    recipe: Recipe,
    fractions: Sequence[float],
    folder: Path,
    *,
    device: str = "auto",
) -> Iterator[tuple[float, int, int, NDArray[np.float32]]]:
    """Predictions of all test rows: fraction, draw, labelled patients, scores (T, C).

    Args:
        of: the problem.
        sources: of the set's samples.
        recipe: with a classifier, such as `alone` makes of an encoder's.
        fractions: of labelled training patients.
        folder: where predictions are stored, and taken from.
        device: of training.

    Raises:
        MedclError: if a training fails; says of which fraction.
    """
    for fraction in sorted(fractions, reverse=True):
        for draw in range(min(draws(fraction), SEVERAL)):
            path = folder / f"{fraction:g}.{draw}.npy"
            chosen = [labelled(part, of, fraction, draw) for part in of.parts]
            people = round(np.mean([len(np.unique(of.patients[rows])) for rows in chosen]))
            if not path.is_file():
                try:
                    scores = np.concatenate(
                        [
                            _trained(recipe, sources, of, rows, part.test, device, draw)
                            for rows, part in zip(chosen, of.parts, strict=True)
                        ]
                    )
                except MedclError as error:
                    raise MedclError(
                        f"Training from {fraction:.0%} of the patients: {error}"
                    ) from error
                with replacing(path) as temporary, temporary.open("wb") as handle:
                    np.save(handle, scores)
            yield fraction, draw, people, np.load(path, allow_pickle=False)


def alone(recipe: Recipe) -> Recipe:
    """A recipe's network without pretraining: its encoder, untrained, with one linear layer."""
    raw: dict[str, Any] = recipe.model_dump(mode="json")
    raw |= {"classifier": {"name": "full"}, "optimizer": {}, "split": {}}
    raw["finetune"] = {"bootstraps": 100}  # figures are the scoreboard's, not the study's
    return recipes.parse(raw, recorded=True)


def digest(recipe: Recipe) -> str:
    """A hash of what determines a training, beside its labels."""
    return manifest.digest(recipes.dump(recipe))


def _trained(
    recipe: Recipe,
    sources: Sources,
    of: Asked,
    train: NDArray[np.int64],
    test: NDArray[np.int64],
    device: str,
    draw: int,
) -> NDArray[np.float32]:
    """Scores (T, C) of the test rows by a classifier trained on the training rows."""
    samples, row_of = sources.samples(recipe)
    part = np.full(len(of.target), "", dtype=object)
    part[train], part[test] = "train", "test"
    at = np.flatnonzero(part[row_of] != "")
    rows = row_of[at]
    patients = sources.benchmark.table[PATIENT].gather(rows).to_list()
    seeded = recipe.model_copy(update={"seed": draw})
    with scratch.temporary() as folder:
        work = Work(
            replace(samples.at(at), patients=patients),
            of.target.at(rows),
            seeded,
            folder / "study",
            device=usable(device),
        )
        study(work, [None] * len(at), label=of.problem.name, given=part[rows].tolist())
        (fold,) = sorted(work.out.glob(f"folds/*/{PREDICTIONS}"))
        found = read_table(fold, "Run medcl benchmark again.")
    p = probabilities(of.problem.kind, found.select(pl.col(f"^{SCORE}.*$")).to_numpy(), 1.0)
    place = np.full(len(of.target), -1)
    place[test] = np.arange(len(test))
    return pooled(p, place[rows[found["row"].to_numpy()]], len(test))
