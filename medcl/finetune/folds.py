"""Training, validation and test parts, always of whole patients or whole sites."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from medcl.archive.splits import split
from medcl.errors import MedclError, UsageError
from medcl.recipe import Recipe
from medcl.seeds import derive

PARTS = ("train", "validation", "test")
PART_OF = {part: part for part in PARTS} | {"val": "validation"}
"""Words of a given split → part; samples with other words are left out."""
_STRATUM = "stratum"
_VALIDATION, _THIN = 101, 102  # streams of `derive`


@dataclass(frozen=True)
class Part:
    """One training: positions of its samples.

    Attributes:
        repeat, fold: its numbers.
        train, validation, test: samples with a label.
        unlabelled: samples without a label, for training.
    """

    repeat: int
    fold: int
    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]
    unlabelled: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))

    @property
    def name(self) -> str:
        """Name of its folder: ``r0f3``."""
        return f"r{self.repeat}f{self.fold}"


def parts(
    patients: Sequence[str],
    sites: Sequence[str | None],
    strata: Sequence[str],
    recipe: Recipe,
    given: Sequence[str] | None = None,
) -> list[Part]:
    """All trainings of a recipe, by repeat and fold.

    Every part has its share of each stratum. With ``finetune.folds`` every patient is in one test
    part per repeat (with ``split.by: site``, every site); with a given split, every repeat is the
    same split under other seeds; otherwise each repeat holds out ``split.test`` of the patients.

    Args:
        patients: (N,) keys, one per sample.
        sites: (N,) keys, likewise.
        strata: (N,) for stratification, see `medcl.labels.target.Target.strata`.
        recipe: sections ``split`` and ``finetune``, and the seed.
        given: (N,) a split by sample: see `PART_OF`.

    Raises:
        UsageError: for a given split without training or test samples.
        MedclError: if a patient is in two parts of it, or there are too few patients.
    """
    if given is not None:
        assigned = checked(patients, given)
        drawn = [
            Part(repeat, 0, *(np.flatnonzero(assigned == s) for s in PARTS))
            for repeat in range(recipe.finetune.repeats)
        ]
    else:
        drawn = _drawn(patients, sites, strata, recipe)
    return [_with_validation(part, patients, strata, recipe) for part in drawn]


def checked(patients: Sequence[str], given: Sequence[str]) -> NDArray[np.str_]:
    """A given split as (N,) parts; checks that every patient is in one part.

    Raises:
        MedclError: with the number of patients in several parts.
        UsageError: if it names no training or no test samples.
    """
    assigned = np.array([PART_OF.get(str(word).strip().lower(), "") for word in given])
    used = assigned != ""
    pairs = set(zip(np.asarray(patients)[used].tolist(), assigned[used].tolist(), strict=True))
    twice = len(pairs) - len({patient for patient, _ in pairs})
    if twice:
        raise MedclError(
            f"The given split puts {twice} patient{'s' if twice > 1 else ''} in more than one part "
            "(train, validation, test): metrics would be optimistic. Put all items of a patient in "
            "one part."
        )
    for part in ("train", "test"):
        if part not in assigned:
            raise UsageError(f"The given split names no '{part}' among the labelled samples.")
    return assigned


def _drawn(
    patients: Sequence[str], sites: Sequence[str | None], strata: Sequence[str], recipe: Recipe
) -> list[Part]:
    settings = recipe.finetune
    frame = pl.DataFrame(
        {"patient": list(patients), "site": list(sites), _STRATUM: list(strata)},
        schema_overrides={"site": pl.String},
    )
    drawn = []
    for repeat in range(settings.repeats):
        for fold in range(settings.folds or 1):
            part_of = split(
                frame,
                by=recipe.split.by,
                test=recipe.split.test,
                folds=settings.folds,
                fold=fold,
                stratify=_STRATUM,
                seed=recipe.split.seed + repeat,
            )
            tested = np.array([part_of[patient] == "test" for patient in patients])
            none = np.empty(0, np.int64)
            train, test = np.flatnonzero(~tested), np.flatnonzero(tested)
            drawn.append(Part(repeat, fold, train, none, test))
    return drawn


def _with_validation(
    part: Part, patients: Sequence[str], strata: Sequence[str], recipe: Recipe
) -> Part:
    """Move a share of the training patients to validation, unless there is a validation part."""
    share = recipe.finetune.validation
    if len(part.validation) or not share:
        return part
    seed = derive(recipe.split.seed, _VALIDATION, part.repeat, part.fold)
    frame = pl.DataFrame(
        {
            "patient": [patients[row] for row in part.train],
            _STRATUM: [strata[row] for row in part.train],
        }
    )
    part_of = split(frame, test=share, stratify=_STRATUM, seed=seed)
    apart = np.array([part_of[patient] == "test" for patient in frame["patient"]])
    return replace(part, train=part.train[~apart], validation=part.train[apart])


def thinned(
    part: Part, patients: Sequence[str], positive: NDArray[np.bool_], ratio: float, seed: int
) -> Part:
    """Keep one positive patient for every ``ratio`` negative ones. The test part stays whole.

    A patient is positive if any of its samples is. If there are fewer already, all stay. The
    positives of a larger ratio are a subset of those of a smaller one.

    Args:
        part: one training; its training and its validation part are thinned.
        patients: (N,) keys, one per sample.
        positive: (N,) True for positive samples.
        ratio: negatives for each positive.
        seed: of the selection.
    """
    owner = np.asarray(patients)

    def reduced(rows: NDArray[np.int64], stream: int) -> NDArray[np.int64]:
        positives = np.unique(owner[rows[positive[rows]]])
        others = np.setdiff1d(owner[rows], positives)
        count = max(1, round(len(others) / ratio))
        rng = np.random.default_rng(derive(seed, _THIN, part.repeat, part.fold, stream))
        removed = rng.permutation(positives)[count:]
        return rows[~np.isin(owner[rows], removed)]

    return replace(part, train=reduced(part.train, 0), validation=reduced(part.validation, 1))


def of_run(patients: Sequence[str], split: Mapping[str, str]) -> list[str]:
    """The split of a pretrained run, by sample."""
    return [split.get(patient, "") for patient in patients]


def with_unlabelled(
    part: Part,
    rest: NDArray[np.int64],
    patients: Sequence[str],
    sites: Sequence[str | None],
    by: str,
    given: Sequence[str] | None = None,
) -> Part:
    """Add the unlabelled samples that belong to the training part.

    Excluded are samples of validation and test patients, of held-out sites, and, if a split is
    given, samples that it does not assign to train.

    Args:
        part: of the labelled samples.
        rest: positions of the others.
        patients, sites, given: of all samples, as in `parts`.
        by: "site" if sites are held out.
    """
    owner = np.asarray(patients)
    keep = ~np.isin(owner[rest], owner[np.concatenate([part.validation, part.test])])
    if by == "site":
        held_out = {sites[row] for row in part.test}
        keep &= np.array([sites[row] not in held_out for row in rest], bool)
    if given is not None:
        keep &= np.array([PART_OF.get(given[row].strip().lower()) == "train" for row in rest], bool)
    return replace(part, unlabelled=rest[keep])
