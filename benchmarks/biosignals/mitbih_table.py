"""Beats of unseen patients into AAMI classes: pretrained, random, supervised, hand-crafted.

    python benchmarks/biosignals/mitbih_table.py --train DS1 --out table [--steps 500]
    python benchmarks/biosignals/mitbih_table.py --train DS1 --test DS2 --out table

With ``--train`` alone, five folds of its patients: pretrained without labels on the training
patients of each fold, every patient predicted once, by the fold that did not see them. This is
repeated with other folds, ``--repeats`` times, and figures are means over the repeats (each figure
is measured in each repeat; a resample of patients is the same one in all). With ``--test``, the
standard inter-patient table (de Chazal 2004, doi 10.1109/TBME.2004.827359): pretrained and fitted
on all of the one, judged on all of the other. There, patients are records, as in the standard: 201
(DS1) and 202 (DS2) are one man.

Everything is kept in ``--out`` and not made twice. Features put side by side have equal weight
(`medcl.embeddings.linear`). Linear classifiers are fitted on at most
`PER_CLASS` beats of each class and patient, all beats of test patients are judged, and intervals
are over patients. "per record" features are taken relative to the recording's own beats (median and
spread over the recording, no label used), which needs the recording as a whole.

"three seeds" are means of figures, as over repeats, of encoders from three first weights (asked for
by ``--methods``). "mean of" are the means of several classifiers' probabilities (deep ensembles:
Lakshminarayanan 2017, arXiv 1612.01474), which no test label has a say in either. Averaging helps
whatever is averaged: hence those of hand-crafted features alone, and of them and the random
encoder.

"all people" are encoders pretrained once, without labels, on everybody, test patients too: what
somebody does who has an archive and few labels for it. Classifiers are still fitted on training
patients alone. These rows say nothing about people of another archive, the others do.
"""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import nn

from medcl import recipe as recipes
from medcl.archive.index import build
from medcl.benchmark.fitting import thinned
from medcl.embeddings import linear
from medcl.embeddings.embeddings import embed, features
from medcl.embeddings.relative import relative
from medcl.engine.pretrain import pretrain
from medcl.labels.target import Target, target
from medcl.metrics import metrics
from medcl.metrics.bootstrap import Interval, Resampled, bootstrap
from medcl.metrics.measures import measure
from medcl.metrics.metrics import Counted
from medcl.plugin import Samples
from medcl.probe import label_efficiency
from medcl.recipe import Recipe
from medcl.registry import resolve
from medcl.run import Run, build_encoder, load_samples
from medcl_biosignals.baselines import handcrafted
from medcl_biosignals.plugin import plugin

# Beats of one person are the negatives that count: telling people apart is not asked.
_SIMCLR = "method={name: simclr, positives: instance, temperature: 0.1, mask_same_patient: false}"
METHODS = {
    "simclr": [_SIMCLR],
    "participant": ["method={name: participant}"],
    "hybrid": ["method={name: participant, instance: 0.5}"],
    "alike-beats": [],  # the recipe's own
}
AGAIN = {f"simclr, seed {seed}": [_SIMCLR, f"seed={seed}"] for seed in (1, 2)}
"""From other first weights; not made unless asked for."""
MEANS = (("simclr", "alike-beats"), tuple(METHODS), ("simclr", *AGAIN))
"""Objectives whose classifiers' probabilities are averaged, if all of them are asked for."""
MEAN_OF_HAND_CRAFTED = "mean of hand-crafted and hand-crafted, per record"
HAND_GROUPS = "hand-crafted, its RR weighed like the rest"
MEAN_BASES = ("hand-crafted", MEAN_OF_HAND_CRAFTED, "mean of random + RR, hand-crafted")
PUBLIC_KEY = "MIT-BIH is public: this key hides nothing"
SUPERVISED = "supervised from scratch"
FRACTIONS = (0.01, 0.1, 1.0)
PER_CLASS = 200
Floats = NDArray[np.float32]
Scores = dict[float, list[Floats]]  # label fraction → one (n, C) a draw


def index(train: Path, test: Path | None, out: Path) -> Path:
    """Index the archive; of two, a folder that links to both, with a column that says which."""
    out.mkdir(parents=True, exist_ok=True)
    key = out / "public.key"
    key.write_text(PUBLIC_KEY)
    if test is None:
        build(train, out / "index", plugin, key_file=key)
        return out / "index"
    rows = []
    for part, folder in (("train", train), ("test", test)):
        (out / "archive" / part).mkdir(parents=True, exist_ok=True)
        for file in folder.iterdir():
            if file.is_file() and not (copy := out / "archive" / part / file.name).exists():
                _link(file, copy)
        names = sorted(file.stem for file in folder.glob("*.hea"))
        rows += [(f"{part}/{name}", f"{part}/{name}", part) for name in names]
    pl.DataFrame(rows, ["key", "patient", "part"], orient="row").write_csv(out / "parts.csv")
    build(out / "archive", out / "index", plugin, key_file=key, table=out / "parts.csv")
    return out / "index"


