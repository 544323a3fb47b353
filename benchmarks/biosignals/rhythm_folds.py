"""Rhythms from an encoder that saw recordings of the same kind, never those judged.

    python benchmarks/biosignals/rhythm_folds.py --data FOLDER --out OUT
    python benchmarks/biosignals/rhythm_folds.py --benchmark liu2022 --also --fractions 1 0.1 …

FOLDER holds CinC 2017 (or another set that is judged by folds) and PTB-XL, or parts of them, as
their authors' archives unpack. For each of the set's folds the recipe pretrains without labels on
its other folds, and on the training folds of the sets in ``--also``; a linear classifier is fitted
on those other folds and judged on the fold. Rows: hand-crafted features, the encoder, both, and
three untrained encoders beside hand-crafted, from 100, 10 and 1 % of those who are labelled (1, 3
and 10 draws). A pretraining or a prediction that is there is not made again.
``OUT/benchmark.json`` is for the card of a release (``medcl export --to released --board OUT``).
"""

from __future__ import annotations

import argparse
import json
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

import medcl
from medcl import manifest
from medcl import plugin as plugins
from medcl import recipe as recipes
from medcl.archive import index as indexing
from medcl.benchmark import fitting, scoreboard
from medcl.benchmark.benchmark import JSON, opened, references
from medcl.benchmark.contract import BESIDE, FOLD, HANDCRAFTED, KEY, UNTRAINED, Benchmark
from medcl.benchmark.sources import INITIALISATIONS, Sources
from medcl.metrics.measures import measure
from medcl.metrics.metrics import once
from medcl.provenance import commit, versions
from medcl.run import Run

ENCODER = "encoder"
ROWS = (HANDCRAFTED, ENCODER, f"{ENCODER}{BESIDE}", f"{UNTRAINED} {ENCODER}{BESIDE}")


def linked(sets: list[tuple[Benchmark, list[str]]], folder: Path) -> Path:
    """A folder of links to the files of these recordings."""
    for of_set, keys in sets:
        for key in keys:
            for source in (of_set.archive / key).parent.glob(f"{Path(key).stem}.*"):
                link = folder / of_set.name / source.relative_to(of_set.archive)
                link.parent.mkdir(parents=True, exist_ok=True)
                if not link.exists():
                    os.link(source, link)
    return folder


def inside(of_set: Benchmark, folds: list[int]) -> list[str]:
    """Keys of the recordings in these folds."""
    return of_set.table.filter(pl.col(FOLD).is_in(folds))[KEY].to_list()


def pretrained(recipe: recipes.Recipe, archive: Path, out: Path) -> Run:
    """A run on that archive; one that is finished is taken."""
    index = out / "index"
    indexing.build(archive, index, plugins.get("biosignals"))
    return medcl.pretrain(recipe, index, out / "run")


def predictions(
    run: Run,
    of: fitting.Asked,
    of_set: Benchmark,
    out: Path,
    fold: int,
    fractions: tuple[float, ...],
) -> Iterator[tuple[str, float, int, int, NDArray[np.float32]]]:
    """Row, fraction, draw, labelled people, and scores of a fold's recordings."""
    name = f"{ENCODER}{fold}"
    sources = Sources(of_set, out / "index", out, {name: run})
    for row in ROWS:

        def features(draw: int, row: str = row) -> tuple[NDArray[np.float32], ...]:
            if row == HANDCRAFTED:
                return (sources(HANDCRAFTED),)
            bare = row.removesuffix(BESIDE)
            seed = draw % INITIALISATIONS
            encoder = sources(f"{bare.replace(ENCODER, name)} {seed}" if " " in bare else name)
            return (encoder, sources(HANDCRAFTED)) if row.endswith(BESIDE) else (encoder,)

        place = out / "scores" / f"{fold}" / row.replace(" ", "_")
        several = INITIALISATIONS if row.startswith(UNTRAINED) else 1
        for fraction, draw, people, scores in fitting.predicted(
            features, of, fractions, place, initialisations=several
        ):
            yield row, fraction, draw, people, scores


