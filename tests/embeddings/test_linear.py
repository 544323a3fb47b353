"""The linear probe: choosing C by patient, leaving nothing of the test side in the fit."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_diabetes, load_digits
from sklearn.metrics import roc_auc_score

from medcl.embeddings import linear
from medcl.labels.target import Target
from medcl.probe.folds import Fold, predict
from medcl.probe.label_efficiency import subsets


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, Target, np.ndarray]:
    x, y = load_digits(return_X_y=True)
    patients = np.array([f"synthetic {n // 100}" for n in range(len(y))])
    return x.astype(np.float32), Target("multiclass", tuple("0123456789"), y), patients


def test_it_learns_and_says_what_it_chose(
    digits: tuple[np.ndarray, Target, np.ndarray],
) -> None:
    x, truth, patients = digits
    model = linear.fit(x[:900], truth.at(np.arange(900)), patients[:900])
    assert model.chosen
    assert model.c[0] in linear.GRID
    scores = model.predict(x[900:])
    np.testing.assert_allclose(scores.sum(1), 1, atol=1e-5)
    assert roc_auc_score(truth.y[900:], scores, multi_class="ovr") > 0.98


def test_c_is_chosen_on_patients_that_were_not_fitted() -> None:
    patients = np.repeat(np.arange(12), 40)
    y = np.repeat([0, 1] * 6, 40)
    truth = Target("binary", ("a", "b"), y)
    folds = list(linear._folds(truth, patients, 0))
    assert len(folds) == linear.FOLDS
    assert sorted(np.concatenate([test for _, test in folds])) == list(range(len(y)))
    for train, test in folds:
        assert not set(patients[train]) & set(patients[test])


def test_classes_that_training_lacks_score_nothing(
    digits: tuple[np.ndarray, Target, np.ndarray],
) -> None:
    x, truth, patients = digits
    some = np.flatnonzero(truth.y < 3)[:300]
    scores = linear.fit(x[some], truth.at(some), patients[some]).predict(x)
    assert scores.shape == (len(x), 10)
    assert (scores[:, 3:] == 0).all()
    one = np.flatnonzero(truth.y == 3)
    alone = linear.fit(x[one], truth.at(one), patients[one])
    assert not alone.chosen
    assert (alone.predict(x).argmax(1) == 3).all()


def test_one_patient_cannot_choose(digits: tuple[np.ndarray, Target, np.ndarray]) -> None:
    x, truth, patients = digits
    model = linear.fit(x[:100], truth.at(np.arange(100)), patients[:100])
    assert (model.c, model.chosen) == ((linear.FIXED,), False)


def test_many_samples_are_thinned_for_the_choice_only(
    digits: tuple[np.ndarray, Target, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    x, truth, patients = digits
    whole = linear.fit(x, truth, patients)
    monkeypatch.setattr(linear, "CHOOSE_FROM", 600)
    thinned = linear.fit(x, truth, patients)
    assert abs(np.log10(thinned.c[0] / whole.c[0])) <= 1
    assert len(linear._thinned(truth, 0)) == 600
    rare = Target("binary", ("a", "b"), (np.arange(len(x)) < 20).astype(int))
    assert rare.at(linear._thinned(rare, 0)).y.sum() == 20  # all of a rare class


@pytest.mark.parametrize("kind", ["multiclass", "regression", "multilabel"])
def test_blocks_weigh_as_if_narrow_ones_were_repeated(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under an L2 penalty, k equal columns are one column times the root of k.

    Six columns of an encoder weigh half: two others count as 4 · 6 / 2 of them, at a quarter of C.
    """
    monkeypatch.setattr(linear, "LEARNED", (0.5,))
    monkeypatch.setattr(linear, "GRID", (3e-3,))  # strong enough to tell
    rng = np.random.default_rng(0)
    wide, narrow = rng.normal(size=(300, 6)), rng.normal(size=(300, 2)) * 40 + 7
    value = wide[:, 0] + narrow[:, 1] / 40 + rng.normal(size=300)
    patients = np.arange(300) // 10
    if kind == "regression":
        truth = Target("regression", ("v",), value)
    elif kind == "multiclass":
        truth = Target("multiclass", ("low", "mid", "high"), np.digitize(value, [-0.7, 0.7]))
    else:
        y = np.column_stack([value > 0, value > 1]).astype(int)
        truth = Target("multilabel", ("positive", "large"), y)
    x = np.concatenate([wide, narrow], axis=1)
    model = linear.fit(x, truth, patients, blocks=(6, 2))
    repeated = np.concatenate([wide, *[narrow] * 12], axis=1)
    monkeypatch.setattr(linear, "GRID", (3e-3 / 4,))
    same = linear.fit(repeated, truth, patients)
    monkeypatch.setattr(linear, "GRID", (3e-3,))
    np.testing.assert_allclose(model.predict(x), same.predict(repeated), atol=5e-3)
    plain = linear.fit(x, truth, patients, blocks=(8,))
    assert (set(model.learned), plain.learned[0]) == ({0.5}, 1.0)
    assert np.abs(plain.predict(x) - model.predict(x)).max() > 0.02
    with pytest.raises(ValueError, match=r"blocks of \[6, 3\] columns, but 8 features"):
        linear.fit(x, truth, patients, blocks=(6, 3))


