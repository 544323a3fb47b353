"""Methods × encoders × seeds on twelve-lead ECGs: what to pretrain with, on people not fitted to.

    python benchmarks/biosignals/ecg_methods.py --data FOLDER --out OUT --rows rows.csv

FOLDER holds PTB-XL, or a part of it, as its authors' archive unpacks. Everything is chosen by this
table, so fold 8 and later are not looked at: pretraining on folds 1–6 without labels, a linear
classifier of the five superclasses on 100, 10 and 1 % of their patients (1, 3 and 10 draws),
judged on fold 7. All methods have the preparation, windows, views and optimiser of the recipe
``ecg-small`` and the same number of steps; their own settings are in `METHODS`. Encoders have
0.3 to 0.4 M weights. A row for each pretraining, as they come; rows that are there are not made
again.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

import medcl
from medcl import plugin as plugins
from medcl import recipe as recipes
from medcl.archive import index as indexing
from medcl.benchmark import fitting
from medcl.benchmark.benchmark import opened
from medcl.benchmark.contract import FOLD, HANDCRAFTED, KEY, UNTRAINED
from medcl.benchmark.sources import Sources
from medcl.metrics.measures import measure
from medcl.metrics.metrics import once
from medcl.run import Run

FITTED, JUDGED = range(1, 7), (7,)
FRACTIONS = (1.0, 0.1, 0.01)
RESNET = {
    "name": "resnet1d",
    "widths": [48, 96, 192],
    "blocks": 1,
    "kernel": 5,
    "stride": 4,
    "pool": "meanmax",
}
STATE_SPACE = {
    "name": "s4d1d",
    "features": 128,
    "kernels": [3, 3, 3, 3],
    "strides": [2, 2, 2, 2],
    "depth": 4,
    "states": 8,
    "pool": "meanmax",
}
TRANSFORMER = {
    "name": "vit1d",
    "patch": 20,  # 0.2 s
    "width": 96,
    "depth": 3,
    "heads": 4,
}
ENCODERS: dict[str, dict[str, Any]] = {
    "resnet1d": RESNET,
    "s4d1d": STATE_SPACE,
    "vit1d": TRANSFORMER,
}
METHODS: dict[str, dict[str, Any]] = {
    "described": {"temperature": 0.1, "describe": 10.0, "subsets": 0.5},
    "simclr": {"temperature": 0.1},
    "vicreg": {"hidden": 512, "out": 512},
    "lejepa": {"hidden": 512, "out": 128},
    "byol": {"hidden": 512, "out": 128},
    "participant": {"temperature": 0.1, "hidden": 512},
    "cpc": {"ahead": [1], "temperature": 0.1, "normalise": True},  # 0.16 s
    "mae": {"width": 96, "depth": 1},
    "i-jepa": {"width": 96, "depth": 2, "momentum": 0.99},
    "dinov2": {"hidden": 512, "bottleneck": 128, "out": 1024, "momentum": 0.99, "frozen": 30},
}
OF_STEPS, OF_PATCHES = ("cpc",), ("mae", "i-jepa", "dinov2")
"""Methods that need an encoder of steps in time, and of patches; SimCLR is beside the latter."""
COLUMNS = ("method", "encoder", "seed", "steps", "weights", "seconds", "beside")


@dataclass(frozen=True)
class Cell:
    """A pretraining: its method, encoder and seed."""

    method: str
    encoder: str
    seed: int

    @property
    def name(self) -> str:
        """As its folder is called."""
        return f"{self.method}-{self.encoder}-{self.seed}"


def fits(method: str, encoder: str) -> bool:
    """Whether the table holds this pair."""
    if encoder == "vit1d":
        return method in (*OF_PATCHES, "simclr")
    return method not in OF_PATCHES and (method not in OF_STEPS or encoder == "s4d1d")


def cells(seeds: int) -> Iterator[Cell]:
    """All pretrainings; every method once before the next seed begins."""
    for seed in range(seeds):
        for encoder in ENCODERS:
            for method in METHODS:
                if fits(method, encoder):
                    yield Cell(method, encoder, seed)


def recipe(cell: Cell, steps: int) -> recipes.Recipe:
    """``ecg-small`` with another method and encoder."""
    raw = recipes.given("ecg-small", ()).model_dump(mode="json")
    raw |= {
        "name": f"biosignals/{cell.name}",
        "method": {"name": cell.method, **METHODS[cell.method]},
        "encoder": ENCODERS[cell.encoder],
        "seed": cell.seed,
        "monitor": {"every": 10**6},
    }
    raw["trainer"] |= {"steps": steps, "precision": "bf16"}
    return recipes.parse(raw)


def people(data: Path, out: Path, keys: list[str]) -> Path:
    """A folder of the recordings to pretrain on: links to their files."""
    folder = out / "archive"
    for key in keys:
        for source in (data / key).parent.glob(f"{Path(key).stem}.*"):
            link = folder / source.relative_to(data)
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.exists():
                os.link(source, link)
    return folder


def figures(
    of: fitting.Asked, sources: Sources, names: tuple[str, ...], folder: Path
) -> dict[float, float]:
    """Share of labelled patients → mean macro AUROC over its draws."""
    found: dict[float, list[float]] = {}
    y = of.target.at(of.tested).y
    for fraction, _, _, scores in fitting.predicted(
        lambda _: tuple(sources(name) for name in names), of, FRACTIONS, folder
    ):
        measured = measure(of.problem.kind, y, scores, once(len(y)))
        found.setdefault(fraction, []).append(float(measured["auroc"][0]))
    return {fraction: float(np.mean(values)) for fraction, values in found.items()}


def main() -> None:
    """Make the rows that are missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()

    _, of_set = opened("ptbxl", given.data)
    problem = next(p for p in of_set.problems if p.name == "superclass")
    asked = fitting.asked(of_set, problem, fit=FITTED, judge=JUDGED)
    plugin = plugins.get("biosignals")
    everyone, index = given.out / "index", given.out / "pretraining"
    indexing.build(of_set.archive, everyone, plugin, reader=of_set.reader or None)
    keys = of_set.table.filter(pl.col(FOLD).is_in(list(FITTED)))[KEY].to_list()
    indexing.build(people(of_set.archive, given.out, keys), index, plugin)

    for cell in cells(given.seeds):
        if any(row["method"] == cell.method and _same(row, cell) for row in _read(given.rows)):
            continue
        begun = time.process_time()
        run = medcl.pretrain(recipe(cell, given.steps), index, given.out / "runs" / cell.name)
        spent = time.process_time() - begun
        _measure(given, asked, Sources(of_set, everyone, given.out, {cell.name: run}), cell, spent)
    for cell in dict.fromkeys(Cell(UNTRAINED, c.encoder, c.seed) for c in cells(given.seeds)):
        if any(row["method"] == UNTRAINED and _same(row, cell) for row in _read(given.rows)):
            continue
        method = next(method for method in METHODS if fits(method, cell.encoder))
        trained = f"{method}-{cell.encoder}-{cell.seed}"
        runs = {trained: Run.open(given.out / "runs" / trained)}
        _measure(given, asked, Sources(of_set, everyone, given.out, runs), cell, 0.0)
    show(_read(given.rows))