def _link(file: Path, copy: Path) -> None:
    try:
        os.link(file, copy)
    except OSError:  # another disk
        shutil.copy(file, copy)


def recipe_of(
    method: str, fold: int, folds: int | None, steps: int, more: Sequence[str], repeat: int = 0
) -> Recipe:
    """`mitbih` with another method, one fold (of each repeat others) or the given parts."""
    if folds is None:
        split = ["split.given=label.part"]
    else:
        split = [f"split.fold={fold}", f"split.seed={repeat}"]
    own = (METHODS | AGAIN)[method]
    return recipes.load("mitbih", [*split, f"trainer.steps={steps}", *own, *more])


def run_of(recipe: Recipe, data: Path, out: Path) -> Run:
    """A finished run is taken as it is, another one (further) trained."""
    return Run.open(out) if (out / "encoder.safetensors").is_file() else pretrain(recipe, data, out)


def labelled(
    truth: Target, patients: NDArray, seed: int, draws: int
) -> Iterator[tuple[float, NDArray[np.int64]]]:
    """(fraction, positions) of training samples: nested draws of patients, all of them once."""
    partly = [fraction for fraction in FRACTIONS if fraction < 1]
    for draw in range(draws):
        for part in label_efficiency.subsets(truth, patients, partly, seed=seed + draw):
            yield part.fraction, part.positions
    yield 1.0, np.arange(len(truth))


def probed(
    groups: Sequence[Floats], truth: Target, patients: NDArray, train: NDArray, test: NDArray
) -> Scores:
    """A linear classifier from each share of the labels; groups of features have equal weight."""
    x, blocks = linear.concatenated(groups)
    found: Scores = {}
    for fraction, at in labelled(truth.at(train), patients[train], 0, label_efficiency.DRAWS):
        some = train[at]
        some = some[thinned(truth.y[some], patients[some], PER_CLASS, seed=0)]
        model = linear.fit(x[some], truth.at(some), patients[some], blocks=blocks)
        found.setdefault(fraction, []).append(model.predict(x[test]))
    return found


def supervised(
    recipe: Recipe,
    samples: Samples,
    truth: Target,
    patients: NDArray,
    train: NDArray,
    test: NDArray,
    steps: int,
) -> Scores:
    """The recipe's encoder and views, trained from scratch with labels; one draw of each share."""
    found: Scores = {}
    for fraction, at in labelled(truth.at(train), patients[train], 0, 1):
        model = from_scratch(recipe, samples, truth, train[at], steps)
        scores = features(partial(_classified, model), samples.at(test), label="supervised")
        found[fraction] = [scores]
    return found


