"""Who is trained on, validated on and tested on: always whole patients, or whole sites."""

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

SIDES = ("train", "validation", "test")
SAID = {side: side for side in SIDES} | {"val": "validation"}
"""What a given split may say, and the side it means; other samples are left out."""
_STRATUM = "stratum"
_VALIDATION, _THIN = 101, 102  # streams of `derive`


@dataclass(frozen=True)
class Part:
    """One training: positions of its samples.

    Attributes:
        repeat, fold: which one.
        train, validation, test: samples with a label.
        unlabelled: samples without one that may be learnt from.
    """

    repeat: int
    fold: int
    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]
    unlabelled: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))

    @property
    def name(self) -> str:
        """``r0f3``: what its folder is called."""
        return f"r{self.repeat}f{self.fold}"


def parts(
    patients: Sequence[str],
    sites: Sequence[str | None],
    strata: Sequence[str],
    recipe: Recipe,
    given: Sequence[str] | None = None,
) -> list[Part]:
    """All trainings of a recipe, by repeat and fold.

    Every side has its share of each stratum. With ``finetune.folds`` every patient is tested once
    in each repeat (with ``split.by: site``, every site); with a given split, every repeat is the
    same split under other seeds; else each repeat holds out ``split.test`` of the patients.

    Args:
        patients: (N,) whose sample each is.
        sites: (N,) where it comes from.
        strata: (N,) what sides should have their share of, see `medcl.labels.target.Target.strata`.
        recipe: sections ``split`` and ``finetune``, and the seed.
        given: (N,) a split by sample: see `SAID`.

    Raises:
        UsageError: for a given split without training or test samples.
        MedclError: if a patient is on two sides of it, or there are too few patients.
    """
    if given is not None:
        sides = checked(patients, given)
        found = [
            Part(repeat, 0, *(np.flatnonzero(sides == s) for s in SIDES))
            for repeat in range(recipe.finetune.repeats)
        ]
    else:
        found = _drawn(patients, sites, strata, recipe)
    return [_with_validation(part, patients, strata, recipe) for part in found]


def checked(patients: Sequence[str], given: Sequence[str]) -> NDArray[np.str_]:
    """A given split as sides, after making sure that nobody is on two of them.

    Raises:
        MedclError: with the number of patients who are.
        UsageError: if it names no training or no test samples.
    """
    sides = np.array([SAID.get(str(word).strip().lower(), "") for word in given])
    used = sides != ""
    pairs = set(zip(np.asarray(patients)[used].tolist(), sides[used].tolist(), strict=True))
    twice = len(pairs) - len({patient for patient, _ in pairs})
    if twice:
        raise MedclError(
            f"The given split puts {twice} patient{'s' if twice > 1 else ''} on more than one side "
            "(train, validation, test): figures would be too good. Put all items of a patient on "
            "one side."
        )
    for side in ("train", "test"):
        if side not in sides:
            raise UsageError(f"The given split names no '{side}' among the labelled samples.")
    return sides


def _drawn(
    patients: Sequence[str], sites: Sequence[str | None], strata: Sequence[str], recipe: Recipe
) -> list[Part]:
    settings = recipe.finetune
    frame = pl.DataFrame(
        {"patient": list(patients), "site": list(sites), _STRATUM: list(strata)},
        schema_overrides={"site": pl.String},
    )
    found = []
    for repeat in range(settings.repeats):
        for fold in range(settings.folds or 1):
            side = split(
                frame,
                by=recipe.split.by,
                test=recipe.split.test,
                folds=settings.folds,
                fold=fold,
                stratify=_STRATUM,
                seed=recipe.split.seed + repeat,
            )
            tested = np.array([side[patient] == "test" for patient in patients])
            none = np.empty(0, np.int64)
            train, test = np.flatnonzero(~tested), np.flatnonzero(tested)
            found.append(Part(repeat, fold, train, none, test))
    return found


def _with_validation(
    part: Part, patients: Sequence[str], strata: Sequence[str], recipe: Recipe
) -> Part:
    """Set patients of the training side apart, if that was not done."""
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
    side = split(frame, test=share, stratify=_STRATUM, seed=seed)
    apart = np.array([side[patient] == "test" for patient in frame["patient"]])
    return replace(part, train=part.train[~apart], validation=part.train[apart])


def thinned(
    part: Part, patients: Sequence[str], positive: NDArray[np.bool_], ratio: float, seed: int
) -> Part:
    """Fewer positive patients to learn from: one for every ``ratio`` others. Tests stay whole.

    A patient is positive if any of its samples is. Where there are already fewer, all stay. The
    positives of a larger ratio are among those of a smaller one.

    Args:
        part: one training; both its training and its validation side are thinned.
        patients: (N,) whose sample each is.
        positive: (N,) which samples are.
        ratio: negatives for each positive.
        seed: of who stays.
    """
    owner = np.asarray(patients)

    def kept(rows: NDArray[np.int64], stream: int) -> NDArray[np.int64]:
        have = np.unique(owner[rows[positive[rows]]])
        others = np.setdiff1d(owner[rows], have)
        count = max(1, round(len(others) / ratio))
        rng = np.random.default_rng(derive(seed, _THIN, part.repeat, part.fold, stream))
        gone = rng.permutation(have)[count:]
        return rows[~np.isin(owner[rows], gone)]

    return replace(part, train=kept(part.train, 0), validation=kept(part.validation, 1))


def of_run(patients: Sequence[str], side: Mapping[str, str]) -> list[str]:
    """The split that a pretrained run was made with, by sample."""
    return [side.get(patient, "") for patient in patients]


def with_unlabelled(
    part: Part,
    rest: NDArray[np.int64],
    patients: Sequence[str],
    sites: Sequence[str | None],
    by: str,
    given: Sequence[str] | None = None,
) -> Part:
    """The training, with those of the samples without a label that are on its side.

    Nobody who is validated or tested on is learnt from, label or not; of sites that are held out,
    nobody; and where a split is given, only whom it calls train.

    Args:
        part: of the labelled samples.
        rest: positions of the others.
        patients, sites, given: of all samples, as in `parts`.
        by: "site" where sites are held out.
    """
    who = np.asarray(patients)
    keep = ~np.isin(who[rest], who[np.concatenate([part.validation, part.test])])
    if by == "site":
        away = {sites[row] for row in part.test}
        keep &= np.array([sites[row] not in away for row in rest], bool)
    if given is not None:
        keep &= np.array([SAID.get(given[row].strip().lower()) == "train" for row in rest], bool)
    return replace(part, unlabelled=rest[keep])
