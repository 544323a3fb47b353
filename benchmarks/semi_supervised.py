"""Fine-tuning with and without the samples that carry no label, where few carry one.

    python benchmarks/semi_supervised.py digits
    python benchmarks/semi_supervised.py ecg --run RUN --out OUT

digits: scikit-learn's (real, 8×8): per seed SimCLR on 1,297 without labels, then every way of
fine-tuning that encoder, or a new one, from so many labels a class, for as many steps of as many
samples with a label; accuracy on the other 500. Differences are paired by seed, intervals are t
intervals over seeds.

ecg: beats into N, S and V, by a run of `biosignals/demo` on medcl's sample (MIT-BIH
excerpts, real): the labels of a few of its training patients, drawn so that all classes occur; the
others' beats without labels. As many steps, each of as many beats with a label. Judged on the run's
test patients, so the intervals are over draws of who is labelled, not over whom it is tested on.
"""

from __future__ import annotations

import argparse
import copy
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from core_tuning import TRAIN, augment, encoder, interval
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import Tensor, nn

from medcl.classifiers.contrast import Contrast
from medcl.classifiers.full import Full
from medcl.classifiers.semi_supervised import SemiSupervised
from medcl.labels.outputs import Outputs
from medcl.methods.contract import State
from medcl.methods.simclr import SimCLR
from medcl.recipe import Finetune, Named, Optimizer

LABELS = (1, 4)
BATCH = 32
TEN = Outputs("multiclass", tuple("0123456789"))
SEMI = partial(SemiSupervised, decay=1.0, hidden=64, out=32)
WAYS = {
    "labels alone: CE": (partial(Full, decay=1.0), False),
    "labels alone: CE + SupCon": (partial(Contrast, decay=1.0, out=32), False),
    "labels alone: semi-supervised": (SEMI, False),
    "all samples: semi-supervised": (SEMI, True),
}


BOTH = {"name": "semi-supervised", "hidden": 128, "out": 64, "mask_same_patient": False}
TUNED: dict[str, tuple[dict[str, object], bool]] = {
    "labels alone: CE": ({"name": "full", "decay": 0.75}, False),
    "labels alone: semi-supervised": (BOTH, False),
    "all beats: semi-supervised": (BOTH, True),
}
"""On ECGs. As `alike-beats` does, a patient's own beats are told apart too."""


def digits_seed(seed: int, pretrain: int, tune: int) -> dict[tuple[str, bool, int], float]:
    """Accuracy of each way, by whether the encoder was pretrained, and labels a class."""
    pixels, classes = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(pixels))
    x = torch.tensor(pixels[order], dtype=torch.float32).view(-1, 1, 8, 8) / 16
    y = torch.tensor(classes[order])
    torch.manual_seed(seed)
    new = encoder()
    method = SimCLR(copy.deepcopy(new), hidden=64, out=32)
    adam = torch.optim.Adam(method.parameters(), 2e-3)
    for step in range(pretrain):
        at = torch.randint(TRAIN, (128,))
        views = [augment(x[at]) for _ in range(2)]
        loss = method.step(views, {"patient": at}, State(step, pretrain))["loss"]
        adam.zero_grad()
        loss.backward()
        adam.step()
    found = {}
    for each in LABELS:
        few = torch.cat([torch.where(y[:TRAIN] == c)[0][:each] for c in range(10)])
        rest = torch.tensor(sorted(set(range(TRAIN)) - set(few.tolist())))
        for pretrained, start in ((True, method.encoder), (False, new)):
            for name, (way, everything) in WAYS.items():
                torch.manual_seed(seed)
                model = way(copy.deepcopy(start), {"x": x[few]}, TEN)  # type: ignore[operator]
                train(model, x, y, few, rest if everything else None, tune)
                with torch.inference_mode():
                    scores = model.eval().predict({"x": x[TRAIN:]})["scores"]
                right = (scores.argmax(1) == y[TRAIN:]).float().mean()
                found[name, pretrained, each] = float(right)
    return found


def train(
    model: nn.Module, x: Tensor, y: Tensor, few: Tensor, rest: Tensor | None, steps: int
) -> None:
    """As the loop does: half of a batch without labels, if there are any."""
    sgd = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=1e-4)
    for step in range(steps):
        model.train()
        at = few[torch.randint(len(few), (BATCH,))]
        told = y[at]
        if rest is not None:
            more = rest[torch.randint(len(rest), (BATCH,))]
            at, told = torch.cat([at, more]), torch.cat([told, torch.full_like(more, -1)])
        one, two = augment(x[at]), augment(x[at])
        batch = {"x": one, "view.0": one, "view.1": two, "y": told, "patient": at}
        made = model.step(batch, State(step, steps))  # type: ignore[operator]
        sgd.zero_grad()
        made["loss"].backward()
        sgd.step()


