"""Core-tuning against plain fine-tuning of one pretrained encoder, at 1, 10 and 100 % of labels.

    python benchmarks/core_tuning.py digits
    python benchmarks/core_tuning.py mitbih --runs T/runs/alike-beats --data T/index --out OUT

digits: scikit-learn's (real, 8×8); per seed SimCLR on 1,297 of them without labels, then both ways
of fine-tuning from a class-balanced draw of the labels; accuracy on the other 500. Differences are
paired by seed, intervals are t intervals over seeds.

mitbih: beats of DS1 into N, S and V, through ``medcl finetune``. ``--runs`` holds fold0 … fold4 of
`benchmarks/biosignals/mitbih_table.py`; fold f is fine-tuned under seed f from 1, 10 or 100 % of
its training *patients* (the same for both ways), and judged on its test patients. The folds'
predictions are pooled; intervals are over patients, and differences paired.
"""

from __future__ import annotations

import argparse
import copy
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from scipy import stats
from sklearn.datasets import load_digits
from torch import Tensor, nn

from medcl.classifiers.core_tuning import CoreTuning
from medcl.classifiers.full import Full
from medcl.labels.outputs import Outputs
from medcl.methods.contract import State
from medcl.methods.simclr import SimCLR

WAYS = {"plain": Full, "core-tuning": CoreTuning}
FRACTIONS = (0.01, 0.1, 1.0)
TRAIN = 1297


def encoder() -> nn.Module:
    """A small convolutional one: (B, 1, 8, 8) → (B, 64)."""
    net = nn.Sequential(
        *(nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.BatchNorm2d(64), nn.ReLU()),
        *(nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    )
    net.width = 64  # type: ignore[assignment]
    return net


def augment(x: Tensor) -> Tensor:
    """A shift by at most a pixel, brightness, noise."""
    where = torch.eye(2, 3).repeat(len(x), 1, 1)
    where[:, :, 2] = (2 * torch.rand(len(x), 2) - 1) / 4
    grid = nn.functional.affine_grid(where, list(x.shape), align_corners=False)
    moved = nn.functional.grid_sample(x, grid, align_corners=False)
    return moved * (0.7 + 0.6 * torch.rand(len(x), 1, 1, 1)) + 0.05 * torch.randn_like(x)


def digits_seed(seed: int, pretrain: int, tune: int) -> dict[tuple[str, float], float]:
    """Accuracy of each way and fraction."""
    pixels, classes = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(pixels))
    x = torch.tensor(pixels[order], dtype=torch.float32).view(-1, 1, 8, 8) / 16
    y = torch.tensor(classes[order])
    torch.manual_seed(seed)
    method = SimCLR(encoder(), hidden=64, out=32)
    adam = torch.optim.Adam(method.parameters(), 2e-3)
    for step in range(pretrain):
        at = torch.randint(TRAIN, (128,))
        views = [augment(x[at]) for _ in range(2)]
        loss = method.step(views, {"patient": at}, State(step, pretrain))["loss"]
        adam.zero_grad()
        loss.backward()
        adam.step()
    found = {}
    for fraction in FRACTIONS:
        each = max(1, round(fraction * TRAIN / 10))  # of every class
        few = torch.cat([torch.where(y[:TRAIN] == c)[0][:each] for c in range(10)])
        few = torch.arange(TRAIN) if fraction == 1 else few
        for name, way in WAYS.items():
            torch.manual_seed(seed)
            outputs = Outputs("multiclass", tuple("0123456789"))
            start = copy.deepcopy(method.encoder)
            model = way(start, {"x": x[few]}, outputs, decay=1.0)  # type: ignore[operator]
            sgd = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=1e-4)
            for step in range(tune):
                model.train()
                at = few[torch.randint(len(few), (64,))]
                made = model.step({"x": augment(x[at]), "y": y[at]}, State(step, tune))
                sgd.zero_grad()
                made["loss"].backward()
                sgd.step()
            with torch.inference_mode():
                scores = model.eval().predict({"x": x[TRAIN:]})["scores"]
            found[name, fraction] = float((scores.argmax(1) == y[TRAIN:]).float().mean())
    return found


