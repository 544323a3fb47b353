from __future__ import annotations

from collections import Counter

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medcl.archive.splits import assert_disjoint, split
from medcl.errors import MedclError, UsageError


@st.composite
def frames(draw: st.DrawFn, least: int = 2) -> pl.DataFrame:
    """Invented patients with several items each, some of several sites, some labels missing."""
    patients = draw(st.integers(least, 40))
    rows = [
        (f"p{patient}", f"s{site}", label)
        for patient in range(patients)
        for site, label in draw(
            st.lists(
                st.tuples(st.integers(0, 30), st.sampled_from(["a", "b", "c", None])),
                min_size=1,
                max_size=3,
            )
        )
    ]
    return pl.DataFrame(rows, schema=["patient", "site", "label.x"], orient="row")


stratified = st.sampled_from([None, "x", "label.x"])


@pytest.mark.slow
@given(frames(), st.floats(0.05, 0.95), stratified, st.integers(0, 99))
def test_each_patient_is_on_one_side(
    items: pl.DataFrame, test: float, stratify: str | None, seed: int
) -> None:
    sides = split(items, test=test, stratify=stratify, seed=seed)
    assert set(sides) == set(items["patient"])
    assert set(sides.values()) == {"train", "test"}
    count = list(sides.values()).count("test")
    assert abs(count - test * len(sides)) <= 1


@pytest.mark.slow
@given(frames(least=5), st.integers(2, 5), stratified, st.integers(0, 99))
def test_each_patient_is_tested_once(
    items: pl.DataFrame, folds: int, stratify: str | None, seed: int
) -> None:
    tested = Counter(
        patient
        for fold in range(folds)
        for patient, side in split(
            items, folds=folds, fold=fold, stratify=stratify, seed=seed
        ).items()
        if side == "test"
    )
    assert tested == Counter(set(items["patient"]))
    sizes = [
        list(split(items, folds=folds, fold=fold, seed=seed).values()).count("test")
        for fold in range(folds)
    ]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.slow
@given(frames(), st.randoms(), stratified, st.integers(0, 99), st.sampled_from(["patient", "site"]))
def test_the_order_of_rows_does_not_matter(
    items: pl.DataFrame, random: object, stratify: str | None, seed: int, by: str
) -> None:
    order = list(range(len(items)))
    random.shuffle(order)  # type: ignore[attr-defined]
    results = []
    for frame in (items, items[order]):
        try:
            results.append(split(frame, by=by, stratify=stratify, seed=seed))  # type: ignore[arg-type]
        except MedclError as error:  # all patients hang together through their sites
            results.append({"error": str(error)})
    assert results[0] == results[1]


@pytest.mark.slow
@given(frames(), stratified, st.integers(0, 99))
def test_no_site_is_on_both_sides(items: pl.DataFrame, stratify: str | None, seed: int) -> None:
    patients_of = dict(items.group_by("site").agg("patient").iter_rows())
    if tied_together(patients_of):
        with pytest.raises(MedclError, match="sites that share no patient"):
            split(items, by="site", stratify=stratify, seed=seed)
        return
    sides = split(items, by="site", stratify=stratify, seed=seed)
    assert set(sides) == set(items["patient"])
    for patients in patients_of.values():
        assert len({sides[patient] for patient in patients}) == 1
    assert set(sides.values()) == {"train", "test"}


def tied_together(patients_of: dict[str, list[str]]) -> bool:
    """Whether all sites hang together: grow from one of them until nothing is added."""
    reached = set(next(iter(patients_of.values())))
    while (
        grown := {
            p for patients in patients_of.values() if reached & set(patients) for p in patients
        }
        - reached
    ):
        reached |= grown
    return reached == {p for patients in patients_of.values() for p in patients}


