"""A whole study on real bags (MUSK 1): folds, figures, resuming, refusals, rare positives."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score, roc_auc_score

from medcl.errors import MedclError, UsageError
from medcl.finetune import fold_training
from medcl.finetune.fold_training import Work
from medcl.finetune.result import FinetuneResult
from medcl.finetune.study import study
from medcl.labels.target import Target
from medcl.metrics.bootstrap import Interval
from medcl.metrics.calibration import reliability
from medcl.plugin import Samples
from medcl.recipe import Recipe

CLASSES = ("non-musk", "musk")


@pytest.fixture
def work(musk: tuple[Samples, np.ndarray], recipe: Recipe, tmp_path: Path) -> Work:
    samples, y = musk
    return Work(samples, Target("binary", CLASSES, y), recipe, tmp_path / "study", instances=True)


def run(work: Work, **asked: object) -> FinetuneResult:
    return study(work, [None] * len(work.samples), label="musk", **asked)  # type: ignore[arg-type]


def weights(work: Work) -> dict[str, bytes]:
    return {p.parent.name: p.read_bytes() for p in work.out.glob("folds/*/model.safetensors")}


def test_figures_are_those_of_the_pooled_predictions(work: Work) -> None:
    result = run(work)
    frame = pl.read_parquet(work.out / "predictions.parquet")
    assert sorted(frame["id"]) == sorted(work.samples.ids), "everybody is tested once"
    y = dict(zip(work.samples.ids, work.target.y.tolist(), strict=True))
    truth = np.array([y[i] for i in frame["id"]])
    assert truth.tolist() == frame["truth.0"].to_list()
    logits = frame.select("score.non-musk", "score.musk").to_numpy()
    score, predicted = torch.tensor(logits).softmax(1)[:, 1].numpy(), logits.argmax(1)
    found = {name: i.value for name, i in result.figures.metrics.items()}
    assert found["accuracy"] == pytest.approx(accuracy_score(truth, predicted))
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(truth, predicted))
    assert found["auroc"] == pytest.approx(roc_auc_score(truth, score), abs=1e-6)
    assert found["auroc"] is not None
    assert found["auroc"] > 0.75, "four epochs learn that much"
    right = pl.Series(truth == predicted)
    by_fold = frame.with_columns(right.alias("right")).group_by("fold").agg(pl.col("right").mean())
    assert result.figures.folds["accuracy"].mean == pytest.approx(by_fold["right"].mean())
    assert FinetuneResult.load(work.out) == result
    error = result.figures.calibration["ece"]
    curve = reliability(np.where(predicted == 1, score, 1 - score), truth == predicted)
    assert error.value == pytest.approx(curve.error, abs=1e-6)
    assert None not in (error.low, error.high)
    assert 0 <= error.low < error.high < 1  # type: ignore[operator]
    assert "above chance level" in result.verdict()
    told = replace(result, classes=["0", "1"]).verdict()
    assert "positive class" not in told
    named = replace(result, classes=["elephant", "none"]).verdict()
    assert "The positive class is 'none'; for the other one: -s finetune.classes=[none" in named
    below = Interval(-0.5, -0.9, -0.1)
    worse = replace(result.figures, metrics={"auroc": below, "r2": below})
    assert "are two labels swapped" in replace(result, figures=worse).verdict()
    assert "saying the mean" in replace(result, kind="regression", figures=worse).verdict()
    assert np.sum(result.figures.confusion) == 92
    instances = pl.read_parquet(next(work.out.glob("folds/*/instances.parquet")))
    sums = instances.group_by("id").agg(pl.col("score.0").sum())["score.0"]
    assert np.allclose(sums, 1, atol=1e-5), "attention sums to one in a bag"


def test_a_study_whose_calibration_has_no_interval_is_read(work: Work, tmp_path: Path) -> None:
    """As they were written before it had one."""
    run(work)
    raw = json.loads((work.out / "finetune.json").read_text())
    errors = {name: i["value"] for name, i in raw["figures"]["calibration"].items()}
    raw["figures"]["calibration"] = errors
    (tmp_path / "finetune.json").write_text(json.dumps(raw))
    read = FinetuneResult.load(tmp_path)
    assert {n: i.value for n, i in read.figures.calibration.items()} == errors
    assert any("calibration error" in row[0] for row in read.table()[1])


def test_a_killed_study_goes_on_and_ends_equal(work: Work, tmp_path: Path) -> None:
    whole = run(work)
    kept, again = weights(work), replace(work, out=tmp_path / "again")
    shutil.copytree(work.out, again.out)
    for folder in list(again.out.glob("folds/*"))[1:]:
        shutil.rmtree(folder)
    (again.out / "finetune.json").unlink()
    calls = []
    original = fold_training.train

    def counted(work: Work, part: object) -> None:
        calls.append(part)
        original(work, part)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fold_training, "train", counted)
        resumed = run(again)
    assert len(calls) == 2
    assert weights(again) == kept
    assert resumed.figures == whole.figures


def test_a_folder_of_another_study_is_refused(work: Work) -> None:
    run(work)
    longer = work.recipe.model_copy(
        update={"finetune": work.recipe.finetune.model_copy(update={"epochs": 5})}
    )
    with pytest.raises(UsageError, match="finetune.epochs is 4 there and 5 here"):
        run(replace(work, recipe=longer))
    flipped = replace(work.target, y=1 - work.target.y)
    with pytest.raises(UsageError, match="with other labels"):
        run(replace(work, target=flipped))


def spoilt(read: Callable[..., dict[str, np.ndarray]], rows: np.ndarray) -> dict[str, np.ndarray]:
    """The seventh bag's last instance has a feature that is not a number."""
    batch = read(rows)
    for place in np.flatnonzero(rows == 7):
        batch["x"][batch["bag"] == place, -1] = np.nan
    return batch


def test_features_that_are_no_numbers_cost_one_sentence(work: Work) -> None:
    with pytest.raises(MedclError, match="Sample b007 holds NaN") as caught:
        run(replace(work, samples=replace(work.samples, read=partial(spoilt, work.samples.read))))
    assert "\n" not in str(caught.value)


def test_rare_positives_are_rare_in_training_alone(work: Work) -> None:
    result = run(work, imbalance=5)
    assert result.imbalance == 5
    for path in work.out.glob("folds/*/fold.json"):
        classes = json.loads(path.read_text())["classes"]
        assert classes["train"]["musk"] == round(classes["train"]["non-musk"] / 5)
        assert classes["test"]["musk"] > 10
    assert result.test.classes == {"non-musk": 45, "musk": 47}


def test_weights_and_the_balanced_sampler_are_by_training_samples(work: Work) -> None:
    settings = work.recipe.finetune.model_copy(update={"loss": "weighted", "sampler": "balanced"})
    recipe = work.recipe.model_copy(update={"finetune": settings})
    run(replace(work, recipe=recipe), imbalance=5)
    for path in work.out.glob("folds/*/fold.json"):
        facts = json.loads(path.read_text())
        count = np.array([facts["classes"]["train"][c] for c in CLASSES])
        assert facts["outputs"]["weights"] == pytest.approx((count.sum() / 2 / count).tolist())


@pytest.mark.slow
def test_two_processes_make_what_one_makes(work: Work, tmp_path: Path) -> None:
    alone = run(work)
    together = replace(work, out=tmp_path / "two")
    assert run(together, workers=2).figures == alone.figures
    assert weights(together) == weights(work)
