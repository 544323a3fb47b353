"""Rare positives: SC-MIL against plain, weighted, focal and balanced training, on digit bags.

    python benchmarks/mil_imbalance.py --out /tmp/imbalance

Bags hold real handwritten digits (scikit-learn's, 8×8; Alpaydin & Kaynak 1998) and are positive if
one of them is a 9. How they are put together is synthetic. Training has 200 negative bags and 200,
40, 20 or 4 positive ones; the test is balanced. No image is in training and in test. Every method
has the same network (64 pixels → 64 → attention), optimiser and epochs, and nothing is chosen by
the test: the last epoch counts. Figures are means over seeds (images, bags and weights are drawn
anew) with the 95% t-interval; differences are paired by seed.

INS is trained on the same bags; its instance scores are set against the attention of ABMIL by how
well they find the nines within positive test bags (mean AUROC of a bag).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from scipy import stats
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

from medcl import recipe as recipes
from medcl.finetune.fold_training import Work
from medcl.finetune.result import FinetuneResult
from medcl.finetune.study import study
from medcl.labels.target import Target
from medcl.plugin import Samples

RATIOS = (1, 5, 10, 50)
NEGATIVES, TEST = 200, 200
SOUGHT = 9
NETWORK = {"layers": [64], "dropout": 0.25}
ATTENTION = {"aggregator": "abmil", "settings": {"hidden": 64}}
METHODS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "CE": ({"name": "mil", **ATTENTION}, {}),
    "weighted CE": ({"name": "mil", **ATTENTION}, {"loss": "weighted"}),
    "focal": ({"name": "mil", **ATTENTION}, {"loss": "focal"}),
    "class-balanced": ({"name": "mil", **ATTENTION}, {"loss": "class-balanced"}),
    "LDAM": ({"name": "mil", **ATTENTION}, {"loss": "ldam"}),
    "LDAM-DRW": ({"name": "mil", **ATTENTION}, {"loss": "ldam-drw"}),
    "logit-adjusted": ({"name": "mil", **ATTENTION}, {"loss": "logit-adjusted"}),
    "balanced": ({"name": "mil", **ATTENTION}, {"sampler": "balanced"}),
    "SC-MIL": ({"name": "sc-mil", **ATTENTION}, {"sampler": "balanced"}),
    "INS": ({"name": "ins", "queue": 1024}, {"sampler": "balanced"}),
}
MEASURES = {"balanced_accuracy": "balanced accuracy", "auroc": "AUROC"}


def read(
    pixels: NDArray[np.float32], bags: Sequence[NDArray[np.int64]], rows: NDArray[np.int64]
) -> dict[str, NDArray[Any]]:
    """A packed batch."""
    chosen = [bags[row] for row in rows]
    return {
        "x": pixels[np.concatenate(chosen)],
        "bag": np.repeat(np.arange(len(rows)), [len(bag) for bag in chosen]),
    }


def digit_bags(
    ratio: int, seed: int
) -> tuple[Samples, NDArray[np.int64], list[str], list[NDArray[np.bool_]]]:
    """Bags, their classes, the split, and which instances are sought.

    The negatives, the test, and the positives of a larger ratio are the same for every ratio.
    """
    digits = load_digits()
    pixels = (digits.data / 16).astype(np.float32)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(pixels))
    halves = order[: int(0.6 * len(order))], order[int(0.6 * len(order)) :]

    def bag(pool: NDArray[np.int64], positive: bool) -> NDArray[np.int64]:
        size = max(4, round(rng.normal(10, 2)))
        nines, others = pool[digits.target[pool] == SOUGHT], pool[digits.target[pool] != SOUGHT]
        if not positive:
            return rng.choice(others, size, replace=False)
        few = rng.integers(1, 3)
        chosen = [rng.choice(nines, few, replace=False), rng.choice(others, size - few, False)]
        return rng.permutation(np.concatenate(chosen))

    def several(pool: NDArray[np.int64], positive: bool, count: int) -> list[NDArray[np.int64]]:
        return [bag(pool, positive) for _ in range(count)]

    negative = several(halves[0], False, NEGATIVES)
    test = several(halves[1], False, TEST // 2) + several(halves[1], True, TEST // 2)
    positive = several(halves[0], True, NEGATIVES)[: NEGATIVES // ratio]
    bags = negative + positive + test
    train = len(negative) + len(positive)
    y = np.array([0] * len(negative) + [1] * len(positive) + [0] * (TEST // 2) + [1] * (TEST // 2))
    ids = [f"b{n}" for n in range(len(bags))]
    split = ["train"] * train + ["test"] * TEST
    sought = [digits.target[b] == SOUGHT for b in bags]
    return Samples(ids, ids, ids, partial(read, pixels, bags)), y, split, sought


def recipe(method: str, seed: int, epochs: int) -> recipes.Recipe:
    """The same for all methods but for what makes them."""
    classifier, settings = METHODS[method]
    return recipes.parse(
        {
            "name": f"digit bags, {method}",
            "plugin": "pathology",
            "seed": seed,
            "classifier": {**classifier, **NETWORK},
            "optimizer": {"name": "adamw", "lr": 3e-3, "weight_decay": 1e-3},
            "finetune": {
                "label": "nine",
                "epochs": epochs,
                "batch_size": 32,
                "validation": 0,
                "bootstraps": 100,
                **settings,
            },
        }
    )


def instance_auroc(folder: Path, samples: Samples, y: Any, sought: Sequence[NDArray]) -> float:
    """How well instance scores find what makes a bag positive, within positive test bags."""
    frame = pl.read_parquet(folder / "folds" / "r0f0" / "instances.parquet")
    column = [name for name in frame.columns if name.startswith("score.")][-1]
    place = {name: row for row, name in enumerate(samples.ids)}
    found = []
    for (name,), group in frame.group_by("id"):
        row = place[str(name)]
        if y[row] == 1 and not sought[row].all():
            scores = group.sort("instance")[column].to_numpy()
            found.append(roc_auc_score(sought[row], scores))
    return float(np.mean(found))


def interval(values: Sequence[float]) -> str:
    """Mean and 95% t-interval over seeds."""
    mean, n = np.mean(values), len(values)
    half = stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n) if n > 1 else np.nan
    return f"{mean:.3f} [{mean - half:.3f}, {mean + half:.3f}]"


def table(found: Mapping[tuple[str, int, int], Mapping[str, float]], seeds: int) -> None:
    """Print the tables as Markdown."""
    made = [m for m in METHODS if any(key[0] == m for key in found)]
    for measure, called in {**MEASURES, "instances": "AUROC of instances"}.items():
        rows = [m for m in made if all(measure in found[m, r, 0] for r in RATIOS)]
        print(f"\n| {called} | " + " | ".join(f"1:{r}" for r in RATIOS) + " |")
        print("|---|" + "---|" * len(RATIOS))
        values = {
            (m, r): [found[m, r, s][measure] for s in range(seeds)] for m in rows for r in RATIOS
        }
        for m in rows:
            print(f"| {m} | " + " | ".join(interval(values[m, r]) for r in RATIOS) + " |")
        if measure == "instances" or "SC-MIL" not in rows:
            continue
        for m in rows:
            if m != "SC-MIL":
                gains = [np.subtract(values["SC-MIL", r], values[m, r]).tolist() for r in RATIOS]
                print(f"| SC-MIL − {m} | " + " | ".join(interval(g) for g in gains) + " |")


def main() -> None:
    """Train what is not there yet, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[tuple[str, int, int], dict[str, float]] = {}
    for seed in range(asked.seeds):
        for ratio in RATIOS:
            samples, y, split, sought = digit_bags(ratio, seed)
            truth = Target("binary", ("no nine", "nine"), y)
            for method in asked.methods:
                out = asked.out / method.replace(" ", "-") / f"1to{ratio}" / f"seed{seed}"
                work = Work(samples, truth, recipe(method, seed, asked.epochs), out, instances=True)
                result: FinetuneResult = study(
                    work, [None] * len(samples), label="nine", given=split
                )
                figures = result.figures.metrics
                made = {name: float(figures[name].value or 0) for name in MEASURES}
                if method in ("CE", "balanced", "INS"):
                    made["instances"] = instance_auroc(out, samples, y, sought)
                found[method, ratio, seed] = made
                print(method, ratio, seed, made, round(result.seconds, 1), flush=True)
    table(found, asked.seeds)


if __name__ == "__main__":
    main()
