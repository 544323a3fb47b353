"""Is a classifier misled by the people whom its frozen encoder was pretrained on?

    python benchmarks/biosignals/seen_people.py --train DS1 --out seen [--steps 500]

Five folds of patients as in `mitbih_table`. The training people of each are dealt into two halves,
by their number of ectopic beats in turn. An encoder is pretrained without labels (SimCLR, recipe
`mitbih`) on each half, and the same linear classifier is fitted on its features and interval
ratios: on the half that it was pretrained on ("seen"), on the other ("others"), and on both.
Figures are of the mean of the probabilities of a fold's two classifiers on people whom nobody saw.
Hand-crafted features and the random encoder go through the same halves.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
from mitbih_table import PER_CLASS, PUBLIC_KEY, cell, recipe_of, run_of
from numpy.typing import NDArray

from medcl.archive.index import Index, build
from medcl.archive.splits import split
from medcl.benchmark.fitting import thinned
from medcl.embeddings import linear
from medcl.embeddings.embeddings import embed, features
from medcl.labels.target import Target, target
from medcl.metrics.bootstrap import bootstrap
from medcl.metrics.measures import measure
from medcl.run import build_encoder, load_samples
from medcl_biosignals.baselines import handcrafted
from medcl_biosignals.plugin import plugin

FOLDS, TASK = 5, "aami-nsv"
HALF, BOTH = "a half", "both"
Floats = NDArray[np.float32]


def index(archive: Path, out: Path, columns: pl.DataFrame) -> Path:
    """Index the archive with a table of columns (``key``: the record's name)."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "public.key").write_text(PUBLIC_KEY)
    columns.write_csv(out / "table.csv")
    build(archive, out / "index", plugin, key_file=out / "public.key", table=out / "table.csv")
    return out / "index"


def halves(people: NDArray, ectopic: NDArray) -> tuple[set[str], set[str]]:
    """Dealt in turn, most ectopic beats first: A B B A."""
    order = people[np.argsort(-ectopic, kind="stable")]
    return {*order[0::4], *order[3::4]}, {*order[1::4], *order[2::4]}


def fitted(
    groups: Sequence[Floats], truth: Target, patients: NDArray, at: NDArray, test: NDArray
) -> Floats:
    """Probabilities of the test samples, from a classifier fitted on some others."""
    x, blocks = linear.concatenated(groups)
    some = at[thinned(truth.y[at], patients[at], PER_CLASS, seed=0)]
    return linear.fit(x[some], truth.at(some), patients[some], blocks=blocks).predict(x[test])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=500)
    asked = parser.parse_args()

    names = sorted(file.stem for file in asked.train.glob("*.hea"))
    first = index(asked.train, asked.out / "names", pl.DataFrame({"key": names, "name": names}))
    items = Index.open(first).items
    recipe = recipe_of("simclr", 0, FOLDS, asked.steps, [])
    samples = load_samples(recipe, first, task=TASK)
    truth = target(plugin.tasks[TASK], samples)
    known = np.flatnonzero(truth.known)
    samples, truth = samples.at(known), truth.at(known)
    patients = np.asarray(samples.patients)

    sides = []
    columns = items.select(key="label.name", patient="patient")
    for fold in range(FOLDS):
        drawn = split(items, **recipe_of("simclr", fold, FOLDS, asked.steps, []).split.drawn())
        people = np.unique(patients[[drawn.get(p) == "train" for p in patients]])
        ectopic = np.array([(truth.y[patients == p] > 0).sum() for p in people])
        sides.append((drawn, halves(people, ectopic)))
        for half, mine in enumerate(sides[-1][1]):
            side = pl.when(pl.col("patient").is_in(list(mine))).then(pl.lit("train"))
            columns = columns.with_columns(side.otherwise(pl.lit("test")).alias(f"f{fold}h{half}"))
    data = index(asked.train, asked.out / "halves", columns.drop("patient"))

    every = np.array_split(np.arange(len(samples)), 64)
    rr = np.concatenate([samples.read(at)["rr"] for at in every])
    untrained = embed(build_encoder(recipe, recipe.seed), samples, label="random").x
    fixed: dict[str, tuple[Floats, ...]] = {
        "hand-crafted": (features(handcrafted, samples, label="hand-crafted"),),
        "random + RR": (untrained, rr),
    }
    found: dict[tuple[str, str], list[Floats]] = {}
    tested = []
    for fold, (drawn, both) in enumerate(sides):
        test = np.flatnonzero([drawn.get(p) == "test" for p in patients])
        tested.append(test)
        scores: dict[tuple[str, str], list[Floats]] = {}
        for half, mine in enumerate(both):
            given = [f"split.given=label.f{fold}h{half}"]
            mine_recipe = recipe_of("simclr", 0, None, asked.steps, given)
            run = run_of(mine_recipe, data, asked.out / "runs" / f"f{fold}h{half}")
            z = embed(run.encoder(), samples, label=f"fold {fold}, half {half}").x
            here, there = (
                np.flatnonzero([p in h for p in patients]) for h in (mine, both[1 - half])
            )
            for name, groups in {"simclr + RR": (z, rr), **fixed}.items():
                sides_of = (
                    {"seen": here, "others": there} if name == "simclr + RR" else {HALF: here}
                )
                for side, at in {**sides_of, BOTH: np.concatenate([here, there])}.items():
                    made = fitted(groups, truth, patients, np.sort(at), test)
                    scores.setdefault((name, side), []).append(made)
        for key, two in scores.items():
            found.setdefault(key, []).append(np.mean(two, axis=0))
    judged = np.concatenate(tested)
    y, people = truth.y[judged], patients[judged]
    resampled = {
        key: bootstrap(partial(measure, truth.kind, y, np.concatenate(scores)), people)
        for key, scores in found.items()
    }
    print("| features | classifier fitted on | macro F1 | macro AUROC |\n|---|---|---|---|")
    for (name, side), one in resampled.items():
        cells = " | ".join(cell(one.interval(m)) for m in ("f1", "auroc"))
        print(f"| {name} | {side} | {cells} |")
    print("\n| paired | macro F1 | macro AUROC |\n|---|---|---|")
    for (name, side), base in (
        (("simclr + RR", "others"), ("simclr + RR", "seen")),
        (("simclr + RR", "others"), ("hand-crafted", HALF)),
        (("simclr + RR", "seen"), ("hand-crafted", HALF)),
        (("simclr + RR", "others"), ("random + RR", HALF)),
        (("simclr + RR", "others"), ("hand-crafted", BOTH)),
        (("simclr + RR", BOTH), ("hand-crafted", BOTH)),
    ):
        pair = (resampled[name, side].minus(resampled[base], m) for m in ("f1", "auroc"))
        cells = " | ".join(cell(i, "+") for i in pair)
        print(f"| {name}, {side} − {', '.join(base)} | {cells} |")


if __name__ == "__main__":
    main()