def digits(seeds: int, pretrain: int, tune: int) -> None:
    """Print the table over seeds."""
    made = [digits_seed(seed, pretrain, tune) for seed in range(seeds)]
    print("| accuracy | 1 % | 10 % | 100 % |\n|---|---|---|---|")
    cells = {w: [np.array([m[w, f] for m in made]) for f in FRACTIONS] for w in WAYS}
    for name, columns in cells.items():
        print(f"| {name} | " + " | ".join(interval(c) for c in columns) + " |")
    differences = [a - b for a, b in zip(cells["core-tuning"], cells["plain"], strict=True)]
    print("| difference | " + " | ".join(interval(d, "+") for d in differences) + " |")


def interval(values: NDArray[np.float64], sign: str = "") -> str:
    """A mean with its 95 % t interval."""
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    mean = values.mean()
    return f"{mean:{sign}.3f} [{mean - half:{sign}.3f}, {mean + half:{sign}.3f}]"


def mitbih(runs: Path, data: Path, out: Path, epochs: dict[float, int]) -> None:
    """Fine-tune every fold both ways, and print the pooled table."""
    from medcl.archive.index import Index
    from medcl.audit.compare import read
    from medcl.finetune.finetune import finetune, opened
    from medcl.metrics.bootstrap import bootstrap
    from medcl.metrics.measures import measure
    from medcl.run import Run

    index = Index.open(data)
    key = {item: index.locate(item) for item in index.items["id"]}
    owner = dict(index.items.select("id", "patient").iter_rows())
    print("| | labels of | macro F1 | macro AUROC |\n|---|---|---|---|")
    for fraction in FRACTIONS:
        made = {}
        people = 0
        for way in WAYS:
            parts = []
            for fold in range(5):
                run = Run.open(runs / f"fold{fold}")
                side = run.split()
                train = sorted(p for p, s in side.items() if s == "train")
                order = np.random.default_rng(fold).permutation(len(train))
                kept = {train[i] for i in order[: max(1, round(fraction * len(train)))]}
                people += len(kept) if way == "plain" else 0
                table = out / f"split-{fraction:g}-{fold}.csv"
                table.parent.mkdir(parents=True, exist_ok=True)
                rows = [
                    (key[i], "test" if side[p] == "test" else "train")
                    for i, p in owner.items()
                    if side.get(p) == "test" or p in kept
                ]
                pl.DataFrame(rows, ["key", "split"], orient="row").write_csv(table)
                name = "full" if way == "plain" else way
                settings = [
                    f"classifier={{name: {name}, decay: 1.0}}",
                    *("finetune.task=aami-nsv", "finetune.validation=0", "finetune.loss=weighted"),
                    *(f"finetune.epochs={epochs[fraction]}", "finetune.batch_size=128"),
                    *("finetune.bootstraps=100", f"seed={fold}"),
                    "optimizer={name: sgd, lr: 0.01, momentum: 0.9, weight_decay: 1e-4}",
                ]
                study = out / f"{way}-{fraction:g}-{fold}"
                finetune(opened(run.path, None, settings), study, split=table)
                parts.append(read(study))
            truth = parts[0].target
            whole = type(truth)(
                truth.kind, truth.classes, np.concatenate([p.target.y for p in parts])
            )
            chance = np.concatenate([p.chance for p in parts])
            patients = np.concatenate([p.patients for p in parts])
            made[way] = bootstrap(partial(measure, whole, chance), patients)
            cells = [made[way].interval(m) for m in ("f1", "auroc")]
            print(f"| {way} | {fraction:.0%}, {people / 5:.1f} people a fold | " + _row(cells))
        gain = [made["core-tuning"].minus(made["plain"], m) for m in ("f1", "auroc")]
        print("| difference | | " + _row(gain, "+"), flush=True)


def _row(cells: list, sign: str = "") -> str:
    shown = [f"{c.value:{sign}.3f} [{c.low:{sign}.3f}, {c.high:{sign}.3f}]" for c in cells]
    return " | ".join(shown) + " |"


def main() -> None:
    """See the head of the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("digits", "mitbih"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--pretrain", type=int, default=300, help="steps, on digits")
    parser.add_argument("--tune", type=int, default=300, help="steps, on digits")
    parser.add_argument("--runs", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    if asked.what == "digits":
        digits(asked.seeds, asked.pretrain, asked.tune)
    else:
        mitbih(asked.runs, asked.data, asked.out, {0.01: 20, 0.1: 10, 1.0: 2})


if __name__ == "__main__":
    main()
