"""Predictions compared sample by sample, on real digits of invented writers (synthetic persons)."""

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from medcl import manifest
from medcl.audit import compare as comparing
from medcl.audit.compare import compare
from medcl.errors import UsageError
from medcl.finetune.finetune import finetune, opened
from medcl.probe.probe import probe
from medcl.run import Run

QUICK = ["finetune.task=digit", "finetune.epochs=20", "finetune.folds=3", "finetune.bootstraps=200"]


@pytest.fixture(scope="module")
def study(digits_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("studies") / "linear"
    finetune(opened(digits_run.path, None, ["classifier.name=linear", *QUICK]), out)
    return out


def rewritten(frame: pl.DataFrame, path: Path) -> None:
    """As a study writes it: the manifest knows the new content."""
    with manifest.replacing(path) as temporary:
        frame.write_parquet(temporary)


def _changed(study: Path, to: Path, change: pl.Expr) -> Path:
    shutil.copytree(study, to)
    path = to / "predictions.parquet"
    rewritten(pl.read_parquet(path).with_columns(change), path)
    return to


@pytest.mark.slow
def test_a_study_does_not_differ_from_itself(study: Path, tmp_path: Path) -> None:
    copy = _changed(study, tmp_path / "copy", pl.col("id"))
    found = compare(study, copy)
    assert {d.value for d in found.differences.values()} == {0}
    assert {t.p for t in found.auroc_tests.values()} == {1}
    assert "No measurable difference" in found.verdict()
    assert found.a != found.b
    assert found.left_out == 0
    assert found.patients == 12


@pytest.mark.slow
def test_a_worse_one_is_found_and_the_sign_is_right(study: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pl.read_parquet(study / "predictions.parquet")
    noisy = [
        pl.Series(name, frame[name].to_numpy() + rng.normal(0, 8, len(frame)))
        for name in frame.columns
        if name.startswith("score.")
    ]
    shutil.copytree(study, tmp_path / "worse")
    rewritten(frame.with_columns(noisy), tmp_path / "worse" / "predictions.parquet")
    found = compare(study, tmp_path / "worse")
    gain = found.differences["auroc"]
    assert gain.low is not None
    assert gain.low > 0
    assert gain.value == pytest.approx(
        found.a_metrics["auroc"].value - found.b_metrics["auroc"].value  # type: ignore[operator]
    )
    assert all(t.p < 0.05 and t.difference > 0 for t in found.auroc_tests.values())
    back = compare(tmp_path / "worse", study)
    assert back.differences["auroc"].value == pytest.approx(-gain.value)  # type: ignore[operator]
    comparing.save(found, tmp_path / "c.json")
    assert json.loads((tmp_path / "c.json").read_text())["patients"] == 12


@pytest.mark.slow
def test_the_encoder_of_a_probe_against_its_untrained_self(digits_run: Run, tmp_path: Path) -> None:
    out = tmp_path / "probe"
    result = probe([digits_run], out=out)
    found = compare(out, Path(f"{out}#random"))
    want = next(d for d in result.differences if d.than == "random" and d.classifier == "linear")
    assert found.differences["auroc"].value == pytest.approx(want.metrics["auroc"].value, abs=1e-6)
    with pytest.raises(UsageError, match="no predictions of 'nobody'"):
        compare(out, Path(f"{out}#nobody"))


@pytest.mark.slow
def test_only_what_both_predicted_is_compared(study: Path, tmp_path: Path) -> None:
    shutil.copytree(study, tmp_path / "half")
    path = tmp_path / "half" / "predictions.parquet"
    frame = pl.read_parquet(path)
    rewritten(frame.filter(pl.col("fold") == 0), path)
    found = compare(study, tmp_path / "half")
    assert found.left_out == len(frame) - found.samples > 0


def test_what_cannot_be_compared_is_refused(study: Path, tmp_path: Path) -> None:
    other = _changed(study, tmp_path / "other", pl.lit(3.0).alias("truth.0"))
    with pytest.raises(UsageError, match="different labels"):
        compare(study, other)
    strangers = _changed(study, tmp_path / "strangers", ("x" + pl.col("id")).alias("id"))
    with pytest.raises(UsageError, match="no test sample in common"):
        compare(study, strangers)
    with pytest.raises(UsageError, match="holds no predictions"):
        compare(study, tmp_path)


def test_risks_of_different_models_are_not_ranked_together(study: Path, tmp_path: Path) -> None:
    """Synthetic survival: each fold's model ranks its own people rightly, on a scale of its own."""
    shutil.copytree(study, tmp_path / "cox")
    facts = json.loads((study / "finetune.json").read_text())
    manifest.write_text(tmp_path / "cox" / "finetune.json", json.dumps({**facts, "kind": "cox"}))
    n = np.arange(24)
    fold = n % 2
    made = {
        "id": [f"s{k}" for k in n],
        "patient": [f"p{k}" for k in n],
        "truth.0": n + 1.0,
        "truth.1": np.ones(24),
        "score.0": -n + 100.0 * fold,
        "repeat": np.zeros(24, np.int64),
        "fold": fold,
    }
    again = {**made, "repeat": np.ones(24, np.int64), "score.0": 7.0 * n}  # another drawing
    frame = pl.concat([pl.DataFrame(made), pl.DataFrame(again)])
    rewritten(frame, tmp_path / "cox" / "predictions.parquet")
    read = comparing.read(tmp_path / "cox")
    assert read.resampled(50, 0).interval("c_index").value == 1.0
    assert compare(tmp_path / "cox", tmp_path / "cox").a_metrics["c_index"].value == 1.0
