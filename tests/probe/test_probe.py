"""The probe on real digits by synthetic writers."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
import pytest
from toy_run import make_run

from medcl.archive.index import Index, build
from medcl.errors import MedclError, UsageError
from medcl.plugin import Plugin, Samples, Task
from medcl.probe import folds, scoring
from medcl.probe import probe as module
from medcl.probe.external import joined, own_and_external
from medcl.probe.probe import probe
from medcl.probe.result import ProbeResult
from medcl.run import TRANSDUCTIVE, Run


@pytest.fixture(scope="module")
def result(digits_run: Run) -> ProbeResult:
    return probe([digits_run], command="medcl probe run")


def auroc(result: ProbeResult, rep: str, classifier: str = "linear") -> float:
    found = [s for s in result.scores if (s.representation, s.classifier) == (rep, classifier)]
    return found[0].metrics["auroc"].value


@pytest.mark.slow
def test_everything_is_compared(result: ProbeResult) -> None:
    assert {(s.representation, s.classifier) for s in result.scores} == {
        (rep, classifier)
        for rep in ("pretrained", "random", "pixels", "pretrained + pixels")
        for classifier in ("linear", "knn")
    }
    widths = {s.representation: s.width for s in result.scores}
    assert widths == {"pretrained": 64, "random": 64, "pixels": 64, "pretrained + pixels": 128}
    assert auroc(result, "pretrained") > auroc(result, "random") > 0.6
    assert (result.train.patients, result.test.patients) == (8, 4)
    assert (result.train.samples, result.test.samples) == (480, 240)


@pytest.mark.slow
def test_differences_are_paired_and_told_in_words(result: ProbeResult) -> None:
    [gain] = [d for d in result.differences if (d.than, d.classifier) == ("random", "linear")]
    expected = auroc(result, "pretrained") - auroc(result, "random")
    assert gain.metrics["auroc"].value == pytest.approx(expected)
    assert gain.metrics["auroc"].low > 0
    assert "against the same network with random weights: a gain, macro AUROC +" in result.verdict()


def test_predictions_are_of_test_patients_and_give_the_figures_again(
    result: ProbeResult, digits_run: Run
) -> None:
    from sklearn.metrics import confusion_matrix, roc_auc_score

    table = pl.read_parquet(digits_run.path / "probe" / "predictions.parquet")
    side = digits_run.split()
    assert {side[p] for p in table["patient"]} == {"test"}
    scores = table.select([f"pretrained.linear.{c}" for c in result.classes]).to_numpy()
    truth = table["truth"].to_numpy().astype(int)
    expected = roc_auc_score(truth, scores, multi_class="ovr")
    assert auroc(result, "pretrained") == pytest.approx(expected, abs=1e-6)
    score = result.scores[0]
    np.testing.assert_array_equal(score.confusion, confusion_matrix(truth, scores.argmax(1)))


def test_the_curve_states_patients_and_samples(result: ProbeResult) -> None:
    points = {(p.representation, p.fraction): p for p in result.curve}
    assert {f for _, f in points} == {0.01, 0.3, 1.0}
    assert [points["pretrained", f].patients for f in (0.01, 0.3, 1.0)] == [1, 3, 8]
    assert points["pretrained", 1.0].samples == 480
    assert points["pretrained", 1.0].metrics["auroc"] == [auroc(result, "pretrained")]
    assert len(points["pretrained", 0.01].metrics["auroc"]) == 5
    assert np.mean(points["random", 0.01].metrics["auroc"]) < auroc(result, "random")


@pytest.mark.slow
def test_it_can_be_read_again_and_is_deterministic(
    result: ProbeResult, digits_run: Run, tmp_path: Path
) -> None:
    assert ProbeResult.load(digits_run.path / "probe") == result
    again = probe([digits_run], out=tmp_path)
    assert again.scores == result.scores
    assert again.curve == result.curve
    assert result.command == "medcl probe RUN"
    assert "scikit-learn" in result.versions


@pytest.mark.slow
def test_what_is_done_is_not_done_again(
    digits_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise AssertionError("probed again")

    monkeypatch.setattr("medcl.embeddings.sources.commit", lambda: "0123")
    first = probe([digits_run], out=tmp_path)
    monkeypatch.setattr(module, "predict", fail)
    assert probe([digits_run], out=tmp_path) == first
    with pytest.raises(AssertionError, match="probed again"):
        probe([digits_run], out=tmp_path, seed=1)
    monkeypatch.setattr("medcl.embeddings.sources.commit", lambda: "0123-dirty")
    with pytest.raises(AssertionError, match="probed again"):
        probe([digits_run], out=tmp_path)


def test_no_raw_patient_is_written(result: ProbeResult, digits_run: Run) -> None:
    written = (digits_run.path / "probe" / "probe.json").read_text()
    assert "writer" not in written
    table = pl.read_parquet(digits_run.path / "probe" / "predictions.parquet")
    assert "writer" not in str(table.to_dicts())


@pytest.mark.slow
def test_labels_of_test_patients_do_not_matter(
    result: ProbeResult, digits_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the test patients' labels are, the predictions stay the same."""
    load = module.load_samples
    side = digits_run.split()

    def shuffled(*args: object, **kwargs: object) -> Samples:
        samples = load(*args, **kwargs)
        y = np.array(samples.labels["digit"])
        y[[side[p] == "test" for p in samples.patients]] = 3
        return replace(samples, labels={"digit": y})

    monkeypatch.setattr(module, "load_samples", shuffled)
    probe([digits_run], out=tmp_path)
    before = pl.read_parquet(digits_run.path / "probe" / "predictions.parquet")
    after = pl.read_parquet(tmp_path / "predictions.parquet")
    assert before.drop("truth").equals(after.drop("truth"))
    assert not before["truth"].equals(after["truth"])


