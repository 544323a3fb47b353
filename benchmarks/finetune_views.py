"""Fine-tuning with views of the training samples against without: two real sets, three seeds.

    python benchmarks/finetune_views.py digits
    python benchmarks/finetune_views.py beats

digits: scikit-learn's (8×8 scans); a small CNN from nothing on 10 or 50 of each digit, accuracy on
500 others. Views shift by up to a pixel and add noise.

beats: of the 22 people of MIT-BIH that ship with medcl, classes N, S and V; a small CNN from
nothing on 1,500 beats of 15 people (others with each seed), macro AUROC on 3,000 beats of the
other 7. Views are those of recipe ``biosignals/demo``.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import medcl
from medcl import recipe as recipes
from medcl.classifiers.full import Full
from medcl.finetune import batches, loop
from medcl.labels.outputs import Outputs
from medcl.metrics.measures import measure
from medcl.metrics.metrics import once
from medcl.plugin import Samples
from medcl.recipe import Finetune, Optimizer
from medcl.registry import resolve
from medcl.run import load_samples

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


def narrow() -> nn.Module:
    """(B, 2, T) → (B, 64)."""
    return nn.Sequential(
        *(nn.Conv1d(2, 32, 7, stride=2, padding=3), nn.BatchNorm1d(32), nn.ReLU()),
        *(nn.Conv1d(32, 64, 7, stride=4, padding=3), nn.BatchNorm1d(64), nn.ReLU()),
        *(nn.Conv1d(64, 64, 5, stride=2, padding=2), nn.BatchNorm1d(64), nn.ReLU()),
        *(nn.AdaptiveAvgPool1d(1), nn.Flatten()),
    )


def beats(index: Path, seed: int, augment: bool) -> float:
    """Macro AUROC on beats of people left out."""
    import medcl_biosignals.plugin as biosignals

    if not index.is_dir():
        medcl.index(biosignals.plugin.sample, index, plugin="biosignals")
    recipe = recipes.load("biosignals/demo", ["probe.task=aami-nsv"])
    samples = load_samples(recipe, index, task="aami-nsv")
    (classes,) = (np.asarray(values) for values in samples.labels.values())
    patients = np.asarray(samples.patients)
    rng = np.random.default_rng(seed)
    people = rng.permutation(np.unique(patients))
    known = classes >= 0
    left_out = np.isin(patients, people[:7])
    train = rng.permutation(np.flatnonzero(known & ~left_out))[:1500]
    test = rng.permutation(np.flatnonzero(known & left_out))[:3000]
    read = batches.reader(samples)
    learning = loop.Learning(
        read, torch.from_numpy(classes), torch.arange(len(classes)), train, test[:0]
    )

    def build(example: Any, outputs: Outputs) -> Full:
        return Full(narrow(), example, outputs, decay=1.0)

    trained = loop.fit(
        build,
        Outputs("multiclass", ("N", "S", "V")),
        learning,
        Finetune(epochs=10, batch_size=64, augment=augment),
        Optimizer(lr=2e-3),
        seed=seed,
        device=torch.device("cpu"),
        views=lambda: resolve(biosignals.plugin.views)(**recipe.views),
    )
    scores = loop.predict(trained.model, read, test, 250, torch.device("cpu"))
    found = measure("multiclass", classes[test], scores.softmax(1).numpy(), once(len(test)))
    return float(found["auroc"][0])


def show(name: str, found: dict[bool, list[float]]) -> None:
    plain, views = (np.array(found[augment]) for augment in (False, True))
    gain = views - plain
    print(
        f"| {name} | {plain.mean():.3f} ± {plain.std(ddof=1):.3f} | {views.mean():.3f} ± "
        f"{views.std(ddof=1):.3f} | {gain.mean():+.3f} ({', '.join(f'{g:+.3f}' for g in gain)}) |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("digits", "beats"))
    parser.add_argument("--index", type=Path, default=Path("finetune-views-index"))
    options = parser.parse_args()
    print("| set | as they are | views | difference |\n|---|---|---|---|")
    for each in (10, 50) if options.what == "digits" else (0,):
        found = {
            augment: [
                digits(each, seed, augment) if each else beats(options.index, seed, augment)
                for seed in SEEDS
            ]
            for augment in (False, True)
        }
        show(f"digits, {each} of each" if each else "beats of 22 people", found)


if __name__ == "__main__":
    main()
