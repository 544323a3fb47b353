"""From runs to out-of-patient predictions: every representation, fitted on training patients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medcl.archive.splits import assert_disjoint
from medcl.embeddings import linear
from medcl.embeddings.embeddings import embed, evenly, features
from medcl.embeddings.head import Head
from medcl.embeddings.knn import LARGEST_BANK, knn
from medcl.errors import UsageError
from medcl.labels.target import Target
from medcl.metrics.metrics import Floats
from medcl.nn.feature_groups import group_weights
from medcl.plugin import Samples
from medcl.probe import label_efficiency
from medcl.probe.result import PRETRAINED, RANDOM
from medcl.registry import lookup
from medcl.run import Run

LINEAR, KNN = "linear", "knn"


@dataclass(frozen=True)
class Fold:
    """One run, and the positions of its training and test samples."""

    run: Run
    train: NDArray[np.int64]
    test: NDArray[np.int64]


@dataclass(frozen=True)
class FewLabels:
    """Predictions (n, C) of a linear classifier fitted on a fraction of the labels."""

    patients: int
    samples: int
    scores: NDArray[np.float32]


@dataclass(frozen=True)
class Predicted:
    """Predictions of one representation for one fold's test samples.

    Attributes:
        width: features per sample.
        scores: classifier → (n, C).
        c: regularisation of the linear classifier.
        c_chosen: True if cross-validation chose it.
        labelled: (fraction, draw) → predictions from that fraction of the labels.
        head: the linear classifier itself.
    """

    width: int
    scores: dict[str, NDArray[np.float32]]
    c: tuple[float, ...]
    c_chosen: bool
    labelled: dict[tuple[float, int], FewLabels]
    head: Head


def folds(
    runs: Sequence[Run],
    patients: NDArray,
    *,
    unseen: str = "",
    split: Mapping[str, str] | None = None,
) -> list[Fold]:
    """Training and test samples of every run.

    Args:
        runs: of one recipe.
        patients: (N,) keys, one per sample.
        unseen: the part of patients outside a run's split: "test", or "" for none.
        split: patient → part, in place of the first run's own split.

    Raises:
        UsageError: if the runs are not folds of one recipe, a patient is tested twice, or there
            are no training or no test samples.
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
        part_of = run.split() if split is None or run is not runs[0] else split
        assigned = np.array([part_of.get(p, unseen) for p in patients])
        fold = Fold(run, np.flatnonzero(assigned == "train"), np.flatnonzero(assigned == "test"))
        for name, positions in (("training", fold.train), ("test", fold.test)):
            if not len(positions):
                raise UsageError(
                    f"{run.path}: no labelled sample belongs to its {name} patients. "
                    "Does the task's dataset exclude them?"
                )
        test_patients = set(patients[fold.test].tolist())
        if tested & test_patients:
            raise UsageError(
                f"{run.path}: {len(tested & test_patients)} of its test patients are also tested "
                "by another run. Give one run per fold."
            )
        tested |= test_patients
        assert_disjoint(patients[fold.train].tolist(), test_patients)
        out.append(fold)
    return out


def _without_fold(run: Run) -> dict[str, object]:
    raw = run.recipe.model_dump(mode="json")
    raw["split"].pop("fold")
    return raw


def fixed_features(
    run: Run, samples: Samples, *, batch_size: int, device: str
) -> dict[str, NDArray[np.float32]]:
    """Features independent of training: the random encoder's, and the hand-crafted baselines."""
    encoder = run.encoder(trained=False)
    features_of = {
        RANDOM: embed(encoder, samples, batch_size=batch_size, device=device, label=RANDOM).x
    }
    names = run.recipe.probe.baselines
    for name in run.plugin.baselines if names is None else names:
        baseline = lookup(run.plugin.baselines, name, "baseline")
        features_of[name] = features(baseline, samples, batch_size=batch_size, label=name)
    return features_of


def representations(
    pretrained: Floats, fixed: Mapping[str, Floats]
) -> Iterator[tuple[str, tuple[Floats, ...]]]:
    """All compared features, by name; each baseline also concatenated to the pretrained ones."""
    yield PRETRAINED, (pretrained,)
    for name, x in fixed.items():
        yield name, (x,)
    for name, x in fixed.items():
        if name != RANDOM:
            yield f"{PRETRAINED} + {name}", (pretrained, x)


def predict(
    parts: Sequence[Floats],
    target: Target,
    patients: NDArray,
    fold: Fold,
    *,
    fractions: Sequence[float],
    seed: int,
) -> Predicted:
    """Fit both classifiers on the fold's training samples and predict its test samples.

    Before the nearest neighbours are sought, features are standardised and groups of them weighted
    like those of the linear classifier: a cosine over hand-crafted features of different units
    would only see the largest.

    Args:
        parts: (N, D) features of all samples; several are concatenated, see
            `medcl.nn.feature_groups`.
        target: of all samples.
        patients: (N,).
        fold: training and test positions.
        fractions: of labelled training patients, for label efficiency; 1 is all of them.
        seed: of folds and draws.
    """
    y, groups = target.at(fold.train), patients[fold.train]
    x, blocks = linear.concatenated(parts)
    fitting, testing = x[fold.train], x[fold.test]
    model = linear.fit(fitting, y, groups, blocks=blocks, seed=seed)
    mean, std = fitting.mean(0), fitting.std(0)
    std[std == 0] = 1
    std /= group_weights(blocks)
    bank = np.arange(len(fitting))
    if len(bank) > LARGEST_BANK:  # `scoring.notes` says so
        bank = evenly(groups, LARGEST_BANK, seed)
    votes = knn((testing - mean) / std, (fitting[bank] - mean) / std, y.at(bank).columns())
    scores = {LINEAR: model.predict(testing), KNN: votes}
    labelled: dict[tuple[float, int], FewLabels] = {}
    for draw in range(label_efficiency.DRAWS):
        for part in label_efficiency.subsets(
            y, groups, [f for f in fractions if f < 1], seed=seed + draw
        ):
            rows = part.positions
            some = linear.fit(fitting[rows], y.at(rows), groups[rows], blocks=blocks, seed=seed)
            labelled[part.fraction, draw] = FewLabels(
                part.patients, len(rows), some.predict(testing)
            )
    if 1 in fractions:
        labelled[1.0, 0] = FewLabels(len(np.unique(groups)), len(y), scores[LINEAR])
    return Predicted(x.shape[1], scores, model.c, model.chosen, labelled, model.head)


def pool(
    predictions: Sequence[Mapping[str, Predicted]], rep: str, classifier: str
) -> NDArray[np.float32]:
    """All folds' predictions, in the folds' order."""
    return np.concatenate([fold[rep].scores[classifier] for fold in predictions])