@given(st.integers(20, 200), st.integers(2, 9), st.integers(0, 99))
def test_strata_keep_their_share(patients: int, folds: int, seed: int) -> None:
    items = pl.DataFrame(
        {
            "patient": [f"p{n}" for n in range(patients)],
            "label.x": ["rare" if n % 7 == 0 else "common" for n in range(patients)],
        }
    )
    label = dict(items.iter_rows())
    for fold in range(folds):
        sides = split(items, folds=folds, fold=fold, stratify="x", seed=seed)
        tested = Counter(label[p] for p, side in sides.items() if side == "test")
        for name, count in Counter(label.values()).items():
            assert abs(tested[name] - count / folds) < 1
    sides = split(items, test=0.3, stratify="x", seed=seed)
    tested = Counter(label[p] for p, side in sides.items() if side == "test")
    for name, count in Counter(label.values()).items():
        assert abs(tested[name] - 0.3 * count) <= 1


def test_a_patient_counts_by_the_rarest_label() -> None:
    """Every patient has sinus beats; four have a rare one too, and are spread over four folds."""
    rows = [(f"p{n:02d}", "sinus") for n in range(20)] + [(f"p{n:02d}", "rare") for n in range(4)]
    items = pl.DataFrame(rows, schema=["patient", "label.beat"], orient="row")
    for fold in range(4):
        sides = split(items, folds=4, fold=fold, stratify="beat")
        assert sum(sides[f"p{n:02d}"] == "test" for n in range(4)) == 1


def test_seeds_differ_and_are_fixed() -> None:
    items = pl.DataFrame({"patient": [f"p{n}" for n in range(12)]})
    draws = {seed: split(items, seed=seed) for seed in range(20)}
    assert len({tuple(sorted(sides.items())) for sides in draws.values()}) > 15
    tested = sorted(patient for patient, side in draws[0].items() if side == "test")
    assert tested == ["p11", "p3", "p6", "p7"]  # the same on every machine and under every version


def test_a_patient_at_two_sites_ties_them() -> None:
    rows = [("p1", "a"), ("p2", "a"), ("p2", "b"), ("p3", "b"), ("p4", "c"), ("p5", "c")]
    items = pl.DataFrame(rows, schema=["patient", "site"], orient="row")
    for seed in range(10):
        sides = split(items, by="site", test=0.4, seed=seed)
        assert sides["p1"] == sides["p2"] == sides["p3"] == "train"
        assert sides["p4"] == sides["p5"] == "test"
    with pytest.raises(MedclError, match="2 sites that share no patient cannot be split into 3"):
        split(items, by="site", folds=3)


def test_too_few() -> None:
    one = pl.DataFrame({"patient": ["p"], "site": [None]}, schema_overrides={"site": pl.String})
    with pytest.raises(MedclError, match="1 patients cannot be split into 2 parts"):
        split(one)
    with pytest.raises(MedclError, match="0 patients"):
        split(one.clear())
    with pytest.raises(MedclError, match="needs every item's site; 1 patients"):
        split(one, by="site")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test": 0.0}, "between 0 and 1"),
        ({"folds": 3, "fold": 3}, "fold is 0"),
        ({"folds": 1}, "K ≥ 2"),
        ({"stratify": "rythm"}, "Did you mean 'label.rhythm'"),
    ],
)
def test_bad_options(options: dict[str, object], message: str) -> None:
    items = pl.DataFrame({"patient": list("abcdef"), "label.rhythm": list("xxyyzz")})
    with pytest.raises(UsageError, match=message):
        split(items, **options)  # type: ignore[arg-type]


def test_disjoint() -> None:
    assert_disjoint(["a", "a", "b"], ["c"])
    with pytest.raises(MedclError, match="2 patients are in training and in test"):
        assert_disjoint(["a", "b", "c"], ["b", "c", "c"])
    with pytest.raises(MedclError, match="1 site is in"):
        assert_disjoint("a", "a", "site")


def test_a_published_split_is_taken_as_it_is() -> None:
    items = pl.DataFrame(
        {"patient": ["a", "a", "b", "c"], "part": ["train", "train", "test", "val"]}
    )
    assert split(items, given="part") == {"a": "train", "b": "test"}
    with pytest.raises(UsageError, match="no column 'prat'"):
        split(items, given="prat")
    with pytest.raises(MedclError, match="into train and test"):
        split(items.with_columns(part=pl.Series(["train", "test", "test", "val"])), given="part")
    with pytest.raises(UsageError, match="does not name"):
        split(items.filter(pl.col("part") != "test"), given="part")
