"""Beats by a released encoder beside hand-crafted features: chosen inside, judged outside.

    python benchmarks/biosignals/mitbih_nested.py --train DS1 --out nested [--draws 3]

Five folds of patients, drawn again for each draw. On the training people of a fold everything is
chosen by a cross-validation of its own over people (`INNER` folds, macro F1): which features stand
beside each other, and how long the encoder's window is. Then the chosen ones are fitted on all of
these people and judged on the fold's test people, who took no part in any choice: such a figure is
one that other people of the same kind can repeat. Beside it stand hand-crafted features alone.

The encoder is not trained here. It sees a window centred on the beat; its features are also taken
relative to their median over the recording, which needs no label.
"""

from __future__ import annotations

import argparse
import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from mitbih_table import PUBLIC_KEY, cell, per_record, thinned
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold

from medcl.archive.index import build
from medcl.embeddings import linear
from medcl.embeddings.embeddings import embed, features
from medcl.labels.target import Target, target
from medcl.metrics.bootstrap import bootstrap
from medcl.metrics.measures import measure
from medcl.metrics.metrics import once
from medcl.plugin import Samples
from medcl.recipe import given
from medcl.run import Run, load_samples
from medcl_biosignals.baselines import handcrafted
from medcl_biosignals.plugin import plugin

TASK, OUTER, INNER = "aami-nsv", 5, 3
SECONDS = (1.0, 3.0)
Floats = NDArray[np.float32]
HAND = "hand-crafted"


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


def groups_of(
    archive: Path, out: Path, encoder: str
) -> tuple[dict[str, tuple[Floats, ...]], Target, NDArray]:
    """Candidates by name, the classes of the beats, and their patients (N,)."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "public.key").write_text(PUBLIC_KEY)
    build(archive, out / "index", plugin, key_file=out / "public.key")
    run = Run.open(Path(encoder))
    candidates: dict[str, tuple[Floats, ...]] = {}
    beats = given("mitbih", ())
    samples = load_samples(beats, out / "index", task=TASK)
    truth = target(plugin.tasks[TASK], samples)
    known = np.flatnonzero(truth.known)
    wanted = centres(samples.at(known), float(beats.dataset["seconds"]))
    hand = features(handcrafted, samples.at(known), label=HAND)
    candidates[HAND] = (hand,)
    for seconds in SECONDS:
        recipe = run.recipe.model_copy(
            update={"dataset": {"kind": "beat", "seconds": seconds, "scale": "none"}}
        )
        windows = load_samples(recipe, out / "index", task=TASK)
        mine = windows.at(nearest(centres(windows, seconds), wanted))
        z = embed(run.encoder(), mine, label=f"{seconds:g} s").x
        relative = per_record(z, np.asarray(mine.items))
        candidates[f"{encoder} {seconds:g} s + {HAND}"] = (z, hand)
        candidates[f"{encoder} {seconds:g} s, relative + {HAND}"] = (relative, hand)
    return candidates, truth.at(known), np.asarray(samples.patients)[known]


def main() -> None:
    """Choose inside, judge outside, and print both figures with what was chosen."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--encoder", default="ecg-small")
    parser.add_argument("--draws", type=int, default=3)
    asked = parser.parse_args()
    candidates, truth, patients = groups_of(asked.train, asked.out, asked.encoder)
    y = truth.y

    def predicted(name: str, train: NDArray, test: NDArray) -> Floats:
        columns, blocks = linear.concatenated(candidates[name])
        some = train[thinned(y[train], patients[train], 0)]
        model = linear.fit(columns[some], truth.at(some), patients[some], blocks=blocks)
        return model.predict(columns[test])

    def f1(at: NDArray, scores: Floats) -> float:
        return float(measure("multiclass", y[at], scores, once(len(at)))["f1"][0])

    chosen: Counter[str] = Counter()
    rows: Sequence[str] = (HAND, "chosen inside", *(n for n in candidates if n != HAND))
    drawn: dict[str, list[Floats]] = {name: [] for name in rows}
    for draw in range(asked.draws):
        found = {name: np.zeros((len(y), 3), np.float32) for name in rows}
        outer = GroupKFold(OUTER, shuffle=True, random_state=draw)
        for fold, (train, test) in enumerate(outer.split(y, y, patients)):
            inner = GroupKFold(INNER, shuffle=True, random_state=draw)
            scores: dict[str, list[float]] = {name: [] for name in candidates}
            for i, j in inner.split(train, y[train], patients[train]):
                for name in candidates:
                    held_out = train[j]
                    scores[name].append(f1(held_out, predicted(name, train[i], held_out)))
            best = max(scores, key=lambda name: float(np.mean(scores[name])))
            chosen[best] += 1
            for name in candidates:
                found[name][test] = predicted(name, train, test)
            found["chosen inside"][test] = found[best][test]
            inside = {name: round(float(np.mean(v)), 3) for name, v in scores.items()}
            print(f"draw {draw}, fold {fold}: {best}; inside {inside}", flush=True)
        for name in rows:
            drawn[name].append(found[name])
    print("| features | macro F1, each draw | macro F1 | macro AUROC |\n|---|---|---|---|")
    resampled = {}
    for name, several in drawn.items():
        each = ", ".join(f"{f1(np.arange(len(y)), scores):.3f}" for scores in several)
        mean = np.mean(several, axis=0)
        resampled[name] = bootstrap(partial(measure, "multiclass", y, mean), patients)
        cells = " | ".join(cell(resampled[name].interval(m)) for m in ("f1", "auroc"))
        print(f"| {name} | {each} | {cells} |")
    for name in rows[1:]:
        pair = (resampled[name].minus(resampled[HAND], m) for m in ("f1", "auroc"))
        print(f"| {name} − {HAND} | | {' | '.join(cell(i, '+') for i in pair)} |")
    print("chosen:", dict(chosen))
    with (asked.out / "chosen.csv").open("w", newline="") as handle:
        csv.writer(handle).writerows(chosen.items())


if __name__ == "__main__":
    main()
