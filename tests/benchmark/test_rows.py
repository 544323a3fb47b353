"""Rows of a public set's table: which sample is of which, and on how many of them is fitted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

import medcl
from medcl.benchmark.benchmark import opened
from medcl.benchmark.contract import AT, FOLD, KEY, PATIENT, Benchmark
from medcl.benchmark.fitting import thinned
from medcl.benchmark.folds import folds
from medcl.benchmark.scoreboard import Figure, Scoreboard
from medcl.embeddings.relative import relative
from medcl.errors import UsageError
from medcl.metrics.bootstrap import Interval
from medcl.metrics.metrics import multilabel, once
from medcl.plugin import Samples


def of_rows(keys: list[str], at: list[float] | None, reach: float = 0.0) -> Benchmark:
    columns: dict[str, list[object]] = {KEY: list(keys), PATIENT: list(keys), FOLD: [0] * len(keys)}
    if at is not None:
        columns[AT] = list(at)
    return Benchmark(
        *("set", "", "", ""),
        Path(),
        pl.DataFrame(columns),
        (),
        "",
        place=None if at is None else _place,
        reach=reach,
    )


def _place(samples: Samples) -> np.ndarray:
    assert samples.where is not None
    return np.asarray(samples.where(np.arange(len(samples)))["at"])


def samples_at(at: np.ndarray) -> Samples:
    names = [str(n) for n in range(len(at))]
    return Samples(names, names, names, lambda p: {}, where=lambda p: {"at": at[p]})


@pytest.mark.parametrize("seed", range(5))
def test_a_sample_is_of_the_nearest_row_of_its_recording(seed: int) -> None:
    rng = np.random.default_rng(seed)
    keys = rng.choice(["a", "b", "c", "d"], 40).tolist()
    at, reach = rng.uniform(-50, 1800, 40), float(rng.uniform(0, 60))
    mine = rng.choice(["a", "b", "c", "z"], 100).tolist()
    where = rng.uniform(-90, 1900, 100)
    found = of_rows(keys, at.tolist(), reach).rows(samples_at(where), mine)
    for key, place, row in zip(mine, where, found.tolist(), strict=True):
        away = [abs(a - place) if k == key else np.inf for k, a in zip(keys, at, strict=True)]
        assert row == (int(np.argmin(away)) if min(away) <= reach else -1)


def test_without_places_all_samples_of_a_recording_are_its_rows() -> None:
    found = of_rows(["b", "a"], None).rows(samples_at(np.zeros(4)), ["a", "a", "x", "b"])
    assert found.tolist() == [1, 1, -1, 0]


def test_places_that_are_numbers_match_exactly() -> None:
    keys = [f"r{n // 16}" for n in range(200)]
    at = [float(n % 16) for n in range(200)]
    order = np.random.default_rng(0).permutation(200)
    found = of_rows(keys, at).rows(samples_at(np.array(at)[order]), [keys[n] for n in order])
    assert found.tolist() == order.tolist()


def test_relative_features_know_no_level_of_their_recording() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, (60, 3)).astype(np.float32)
    owners = np.repeat(["a", "b", "c"], 20)
    found = relative(x, owners)
    for name in "abc":
        np.testing.assert_allclose(np.median(found[owners == name], axis=0), 0, atol=1e-6)
    alike = np.ones((40, 2), np.float32)
    alike[0], alike[20:] = 1e6, np.arange(20)[:, None]
    held = relative(alike, np.repeat(["still", "moving"], 20))
    assert np.abs(held).max() <= 20
    assert not held[1:20].any()
    order = rng.permutation(60)
    np.testing.assert_allclose(relative(x[order], owners[order]), found[order], atol=1e-5)


def test_thinned_keeps_rare_classes_of_each_person() -> None:
    y = np.array([0] * 50 + [1] * 3 + [0] * 2 + [1] * 40)
    patients = np.array(["a"] * 53 + ["b"] * 42)
    kept = thinned(y, patients, 10, seed=0)
    counts = {(p, c): int(((patients == p) & (y == c))[kept].sum()) for p in "ab" for c in (0, 1)}
    assert counts == {("a", 0): 10, ("a", 1): 3, ("b", 0): 2, ("b", 1): 10}
    np.testing.assert_array_equal(kept, thinned(y, patients, 10, seed=0))
    assert not np.array_equal(kept, thinned(y, patients, 10, seed=1))


def test_folds_share_no_group_and_take_rare_classes() -> None:
    groups = [f"g{n // 3}" for n in range(60)]
    found = np.array(folds(["rare" if n < 3 else "usual" for n in range(60)], groups, 10))
    assert set(found) == set(range(10))
    assert all(len(set(found[np.array(groups) == g])) == 1 for g in groups)


def test_accuracy_of_several_labels_is_the_mean_over_labels() -> None:
    y = np.array([[1, 0], [0, 1], [1, -1], [0, 0]])
    scores = np.array([[0.9, 0.6], [0.5, 0.7], [0.1, 0.9], [0.2, 0.1]])
    found = multilabel(y, scores, once(4))
    assert found["accuracy"][0] == pytest.approx((2 / 4 + 2 / 3) / 2)


def test_macro_auroc_stands_beside_another_metric() -> None:
    own, auroc = Interval(0.7, 0.6, 0.8, 0), Interval(0.9, 0.8, 0.95, 0)
    figures = [Figure("p", "abmil", 1.0, 80, 1, own, auroc, None)]
    problem = {"name": "p", "metric": "accuracy"}
    board = Scoreboard("s", "", "", "", [problem], figures, [], {})
    assert board.table("p")[1] == [["abmil", "0.700 [0.600, 0.800]"]]
    assert board.ranked(problem) == (
        ["features", "100% of patients"],
        [["abmil", "0.900 [0.800, 0.950]"]],
    )
    assert board.ranked({"name": "p", "metric": "macro AUROC"}) is None
    assert board.verdict("p") == []  # of heads there is nothing to say that the table does not


def test_every_set_is_opened_by_its_name(tmp_path: Path) -> None:
    from medcl.benchmark.benchmark import available

    sets = available()
    assert len(sets) == 31
    for name in sets:
        with pytest.raises(UsageError):  # an empty folder holds none
            opened(name, tmp_path)


def test_heads_and_encoders_are_not_mixed_up(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(0, 1, (40, 5)).astype(np.float32)
    np.savez(tmp_path / "musk1.npz", X=x, bag=np.arange(40) // 2, y=np.arange(20) % 2)
    with pytest.raises(UsageError, match="which no encoder sees"):
        medcl.benchmark("musk1", tmp_path, tmp_path / "board", "ecg-small")
    with pytest.raises(UsageError, match="Did you mean 'abmil'"):
        medcl.benchmark("musk1", tmp_path, tmp_path / "board", heads=["abmill"])
