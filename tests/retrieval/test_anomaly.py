"""Unusual samples, on real digits of invented writers (synthetic persons)."""

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score
from toy_run import make_run

from medcl.archive.index import Index, build
from medcl.errors import UsageError
from medcl.plugin import Plugin
from medcl.retrieval.anomaly import OTHER_KEY, anomaly, conformal, score
from medcl.run import TRANSDUCTIVE, Run


@pytest.mark.parametrize("how", ["knn", "mahalanobis"])
def test_scrambled_digits_are_unusual(digits_run: Run, tmp_path: Path, how: str) -> None:
    """Pixels in another order (synthetic anomalies) against digits of unseen writers."""
    from medcl.embeddings.embeddings import embed
    from medcl.plugin import Samples
    from medcl.run import load_samples

    samples = load_samples(digits_run.recipe, digits_run.data)
    side = digits_run.split()
    sides = np.array([side[p] for p in samples.patients])
    encoder = digits_run.encoder()

    def unit(x: np.ndarray) -> np.ndarray:
        made = embed(
            encoder,
            Samples(
                [str(i) for i in range(len(x))],
                [""] * len(x),
                [""] * len(x),
                lambda at: {"x": x[at]},
            ),
        ).x
        return made / np.linalg.norm(made, axis=1, keepdims=True)

    train = samples.read(np.flatnonzero(sides == "train"))["x"]
    test = samples.read(np.flatnonzero(sides == "test"))["x"]
    order = np.random.default_rng(0).permutation(64)
    scrambled = test.reshape(-1, 64)[:, order].reshape(test.shape)
    scores = score(unit(np.concatenate([test, scrambled])), unit(train), how=how)  # type: ignore[arg-type]
    truth = np.repeat([0, 1], len(test))
    assert roc_auc_score(truth, scores) > 0.9


@pytest.mark.parametrize("how", ["knn", "mahalanobis"])
def test_the_stated_rate_is_about_what_comes(digits_run: Run, tmp_path: Path, how: str) -> None:
    found = anomaly(digits_run, tmp_path / "out", how=how, rate=0.1)  # type: ignore[arg-type]
    assert found.on_test is not None
    assert found.on_test.value is not None
    print(how, found.on_test)
    assert 0.02 < found.on_test.value < 0.3, "writers differ, but not that much"
    table = pl.read_parquet(tmp_path / "out" / "scores.parquet")
    assert (table["unusual"] == (table["score"] > found.threshold)).all()
    side = digits_run.split()
    train = table.filter(pl.col("patient").replace_strict(side) == "train")
    assert train["unusual"].mean() == pytest.approx(0.1, abs=0.005)  # type: ignore[operator]
    facts = json.loads((tmp_path / "out" / "anomaly.json").read_text())
    assert facts["test_patients"] == found.test_patients > 0
    assert set(found.items["item"]) == set(table["item"])


def test_another_index_is_known_by_its_key(
    digits_run: Run, digits_index: Path, toy: Plugin, tmp_path: Path
) -> None:
    """Under the same key nobody is their own neighbour; under another, that cannot be told."""
    archive = Index.open(digits_index).archive
    (tmp_path / "key").write_text("quite another secret key")
    made = {}
    for name, key in (("same", digits_index.parent / "key"), ("other", tmp_path / "key")):
        build(archive, tmp_path / f"idx_{name}", toy, key_file=key)
        made[name] = anomaly(digits_run, tmp_path / name, data=tmp_path / f"idx_{name}")
    assert made["same"].notes == ()
    assert made["other"].notes == (OTHER_KEY,)
    facts = json.loads((tmp_path / "other" / "anomaly.json").read_text())
    assert facts["notes"] == [OTHER_KEY]
    assert made["other"].unusual < made["same"].unusual, "everybody met themselves"


def test_that_pretraining_saw_the_tested_is_said(digits_index: Path, tmp_path: Path) -> None:
    """Their rate of false alarms is not that of people whom pretraining did not see."""
    run = make_run(digits_index, tmp_path / "run", split={"pretrain": "all"})
    found = anomaly(run, tmp_path / "out")
    assert found.test_patients > 0
    assert found.notes == (TRANSDUCTIVE,)
    facts = json.loads((tmp_path / "out" / "anomaly.json").read_text())
    assert facts["notes"] == [TRANSDUCTIVE]
    assert anomaly(run, tmp_path / "again", data=digits_index).notes == (TRANSDUCTIVE,)


def test_new_people_are_not_called_seen(digits_index: Path, toy: Plugin, tmp_path: Path) -> None:
    """Nobody of the run is in this index, so that no rate is said of them."""
    run = make_run(digits_index, tmp_path / "run", split={"pretrain": "all"})
    archive = tmp_path / "archive"
    archive.mkdir()
    shutil.copy(Index.open(digits_index).archive / "writer_00.csv", archive / "stranger.csv")
    build(archive, tmp_path / "idx", toy, key_file=digits_index.parent / "key")
    found = anomaly(run, tmp_path / "out", data=tmp_path / "idx")
    assert found.test_patients == 0
    assert found.notes == ()


def test_the_nearest_neighbour_score_is_the_largest_cosine() -> None:
    rng = np.random.default_rng(0)
    x, bank = (rng.normal(size=(n, 8)).astype(np.float32) for n in (5, 40))
    x, bank = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (x, bank))
    got = score(x, bank, how="knn", k=1)
    np.testing.assert_allclose(got, 1 - (x @ bank.T).max(1), rtol=1e-5)


def test_nobody_is_their_own_neighbour() -> None:
    bank = np.eye(4, dtype=np.float32)
    own = score(bank, bank, how="knn", k=1, groups=(np.arange(4), np.arange(4)))
    np.testing.assert_allclose(own, 1)
    alone = score(bank[:1], bank[:1], how="knn", k=1, groups=(np.array(["a"]), np.array(["a"])))
    assert alone == 2  # nobody to be like


def test_conformal_threshold_by_hand() -> None:
    assert conformal(np.arange(1, 100), 0.05) == 95  # ⌈100 · 0.95⌉
    with pytest.raises(UsageError, match="cannot hold"):
        conformal(np.arange(5), 0.05)


def test_conformal_rate_holds_on_average() -> None:
    rng = np.random.default_rng(0)
    rates = [
        np.mean(rng.normal(size=200) > conformal(rng.normal(size=99), 0.1)) for _ in range(400)
    ]
    assert np.mean(rates) == pytest.approx(0.1, abs=0.006)


def test_wrong_use(digits_run: Run, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Unknown score"):
        anomaly(digits_run, tmp_path / "out", how="magic")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="between 0 and 1"):
        anomaly(digits_run, tmp_path / "out", rate=5)
    (tmp_path / "there").mkdir()
    with pytest.raises(UsageError, match="exists"):
        anomaly(digits_run, tmp_path / "there")
