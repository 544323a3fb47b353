"""The page about a training with labels, and the one with several: whole, escaped, in a browser."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from browser import EVIL, look
from test_report import Page
from typer.testing import CliRunner

from medcl import manifest
from medcl.audit.compare import Predictions
from medcl.errors import UsageError
from medcl.finetune.opened import Study
from medcl.finetune.result import FinetuneResult
from medcl.labels.activation import probabilities
from medcl.labels.target import Target
from medcl.report import audit_section, comparison_page, plots, study_page, test_examples
from medcl.report.cards import Absent
from medcl.report.example_selection import SHOWN, predicted_classes
from medcl.run import Run
from medcl_cli.main import app

SECTIONS = [
    "figures",
    "classes",
    "curves",
    "calibration",
    "examples",
    "map",
    "evaluation",
    "data",
    "method",
    "model",
    "reproduce",
]


@pytest.fixture(scope="module")
def page(hostile_study: Path) -> Path:
    patch = pytest.MonkeyPatch()
    patch.setattr(test_examples, "MAPPED", 60)
    path = study_page.write(hostile_study, hostile_study / "report.html")
    patch.undo()
    return path


@pytest.mark.slow
def test_everything_is_on_the_page(page: Path) -> None:
    html = page.read_text(encoding="utf-8")
    made = Page(html)
    assert made.open == []
    assert made.ids == SECTIONS
    assert 'class="absent"' not in html
    for words in (
        "Not for diagnosis",
        "No leak:",
        "By group of test patients",
        "noise",
        "FGSM",
        "Right, and sure",
        "Wrong, and sure",
        "integrated gradients",
        "Intended use",
        "expected calibration error",
        "test samples of the first fold",
    ):
        assert words in made.text, words
    assert made.tags.count("img") == 2 + 2 * SHOWN
    assert made.tags.count("circle") == 2 * 60
    assert str(page.parent) not in html


@pytest.mark.slow
def test_labels_columns_and_values_that_are_html_are_shown_as_text(page: Path) -> None:
    html = page.read_text(encoding="utf-8")
    made = Page(html)
    assert "script" not in made.tags
    assert "u" not in made.tags
    assert "<script" not in html
    assert "<u>hand</u>" in made.text
    assert "<u>clinic</u>" in made.text
    assert made.text.count(EVIL) > 10  # classes, matrix, examples, map, groups
    kinds = ("data:image/", "data:text/csv;", "#")  # pictures, tables to save, sections
    assert all(source.startswith(kinds) for source in made.loads)


@pytest.mark.slow
def test_the_right_and_the_wrong_are_what_they_are_called(hostile_study: Path) -> None:
    made = test_examples.opened(hostile_study)
    assert isinstance(made, test_examples.Opened)
    found = test_examples.of_study(made)
    assert isinstance(found, test_examples.Examples)
    assert all(e.prediction.target == e.prediction.predicted for e in found.correct)
    assert all(e.prediction.target != e.prediction.predicted for e in found.wrong)
    said = predicted_classes(made.predictions, made.threshold)
    assert found.selection.correct_count == int((said == made.predictions.target.y).sum())
    assert found.selection.correct_count + found.selection.wrong_count == 720
    assert len({e.patient for e in found.correct}) == len(found.correct), "patients take turns"
    right = said == made.predictions.target.y
    assert made.threshold is not None
    over = (made.predictions.probability[:, 1] - made.threshold) / np.where(
        said == 1, 1 - made.threshold, -made.threshold
    )
    surest = made.predictions.ids[right][over[right].argmax()]
    assert found.correct[0].sample == surest
    assert all(e.shows == "evidence" and e.image for e in (*found.correct, *found.wrong))


def test_what_the_head_sees_gives_the_scores(hostile_study: Path) -> None:
    made = test_examples.opened(hostile_study)
    assert isinstance(made, test_examples.Opened)
    fold = made.study.folds[0]
    model = made.study.model(fold, made.samples.read(np.arange(2)))
    x = test_examples.embedded(model, made.samples)
    assert x.shape[0] == 720
    linear = model.classifier.head[1]  # type: ignore[union-attr,index]
    scores = x @ linear.weight.detach().numpy().T + linear.bias.detach().numpy()
    kept = made.study.tested(fold)
    rows = [made.samples.ids.index(key) for key in kept["id"]]
    told = kept.select("^score.*$").to_numpy()
    assert scores[rows] == pytest.approx(told, abs=1e-4)


@pytest.fixture
def copied(hostile_study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The study, to be damaged; a small map."""
    shutil.copytree(hostile_study, tmp_path / "study")
    monkeypatch.setattr(test_examples, "MAPPED", 20)
    return tmp_path / "study"


