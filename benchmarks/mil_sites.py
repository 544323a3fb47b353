"""What SC-MIL claims: rare positives, tested at the sites of training and at others.

    python benchmarks/mil_sites.py --out sites.csv
    python benchmarks/mil_sites.py IDX --labels labels.csv --out sites.csv

For every seed, a third of the sites is held out whole (out of distribution); of the patients of the
others, three in ten are tested (in distribution) and the rest train, thinned to one positive for
``--ratios`` negatives. Every method of `mil_imbalance.METHODS` has the same network, optimiser and
epochs; the last epoch counts, and a class is predicted by the higher score. A row for each method,
ratio, seed and part of the test; rows that are there are not made again.

IDX is an index of bags, with sites of its own or of a table. Without one, bags are of real
handwritten digits (scikit-learn's, 8×8; Alpaydin & Kaynak 1998), positive if one of them is a 9,
from six sites whose shift is synthetic: each has a gamma, gain and offset of its own (`shifted`).
No image is in training and in test.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from mil_imbalance import METHODS, SOUGHT, interval, read, recipe
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from medcl import recipe as recipes
from medcl.archive.index import Index
from medcl.archive.splits import split
from medcl.finetune.fold_training import Work
from medcl.finetune.study import labelled, study
from medcl.labels import table as tables
from medcl.labels import target as targets
from medcl.labels.target import Target
from medcl.plugin import Samples
from medcl.run import prepared, samples_of
from medcl.seeds import derive

RATIOS = (1, 10, 50)
TESTED, HELD_OUT = 0.3, 1 / 3
INSIDE, OUTSIDE = "in distribution", "out of distribution"


@dataclass(frozen=True)
class Data:
    """Labelled bags with their sites."""

    samples: Samples
    target: Target
    sites: list[str]


def shifted(site: int, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Images as a site sees them (synthetic): gamma, gain and offset, drawn by its number."""
    rng = np.random.default_rng(site)
    gamma, gain, offset = rng.uniform(0.5, 2.0), rng.uniform(0.6, 1.4), rng.uniform(-0.2, 0.2)
    return (gain * pixels**gamma + offset).astype(np.float32)