def digits(seeds: int, pretrain: int, tune: int) -> None:
    """Print the tables over seeds."""
    made = [digits_seed(seed, pretrain, tune) for seed in range(seeds)]
    for pretrained in (True, False):
        head = " | ".join(f"{n} a class" for n in LABELS)
        print(f"\n| {'pretrained' if pretrained else 'new'} encoder, accuracy | {head} |")
        print("|---|" + "---|" * len(LABELS))
        cells = {w: [_column(made, (w, pretrained, n)) for n in LABELS] for w in WAYS}
        for name, columns in cells.items():
            print(f"| {name} | " + " | ".join(interval(c) for c in columns) + " |")
        last = list(WAYS)[-1]
        for name in list(WAYS)[:-1]:
            pairs = zip(cells[last], cells[name], strict=True)
            print(f"| all − {name} | " + " | ".join(interval(a - b, "+") for a, b in pairs) + " |")


def _column(
    made: list[dict[tuple[str, bool, int], float]], key: tuple[str, bool, int]
) -> NDArray[np.float64]:
    return np.array([m[key] for m in made])


def ecg(run: Path, out: Path, draws: int, people: int, steps: int) -> None:
    """Print macro AUROC and F1 of CE and of both kinds of `SemiSupervised`, over draws."""
    from medcl.finetune.fold_training import Work
    from medcl.finetune.folds import of_run
    from medcl.finetune.study import labelled, study
    from medcl.labels import target as targets
    from medcl.run import Run, load_samples

    opened = Run.open(run)
    task = opened.plugin.tasks["aami-nsv"]
    samples = load_samples(opened.recipe, opened.data, task="aami-nsv")
    patients, side = np.asarray(samples.patients), opened.split()
    found: dict[str, list[list[float]]] = {name: [] for name in TUNED}
    for draw in range(draws):
        whole = targets.finetune_target(samples, opened.recipe.finetune, task)
        kept = _drawn(
            patients, whole.y, sorted(p for p in side if side[p] == "train"), people, draw
        )
        told = np.isin(patients, kept) | np.array([side.get(p) == "test" for p in patients])
        whole = replace(whole, y=np.where(told, whole.y, -1))
        for name, (classifier, others) in TUNED.items():
            mine, truth, rows, _ = labelled(samples, whole, others=others)
            train = int((np.isin(patients, kept) & (whole.y >= 0)).sum())
            train += int((whole.y < 0).sum()) if others else 0
            size = 2 * BATCH if others else BATCH
            recipe = opened.recipe.model_copy(
                update={
                    "seed": draw,
                    "classifier": Named.model_validate(classifier),
                    "optimizer": Optimizer(lr=1e-3),
                    "finetune": Finetune(
                        task="aami-nsv",
                        epochs=max(1, round(steps / np.ceil(train / size))),
                        batch_size=size,
                        validation=0.0,
                        unlabelled=others,
                        bootstraps=100,
                    ),
                }
            )
            work = Work(mine, truth, recipe, out / f"{people}-{draw}-{name.replace(' ', '_')}", run)
            given = [of_run([patients[r]], side)[0] for r in rows]
            result = study(work, [None] * len(mine), label="aami", given=given)
            values = [result.figures.metrics[m].value for m in ("auroc", "f1")]
            found[name].append([float(v) for v in values if v is not None])
            print(people, draw, name, found[name][-1], flush=True)
    print(f"| labels of {people} people, {draws} draws | macro AUROC | macro F1 |\n|---|---|---|")
    cells = {name: np.array(values).T for name, values in found.items()}
    for name, (auroc, f1) in cells.items():
        print(f"| {name} | {interval(auroc)} | {interval(f1)} |")
    *rest, last = cells
    for name in rest:
        auroc, f1 = cells[last] - cells[name]
        print(f"| all − {name} | {interval(auroc, '+')} | {interval(f1, '+')} |")


def _drawn(patients: NDArray, y: NDArray, train: list[str], people: int, draw: int) -> list[str]:
    """So many training patients that have beats of all classes between them."""
    rng = np.random.default_rng(draw)
    while True:
        kept = list(rng.permutation(train)[:people])
        if set(y[np.isin(patients, kept) & (y >= 0)].tolist()) == {0, 1, 2}:
            return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("digits", "ecg"))
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--pretrain", type=int, default=300)
    parser.add_argument("--tune", type=int, default=200)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--people", type=int, default=3)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.what == "digits":
        digits(asked.seeds, asked.pretrain, asked.tune)
    elif asked.run is None or asked.out is None:
        parser.error("ecg needs --run, a pretrained run on ECGs, and --out")
    else:
        ecg(asked.run, asked.out, asked.seeds, asked.people, asked.tune)


if __name__ == "__main__":
    main()
