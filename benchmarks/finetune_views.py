"""Fine-tuning with views of the training samples against without: real digits, three seeds.

    python benchmarks/finetune_views.py

scikit-learn's digits (8×8 scans); a small CNN from nothing on 10 or 50 of each digit, accuracy on
500 others. Views shift by up to a pixel and add noise.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from medcl.classifiers.full import Full
from medcl.finetune import batches, loop
from medcl.labels.outputs import Outputs
from medcl.plugin import Samples
from medcl.recipe import Finetune, Optimizer

SEEDS = (0, 1, 2)
TEN = Outputs("multiclass", tuple("0123456789"))


def shifted(x: Tensor, generator: torch.Generator | None = None, kind: str = "global") -> Tensor:
    """Each image by −1 … 1 pixel either way, with noise: (B, 1, 8, 8) → (B, 1, 8, 8)."""
    padded = nn.functional.pad(x, (1, 1, 1, 1))
    row, column = torch.randint(0, 3, (2, len(x), 1, 1), generator=generator)
    at = torch.arange(8)
    moved = padded[torch.arange(len(x)).view(-1, 1, 1), 0, row + at.view(1, 8, 1), column + at]
    return moved.unsqueeze(1) + 0.05 * torch.randn(x.shape, generator=generator)


def network() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.BatchNorm2d(64), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    )


def digits(each: int, seed: int, augment: bool) -> float:
    """Accuracy with ``each`` training images of every digit."""
    pixels, classes = load_digits(return_X_y=True)
    x = (pixels / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    names = [str(n) for n in range(len(x))]
    read = batches.reader(Samples(names, names, names, lambda rows: {"x": x[rows]}))
    order = np.random.default_rng(seed).permutation(len(x))
    test, rest = order[:500], order[500:]
    train = np.concatenate([rest[classes[rest] == digit][:each] for digit in range(10)])
    learning = loop.Learning(read, torch.from_numpy(classes), torch.arange(len(x)), train, test[:0])

    def build(example: Any, outputs: Outputs) -> Full:
        return Full(network(), example, outputs, decay=1.0)

    trained = loop.fit(
        build,
        TEN,
        learning,
        Finetune(epochs=1200 // each, batch_size=32, augment=augment),
        Optimizer(lr=2e-3),
        seed=seed,
        device=torch.device("cpu"),
        views=lambda: shifted,
    )
    scores = loop.predict(trained.model, read, test, 250, torch.device("cpu"))
    return float((scores.argmax(1).numpy() == classes[test]).mean())


def show(name: str, found: dict[bool, list[float]]) -> None:
    plain, views = (np.array(found[augment]) for augment in (False, True))
    gain = views - plain
    print(
        f"| {name} | {plain.mean():.3f} ± {plain.std(ddof=1):.3f} | {views.mean():.3f} ± "
        f"{views.std(ddof=1):.3f} | {gain.mean():+.3f} ({', '.join(f'{g:+.3f}' for g in gain)}) |",
        flush=True,
    )


def main() -> None:
    print("| set | as they are | views | difference |\n|---|---|---|---|")
    for each in (10, 50):
        found = {
            augment: [digits(each, seed, augment) for seed in SEEDS] for augment in (False, True)
        }
        show(f"digits, {each} of each", found)


if __name__ == "__main__":
    main()
