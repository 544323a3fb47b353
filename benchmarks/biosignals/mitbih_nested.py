"""Beats by a released encoder beside hand-crafted features: chosen inside, judged outside.

    python benchmarks/biosignals/mitbih_nested.py --train DS1 --out nested [--draws 3] [--test DS2]

Five folds of patients, drawn again for each draw. On the training people of a fold everything is
chosen by a cross-validation of its own over people (`INNER` folds, macro F1): which features stand
beside each other, and how long the encoder's window is. Then the chosen ones are fitted on all of
these people and judged on the fold's test people, who took no part in any choice: such a figure is
one that other people of the same kind can repeat. Beside it stand hand-crafted features alone, and
the same network with random weights, which is never chosen. With ``--test``, the choice is made on
all people of ``--train``, and judged on those.

The encoder is not trained here. It sees a window centred on the beat; its features are also taken
relative to their median over the recording, which needs no label.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from mitbih_table import PER_CLASS, PUBLIC_KEY, cell
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold

from medcl.archive.index import build
from medcl.benchmark.fitting import thinned
from medcl.embeddings import linear
from medcl.embeddings.embeddings import embed, features
from medcl.embeddings.relative import relative
from medcl.labels.target import Target, target
from medcl.metrics.bootstrap import bootstrap
from medcl.metrics.measures import measure
from medcl.metrics.metrics import once
from medcl.plugin import Samples
from medcl.recipe import given
from medcl.run import Run, build_encoder, load_samples
from medcl_biosignals.baselines import handcrafted
from medcl_biosignals.plugin import plugin

TASK, OUTER, INNER = "aami-nsv", 5, 3
SECONDS = (1.0, 3.0)
Floats = NDArray[np.float32]
HAND, UNTRAINED, CHOSEN = "hand-crafted", "untrained", "chosen inside"


def centres(samples: Samples, seconds: float) -> dict[str, NDArray]:
    """Item → positions of its beats at 100 Hz, in order; samples are in that order."""
    found: dict[str, list[float]] = {}
    for name in samples.ids:
        item, _, start = name.rpartition(":")
        found.setdefault(item, []).append(int(start) + 50 * seconds)
    return {item: np.asarray(at) for item, at in found.items()}


def nearest(there: Mapping[str, NDArray], wanted: Mapping[str, NDArray]) -> NDArray[np.int64]:
    """Positions of the samples whose beats are those wanted: leads differ, and so do R peaks.

    Raises:
        ValueError: if one is farther than 0.15 s.
    """
    first = dict(zip(there, np.cumsum([0, *map(len, there.values())]).tolist(), strict=False))
    out = []
    for item, at in wanted.items():
        distance = np.abs(there[item][None] - at[:, None])
        if distance.min(axis=1).max() > 15:
            raise ValueError(f"{item}: a beat of the labels is not among the encoder's.")
        out.append(first[item] + distance.argmin(axis=1))
    return np.concatenate(out)


@dataclass(frozen=True)
class Beats:
    """Labelled beats of an archive, and groups of features by name."""

    groups: dict[str, tuple[Floats, ...]]
    truth: Target
    patients: NDArray


def read(archive: Path, out: Path, encoder: str) -> Beats:
    """Index an archive and compute all features of its labelled beats."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "public.key").write_text(PUBLIC_KEY)
    build(archive, out / "index", plugin, key_file=out / "public.key")
    run = Run.open(Path(encoder))
    beats = given("mitbih", ())
    samples = load_samples(beats, out / "index", task=TASK)
    truth = target(plugin.tasks[TASK], samples)
    known = np.flatnonzero(truth.known)
    wanted = centres(samples.at(known), float(beats.dataset["seconds"]))
    hand = features(handcrafted, samples.at(known), label=HAND)
    groups: dict[str, tuple[Floats, ...]] = {HAND: (hand,)}
    for seconds in SECONDS:
        recipe = run.recipe.model_copy(
            update={"dataset": {"kind": "beat", "seconds": seconds, "scale": "none"}}
        )
        windows = load_samples(recipe, out / "index", task=TASK)
        mine = windows.at(nearest(centres(windows, seconds), wanted))
        items = np.asarray(mine.items)
        for name, network in (
            (encoder, run.encoder()),
            (UNTRAINED, build_encoder(run.recipe, 0).eval()),
        ):
            z = embed(network, mine, label=f"{name}, {seconds:g} s").x
            usual = relative(z, items)
            groups[f"{name} {seconds:g} s + {HAND}"] = (z, hand)
            groups[f"{name} {seconds:g} s, relative + {HAND}"] = (usual, hand)
    return Beats(groups, truth.at(known), np.asarray(samples.patients)[known])