def test_answers_are_by_the_threshold_that_each_fold_chose(copied: Path) -> None:
    """Of calibrated probabilities, as predict says it and as the table measures it."""
    chosen = {"r0f0": (0.8, 2.0), "r0f1": (0.1, 0.5)}
    want: dict[str, bool] = {}
    for fold in Study.open(copied).folds:
        facts = json.loads((fold / "fold.json").read_text())
        facts["threshold"], facts["temperature"] = chosen[fold.name]
        manifest.write_text(fold / "fold.json", json.dumps(facts))
        kept = pl.read_parquet(fold / "predictions.parquet")
        scores = kept.select("^score.*$").to_numpy()
        p = probabilities("binary", scores, facts["temperature"])[:, 1]
        want |= dict(zip(kept["id"], p >= facts["threshold"], strict=True))
    made = test_examples.opened(copied)
    assert isinstance(made, test_examples.Opened)
    found = made.predictions
    said = np.array([want[key] for key in found.ids])
    assert (said != found.probability.argmax(axis=1)).any(), "one half would say something else"
    examples = test_examples.of_study(made)
    assert isinstance(examples, test_examples.Examples)
    assert examples.selection.wrong_count == int((said != found.target.y).sum()) > 0
    for example in (*examples.correct, *examples.wrong):
        assert example.prediction.predicted == found.target.classes[int(want[example.sample])]


def test_what_is_missing_costs_its_own_section(copied: Path) -> None:
    shutil.rmtree(copied / "evaluation")
    where = copied / "private" / "where.json"
    manifest.write_text(where, json.dumps(json.loads(where.read_text()) | {"data": "/nowhere/idx"}))
    made = Page(study_page.write(copied, copied / "report.html").read_text(encoding="utf-8"))
    assert made.ids == SECTIONS
    assert "medcl evaluate STUDY" in made.text
    assert "no longer in its place" in made.text
    assert "samples cannot be read" in made.text
    assert "nowhere" not in made.text
    assert "were not evaluated: medcl evaluate" in made.text


def test_an_evaluation_of_another_study_is_not_believed(copied: Path) -> None:
    result = FinetuneResult.load(copied)
    assert not isinstance(audit_section.evaluation(copied, result), Absent)
    other = audit_section.evaluation(copied, replace(result, made_from="another"))
    assert isinstance(other, Absent)
    assert "made anew" in other.reason
    path = copied / "evaluation" / "evaluation.json"
    manifest.write_text(path, json.dumps(json.loads(path.read_text()) | {"attacks": [{"new": 1}]}))
    assert isinstance(audit_section.evaluation(copied, result), Absent)


def test_a_leak_is_said_in_red(copied: Path) -> None:
    path = copied / "evaluation" / "evaluation.json"
    raw = json.loads(path.read_text())
    raw["audit"]["counts"]["copy"] = 3
    manifest.write_text(path, json.dumps(raw))
    html = study_page.write(copied, copied / "report.html").read_text(encoding="utf-8")
    assert 'class="leak">LEAK: ' in html