@pytest.mark.slow
def test_that_pretraining_saw_the_tested_is_said(digits_index: Path, tmp_path: Path) -> None:
    lean = {"task": "digit", "fractions": [1.0], "bootstraps": 100, "baselines": []}
    run = make_run(digits_index, tmp_path / "run", split={"pretrain": "all"}, probe=lean)
    found = probe([run])
    assert TRANSDUCTIVE in found.notes
    plain = make_run(digits_index, tmp_path / "plain", probe=lean)
    assert TRANSDUCTIVE not in probe([plain]).notes
    assert found.train.patients + found.test.patients == len(run.split())  # still never fitted on


@pytest.mark.slow
def test_of_many_samples_some_are_neighbours_and_that_is_said(
    digits_index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lean = {"task": "digit", "fractions": [1.0], "bootstraps": 100, "baselines": []}
    every = probe([make_run(digits_index, tmp_path / "every", probe=lean)])
    assert not any(note.startswith("kNN") for note in every.notes)
    for room in (folds, scoring):
        monkeypatch.setattr(room, "LARGEST_BANK", 200)
    some = probe([make_run(digits_index, tmp_path / "some", probe=lean)])
    assert f"kNN: neighbours are sought among 200 of {some.train.samples:,}" in " ".join(some.notes)
    values = [auroc(result, "pretrained", "knn") for result in (every, some)]
    assert values[0] != values[1]
    assert min(values) > 0.8


@pytest.mark.slow
def test_folds_are_pooled(digits_index: Path, tmp_path: Path) -> None:
    lean = {"task": "digit", "fractions": [1.0], "bootstraps": 100, "baselines": []}
    runs = [
        make_run(digits_index, tmp_path / f"fold{k}", split={"folds": 3, "fold": k}, probe=lean)
        for k in range(3)
    ]
    pooled = probe(runs)
    assert pooled.folds == 3
    assert (pooled.test.patients, pooled.test.samples) == (12, 720)
    assert auroc(pooled, "pretrained") > auroc(pooled, "random")
    assert len(pooled.scores[0].c) == 3
    assert (tmp_path / "probe" / "probe.json").is_file()

    with pytest.raises(UsageError, match="tested by another"):
        probe([runs[0], runs[0]])
    other = make_run(
        digits_index, tmp_path / "other", seed=7, split={"folds": 3, "fold": 1}, probe=lean
    )
    with pytest.raises(UsageError, match=r"split\.fold"):
        probe([runs[0], other])


def write_archive(folder: Path, writers: dict[str, int]) -> Path:
    """Synthetic writers of real digits: name → from which digit on."""
    from sklearn.datasets import load_digits

    images, classes = load_digits(return_X_y=True)
    folder.mkdir()
    for name, start in writers.items():
        part = np.column_stack([classes, images]).astype(int)[start : start + 60]
        np.savetxt(folder / f"{name}.csv", part, fmt="%d", delimiter=",")
    return folder


@pytest.mark.slow
def test_another_index_tests_the_run(digits_run: Run, tmp_path: Path, toy: Plugin) -> None:
    """Two strangers and, under the same key, everybody's namesakes are told apart."""
    known = [f"writer_{k:02d}" for k in range(6)]  # of the run's twelve, with other digits
    archive = write_archive(
        tmp_path / "other",
        {"stranger_a": 1200, "stranger_b": 1300} | dict.fromkeys(known, 1400),
    )
    key = Path(digits_run.data).parent / "key"
    build(archive, tmp_path / "idx", toy, key_file=key)
    result = probe([digits_run], data=tmp_path / "idx", out=tmp_path / "probe")
    side = digits_run.split()
    there = Index.open(tmp_path / "idx").items["patient"].to_list()
    tested = {p for p in there if side.get(p) != "train"}
    assert 2 < len(tested) < len(there), "some namesakes were trained on, some were not"
    table = pl.read_parquet(tmp_path / "probe" / "predictions.parquet")
    assert set(table["patient"]) == tested
    assert len(table) == 60 * len(tested)
    assert (result.train.patients, result.train.samples) == (8, 480)
    assert result.test.patients == len(tested)
    assert auroc(result, "pretrained") > 0.9
    assert "another index" in result.notes[0]
    with pytest.raises(UsageError, match="give one run"):
        probe([digits_run, digits_run], data=tmp_path / "idx")


@pytest.mark.parametrize("pretrain", ["train", "all"])
def test_nobody_outside_whom_pretraining_saw_is_tested(
    digits_run: Run, tmp_path: Path, toy: Plugin, pretrain: Literal["train", "all"]
) -> None:
    split = digits_run.recipe.split.model_copy(update={"pretrain": pretrain})
    run = Run(digits_run.path, digits_run.recipe.model_copy(update={"split": split}))
    known = dict.fromkeys([f"writer_{k:02d}" for k in range(12)], 1400)  # all of the run's
    archive = write_archive(tmp_path / "other", {"stranger": 1200} | known)
    build(archive, tmp_path / "idx", toy, key_file=Path(run.data).parent / "key")
    samples = own_and_external(run, tmp_path / "idx", "digit")
    side = run.split()
    train = {p for p, s in side.items() if s == "train"}
    assert set(samples.patients[:480]) == train, "fitted on the run's own"
    (stranger,) = set(Index.open(tmp_path / "idx").items["patient"]) - side.keys()
    left = {"train": {stranger} | (side.keys() - train), "all": {stranger}}
    assert set(samples.patients[480:]) == left[pretrain]
    assert len(samples) == 480 + 60 * len(left[pretrain])


@pytest.mark.slow
def test_under_another_key_all_are_strangers(digits_run: Run, tmp_path: Path, toy: Plugin) -> None:
    archive = write_archive(tmp_path / "other", {"a": 1200, "b": 1300, "c": 1400})
    build(archive, tmp_path / "idx", toy)
    result = probe([digits_run], data=tmp_path / "idx", out=tmp_path / "probe")
    assert (result.train.patients, result.test.patients) == (8, 3)


@pytest.mark.slow
def test_an_index_that_was_moved_is_the_same(
    result: ProbeResult, digits_run: Run, tmp_path: Path
) -> None:
    shutil.copytree(digits_run.data, tmp_path / "moved")
    again = probe([digits_run], data=tmp_path / "moved", out=tmp_path / "probe")
    assert again.scores == result.scores
    assert again.notes == result.notes


def test_batches_of_two_indexes_are_in_the_order_asked_for() -> None:
    def some(start: int) -> Samples:
        names = [str(n) for n in range(start, start + 3)]
        return Samples(names, names, names, lambda at: {"x": start + at}, {"y": np.arange(3)})

    both = joined(some(0), some(3))
    at = np.array([5, 0, 3, 2])
    assert both.read(at)["x"].tolist() == at.tolist()
    assert both.ids == list("012345")
    assert both.labels["y"].tolist() == [0, 1, 2, 0, 1, 2]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["binary", "multilabel", "regression"])
