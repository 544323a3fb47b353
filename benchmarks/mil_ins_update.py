"""INS: whose pseudo-labels does a step move, those of all instances of its bags or of a sample?

    python benchmarks/mil_ins_update.py --out ins_update.csv
    python benchmarks/mil_ins_update.py --out ins_update.csv --sizes 2000 --bags 16 --epochs 15

Bags of 500 to 10,000 instances, made from real handwritten digits (scikit-learn's, 8×8; Alpaydin &
Kaynak 1998) with Gaussian noise of 0.1 on each pixel, so that no two instances are equal; how they
are put together is synthetic. One in two bags is positive: 2 % of its instances are nines. No image
is in training and in test. 40 bags train for 40 epochs in batches of 4, unless asked otherwise; the
last epoch counts. A row a run: AUROC of as many unseen bags and of the instances of the positive
ones among them. Rows are added as they come, and those that are there are not run again.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

from medcl.labels.outputs import Outputs
from medcl.methods.contract import State, after_step
from medcl_pathology.mil.ins import Ins

SIZES = (500, 2000, 10_000)
BAGS, EPOCHS, BATCH = 40, 40, 4
NINE, SHARE, NOISE = 9, 0.02, 0.1
OUTPUTS = Outputs("binary", ("without", "with"))


def bags(
    count: int, size: int, pool: NDArray[np.int64], digit: NDArray[np.int64], seed: int
) -> list[NDArray]:
    """Rows of the digits in each of the bags, the odd ones positive."""
    rng = np.random.default_rng(seed)
    nines, others = pool[digit[pool] == NINE], pool[digit[pool] != NINE]
    held = [max(1, round(SHARE * size)) if b % 2 else 0 for b in range(count)]
    return [np.concatenate((rng.choice(nines, n), rng.choice(others, size - n))) for n in held]


def batch(
    images: NDArray[np.float32], chosen: list[tuple[int, NDArray[np.int64]]]
) -> dict[str, torch.Tensor]:
    """A packed batch of bags given by number and rows; noise is a function of the bag's number."""
    x = [
        images[rows] + NOISE * np.random.default_rng(number).standard_normal((len(rows), 64))
        for number, rows in chosen
    ]
    return {
        "x": torch.from_numpy(np.concatenate(x).astype(np.float32)),
        "bag": torch.arange(len(chosen)).repeat_interleave(
            torch.tensor([len(r) for _, r in chosen])
        ),
        "y": torch.tensor([number % 2 for number, _ in chosen]),
        "patient": torch.arange(len(chosen)),
    }


def run(size: int, update: str, seed: int, many: int, epochs: int) -> dict[str, object]:
    """Train INS once; its AUROC of bags and of instances on unseen ones."""
    images, digit = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    order = np.random.default_rng(seed).permutation(len(digit))
    learn = list(enumerate(bags(many, size, order[:1000], digit, seed)))
    test = list(enumerate(bags(many, size, order[1000:], digit, seed + 1000)))
    torch.manual_seed(seed)
    model = Ins(batch(images, learn[:2]), OUTPUTS, queue=1024, update=update)  # type: ignore[arg-type]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    steps = epochs * many // BATCH
    rng, begun = np.random.default_rng(seed), time.process_time()
    for step in range(steps):
        at = step % (many // BATCH)
        if at == 0:
            shuffled = rng.permutation(many)
        chosen = [learn[b] for b in shuffled[at * BATCH : (at + 1) * BATCH]]
        state = State(step, steps)
        optimizer.zero_grad()
        model.step(batch(images, chosen), state)["loss"].backward()
        optimizer.step()
        after_step(model, state)
    seconds = time.process_time() - begun
    scores, found = [], []
    model.eval()
    for number, rows in test:
        with torch.no_grad():
            shown = model.predict(batch(images, [(number, rows)]))
        scores.append(float(shown["scores"][0, 1] - shown["scores"][0, 0]))
        if number % 2:
            found.append(roc_auc_score(digit[rows] == NINE, shown["instances"]))
    return {
        "instances": size,
        "bags": many,
        "epochs": epochs,
        "update": update,
        "seed": seed,
        "bags_auroc": roc_auc_score([number % 2 for number, _ in test], scores),
        "instances_auroc": float(np.mean(found)),
        "sure": float((model.soft.get(*_all(model)).amax(1) > 0.9).float().mean()),
        "cpu_s": round(seconds, 1),
    }


def _all(model: Ins) -> tuple[torch.Tensor, torch.Tensor]:
    """The keys of all instances remembered, and a label for none of them."""
    keys = torch.cat([keys for keys, _ in model.soft.blocks])
    return keys, torch.zeros(len(keys), 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--bags", type=int, default=BAGS)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1, 2))
    given = parser.parse_args()
    rows = pl.read_csv(given.out).to_dicts() if given.out.exists() else []
    names = ("instances", "bags", "epochs", "update", "seed")
    done = {tuple(row[name] for name in names) for row in rows}
    for size in given.sizes:
        for seed in given.seeds:
            for update in ("all", "sampled"):
                if (size, given.bags, given.epochs, update, seed) not in done:
                    rows.append(run(size, update, seed, given.bags, given.epochs))
                    print(rows[-1], flush=True)
                    pl.DataFrame(rows).write_csv(given.out)
    measures = [pl.col(name).mean().round(3) for name in ("bags_auroc", "instances_auroc", "sure")]
    print(pl.DataFrame(rows).group_by(*names[:-1]).agg(measures).sort("instances"))


if __name__ == "__main__":
    main()