@pytest.mark.slow
def test_several_stand_side_by_side(hostile_study: Path, digits_run: Run, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(hostile_study, other)
    run = tmp_path / "run"
    shutil.copytree(digits_run.path, run, ignore=shutil.ignore_patterns("probe"))
    out = tmp_path / "both.html"
    asked = ["report", str(hostile_study), str(other), str(run), "--out", str(out)]
    done = CliRunner().invoke(app, asked, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    html = out.read_text(encoding="utf-8")
    made = Page(html)
    assert made.ids == ["what", "figures", "pairs", "calibration"]
    assert "No measurable difference between" in made.text
    assert "was not probed yet" in made.text
    assert made.text.count("AUROC") > 2
    assert "<script" not in html
    assert str(tmp_path) not in html
    seen = look(out, tmp_path / "profile")
    assert seen.problems == []
    assert seen.measured["over"] == []
    with pytest.raises(UsageError, match="neither a run nor a study"):
        comparison_page.write([hostile_study, tmp_path], out)


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1200])
def test_a_browser_shows_it_and_runs_nothing(page: Path, tmp_path: Path, width: int) -> None:
    seen = look(page, tmp_path / "profile", width=width)
    assert seen.problems == []
    assert [r for r in seen.requests if not r.startswith("data:")] == [page.as_uri()]
    assert seen.measured["ran"] == "undefined"
    assert seen.measured["scripts"] == 0
    assert EVIL in seen.measured["text"]
    assert seen.measured["scroll"] <= width
    assert seen.measured["over"] == []
    assert seen.measured["ids"] == SECTIONS
    assert len(seen.measured["images"]) == 2 + 2 * SHOWN
    assert min(seen.measured["images"]) > 50
    assert min(seen.measured["tables"]) > 0
    assert seen.measured["dots"] == 2 * 60
    assert len(seen.measured["tabbed"]) >= seen.measured["operable"] > 5  # by keyboard alone
    assert all(seen.measured["tabbed"])  # and one sees where one is


@pytest.mark.slow
def test_the_browser_would_have_noticed(page: Path, tmp_path: Path) -> None:
    """The same checks on a page as it must not be: unescaped, too wide, and asking elsewhere."""
    html = page.read_text(encoding="utf-8")
    start = html.index('<meta http-equiv="Content-Security-Policy"')
    bad = html[:start] + html[html.index(">", start) + 1 :]
    wide = '<p style="width: 900px">wide</p><img src="http://127.0.0.1:9/x.png">'
    bad = bad.replace("<body>", "<body><script>window.hacked=1;console.log(1)</script>" + wide)
    path = tmp_path / "bad.html"
    path.write_text(bad, encoding="utf-8")
    seen = look(path, tmp_path / "profile")
    assert seen.measured["ran"] == "number"
    assert seen.measured["scripts"] == 1
    assert seen.problems
    assert "http://127.0.0.1:9/x.png" in seen.requests
    assert seen.measured["over"]


def test_curves_are_those_of_scikit_learn_and_have_the_threshold() -> None:
    from base64 import b64decode

    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 200)
    p = np.clip(0.4 * y + 0.6 * rng.random(200), 0, 1)
    names = np.array([f"s{n}" for n in range(200)])
    target = Target("binary", ("no", "yes"), y)
    predictions = Predictions("x", names, names, target, np.stack([1 - p, p], 1))
    drawn = plots.roc_and_pr(predictions, np.full(200, 0.5))
    assert drawn is not None
    assert drawn == plots.roc_and_pr(predictions, np.full(200, 0.5))
    assert drawn != plots.roc_and_pr(predictions, np.full(200, 0.7))  # another dot
    assert b"<svg" in b64decode(drawn.partition(",")[2])
    several = Target("multilabel", ("a", "b"), np.stack([y, np.full(200, np.nan)], 1).astype(float))
    labels = Predictions("x", names, names, several, np.stack([p, p], 1))
    assert plots.roc_and_pr(labels) is not None  # of the one that is known
    value = Target("regression", ("age",), y.astype(float))
    assert plots.roc_and_pr(Predictions("x", names, names, value, p[:, None])) is None
