"""Public sets of signals: folds, problems and labels as their authors define them; one board."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from public_sets import cinc2017_shaped, mitbih_shaped, ptbxl_shaped, ucr_shaped

import medcl
from medcl import plugin as plugins
from medcl.archive.index import Index, build
from medcl.benchmark import fitting, supervised
from medcl.benchmark.benchmark import ensembles, references
from medcl.benchmark.contract import BESIDE, FOLD, HANDCRAFTED, KEY, PATIENT, Problem
from medcl.benchmark.encoders import by_name, found
from medcl.benchmark.scoreboard import Figure, Scoreboard
from medcl.benchmark.sources import Sources
from medcl.errors import MedclError, UsageError
from medcl.metrics.bootstrap import Interval
from medcl.metrics.measures import measure
from medcl.metrics.metrics import once
from medcl.recipe import given
from medcl.run import Run
from medcl_biosignals.aami import CLASSES
from medcl_biosignals.baselines import names
from medcl_biosignals.benchmarks.cinc2011 import cinc2011
from medcl_biosignals.benchmarks.cinc2017 import cinc2017
from medcl_biosignals.benchmarks.liu2022 import liu2022
from medcl_biosignals.benchmarks.mitbih import DS1, DS2, mitbih
from medcl_biosignals.benchmarks.ptbxl import ptbxl
from medcl_biosignals.benchmarks.ucr import ucr


@pytest.fixture(scope="module")
def ptb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ptbxl_shaped(tmp_path_factory.mktemp("ptbxl"))


def test_ptbxl_is_asked_by_its_statements_and_folds(ptb: Path) -> None:
    found = ptbxl(ptb)
    assert found.table[KEY][0] == "00000/00001_lr"
    assert (found.judged, found.fitted) == ((3,), (1, 2))
    assert "subset, 36 of 21,799" in found.about
    assert "Fold 10 is not here" in found.notes[0]
    problems = {p.name: p for p in found.problems}
    assert problems["superclass"].classes == ("MI", "NORM")
    assert problems["subclass"].classes == ("IMI", "NORM")
    assert problems["rhythm"].classes == ("AFIB", "SR")
    assert "form" not in problems  # nothing of it in these recordings
    y = problems["superclass"].target(found.table).y
    np.testing.assert_array_equal(y[:4], [[0, 1], [0, 1], [1, 0], [1, 0]])
    np.testing.assert_array_equal(problems["AFIB"].target(found.table).y[:6], [1, 1, 0, 0, 0, 0])


def test_with_fold_ten_the_folds_are_the_published_ones(ptb: Path, tmp_path: Path) -> None:
    for path in ptb.iterdir():
        if path.suffix != ".csv" or path.stem == "scp_statements":
            (tmp_path / path.name).symlink_to(path)
    rows = pl.read_csv(ptb / "ptbxl_database.csv")
    rows.with_columns(strat_fold=pl.Series([n % 10 + 1 for n in range(len(rows))])).write_csv(
        tmp_path / "ptbxl_database.csv"
    )
    found = ptbxl(tmp_path)
    assert (found.judged, found.fitted, found.notes) == ((10,), tuple(range(1, 9)), ())


def test_of_one_fold_alone_the_patients_are_judged_in_five() -> None:
    plugin = plugins.get("biosignals")
    assert isinstance(plugin, plugins.Plugin)
    assert plugin.showcase is not None
    found = ptbxl(plugin.showcase.data)
    assert found.table[PATIENT].n_unique() == 298
    assert plugin.showcase.about.startswith("the ECGs of 298 people")
    assert (found.judged, found.fitted) == ((), ())
    assert "All recordings are of fold 8" in found.notes[0]
    asked = fitting.asked(found, found.problems[0])
    assert len(asked.parts) == 5
    assert sorted(asked.tested) == list(range(len(found.table)))
    for part in asked.parts:
        assert not set(asked.patients[part.train]) & set(asked.patients[part.test])


def test_a_board_says_what_is_a_gain() -> None:
    def interval(low: float, value: float, high: float) -> Interval:
        return Interval(value, low, high, 0)

    def figure(row: str, against: dict[str, Interval]) -> Figure:
        own = interval(0.6, 0.7, 0.8)
        return Figure("p", row, 0.1, 24, 1, own, own, None, against)

    better, level = interval(0.01, 0.02, 0.03), interval(-0.01, 0.02, 0.03)
    worse = interval(-0.03, -0.02, -0.01)
    figures = [
        figure("handcrafted", {}),
        figure("untrained a", {"handcrafted": worse}),
        figure("a", {"handcrafted": level, "untrained a": better}),
        figure("b", {"handcrafted": worse, "untrained a": level}),
    ]
    board = Scoreboard("s", "", "", "", [{"name": "p", "metric": "auroc"}], figures, [], {})
    assert board.verdict("p") == [
        "From 24 labelled patients, a has auroc 0.700 [0.600, 0.800]; handcrafted 0.700: no "
        "measurable gain, +0.020 [-0.010, +0.030]; untrained a 0.700: a gain, +0.020 [+0.010, "
        "+0.030].",
        "From 24 labelled patients, b has auroc 0.700 [0.600, 0.800]; handcrafted 0.700: a loss, "
        "-0.020 [-0.030, -0.010]; untrained a 0.700: no measurable gain, +0.020 [-0.010, +0.030].",
    ]


@pytest.mark.slow
def test_series_of_ucr_are_judged_on_the_authors_test_part(tmp_path: Path) -> None:
    found = ucr(ucr_shaped(tmp_path))
    assert (found.fitted, found.judged) == ((1,), (2,))
    assert found.problems[0].classes == ("-1", "1")
    assert found.table["class"].to_list()[:2] == ["-1", "1"]
    board = medcl.benchmark("ucr", tmp_path, tmp_path / "board", fractions=[1.0], workers=1)
    (hand,) = (f for f in board.figures if f.row == HANDCRAFTED)
    assert hand.own.value is not None
    assert hand.own.value > 0.9  # waves of one and of three times a frequency
    assert "intervals are over series" in board.notes[0]


def test_a_folder_of_ucr_holds_one_set(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no NAME_TRAIN.tsv"):
        ucr(tmp_path)
    ucr_shaped(tmp_path)
    (tmp_path / "Waves_TEST.tsv").rename(tmp_path / "Other_TRAIN.tsv")
    with pytest.raises(UsageError, match=r"several sets \(Other, Waves\)"):
        ucr(tmp_path)
    (tmp_path / "Other_TRAIN.tsv").unlink()
    with pytest.raises(UsageError, match="Waves_TEST.tsv is missing"):
        ucr(tmp_path)


def test_a_recording_that_was_rejected_is_not_left_out_in_silence(tmp_path: Path) -> None:
    ucr_shaped(tmp_path, samples=8)  # under a second
    with pytest.raises(MedclError, match=r"28 of 28 recordings of ucr.*first reject.*8 samples"):
        medcl.benchmark("ucr", tmp_path, tmp_path / "board", workers=1)


def test_a_folder_of_encoders_and_equal_names(tmp_path: Path) -> None:
    released = Run.open(Path("ecg-small")).path
    for name in ("a/run", "b/run", "b/other"):
        shutil.copytree(released, tmp_path / name)
    runs = [*found(tmp_path / "a" / "run"), *found(tmp_path / "b"), *found("ecg-small")]
    assert list(by_name(runs)) == ["a-run", "other", "b-run", "ecg-small"]
    with pytest.raises(UsageError, match="would have one name"):
        by_name([*found(tmp_path / "b"), *found(tmp_path / "b" / "run")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no run"):
        found(tmp_path / "empty")


def test_an_ensemble_is_the_mean_probability_of_all_runs() -> None:
    one, two = np.float32([[0.2, 0.8]]), np.float32([[0.6, 0.4]])
    drawn = {run: {0.1: [(4, p), (4, 1 - p)]} for run, p in (("a", one), ("b", two))}
    rows = {f"{run}{beside}": d for run, d in drawn.items() for beside in ("", BESIDE)}
    found = ensembles(["a", "b"], rows)
    assert list(found) == ["ensemble", "ensemble + handcrafted"]
    for together in found.values():
        assert [people for people, _ in together[0.1]] == [4, 4]
        np.testing.assert_allclose([p for _, p in together[0.1]], [[[0.4, 0.6]], [[0.6, 0.4]]])
    assert ensembles(["a"], rows) == {}
    assert references([HANDCRAFTED, "untrained a", *found])["ensemble"] == [
        HANDCRAFTED,
        "untrained a",
    ]


def test_recordings_of_equal_content_share_a_fold(tmp_path: Path) -> None:
    found = cinc2017(cinc2017_shaped(tmp_path))
    fold = dict(zip(found.table[KEY], found.table[FOLD], strict=True))
    assert fold["A00001"] == fold["A00030"]
    assert found.table[PATIENT].n_unique() == 29
    assert "1 recordings repeat" in found.notes[1]
    assert sorted(set(fold.values())) == [0, 1, 2, 3, 4]


def test_the_own_metric_is_the_mean_over_the_named_classes() -> None:
    problem = Problem("rhythm", "multiclass", ("N", "A", "~"), ("r",), "f1", ("N", "A"))
    y = np.array([0, 0, 1, 1, 2])
    scores = np.eye(3, dtype=np.float32)[[0, 1, 1, 1, 0]]
    found = measure("multiclass", y, scores, once(5))
    assert problem.value(found)[0] == pytest.approx((2 / 4 + 4 / 5) / 2)
    assert problem.shown == "F1 of N, A"


def test_no_patient_is_fitted_and_judged(ptb: Path) -> None:
    found = ptbxl(ptb)
    asked = fitting.asked(found, found.problems[0], fit=(1, 2), judge=(3,))
    (part,) = asked.parts
    assert not set(asked.patients[part.train]) & set(asked.patients[part.test])
    few = fitting.labelled(part, asked, 0.2, 0)
    whole = {p: (asked.patients[part.train] == p).sum() for p in asked.patients[few]}
    assert all((asked.patients[few] == p).sum() == n for p, n in whole.items())
    with pytest.raises(UsageError, match="no fold"):
        fitting.asked(found, found.problems[0], judge=(7,))
    with pytest.raises(UsageError, match="both fitted and judged"):
        fitting.asked(found, found.problems[0], fit=(1, 3), judge=(3,))


@pytest.mark.slow
def test_a_board_tells_fibrillation_and_resumes(ptb: Path, tmp_path: Path) -> None:
    asked = {"fractions": (1.0, 0.3), "resamples": 50, "problems": ("AFIB",)}
    made = medcl.benchmark("ptbxl", ptb, tmp_path / "board", **asked)
    by = {(f.row, f.fraction): f for f in made.figures}
    assert by["handcrafted", 1.0].own.value == pytest.approx(1.0)
    assert by["untrained encoder", 1.0].draws == 3
    assert by["untrained encoder + handcrafted", 0.3].patients == 4
    assert set(by["untrained encoder", 1.0].against) == {"handcrafted"}
    page = (tmp_path / "board" / "benchmark.html").read_text()
    assert "AFIB: AUROC" in page
    assert "Not for diagnosis" in page
    lines = (tmp_path / "board" / "rows.csv").read_text().splitlines()
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / "board").rglob("*.npy")}
    again = medcl.benchmark("ptbxl", ptb, tmp_path / "board", **asked)
    assert again.figures == made.figures
    assert (tmp_path / "board" / "rows.csv").read_text().splitlines() == lines
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "board").rglob("*.npy")} == times
    stored = json.loads((tmp_path / "board" / "benchmark.json").read_text())
    assert stored["figures"][0]["row"] == "handcrafted"


@pytest.mark.slow
def test_the_same_network_is_trained_with_labels_alone(ptb: Path, tmp_path: Path) -> None:
    found = ptbxl(ptb)
    build(found.archive, tmp_path / "index", plugins.get("biosignals"))
    problem = next(p for p in found.problems if p.name == "AFIB")
    asked = fitting.asked(found, problem)
    sources = Sources(found, tmp_path / "index", tmp_path, {})
    recipe = supervised.alone(given(found.recipe, [*found.settings, "encoder.widths=[8,8]"]))
    place = tmp_path / "scores"
    ((fraction, draw, people, scores),) = supervised.predicted(
        asked, sources, recipe, (1.0,), place
    )
    assert (fraction, draw, people) == (1.0, 0, 12)
    assert scores.shape == (12, 2)
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-5)
    elsewhere = Sources(found, tmp_path / "no index", tmp_path, {})
    (again,) = supervised.predicted(asked, elsewhere, recipe, (1.0,), place)
    np.testing.assert_array_equal(again[3], scores)  # taken from the folder


def test_encoders_are_compared_with_what_they_have_to_beat() -> None:
    rows = ["handcrafted", "untrained a", "untrained a + handcrafted", "a", "a + handcrafted"]
    found = references([*rows, "supervised a"])
    assert found["a"] == ["handcrafted", "untrained a", "supervised a"]
    assert found["a + handcrafted"] == ["handcrafted", "untrained a + handcrafted", "supervised a"]
    assert found["untrained a"] == found["supervised a"] == ["handcrafted"]
    assert "handcrafted" not in found


@pytest.mark.slow
def test_short_recordings_have_features_too(tmp_path: Path) -> None:
    found = cinc2017(cinc2017_shaped(tmp_path / "set"))
    build(found.archive, tmp_path / "index", plugins.get("biosignals"), reader=found.reader)
    sources = Sources(found, tmp_path / "index", tmp_path, {})
    x = sources("handcrafted")
    assert x.shape == (30, len(names(1)))
    r = x[:, names(1).index("r.0")]
    clean = np.array([label != "~" for label in found.table["rhythm"]])
    np.testing.assert_allclose(r[clean], 1.0, atol=0.15)  # 8 s among them, as lead I


def test_an_unknown_set_or_problem_says_what_there_is(ptb: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean 'ptbxl'"):
        medcl.benchmark("ptb-xl", ptb, tmp_path)
    with pytest.raises(UsageError, match="superclass"):
        medcl.benchmark("ptbxl", ptb, tmp_path, problems=("superclas",))
    with pytest.raises(UsageError, match="training2017"):
        medcl.benchmark("cinc2017", ptb, tmp_path)


@pytest.mark.parametrize("lists", [True, False])
def test_quality_is_asked_by_the_lists_or_the_table(tmp_path: Path, lists: bool) -> None:
    place = tmp_path / "set-a"
    place.mkdir()
    names = [f"{1000 + n}" for n in range(20)]
    for name in names:
        (place / f"{name}.hea").write_text("")
    good, bad = names[:15], names[15:]
    if lists:
        (place / "RECORDS-acceptable").write_text("\n".join(good))
        (place / "RECORDS-unacceptable").write_text("\n".join(bad))
    else:
        rows = [f"{n},{'acceptable' if n in good else 'unacceptable'}" for n in names]
        (tmp_path / "labels.csv").write_text("record,quality\n" + "\n".join(rows))
    found = cinc2011(tmp_path)
    (problem,) = found.problems
    assert found.archive == place
    assert problem.target(found.table).y.tolist() == [0] * 15 + [1] * 5
    assert problem.shown == "accuracy"
    folds = found.table.filter(pl.col("quality") == "unacceptable")["fold"].to_list()
    assert sorted(folds) == [0, 1, 2, 3, 4]
    with pytest.raises(UsageError, match="does not hold set A"):
        cinc2011(tmp_path / "set-a" / "nothing")


def test_segments_of_ppg_are_judged_by_patient(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for who in range(6):
        segments = (rng.random((7, 1000)) * 32767).astype(np.int16)
        labels = np.array([0, 1, 2, 3, 4, 5, who % 6], np.uint8)
        np.savez(tmp_path / f"p{who}.npz", ppg=segments, labels=labels, fs=100)
    found = liu2022(tmp_path)
    assert "subset, 6 of 91 public patients, 42 segments" in found.about
    assert found.problems[0].target(found.table).y.tolist()[:7] == [0, 1, 2, 3, 4, 5, 0]
    assert found.table.group_by(PATIENT).agg(pl.col(FOLD).n_unique())[FOLD].max() == 1
    summary = build(tmp_path, tmp_path.parent / "liu-index", plugins.get("biosignals"))
    assert summary.items == 42
    assert set(Index.open(tmp_path.parent / "liu-index").paths["key"]) == set(found.table[KEY])
    (tmp_path / "none").mkdir()
    with pytest.raises(UsageError, match="no file of segments"):
        liu2022(tmp_path / "none")


def test_the_split_of_mit_bih_is_de_chazals() -> None:
    paced = {"102", "104", "107", "217"}
    assert len(DS1) == len(DS2) == 22
    assert len({*DS1, *DS2, *paced}) == 48
    assert {"101", "201", "230"} <= set(DS1)
    assert {"100", "202", "234"} <= set(DS2)


def test_beats_of_both_parts_are_fitted_on_one_and_judged_on_the_other(tmp_path: Path) -> None:
    mitbih_shaped(tmp_path / "mitdb", ("101", "106", "100", "103", "102"))
    found = mitbih(tmp_path)
    assert (found.fitted, found.judged) == ((1,), (2,))
    assert "a subset, 2 records of DS1 and 2 records of DS2: 208 beats, fitted" in found.about
    assert set(found.table.filter(pl.col(FOLD) == 2)[PATIENT]) == {"100", "103"}
    mine = found.table.filter(pl.col(KEY) == "101")["nsvf"].to_list()
    assert mine[:13] == [*"NNNNN", *"SSSS", *"VV", "F", None]  # NLRej, AaJS, VE, F, Q
    nsv, nsvf = (p.target(found.table).y for p in found.problems)
    assert nsv[:13].tolist() == [0] * 5 + [1] * 4 + [2] * 2 + [-1, -1]
    assert nsvf[11] == 3
    mitbih_shaped(tmp_path / "elsewhere" / "ds2", ("105",))  # fewer: the folder with more counts
    assert mitbih(tmp_path).archive == tmp_path / "mitdb"
    (tmp_path / "mitdb" / "101.atr").write_bytes(b"none")
    with pytest.raises(UsageError, match="Record 101 cannot be read"):
        mitbih(tmp_path)


def test_ds1_beside_ds2_in_folders_of_their_own(tmp_path: Path) -> None:
    mitbih_shaped(tmp_path / "ds1", DS1[:5])
    mitbih_shaped(tmp_path / "ds2", ("100",))
    found = mitbih(tmp_path)
    assert found.archive == tmp_path
    assert set(found.table[KEY]) == {*(f"ds1/{name}" for name in DS1[:5]), "ds2/100"}
    alone = mitbih(tmp_path / "ds1")
    assert (alone.fitted, alone.judged) == ((), ())
    assert "Figures of one part are no figures of DS1 → DS2." in alone.notes
    with pytest.raises(UsageError, match=r"holds no 101\.hea"):
        mitbih(tmp_path / "ds1" / "none")


@pytest.mark.slow
def test_every_row_is_of_its_own_beat_whatever_the_recipe(tmp_path: Path) -> None:
    sample = plugins.get("biosignals").sample
    assert sample is not None
    for path in sample.iterdir():
        if path.stem in ("106", "119", "201", "208", "209"):
            shutil.copy(path, tmp_path)
    found = mitbih(tmp_path)
    build(found.archive, tmp_path / "index", plugins.get("biosignals"))
    sources = Sources(found, tmp_path / "index", tmp_path, {})
    for recipe in (sources.own, Run.open(Path("ecg-small")).recipe):
        samples, rows = sources.samples(recipe)
        assert sorted(rows) == list(range(len(found.table)))
        said = [None if name is None else CLASSES.index(name) for name in found.table["nsvf"]]
        told = np.array([4 if code is None else code for code in said])  # the rest are Q
        np.testing.assert_array_equal(np.asarray(samples.labels["aami"]), told[rows])
        assert samples.read(np.arange(2))["x"].shape[2] == 300
