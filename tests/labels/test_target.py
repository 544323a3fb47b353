"""Labels as numbers: every kind, what is guessed, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from bags_in_memory import of_bags
from hypothesis import assume, given
from hypothesis import strategies as st

from medcl.errors import MedclError, UsageError
from medcl.labels import target as targets
from medcl.labels.target import Target
from medcl.plugin import Samples, Task
from medcl.recipe import Finetune


def carrying(**labels: list[object]) -> Samples:
    bags = [np.zeros((1, 2), np.float32)] * len(next(iter(labels.values())))
    samples = of_bags(bags)
    found = {name: np.array(values) for name, values in labels.items()}
    return Samples(samples.ids, samples.items, samples.patients, samples.read, found)


def learnt(samples: Samples, **settings: object) -> Target:
    return targets.finetune_target(samples, Finetune(**settings))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "kind", "classes", "known"),
    [
        (["yes", "no", ""], "binary", ("no", "yes"), 2),
        ([1.0, -1.0, np.nan], "binary", ("-1", "1"), 2),  # of a table: −1 is a class
        ([0, 1, -1], "binary", ("0", "1"), 2),  # a plugin's codes: −1 is nothing
        ([10, 2, 1, -1], "multiclass", ("1", "2", "10"), 3),
        (["b", "a", "c"], "multiclass", ("a", "b", "c"), 3),
        ([0.5, 1.25, np.nan, 2.0], "regression", ("y",), 3),
        (list(range(40)), "regression", ("y",), 40),
    ],
)
def test_the_kind_is_guessed_from_the_values(
    values: list[object], kind: str, classes: tuple[str, ...], known: int
) -> None:
    found = learnt(carrying(y=values))
    assert (found.kind, found.classes, found.known.sum()) == (kind, classes, known)


def test_several_columns_are_several_labels_with_gaps() -> None:
    samples = carrying(a=[1, 0, np.nan], b=[np.nan, 1, np.nan])
    found = learnt(samples, kind="multilabel", classes=("a", "b"))
    assert found.y[0, 0] == 1
    assert np.isnan(found.y[0, 1])
    assert found.known.tolist() == [True, True, False]
    assert found.strata() == ["a", "b", ""]
    with pytest.raises(MedclError, match="values other than 1, 0"):
        learnt(carrying(a=[1, 2]), kind="multilabel", classes=("a",))


def test_grades_keep_the_order_given() -> None:
    found = learnt(
        carrying(g=["high", "low", "mid"]), kind="ordinal", classes=("low", "mid", "high")
    )
    assert found.y.tolist() == [2, 0, 1]
    assert targets.outputs(found, np.arange(3), Finetune()).size == 2


def test_words_have_no_order_of_their_own_and_numbers_have() -> None:
    """The alphabet would set high below low."""
    with pytest.raises(
        UsageError, match=r"grades of 'g' do not give their order: .*The grades are: high, low, mid"
    ):
        targets.finetune_target(carrying(g=["high", "low", "mid"]), Finetune(kind="ordinal"))
    found = targets.finetune_target(carrying(g=["10", "9", "2"]), Finetune(kind="ordinal"))
    assert found.classes == ("2", "9", "10")


def test_survival_needs_its_event_and_is_cut_by_training_events() -> None:
    time, event = [1.0, 2.0, 3.0, 4.0, 100.0, 200.0], [1.0, 1.0, 1.0, 1.0, 0.0, 1.0]
    samples = carrying(t=time, e=event)
    with pytest.raises(UsageError, match="needs finetune.event"):
        learnt(samples, kind="hazard", label="t")
    found = learnt(samples, kind="hazard", label="t", event="e")
    cut, edges = targets.cut(found, np.arange(4), intervals=2)
    assert edges == (2.5,)
    assert cut.y[:, 0].tolist() == [0, 0, 1, 1, 1, 1]
    assert found.strata() == ["event"] * 4 + ["censored", "event"]


def test_weights_are_by_training_samples() -> None:
    found = Target("binary", ("a", "b"), np.array([0, 0, 0, 1, 1, 1]))
    weighted = targets.outputs(found, np.arange(4), Finetune(loss="weighted"))
    assert weighted.weights == pytest.approx((4 / 6, 2.0))
    with pytest.raises(UsageError, match="does not suit regression"):
        targets.outputs(
            Target("regression", ("v",), np.ones(3)), np.arange(3), Finetune(loss="focal")
        )


def test_what_cannot_be_learnt_is_one_sentence() -> None:
    with pytest.raises(UsageError, match="No label 'grde'.*Did you mean 'grade'"):
        learnt(carrying(grade=[1, 2]), label="grde")
    with pytest.raises(UsageError, match=r"Set finetune\.label"):
        learnt(carrying(a=[1, 2], b=[1, 2]))
    with pytest.raises(MedclError, match="one class only"):
        learnt(carrying(a=["x", "x"]), kind="multiclass")
    with pytest.raises(MedclError, match="holds text"):
        learnt(carrying(a=["x", "y"]), kind="regression")


NAMES = st.sampled_from(["1", "2", "10", " 10", "F", "F ", "\tF", "f", "tumor", "TUMOR ", "", "b"])


@given(st.lists(NAMES, min_size=2, max_size=30))
def test_a_task_and_a_recipe_give_the_same_target(names: list[str]) -> None:
    """The probe reads labels through a task, finetune through its recipe: one rule for both."""
    classes = {name.strip() for name in names} - {""}
    assume(len(classes) > 1)
    samples = carrying(y=list(names))
    by_task = targets.target(Task("y", "multiclass"), samples)
    by_recipe = learnt(samples, kind="multiclass", label="y")
    assert set(by_task.classes) == classes
    assert (by_task.classes, by_task.notes) == (by_recipe.classes, by_recipe.notes)
    assert np.array_equal(by_task.y, by_recipe.y)
    for name, code in zip(names, by_task.y, strict=True):
        assert code == (by_task.classes.index(name.strip()) if name.strip() else -1)


@given(st.lists(st.integers(-3, 30), min_size=2, max_size=30))
def test_numbers_are_one_class_however_they_are_written(values: list[int]) -> None:
    assume(len(set(values)) > 1)
    as_float = targets.target(Task("y", "multiclass"), carrying(y=[float(v) for v in values]))
    as_text = targets.target(Task("y", "multiclass"), carrying(y=[str(v) for v in values]))
    assert as_float.classes == as_text.classes == tuple(map(str, sorted(set(values))))
    assert np.array_equal(as_float.y, as_text.y)


def test_white_space_makes_no_class_and_case_is_said() -> None:
    found = targets.target(
        Task("y", "multiclass"), carrying(y=["tumor", "TUMOR ", " tumor", "normal"])
    )
    assert found.classes == ("TUMOR", "normal", "tumor")
    assert found.y.tolist() == [2, 0, 2, 1]
    (note,) = found.notes
    assert "'TUMOR' and 'tumor' of 'y' differ only in case" in note
    assert found.at(np.array([0])).notes == found.notes


@pytest.mark.parametrize(
    "names",
    [
        ["HER2-", "HER2\u2013", "HER2\u2212"], ["tumor", "\uff54umor"], ["tu mor", "tumor"],
        ["MSI-H", "MSIH"], ["Tumor (primary)", "Tumor(primary)"], ["1+", "1 +"], ["01", "1"],
        ["1,0", "1"], ["grade 1", "grade_1", "Grade-1"],
    ],
)  # fmt: skip
def test_classes_that_typing_alone_parts_are_said(names: list[str]) -> None:
    found = targets.target(Task("y", "multiclass"), carrying(y=[*names, "other"]))
    assert len(found.classes) == len(names) + 1
    (note,) = found.notes
    assert "differ only in case or punctuation" in note
    assert all(repr(name) in note for name in names)


@pytest.mark.parametrize("names", [["1-2", "12"], ["HER2-", "HER2+"], ["T1", "T11"], ["+", "++"]])
def test_grades_that_punctuation_parts_are_not(names: list[str]) -> None:
    assert not targets.target(Task("y", "multiclass"), carrying(y=[*names, "other"])).notes


@pytest.mark.parametrize("values", [[0.0, 1.0, 2.7], ["0", "1", "2.7"]])
def test_a_fraction_is_never_a_class(values: list[object]) -> None:
    for classes in ((), ("N", "S", "V")):
        with pytest.raises(
            MedclError, match=r"2\.7: a fraction is not a class|not among its classes"
        ):
            targets.target(Task("y", "multiclass", classes=classes), carrying(y=values))
    with pytest.raises(MedclError, match=r"2\.7: a fraction is not a class"):
        learnt(carrying(y=values), kind="multiclass", label="y")


def test_a_fraction_that_the_recipe_lists_is_a_grade() -> None:
    """The clinical dementia rating: 0, 0.5, 1, 2, 3."""
    grades = ("0", "0.5", "1")
    found = learnt(carrying(cdr=[0.5, 1.0, 0.0]), kind="ordinal", label="cdr", classes=grades)
    assert (found.classes, found.y.tolist()) == (grades, [1, 2, 0])


def test_labels_of_a_task_in_all_the_ways_they_come() -> None:
    named = targets.target(Task("l", "multiclass", classes=("N", "S")), carrying(l=["S", "", "N "]))
    assert named.y.tolist() == [1, -1, 0]
    assert targets.target(Task("l", "binary"), carrying(l=["yes", "no"])).classes == ("no", "yes")
    found = targets.target(Task("l", "multiclass"), carrying(l=[2, -1, 0]))
    assert (found.classes, found.y.tolist()) == (("0", "2"), [1, -1, 0])
    coded = targets.target(Task("l", "multiclass", classes=("N", "S", "V")), carrying(l=[2, -1, 0]))
    assert coded.y.tolist() == [2, -1, 0]
    table = targets.target(
        Task("l", "multiclass", classes=("1", "2", "3")), carrying(l=[1.0, np.nan, 3.0])
    )
    assert table.y.tolist() == [0, -1, 2]
    known = targets.target(Task("l", "regression"), carrying(l=[1.5, np.nan])).known
    assert known.tolist() == [True, False]
    with pytest.raises(MedclError, match="not among its classes"):
        targets.target(Task("l", "multiclass", classes=("N",)), carrying(l=["N", "V"]))
    with pytest.raises(MedclError, match="numbers are needed"):
        targets.target(Task("l", "regression"), carrying(l=["tall"]))
    with pytest.raises(MedclError, match="shape"):
        targets.target(Task("l", "multilabel", classes=("a", "b")), carrying(l=[1, 0]))
    many = Samples(["a"], ["a"], ["a"], lambda p: {}, {"l": np.array([[1.0, 2.7]])})
    with pytest.raises(MedclError, match="values other than 1, 0"):
        targets.target(Task("l", "multilabel", classes=("a", "b")), many)


@pytest.mark.parametrize(
    "spelt",
    ["tumor\u00a0", "tu\u200bmor", '"tumor"', " tumor\t", "\ufefftumor"],
)
def test_what_does_not_show_makes_no_class(spelt: str) -> None:
    target = learnt(carrying(y=["tumor", spelt, "normal", "normal "]), label="y")
    assert target.classes == ("normal", "tumor")
    assert target.y.tolist() == [1, 1, 0, 0]


def test_accents_blanks_and_zeros_are_written_in_several_ways() -> None:
    target = learnt(carrying(y=["gr\u00fcn", "gru\u0308n", "rot  alt", "rot alt"]), label="y")
    assert target.classes == ("gr\u00fcn", "rot alt")
    assert learnt(carrying(y=["1", "1.0", "0", "x"]), label="y").classes == ("0", "1", "x")


def test_words_for_a_missing_value_are_unknown_unless_they_are_a_class() -> None:
    values = ["yes", "no", "NA", "n/a", "nan", "?", "-", "None", ""]
    target = learnt(carrying(y=values), label="y")
    assert target.classes == ("None", "no", "yes")  # "none" is a grade as often as a gap
    assert target.known.sum() == 3
    assert "5 labels of 'y' are a word for a missing value" in target.notes[0]
    two = learnt(carrying(y=["yes", "no", "NA"]), label="y")
    assert two.kind == "binary"
    listed = learnt(carrying(y=["yes", "no", "NA"]), label="y", classes=("NA", "no", "yes"))
    assert listed.known.all()
    assert listed.kind == "multiclass"
    assert not listed.notes


def test_spellings_that_differ_in_punctuation_are_said() -> None:
    names = ["high grade", "high_grade", "high-grade", "low grade", "HER2+", "HER2-"]
    target = learnt(carrying(y=names), label="y")
    assert len(target.notes) == 1
    assert "case or punctuation" in target.notes[0]
    assert "HER2" not in target.notes[0]


def test_losses_for_rare_classes_are_given_the_counts_of_training() -> None:
    samples = carrying(y=["no"] * 6 + ["yes"] * 2)
    settings = Finetune(label="y", loss="ldam")
    target = targets.finetune_target(samples, settings)
    made = targets.outputs(target, np.array([0, 1, 2, 6]), settings)
    assert made.counts == (3, 1)
    assert made.weights is None
    several = Target("ordinal", ("a", "b", "c"), np.array([0, 1, 2]))
    with pytest.raises(UsageError, match="logit-adjusted is for one of two or more classes"):
        targets.outputs(several, np.arange(3), Finetune(loss="logit-adjusted"))