def predicted(beats: Beats, name: str, train: NDArray, of: Beats, test: NDArray) -> Floats:
    """Probabilities (M, C) of test beats by a linear classifier of training beats."""
    some = train[thinned(beats.truth.y[train], beats.patients[train], PER_CLASS, seed=0)]
    columns, blocks = linear.concatenated([group[some] for group in beats.groups[name]])
    model = linear.fit(columns, beats.truth.at(some), beats.patients[some], blocks=blocks)
    return model.predict(linear.concatenated([group[test] for group in of.groups[name]])[0])


def f1(truth: Target, at: NDArray, scores: Floats) -> float:
    """Macro F1 of some beats."""
    return float(measure(truth.kind, truth.y[at], scores, once(len(at)))["f1"][0])


def choose(beats: Beats, train: NDArray, draw: int) -> tuple[str, dict[str, float]]:
    """The best features by a cross-validation over the patients of ``train``, and all figures."""
    scores: dict[str, list[float]] = defaultdict(list)
    folds = GroupKFold(INNER, shuffle=True, random_state=draw)
    for i, j in folds.split(train, groups=beats.patients[train]):
        for name in beats.groups:
            if not name.startswith(UNTRAINED):
                made = predicted(beats, name, train[i], beats, train[j])
                scores[name].append(f1(beats.truth, train[j], made))
    mean = {name: round(float(np.mean(several)), 3) for name, several in scores.items()}
    return max(mean, key=lambda name: mean[name]), mean


def main() -> None:
    """Choose inside, judge outside, and print both figures with what was chosen."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--test", type=Path)
    parser.add_argument("--encoder", default="ecg-small")
    parser.add_argument("--draws", type=int, default=3)
    asked = parser.parse_args()
    beats = read(asked.train, asked.out / "train", asked.encoder)
    everyone = np.arange(len(beats.patients))
    chosen: Counter[str] = Counter()
    rows = (HAND, CHOSEN, *(name for name in beats.groups if name != HAND))
    drawn: dict[str, list[Floats]] = {name: [] for name in rows}
    for draw in range(asked.draws):
        found = {name: np.zeros((len(everyone), 3), np.float32) for name in rows}
        outer = GroupKFold(OUTER, shuffle=True, random_state=draw)
        for fold, (train, test) in enumerate(outer.split(everyone, groups=beats.patients)):
            best, inside = choose(beats, train, draw)
            chosen[best] += 1
            for name in beats.groups:
                found[name][test] = predicted(beats, name, train, beats, test)
            found[CHOSEN][test] = found[best][test]
            print(f"draw {draw}, fold {fold}: {best}; inside {inside}", flush=True)
        for name in rows:
            drawn[name].append(found[name])
    print(f"Chosen: {dict(chosen)}\n")
    show(drawn, beats.truth, beats.patients)
    if asked.test is not None:
        others = read(asked.test, asked.out / "test", asked.encoder)
        best, inside = choose(beats, everyone, 0)
        at = np.arange(len(others.patients))
        made = {name: predicted(beats, name, everyone, others, at) for name in beats.groups}
        print(f"\nOn {asked.test.name}, {best} chosen on {asked.train.name}; inside {inside}\n")
        once_each = {name: [scores] for name, scores in (made | {CHOSEN: made[best]}).items()}
        show(once_each, others.truth, others.patients)


def show(drawn: dict[str, list[Floats]], truth: Target, patients: NDArray) -> None:
    """Print figures and differences to hand-crafted features, of the mean over the draws."""
    print("| features | macro F1, each draw | macro F1 | macro AUROC |\n|---|---|---|---|")
    resampled = {}
    for name, several in drawn.items():
        at = np.arange(len(patients))
        each = ", ".join(f"{f1(truth, at, scores):.3f}" for scores in several)
        mean = np.mean(several, axis=0)
        resampled[name] = bootstrap(partial(measure, truth.kind, truth.y, mean), patients)
        cells = " | ".join(cell(resampled[name].interval(m)) for m in ("f1", "auroc"))
        print(f"| {name} | {each} | {cells} |")
    for name in drawn:
        if name != HAND:
            pair = (resampled[name].minus(resampled[HAND], m) for m in ("f1", "auroc"))
            print(f"| {name} − {HAND} | | {' | '.join(cell(i, '+') for i in pair)} |")


if __name__ == "__main__":
    main()