def test_other_kinds_of_task(
    kind: str, digits_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toy: Plugin
) -> None:
    load = module.load_samples

    def relabelled(*args: object, **kwargs: object) -> Samples:
        samples = load(*args, **kwargs)
        digit = np.asarray(samples.labels["digit"])
        labels = {
            "binary": np.where(digit == 8, "eight", np.where(digit == 1, "", "other")),
            "multilabel": np.column_stack([digit % 2, np.where(digit == 5, -1, digit > 4)]),
            "regression": np.where(digit == 0, np.nan, digit),
        }
        return replace(samples, labels={"it": labels[kind]})

    classes = {"binary": ("other", "eight"), "multilabel": ("odd", "large"), "regression": ()}
    task = Task("it", kind, classes=classes[kind])
    monkeypatch.setitem(toy.tasks, "it", task)
    monkeypatch.setattr(module, "load_samples", relabelled)
    result = probe([digits_run], task="it", out=tmp_path)
    json.dumps(result.as_dict(), allow_nan=False)
    assert ProbeResult.load(tmp_path) == result
    least = {"binary": 0.9, "multilabel": 0.8, "regression": 0.3}[kind]
    assert result.scores[0].metrics[result.headline].value > least
    if kind != "multilabel":
        assert result.train.samples + result.test.samples < 720  # the unlabelled are left out
    columns, rows = result.table()
    assert all(len(row) == len(columns) for row in rows)


def test_what_cannot_be_probed_is_said(
    digits_run: Run, monkeypatch: pytest.MonkeyPatch, toy: Plugin
) -> None:
    with pytest.raises(UsageError, match="Did you mean 'digit'"):
        probe([digits_run], task="digits")
    with pytest.raises(UsageError, match="no run"):
        probe([])
    monkeypatch.setitem(toy.tasks, "odd", Task("oddness", "binary"))
    with pytest.raises(UsageError, match="No label 'oddness'"):
        probe([digits_run], task="odd")
    monkeypatch.setitem(toy.tasks, "few", Task("digit", "multiclass", classes=("0", "1")))
    with pytest.raises(MedclError, match="code 9"):
        probe([digits_run], task="few")
