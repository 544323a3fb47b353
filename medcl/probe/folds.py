"""From runs to out-of-patient predictions: every representation, fitted on training patients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medcl.archive.splits import assert_disjoint
from medcl.embeddings import linear
from medcl.embeddings.embeddings import embed, features
from medcl.embeddings.knn import knn
from medcl.errors import UsageError
from medcl.labels.target import Target
from medcl.metrics.metrics import Floats
from medcl.plugin import Samples
from medcl.probe import label_efficiency
from medcl.probe.result import PRETRAINED, RANDOM
from medcl.registry import lookup
from medcl.run import Run

LINEAR, KNN = "linear", "knn"


@dataclass(frozen=True)
class Fold:
    """One run, and which samples it may learn from and is judged on (positions)."""

    run: Run
    train: NDArray[np.int64]
    test: NDArray[np.int64]


@dataclass(frozen=True)
class Partly:
    """Predictions (n, C) of a linear classifier that saw some of the labels."""

    patients: int
    samples: int
    scores: NDArray[np.float32]


@dataclass(frozen=True)
class Predicted:
    """Predictions of one representation for one fold's test samples.

    Attributes:
        width: features a sample.
        scores: classifier → (n, C).
        c: regularisation of the linear classifier.
        c_chosen: whether it could be chosen.
        labelled: (fraction, draw) → predictions from that part of the labels.
    """

    width: int
    scores: dict[str, NDArray[np.float32]]
    c: tuple[float, ...]
    c_chosen: bool
    labelled: dict[tuple[float, int], Partly]


def folds(runs: Sequence[Run], patients: NDArray, *, unseen: str = "") -> list[Fold]:
    """Training and test samples of every run.

    Args:
        runs: of one recipe.
        patients: (N,) whose sample each is.
        unseen: the side of patients who are not in a run's split: "test", or "" for neither.

    Raises:
        UsageError: if the runs are not folds of one recipe, a patient is tested twice, or there
            is nobody to train on or to test.
    """
    first = _without_fold(runs[0])
    out: list[Fold] = []
    tested: set[str] = set()
    for run in runs:
        if _without_fold(run) != first:
            raise UsageError(
                f"{run.path} and {runs[0].path} differ in more than split.fold: "
                "only folds of one recipe can be pooled."
            )
        side = run.split()
        sides = np.array([side.get(p, unseen) for p in patients])
        fold = Fold(run, np.flatnonzero(sides == "train"), np.flatnonzero(sides == "test"))
        for name, positions in (("training", fold.train), ("test", fold.test)):
            if not len(positions):
                raise UsageError(
                    f"{run.path}: no labelled sample belongs to its {name} patients. "
                    "Does the task's dataset leave any?"
                )
        mine = set(patients[fold.test].tolist())
        if tested & mine:
            raise UsageError(
                f"{run.path}: {len(tested & mine)} of its test patients are tested by another of "
                "the runs too. Give one run per fold."
            )
        tested |= mine
        assert_disjoint(patients[fold.train].tolist(), mine)
        out.append(fold)
    return out


def _without_fold(run: Run) -> dict[str, object]:
    raw = run.recipe.model_dump(mode="json")
    raw["split"].pop("fold")
    return raw


def fixed_features(
    run: Run, samples: Samples, *, batch_size: int, device: str
) -> dict[str, NDArray[np.float32]]:
    """What does not depend on training: the random encoder, and the hand-crafted baselines."""
    encoder = run.encoder(trained=False)
    made = {RANDOM: embed(encoder, samples, batch_size=batch_size, device=device, label=RANDOM).x}
    names = run.recipe.probe.baselines
    for name in run.plugin.baselines if names is None else names:
        baseline = lookup(run.plugin.baselines, name, "baseline")
        made[name] = features(baseline, samples, batch_size=batch_size, label=name)
    return made


def representations(
    pretrained: Floats, fixed: Mapping[str, Floats]
) -> Iterator[tuple[str, tuple[Floats, ...]]]:
    """All that are compared, by name: each baseline also put beside the pretrained features."""
    yield PRETRAINED, (pretrained,)
    for name, x in fixed.items():
        yield name, (x,)
    for name, x in fixed.items():
        if name != RANDOM:
            yield f"{PRETRAINED} + {name}", (pretrained, x)


def predict(
    parts: Sequence[Floats],
    truth: Target,
    patients: NDArray,
    fold: Fold,
    *,
    fractions: Sequence[float],
    seed: int,
) -> Predicted:
    """Fit both classifiers on the fold's training samples and predict its test samples.

    Before the nearest neighbours are sought, features are standardised and groups of them weighted
    like those of the linear classifier: a cosine over hand-crafted features of different units would
    only see the largest.

    Args:
        parts: (N, D) features of all samples; several are put side by side, with equal weight.
        truth: of all samples.
        patients: (N,).
        fold: who is fitted and who is predicted.
        fractions: of labelled training patients, for the curve; 1 is the full prediction.
        seed: of folds and draws.
    """
    y, groups = truth.at(fold.train), patients[fold.train]
    x, blocks = linear.beside(parts)
    fitting, judged = x[fold.train], x[fold.test]
    model = linear.fit(fitting, y, groups, blocks=blocks, seed=seed)
    mean, std = fitting.mean(0), fitting.std(0)
    std[std == 0] = 1
    std /= linear.block_weights(blocks)
    votes = knn((judged - mean) / std, (fitting - mean) / std, y.columns())
    scores = {LINEAR: model.predict(judged), KNN: votes}
    labelled: dict[tuple[float, int], Partly] = {}
    for draw in range(label_efficiency.DRAWS):
        for part in label_efficiency.subsets(
            y, groups, [f for f in fractions if f < 1], seed=seed + draw
        ):
            at = part.positions
            some = linear.fit(fitting[at], y.at(at), groups[at], blocks=blocks, seed=seed)
            labelled[part.fraction, draw] = Partly(part.patients, len(at), some.predict(judged))
    if 1 in fractions:
        labelled[1.0, 0] = Partly(len(np.unique(groups)), len(y), scores[LINEAR])
    return Predicted(x.shape[1], scores, model.c, model.chosen, labelled)


def pool(made: Sequence[Mapping[str, Predicted]], rep: str, classifier: str) -> NDArray[np.float32]:
    """All folds' predictions, in the folds' order."""
    return np.concatenate([fold[rep].scores[classifier] for fold in made])