def test_few_good_features_are_heard_beside_many_poor_ones() -> None:
    """Both in the linear classifier and among the neighbours: what `probe` compares."""
    rng = np.random.default_rng(1)
    y = rng.integers(0, 2, 600)
    good = (y[:, None] + rng.normal(size=(600, 2))).astype(np.float32)
    poor = rng.normal(size=(600, 200)).astype(np.float32)
    patients = np.arange(600) // 10
    truth = Target("binary", ("a", "b"), y)
    # `predict` needs nothing of the run
    fold = Fold(None, np.arange(300), np.arange(300, 600))  # type: ignore[arg-type]

    def auroc(*parts: np.ndarray) -> dict[str, float]:
        made = predict(parts, truth, patients, fold, fractions=(1.0,), seed=0)
        return {k: float(roc_auc_score(y[300:], s[:, 1])) for k, s in made.scores.items()}

    beside, mixed = auroc(poor, good), auroc(np.concatenate([poor, good], axis=1))
    for classifier, alone in auroc(good).items():
        assert mixed[classifier] + 0.05 < beside[classifier], classifier
        assert beside[classifier] > alone - 0.1, classifier


@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel"])
def test_a_rare_class_is_found_as_often_as_a_frequent_one(kind: str) -> None:
    """Classes that lie alike, one of twenty: weighted by frequency alone, nobody would be found."""
    rng = np.random.default_rng(0)
    y = np.where(np.arange(4000) % 20 == 0, 1, 0)
    if kind == "multiclass":
        y[np.arange(4000) % 20 == 1] = 2
    corners = np.array([[0.0, 0.0], [1.8, 0.0], [0.9, 1.56]])  # all as far apart
    x = (corners[y] + rng.normal(size=(4000, 2))).astype(np.float32)
    patients = np.arange(4000) // 25
    if kind == "multilabel":
        truth = Target("multilabel", ("rare", "half"), np.stack([y, np.arange(4000) % 2], 1))
    else:
        truth = Target(kind, tuple("abc")[: y.max() + 1], y)  # type: ignore[arg-type]
    scores = linear.fit(x, truth, patients).predict(x)
    told = (scores[:, 0] > 0.5).astype(int) if kind == "multilabel" else scores.argmax(1)
    found = [float((told[y == label] == label).mean()) for label in np.unique(y)]
    assert min(found) > 0.6, found
    assert max(found) - min(found) < 0.2, found


def test_values_are_regressed() -> None:
    x, y = load_diabetes(return_X_y=True)
    patients = np.arange(len(y)) // 10
    model = linear.fit(x.astype(np.float32), Target("regression", ("progression",), y), patients)
    predicted = model.predict(x)
    assert predicted.shape == (len(y), 1)
    assert np.corrcoef(predicted[:, 0], y)[0, 1] > 0.65


def test_label_fractions_are_nested_patients(
    digits: tuple[np.ndarray, Target, np.ndarray],
) -> None:
    _, truth, patients = digits
    one, ten, half, all_of_them = subsets(truth, patients, (0.01, 0.1, 0.5, 1.0), seed=0)
    assert [s.patients for s in (one, ten, half, all_of_them)] == [1, 2, 9, 18]
    assert len(all_of_them.positions) == len(truth)
    assert set(one.positions) < set(ten.positions) < set(half.positions)
    assert len(set(patients[ten.positions])) == 2
    other = subsets(truth, patients, (0.01,), seed=1)[0]
    assert set(other.positions) != set(one.positions)


def test_a_fraction_grows_until_it_holds_two_classes() -> None:
    truth = Target("binary", ("a", "b"), np.repeat([0, 0, 0, 0, 0, 1], 10))
    patients = np.repeat(np.arange(6), 10)
    for seed in range(6):
        [part] = subsets(truth, patients, (0.01,), seed=seed)
        assert set(truth.y[part.positions]) == {0, 1}
    values = Target("regression", ("v",), np.arange(60.0))
    assert subsets(values, patients, (0.01,), seed=0)[0].patients == 2


def test_how_much_an_encoder_weighs_is_chosen_by_cross_validation() -> None:
    rng = np.random.default_rng(0)
    patients, y = np.arange(240) // 2, rng.integers(0, 2, 240)
    noise = rng.normal(size=(240, 60))
    telling = rng.normal(size=(240, 20)) + 0.4 * y[:, None]
    truth = Target("binary", ("a", "b"), y)
    useless = linear.fit(np.concatenate([noise, telling], 1), truth, patients, blocks=(60, 20))
    useful = linear.fit(np.concatenate([telling, noise], 1), truth, patients, blocks=(20, 60))
    assert (useless.learned, useful.learned) == ((0.5,), (1.0,))
    one_patient = linear.fit(noise, truth, np.zeros(240), blocks=(40, 20))
    assert (one_patient.learned, one_patient.chosen) == ((0.5,), False)