def digits(seed: int, *, bags: int = 900, sites: int = 6) -> tuple[Data, list[str]]:
    """Bags of digits of all sites, half of them positive, and the split of this seed."""
    held = load_digits()
    clean = (held.data / 16).astype(np.float32)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(clean))
    pools = {"train": order[: int(0.6 * len(order))], "test": order[int(0.6 * len(order)) :]}
    outside = set(rng.permutation(sites)[: round(HELD_OUT * sites)].tolist())
    pixels = np.concatenate([shifted(site, clean) for site in range(sites)])
    rows, y, owner, part = [], [], [], []
    for n in range(bags):
        site = n % sites
        tested = site in outside or rng.random() < TESTED
        pool, size = pools["test" if tested else "train"], max(4, round(rng.normal(10, 2)))
        positive = (n // sites) % 2
        nines, others = pool[held.target[pool] == SOUGHT], pool[held.target[pool] != SOUGHT]
        few = int(rng.integers(1, 3)) * positive
        chosen = np.concatenate(
            [rng.choice(nines, few, False), rng.choice(others, size - few, False)]
        )
        rows.append(chosen + site * len(clean))
        y.append(positive)
        owner.append(f"site {site}")
        part.append("test" if tested else "train")
    names = [f"b{n}" for n in range(bags)]
    samples = Samples(names, names, names, partial(read, pixels, rows))
    target = Target("binary", ("no nine", "nine"), np.array(y))
    return Data(samples, target, owner), part


def of_index(path: Path, labels: Path | None, label: str | None) -> Data:
    """Bags of an index whose label and site are known.

    Raises:
        ValueError: for a label of other than two classes, or fewer than three sites.
    """
    settings = [] if label is None else [f"finetune.label={label}"]
    asked = recipes.given("pathology/abmil", settings)
    index = Index.open(path)
    samples = samples_of(asked, prepared(asked, path))
    table = (
        tables.read(labels, index, among=frozenset(samples.items)) if labels else tables.Labels()
    )
    samples = tables.with_patients(tables.add(samples, table, index), table)
    if label is None and (only := tables.only(list(table.columns) or list(samples.labels))):
        asked = recipes.given("pathology/abmil", [f"finetune.label={only}"])
    target = targets.finetune_target(samples, asked.finetune)
    samples, target, _, _ = labelled(samples, target)
    of_items = dict(index.items.select("id", "site").iter_rows())
    sites = [table.sites.get(item) or of_items.get(item) or "" for item in samples.items]
    known = np.flatnonzero(np.array([bool(site) for site in sites]))
    if target.kind != "binary" or len({sites[n] for n in known}) < 3:
        raise ValueError("Two classes and at least three sites are needed.")
    return Data(samples.at(known), target.at(known), [sites[n] for n in known])


def divided(data: Data, seed: int) -> list[str]:
    """The split of this seed, by sample; a patient of several sites is tested with the held-out."""
    rng = np.random.default_rng(derive(seed, 0))
    names = sorted(set(data.sites))
    outside = set(rng.permutation(names)[: max(1, round(HELD_OUT * len(names)))].tolist())
    patients = list(data.samples.patients)
    away = {p for p, site in zip(patients, data.sites, strict=True) if site in outside}
    strata = data.target.names()
    frame = pl.DataFrame({"patient": patients, "stratum": strata}).filter(
        ~pl.col("patient").is_in(away)
    )
    part = split(frame, test=TESTED, stratify="stratum", seed=seed)
    return ["test" if p in away or part[p] == "test" else "train" for p in patients]


def outside_of(data: Data, part: Sequence[str]) -> set[str]:
    """Sites that nobody is trained at."""
    trained = {site for site, p in zip(data.sites, part, strict=True) if p == "train"}
    return set(data.sites) - trained


def run(
    data: Data, part: Sequence[str], method: str, ratio: float, seed: int, epochs: int
) -> list[dict[str, Any]]:
    """Train once; a row for the test at the sites of training, and one for that at the others."""
    asked = recipe(method, seed, epochs)
    with tempfile.TemporaryDirectory() as folder:
        work = Work(data.samples, data.target, asked, Path(folder) / "study")
        result = study(work, data.sites, label="positive", given=list(part), imbalance=ratio)
        found = pl.read_parquet(work.out / "predictions.parquet")
    scores = found.select(pl.col("^score.*$")).to_numpy()
    site_of = dict(zip(data.samples.ids, data.sites, strict=True))
    away = outside_of(data, part)
    outside = np.array([site_of[key] in away for key in found["id"]])
    y, margin = found["truth.0"].to_numpy().astype(int), scores[:, 1] - scores[:, 0]
    rows = []
    for where, mask in ((INSIDE, ~outside), (OUTSIDE, outside)):
        both = len(set(y[mask])) == 2
        rows.append(
            {
                "method": method,
                "negatives": float(ratio),
                "seed": seed,
                "sites": where,
                "tested": int(mask.sum()),
                "positives_trained": result.train.classes[data.target.classes[1]],
                "balanced_accuracy": balanced_accuracy_score(y[mask], margin[mask] > 0)
                if both
                else None,
                "auroc": roc_auc_score(y[mask], margin[mask]) if both else None,
                "seconds": result.seconds,
            }
        )
    return rows


def summary(rows: Sequence[dict[str, Any]]) -> str:
    """Tables in Markdown: mean over seeds with the 95% t-interval; SC-MIL minus each, paired."""
    frame = pl.DataFrame(rows)
    ratios = sorted(set(frame["negatives"]))
    lines = []
    for measure in ("balanced_accuracy", "auroc"):
        for where in (INSIDE, OUTSIDE):
            head = " | ".join(f"1:{r:g}" for r in ratios)
            lines += [f"\n| {measure}, {where} | {head} |", "|---|" + "---|" * len(ratios)]
            values = {}
            for method in dict.fromkeys(frame["method"]):
                cells = []
                for ratio in ratios:
                    chosen = frame.filter(
                        (pl.col("method") == method)
                        & (pl.col("negatives") == ratio)
                        & (pl.col("sites") == where)
                    ).sort("seed")
                    values[method, ratio] = dict(chosen.select("seed", measure).iter_rows())
                    cells.append(interval(list(values[method, ratio].values())))
                lines.append(f"| {method} | {' | '.join(cells)} |")
            for method in [m for m in dict.fromkeys(frame["method"]) if m != "SC-MIL"]:
                gains = []
                for ratio in ratios:
                    ours, theirs = values.get(("SC-MIL", ratio), {}), values[method, ratio]
                    gains.append([ours[s] - theirs[s] for s in ours.keys() & theirs.keys()])
                if all(gains):
                    lines.append(f"| SC-MIL − {method} | {' | '.join(map(interval, gains))} |")
    return "\n".join(lines)


def main() -> None:
    """Train what is not there yet, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("index", type=Path, nargs="?", help="of bags with sites")
    parser.add_argument("--labels", type=Path, help="a table with labels, and perhaps sites")
    parser.add_argument("--label", help="its column")
    parser.add_argument("--out", type=Path, required=True, help="a CSV")
    parser.add_argument("--ratios", type=float, nargs="+", default=RATIOS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=40)
    known = [name for name in METHODS if name != "INS"]
    parser.add_argument("--methods", nargs="+", default=known, choices=known)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows = pl.read_csv(asked.out).to_dicts() if asked.out.exists() else []
    done = {(row["method"], row["negatives"], row["seed"]) for row in rows}
    held = of_index(asked.index, asked.labels, asked.label) if asked.index else None
    for seed in range(asked.seeds):
        data, part = digits(seed) if held is None else (held, divided(held, seed))
        for ratio in asked.ratios:
            for method in asked.methods:
                if (method, ratio, seed) not in done:
                    rows += run(data, part, method, ratio, seed, asked.epochs)
                    print(rows[-2], rows[-1], sep="\n", flush=True)
                    pl.DataFrame(rows, infer_schema_length=None).write_csv(asked.out)
    print(summary(rows))


if __name__ == "__main__":
    main()
