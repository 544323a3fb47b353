"""TIP with incomplete tables: half a digit as the picture, ink of the other half as the table.

    python benchmarks/tip_missing.py

scikit-learn's digits (real scans, 8×8). The picture is the left half (8×4); the table is the ink of
each row and column of the right half, twelve numbers, so each knows what the other does not. It is
no clinical table; it tells whether the parts do their work. TIP pretrains on 1,297 digits without
labels, then the classifier `tip` trains on 20 of each digit; 500 others are predicted with 0 to
90 % of each table missing, and with one input alone. Beside it: the same classifier from nothing,
trained with tables as they are (``missing`` 0), and trained on one input. Three seeds.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Mapping

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from medcl.classifiers.tip import TIPClassifier
from medcl.engine import optim
from medcl.labels.outputs import Outputs
from medcl.methods.contract import State
from medcl.methods.tip import TIP
from medcl.recipe import Optimizer

TEN = Outputs("multiclass", tuple("0123456789"))
SHARES = (0.0, 0.3, 0.5, 0.7, 0.9)
TEST, EACH, BATCH = 500, 20, 64


class Left(nn.Module):
    """A small CNN of half a digit: (B, 1, 8, 4) → (B, 32), its pyramid shown."""

    width, channels, stage_widths, strides = 32, 1, (32,), (2,)

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()),
            *(nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU()),
        )

    def stages(self, x: Tensor) -> list[Tensor]:
        return [self.body(x)]

    def pool(self, stage: Tensor) -> Tensor:
        return stage.mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.body(x))


def data() -> tuple[Tensor, Tensor, Tensor]:
    pixels, labels = load_digits(return_X_y=True)
    x = torch.tensor(pixels, dtype=torch.float).reshape(-1, 1, 8, 8) / 16
    right = x[..., 4:]
    table = torch.cat([right.mean(3).flatten(1), right.mean(2).flatten(1)], 1)  # (N, 12)
    return x[..., :4], (table - table.mean(0)) / table.std(0), torch.tensor(labels)


def pretrained(x: Tensor, table: Tensor, steps: int) -> TIP:
    method = TIP(Left(), numeric=12, inner=32, depth=2, heads=4, out=32)
    optimizer, scheduler = optim.build(method, Optimizer(lr=2e-3), max(steps, 1))
    for step in range(steps):
        rows = torch.randint(len(x), (BATCH,))
        view = x[rows] + 0.05 * torch.randn(BATCH, 1, 8, 4)
        loss = method.step([view], {"table": table[rows], "patient": rows}, State(step, steps))[
            "loss"
        ]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
    return method


def classified(
    method: TIP, given: Mapping[str, Tensor], steps: int, **settings: object
) -> TIPClassifier:
    made = TIPClassifier(copy.deepcopy(method), given, TEN, **settings)  # type: ignore[arg-type]
    optimizer, scheduler = optim.build(made, Optimizer(lr=2e-3), steps)
    made.train()
    for step in range(steps):
        rows = torch.randint(len(given["y"]), (BATCH,))
        loss = made.step({name: v[rows] for name, v in given.items()}, State(step, steps))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
    return made.eval()


@torch.no_grad()
def accuracy(model: TIPClassifier, given: Mapping[str, Tensor], y: Tensor) -> float:
    return float((model.predict(given)["scores"].argmax(1) == y).float().mean())


def one(seed: int, steps: int) -> dict[str, list[float]]:
    torch.manual_seed(seed)
    x, table, y = data()
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(x)))
    test, rest = order[:TEST], order[TEST:]
    train = torch.cat([rest[y[rest] == digit][:EACH] for digit in range(10)])
    given = {"x": x[train], "table": table[train], "y": y[train]}
    start = pretrained(x[rest], table[rest], 2 * steps)
    models = {
        "TIP": classified(start, given, steps),
        "TIP, tables as they are": classified(start, given, steps, missing=0.0),
        "from nothing": classified(pretrained(x[rest], table[rest], 0), given, steps),
        "picture alone, trained so": classified(start, given, steps, inputs="sample"),
        "table alone, trained so": classified(start, given, steps, inputs="table"),
    }
    luck = torch.rand(TEST, 12)
    found: dict[str, list[float]] = {}
    for name, model in models.items():
        row = []
        for share in SHARES:
            gone = torch.where(luck < share, torch.nan, table[test])
            row.append(accuracy(model, {"x": x[test], "table": gone}, y[test]))
        found[name] = row
    picture = {"x": x[test], "table": torch.full_like(table[test], torch.nan)}
    found["TIP, predicting from the picture alone"] = [
        accuracy(models["TIP"], picture, y[test])
    ] * 5
    found["TIP, predicting from the table alone"] = [
        accuracy(models["TIP"], {"table": torch.where(luck < s, torch.nan, table[test])}, y[test])
        for s in SHARES
    ]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    runs = [one(seed, options.steps) for seed in range(options.seeds)]
    print("| values missing | " + " | ".join(f"{share:.0%}" for share in SHARES) + " |")
    print("|---|" + "---|" * len(SHARES))
    for name in runs[0]:
        values = np.array([run[name] for run in runs])  # (seeds, shares)
        cells = (f"{m:.3f} ± {s:.3f}" for m, s in zip(values.mean(0), values.std(0, ddof=1)))
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