def _measure(
    given: argparse.Namespace, asked: fitting.Asked, sources: Sources, cell: Cell, spent: float
) -> None:
    """Rows of an encoder, alone and beside hand-crafted features."""
    (name,) = sources.runs
    weights = sum(p.numel() for p in sources.runs[name].encoder().parameters())
    source = f"{UNTRAINED} {name} {cell.seed}" if cell.method == UNTRAINED else name
    for beside in (False, True):
        names = (source, HANDCRAFTED) if beside else (source,)
        scores = given.out / "scores" / f"{cell.name}{'-beside' if beside else ''}"
        found = figures(asked, sources, names, scores)
        row = (cell.method, cell.encoder, cell.seed, given.steps, weights, round(spent), beside)
        there = given.rows.is_file()
        with given.rows.open("a", encoding="utf-8", newline="") as handle:
            writer = csv.writer(handle)
            if not there:
                writer.writerow([*COLUMNS, *(f"{f:g}" for f in FRACTIONS)])
            writer.writerow([*row, *(f"{found[f]:.4f}" for f in FRACTIONS)])
        print(cell.name, "beside hand-crafted" if beside else "alone", found, flush=True)


def _read(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.open(encoding="utf-8"))) if path.is_file() else []


def _same(row: dict[str, str], cell: Cell) -> bool:
    return row["encoder"] == cell.encoder and row["seed"] == str(cell.seed)


def show(rows: list[dict[str, str]]) -> None:
    """Print mean ± standard deviation over seeds, as a Markdown table."""
    print("| method | encoder | seeds | alone: 100 / 10 / 1 % | beside hand-crafted |")
    print("|---|---|---|---|---|")
    for method in (UNTRAINED, *METHODS):
        for encoder in ENCODERS:
            of_both = []
            for beside in ("False", "True"):
                chosen = [
                    [float(row[f"{f:g}"]) for f in FRACTIONS]
                    for row in rows
                    if (row["method"], row["encoder"], row["beside"]) == (method, encoder, beside)
                ]
                of_both.append(np.array(chosen))
            if len(of_both[0]):
                shown = [
                    " / ".join(
                        f"{m:.3f} ± {s:.3f}"
                        for m, s in zip(x.mean(0), x.std(0, ddof=len(x) > 1), strict=True)
                    )
                    for x in of_both
                ]
                print(f"| {method} | {encoder} | {len(of_both[0])} | {shown[0]} | {shown[1]} |")


if __name__ == "__main__":
    main()
