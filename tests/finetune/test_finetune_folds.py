"""Sides of a study: whole patients, every one tested once, given splits checked."""

from __future__ import annotations

import numpy as np
import pytest

from medcl.errors import MedclError, UsageError
from medcl.finetune.folds import Part, checked, parts, thinned
from medcl.recipe import Finetune, Recipe, Split

PATIENTS = [f"p{n // 2:02}" for n in range(60)]  # two samples a patient
SITES = [f"s{n // 12}" for n in range(60)]
STRATA = ["rare" if n // 2 % 5 == 0 else "common" for n in range(60)]


def made(**finetune: object) -> list[Part]:
    split = Split(**finetune.pop("split", {}))  # type: ignore[arg-type]
    recipe = Recipe.model_construct(seed=0, split=split, finetune=Finetune(**finetune))  # type: ignore[arg-type]
    return parts(PATIENTS, SITES, STRATA, recipe)


def patients(rows: np.ndarray) -> set[str]:
    return {PATIENTS[r] for r in rows}


def test_every_patient_is_tested_once_a_repeat_and_is_on_one_side() -> None:
    drawn = made(folds=5, repeats=2)
    assert [p.name for p in drawn] == [f"r{r}f{f}" for r in range(2) for f in range(5)]
    for repeat in range(2):
        tested = np.concatenate([p.test for p in drawn if p.repeat == repeat])
        assert sorted(tested.tolist()) == list(range(60))
    for part in drawn:
        train, validation, test = (patients(r) for r in (part.train, part.validation, part.test))
        assert validation
        assert not train & validation
        assert not (train | validation) & test
        assert len(part.train) + len(part.validation) + len(part.test) == 60
        rare = [STRATA[r] for r in part.test].count("rare")
        assert 2 <= rare <= 4  # 12 of 60, in five folds of whole patients
    assert patients(drawn[0].test) != patients(drawn[5].test), "repeats are drawn anew"


def test_sites_are_held_out_whole() -> None:
    for part in made(folds=5, split={"by": "site"}):
        held = {SITES[r] for r in part.test}
        assert len(held) == 1
        assert held.isdisjoint({SITES[r] for r in (*part.train, *part.validation)})


def test_without_folds_a_share_is_held_out() -> None:
    (part,) = made(split={"test": 0.2}, validation=0)
    assert len(part.test) == 12
    assert len(part.validation) == 0


def test_a_given_split_is_taken_as_it_is() -> None:
    given = ["train"] * 40 + ["val"] * 8 + ["test"] * 10 + [""] * 2
    recipe = Recipe.model_construct(seed=0, split=Split(), finetune=Finetune())
    (part,) = parts(PATIENTS, SITES, STRATA, recipe, given)
    assert (len(part.train), len(part.validation), len(part.test)) == (40, 8, 10)


def test_a_patient_on_both_sides_of_a_given_split_is_refused_by_number_not_by_name() -> None:
    given = ["train"] * 29 + ["test"] * 31  # p14 is on both sides
    with pytest.raises(MedclError, match=r"puts 1 patient in more than one part") as caught:
        checked(PATIENTS, given)
    assert "p14" not in str(caught.value)
    with pytest.raises(UsageError, match="names no 'test'"):
        checked(PATIENTS, ["train"] * 60)


def test_thinning_leaves_the_test_side_and_nests() -> None:
    positive = np.array([s == "rare" for s in STRATA])
    (part,) = made(split={"test": 0.3}, validation=0.2)
    before = None
    for ratio in (4, 10, 50):
        thin = thinned(part, PATIENTS, positive, ratio, seed=0)
        assert np.array_equal(thin.test, part.test)
        rare = patients(thin.train[positive[thin.train]])
        common = patients(thin.train) - rare
        assert common == patients(part.train) - patients(part.train[positive[part.train]])
        assert len(rare) == min(
            max(1, round(len(common) / ratio)), len(patients(part.train[positive[part.train]]))
        )
        assert before is None or rare <= before
        before = rare