def from_scratch(
    recipe: Recipe, samples: Samples, truth: Target, train: NDArray, steps: int
) -> nn.Module:
    """Cross-entropy on batches that hold every class equally often; AdamW, cosine."""
    encoder = build_encoder(recipe, recipe.seed)
    torch.manual_seed(recipe.seed)
    model = nn.Sequential(encoder, nn.Linear(int(encoder.width), len(truth.classes)))  # type: ignore[arg-type]
    views = resolve(plugin.views)(**recipe.views)
    generator = torch.Generator().manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    of_class = [train[truth.y[train] == c] for c in np.unique(truth.y[train])]
    for _ in range(steps):
        chosen = rng.integers(0, len(of_class), recipe.trainer.batch_size)
        at = np.array([rng.choice(of_class[c]) for c in chosen])
        x = views(torch.from_numpy(samples.read(at)["x"]), generator)
        loss = nn.functional.cross_entropy(model(x), torch.from_numpy(truth.y[at]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


@torch.inference_mode()
def _classified(model: nn.Module, batch: Mapping[str, np.ndarray]) -> np.ndarray:
    return model(torch.from_numpy(batch["x"])).softmax(1).numpy()


def kept(path: Path, make: Callable[[], Scores]) -> Scores:
    """What `make` gives, from the file if it was made before."""
    if path.is_file():
        with np.load(path, allow_pickle=False) as saved:
            return {f: list(saved[str(f)]) for f in FRACTIONS}
    found = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **{str(f): np.stack(draws) for f, draws in found.items()})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--test", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=1, help="of the folds, drawn anew")
    parser.add_argument("--task", default="aami", choices=sorted(plugin.tasks))
    usual = [*METHODS, SUPERVISED]
    parser.add_argument("--methods", nargs="+", default=usual, choices=[*usual, *AGAIN])
    parser.add_argument("--everyone", nargs="*", default=["alike-beats"], choices=list(METHODS))
    parser.add_argument("--set", nargs="*", default=[], help="recipe overrides, for every method")
    asked = parser.parse_args()
    if asked.test and asked.repeats > 1:
        parser.error("--repeats draws other folds: with --test there are none")

    data = index(asked.train, asked.test, asked.out)
    folds = None if asked.test else 5
    first = recipe_of("alike-beats", 0, folds, asked.steps, asked.set)
    samples = load_samples(first, data, task=asked.task)
    truth = target(plugin.tasks[asked.task], samples)
    known = np.flatnonzero(truth.known)
    samples, truth = samples.at(known), truth.at(known)
    patients, items = np.asarray(samples.patients), np.asarray(samples.items)
    context = np.concatenate(
        [samples.read(at)["rr"] for at in np.array_split(np.arange(len(samples)), 64)]
    )
    fixed = {
        "random": embed(build_encoder(first, first.seed), samples, label="random").x,
        "hand-crafted": features(handcrafted, samples, label="hand-crafted"),
    }
    for method in asked.everyone:
        settings = [*asked.set, "split.pretrain=all"]
        recipe = recipe_of(method, 0, folds, asked.steps, settings)
        run = run_of(recipe, data, asked.out / "runs" / method / "all-people")
        fixed[f"{method}, all people"] = embed(run.encoder(), samples, label=f"{method}, all").x

    scores: dict[str, list[Scores]] = {}
    for repeat in range(asked.repeats):
        parts: dict[str, list[Scores]] = {}
        tested: list[NDArray] = []
        for fold in range(folds or 1):
            where = f"fold{fold}" if repeat == 0 else f"repeat{repeat}-fold{fold}"
            runs = {
                method: run_of(
                    recipe_of(method, fold, folds, asked.steps, asked.set, repeat),
                    data,
                    asked.out / "runs" / method / where,
                )
                for method in asked.methods
                if method != SUPERVISED
            }
            side = next(iter(runs.values())).split()
            sides = np.array([side.get(p, "") for p in patients])
            train, test = np.flatnonzero(sides == "train"), np.flatnonzero(sides == "test")
            tested.append(test)
            made = {
                m: embed(r.encoder(), samples, label=f"{m}, {where}").x for m, r in runs.items()
            }
            for name, groups in representations({**made, **fixed}, context, items):
                file = asked.out / "scores" / asked.task / name / f"{where}.npz"
                work = partial(probed, groups, truth, patients, train, test)
                parts.setdefault(name, []).append(kept(file, work))
            if SUPERVISED in asked.methods:
                file = asked.out / "scores" / asked.task / SUPERVISED / f"{where}.npz"
                work = partial(
                    supervised, first, samples, truth, patients, train, test, asked.steps
                )
                parts.setdefault(SUPERVISED, []).append(kept(file, work))
        order = np.argsort(np.concatenate(tested))
        for name, folded in parts.items():
            scores.setdefault(name, []).append(pooled(folded, order))
    if set(AGAIN) <= set(asked.methods):
        for beside in ("", " + RR", " + RR + hand-crafted"):
            seeds = [scores[f"{method}{beside}"] for method in ("simclr", *AGAIN)]
            scores[f"simclr, three seeds{beside}"] = [one for seed in seeds for one in seed]
    scores |= averaged(scores, [m for m in asked.methods if m != SUPERVISED])
    judged = np.sort(np.concatenate(tested))
    report(scores, truth.at(judged), patients[judged])


def pooled(folds: Sequence[Scores], order: NDArray) -> Scores:
    """All folds' predictions, in the order of the samples: the same in every repeat."""
    return {
        share: [
            np.concatenate(draws)[order] for draws in zip(*(f[share] for f in folds), strict=True)
        ]
        for share in FRACTIONS
    }


def averaged(scores: Mapping[str, list[Scores]], methods: Sequence[str]) -> dict[str, list[Scores]]:
    """Means of several classifiers' probabilities: of encoders, and with hand-crafted."""
    rows = {MEAN_OF_HAND_CRAFTED: ("hand-crafted", "hand-crafted, per record")}
    for name in (*(m for m in methods if m not in AGAIN), "random"):
        members = (f"{name} + RR", "hand-crafted")
        rows[f"mean of {name} + RR, hand-crafted"] = members
        both = (*members, *(f"{one}, per record" for one in members))
        rows[f"mean of {name} + RR, hand-crafted, both also per record"] = both
    for group in MEANS:
        if set(group) <= set(methods):
            rows[f"mean of {', '.join(group)}, each + RR"] = tuple(f"{m} + RR" for m in group)
    return {
        name: [_mean(parts) for parts in zip(*(scores[one] for one in members), strict=True)]
        for name, members in rows.items()
    }


def _mean(parts: Sequence[Scores]) -> Scores:
    """Draw by draw: all members were fitted on the same ones."""
    return {
        share: [np.mean(d, axis=0) for d in zip(*(part[share] for part in parts), strict=True)]
        for share in FRACTIONS
    }


def representations(
    made: Mapping[str, Floats], context: Floats, items: NDArray
) -> Iterator[tuple[str, tuple[Floats, ...]]]:
    """Hand-crafted features; each encoder alone, with the four interval ratios, and with both."""
    hand = made["hand-crafted"]
    usual = relative(hand, items)
    yield "hand-crafted", (hand,)
    yield "hand-crafted, per record", (usual,)
    yield HAND_GROUPS, (hand[:, : context.shape[1]], hand[:, context.shape[1] :])
    for name, x in made.items():
        if name == "hand-crafted":
            continue
        mine = relative(x, items)
        yield name, (x,)
        yield f"{name}, per record", (mine,)
        yield f"{name} + RR", (x, context)
        yield f"{name} + RR, per record", (mine, context)
        yield f"{name} + RR + hand-crafted", (x, context, hand)
        yield f"{name} + RR + hand-crafted, per record", (mine, context, usual)


def mean_measure(truth: Target, scores: Sequence[Floats], weight: Counted) -> metrics.Measures:
    """Each figure's mean over several predictions of the same samples."""
    found = [measure(truth.kind, truth.y, one, weight) for one in scores]
    return {name: np.mean([one[name] for one in found], axis=0) for name in found[0]}


def report(scores: Mapping[str, list[Scores]], truth: Target, patients: NDArray) -> None:
    """Print Markdown: macro figures, classes, label shares, and what is paired with what."""
    resampled: dict[str, Resampled] = {}
    print(f"{len(np.unique(patients))} patients, {len(truth)} beats:", end=" ")
    print(", ".join(f"{c} {(truth.y == i).sum()}" for i, c in enumerate(truth.classes)))
    seen = [c for i, c in enumerate(truth.classes) if (truth.y == i).any()]
    shares = [f"F1 at {share:.0%}" for share in FRACTIONS[:-1]]
    head = ["features", "macro F1", "macro AUROC", *(f"{c} Se / PPV" for c in seen), *shares]
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for name, repeats in scores.items():
        every = [scores_of[1.0][0] for scores_of in repeats]
        found = bootstrap(partial(mean_measure, truth, every), patients)
        resampled[name] = found
        cells = [cell(found.interval("f1")), cell(found.interval("auroc"))]
        for c in (truth.classes.index(name) for name in seen):
            pair = (found.interval(f"class_{n}", c) for n in ("sensitivity", "ppv"))
            cells.append(" / ".join(cell(one) for one in pair))
        for share in FRACTIONS[:-1]:
            draws = [draw for scores_of in repeats for draw in scores_of[share]]
            measured = mean_measure(truth, draws, metrics.once(len(truth)))
            cells.append(f"{measured['f1'][0]:.3f}")
        print("| " + " | ".join([name, *cells]) + " |")
    print("\n| paired, all labels | macro F1 | macro AUROC |\n|---|---|---|")
    for name in scores:
        for base in bases(name):
            if base in scores and base != name:
                one = [resampled[name].minus(resampled[base], m) for m in ("f1", "auroc")]
                print(f"| {name} − {base} | " + " | ".join(cell(i, "+") for i in one) + " |")


def bases(name: str) -> Sequence[str]:
    """What a row is compared with: random encoder beside the same, and hand-crafted features."""
    if name.startswith("mean of"):
        return MEAN_BASES
    relative = ", per record" if name.endswith(", per record") else ""
    _, _, beside = name.removesuffix(relative).partition(" + ")
    random = "random" + (f" + {beside}" if beside else "") + relative
    return (
        (random, "hand-crafted, per record") if relative else (random, "hand-crafted", HAND_GROUPS)
    )


def cell(i: Interval, sign: str = "") -> str:
    if i.value is None or i.low is None or i.high is None:
        return "–"
    return f"{i.value:{sign}.3f} [{i.low:{sign}.3f}, {i.high:{sign}.3f}]"


if __name__ == "__main__":
    main()