def value(of: fitting.Asked, scores: NDArray[np.float32]) -> float:
    """The set's own metric."""
    y = of.target.at(of.tested).y
    return float(of.problem.value(measure(of.problem.kind, y, scores, once(len(y))))[0])


def main() -> None:
    """Pretrain for each fold, and print figures over all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--recipe", default="ecg-handheld")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--benchmark", default="cinc2017", help="the set that is judged")
    parser.add_argument("--also", nargs="*", default=["ptbxl"], help="sets to pretrain on too")
    parser.add_argument("--fractions", nargs="+", type=float, default=[1.0, 0.1, 0.01])
    given = parser.parse_args()

    fractions = tuple(given.fractions)
    _, judged = opened(given.benchmark, given.data)
    others_of = [opened(name, given.data)[1] for name in given.also]
    (problem, *_) = judged.problems
    recipe = recipes.given(given.recipe, given.set)
    indexing.build(judged.archive, given.out / "index", plugins.get("biosignals"))
    folds = sorted(set(judged.table[FOLD]))
    also = [(one, inside(one, list(one.fitted))) for one in others_of]
    parts: dict[tuple[str, float, int], list[NDArray[np.float32]]] = defaultdict(list)
    labelled: dict[float, list[int]] = defaultdict(list)
    for fold in folds:
        others = [f for f in folds if f != fold]
        here = given.out / f"fold{fold}"
        archive = linked([*also, (judged, inside(judged, others))], here / "archive")
        run = pretrained(recipe, archive, here)
        of = fitting.asked(judged, problem, fit=others, judge=[fold])
        for row, fraction, draw, people, scores in predictions(
            run, of, judged, given.out, fold, fractions
        ):
            parts[row, fraction, draw].append(scores)
            labelled[fraction].append(people)
        print(f"fold {fold} is done", flush=True)
    pooled: dict[str, dict[float, list[tuple[int, NDArray[np.float32]]]]] = {}
    for (row, fraction, _), scores_of in sorted(parts.items(), key=lambda one: -one[0][1]):
        drawn = pooled.setdefault(row, {}).setdefault(fraction, [])
        drawn.append((round(np.mean(labelled[fraction])), np.concatenate(scores_of)))
    figures = scoreboard.figures(
        fitting.asked(judged, problem), pooled, references=references(list(pooled))
    )
    board = scoreboard.Scoreboard(
        benchmark=judged.name,
        about=f"{judged.about} Each pretraining saw no recording that it is judged on.",
        citation=judged.citation,
        licence=judged.licence,
        problems=[
            {"name": problem.name, "metric": problem.shown, "classes": list(problem.classes)}
        ],
        figures=figures,
        notes=list(judged.notes),
        versions=versions("biosignals") | {"commit": commit() or ""},
    )
    text = json.dumps(board.as_dict(), indent=1, ensure_ascii=False, allow_nan=False)
    manifest.write_text(given.out / JSON, text + "\n")
    print("by fold, first draw, both − hand-crafted:")
    for number, fold in enumerate(folds):
        of = fitting.asked(judged, problem, fit=[f for f in folds if f != fold], judge=[fold])
        gained = {
            fraction: value(of, parts[f"{ENCODER}{BESIDE}", fraction, 0][number])
            - value(of, parts[HANDCRAFTED, fraction, 0][number])
            for fraction in fractions
        }
        print(fold, ", ".join(f"{f:.0%}: {gain:+.3f}" for f, gain in gained.items()))
    for figure in figures:
        gains = ", ".join(
            f"− {than} {scoreboard.difference(gain)}" for than, gain in figure.against.items()
        )
        share = f"{figure.fraction:4.0%} ({figure.patients} people)"
        print(f"{figure.row:34} {share}: {problem.shown} {scoreboard.shown(figure)}  {gains}")


if __name__ == "__main__":
    main()
