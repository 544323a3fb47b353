"""Which answers a report shows, for every kind of problem; and what instances of bags counted."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from bags_in_memory import MUSK

from medcl.archive.index import build
from medcl.audit.compare import Predictions
from medcl.finetune.finetune import finetune, opened
from medcl.labels.target import Target
from medcl.plugin import get
from medcl.report import pictures, study_page, test_examples
from medcl.report.example_selection import SHOWN, Selection, selected


def predicted(
    kind: str,
    classes: tuple[str, ...],
    y: np.ndarray,
    probability: np.ndarray,
    fold: np.ndarray | None = None,
) -> Predictions:
    ids = np.array([f"s{n}" for n in range(len(y))])
    patients = np.array([f"p{n // 2}" for n in range(len(y))])
    return Predictions("some", ids, patients, Target(kind, classes, y), probability, fold)  # type: ignore[arg-type]


def rows(found: Selection) -> tuple[list[int], list[int]]:
    return [a.row for a in found.correct], [a.row for a in found.wrong]


def test_classes_by_how_sure_they_were() -> None:
    p = np.array([0.9, 0.2, 0.6, 0.99, 0.3, 0.05])
    y = np.array([1, 0, 0, 0, 1, 0])
    found = selected(predicted("binary", ("no", "yes"), y, np.stack([1 - p, p], axis=1)))
    assert rows(found) == ([5, 0, 1], [3, 4, 2])  # 3 and 2 are of one patient: 4 has its turn first
    assert (found.correct_count, found.wrong_count) == (3, 3)
    assert (found.wrong[0].predicted, found.wrong[0].target) == ("yes", "no")
    assert found.wrong[0].probability == pytest.approx(0.99)
    assert "Of 6 test samples 3 were predicted wrongly" in found.about


def test_of_two_classes_the_second_begins_at_the_study_s_threshold() -> None:
    p = np.array([0.3, 0.1, 0.25, 0.9])
    y = np.array([1, 0, 0, 1])
    found = predicted("binary", ("no", "yes"), y, np.stack([1 - p, p], axis=1))
    assert selected(found).wrong_count == 1  # at one half, the first one
    told = selected(found, np.full(4, 0.2))
    assert rows(told) == ([3, 1, 0], [2])
    assert (told.wrong[0].predicted, told.wrong[0].target) == ("yes", "no")
    assert told.wrong[0].probability == pytest.approx(0.25)
    assert told.about.endswith(
        "yes is predicted at or above the threshold of the validation patients, 0.20 of these "
        "probabilities."
    )


def test_several_labels_are_answers_one_by_one() -> None:
    y = np.array([[1.0, np.nan], [0.0, 1.0], [1.0, 0.0]])
    p = np.array([[0.8, 0.999], [0.1, 0.2], [0.6, 0.7]])
    found = selected(predicted("multilabel", ("a", "b"), y, p))
    assert (found.correct_count, found.wrong_count) == (3, 2), "what is unknown is no answer"
    assert [(a.row, a.predicted, a.target) for a in found.wrong] == [
        (1, "b: no", "b: yes"),
        (2, "b: yes", "b: no"),
    ]
    assert [(a.row, a.predicted, a.output) for a in found.correct] == [
        (1, "a: no", 0),
        (2, "a: yes", 0),
        (0, "a: yes", 0),
    ]


def test_values_by_how_far_off_they_are() -> None:
    y = np.array([1.0, 2.0, 3.0, np.nan, 5.0, 6.0])
    said = np.array([1.1, 5.0, 3.0, 9.0, 4.0, 6.5])[:, None]
    found = selected(predicted("regression", ("age",), y, said))
    assert rows(found) == ([2, 0, 5], [1, 4])
    assert (found.wrong[0].predicted, found.wrong[0].target) == ("5", "2")
    assert found.wrong[0].probability is None
    assert "off by no more than 0.5" in found.about


def test_risks_are_ranked_within_their_model() -> None:
    y = np.array([[3.0, 1], [5.0, 0], [2.0, 1], [9.0, 1], [1.0, 1], [7.0, 0]])
    risk = np.array([0.9, 0.1, 0.5, 50.0, 70.0, 60.0])[:, None]
    fold = np.array([0, 0, 0, 1, 1, 1])
    found = selected(predicted("cox", ("time",), y, risk, fold))
    assert rows(found) == ([0, 4, 2], [3])
    assert found.titles == ("High risk, and it came", "Low risk, and yet it came")
    assert found.correct[0].predicted == "risk above 100% of others"
    assert found.wrong[0].target == "event at 9"


def test_no_more_than_a_few_are_shown() -> None:
    y = np.zeros(40, int)
    found = selected(predicted("binary", ("no", "yes"), y, np.tile([0.7, 0.3], (40, 1))))
    assert len(found.correct) == SHOWN
    assert found.wrong == []
    assert len({a.row // 2 for a in found.correct}) == SHOWN, "of different patients"


@pytest.mark.parametrize("places", [None, np.random.default_rng(0).random((30, 2))])
def test_instances_are_drawn(places: np.ndarray | None) -> None:
    weights = np.random.default_rng(1).random(30)
    assert pictures.instances(weights, places).startswith("data:image/png;base64,")


@pytest.mark.slow
def test_a_study_of_bags_shows_what_instances_counted(tmp_path: Path) -> None:
    (tmp_path / "archive").mkdir()
    shutil.copy(MUSK, tmp_path / "archive" / MUSK.name)
    (tmp_path / "key").write_bytes(b"these bags have no secrets at all")
    build(tmp_path / "archive", tmp_path / "idx", get("pathology"), key_file=tmp_path / "key")
    small = ("finetune.epochs=2", "finetune.folds=null", "finetune.repeats=1")
    source = opened(tmp_path / "idx", "pathology/abmil", [*small, "finetune.bootstraps=100"])
    finetune(source, tmp_path / "study")
    made = test_examples.opened(tmp_path / "study")
    assert isinstance(made, test_examples.Opened)
    found = test_examples.of_study(made)
    assert isinstance(found, test_examples.Examples)
    shown = [*found.correct, *found.wrong]
    assert len(shown) > SHOWN
    assert all(e.shows == "instances" and e.image for e in shown)
    page = study_page.write(tmp_path / "study", tmp_path / "report.html").read_text("utf-8")
    assert "Instances of a bag" in page
    assert "by integrated gradients" not in page
