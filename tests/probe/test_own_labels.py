"""A user's own labels: by window, by item, by patient; told from the table."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from bare_run import bare_run, indexed
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import medcl
from medcl import plugin as plugins
from medcl.archive.index import Index
from medcl.embeddings.embeddings import embed
from medcl.errors import MedclError, UsageError
from medcl.labels.samples_table import _longest
from medcl.probe.result import ProbeResult
from medcl.run import Run, load_samples
from medcl_cli.main import app

for room in ("ct", "pathology"):
    sys.path.append(str(Path(__file__).parents[1] / room))


def table(path: Path, *rows: str) -> Path:
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def predictions(run: Run, label: str) -> pl.DataFrame:
    return pl.read_parquet(run.path / "probe" / label / "predictions.parquet")


def predicted(run: Run, place: Path, task: str) -> tuple[medcl.Predicted, list[pl.DataFrame]]:
    out = place / "p.parquet"
    result = medcl.predict(run, run.data, out, task=task, workers=1, embeddings=False)
    names = ("p.parquet", "p.records.parquet", "p.patients.parquet")
    return result, [pl.read_parquet(place / name) for name in names]


# digits: writer_00 … writer_11, each an item and a patient of 60 samples


@pytest.fixture(scope="module")
def digits_run(digits_index: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    raw = {"plugin": "toy", "encoder": {"name": "small", "channels": 4}}
    return bare_run(raw, Index.open(digits_index), tmp_path_factory.mktemp("digits") / "run")


def test_labels_of_items_are_of_pooled_features(digits_run: Run, tmp_path: Path) -> None:
    """Figures count items; a unit's features are the mean over its samples."""
    rows = [f"writer_{n:02d}.csv,{'old' if n % 2 else 'young'}" for n in range(12)]
    result = medcl.probe(digits_run, labels=table(tmp_path / "l.csv", "key,age", *rows))
    assert (result.by, result.task, result.positive) == ("item", "age", "young")
    assert (result.train.samples, result.test.samples, result.test.patients) == (6, 6, 6)
    assert "the positive class is 'young'" in result.title
    assert "AUROC of 'young'" in result.table()[0]
    assert "AUROC of 'young'" in result.verdict()
    samples = load_samples(digits_run.recipe, digits_run.data)
    x = embed(digits_run.encoder(), samples).x
    index = Index.open(digits_run.data)
    from medcl.embeddings import head

    fitted = head.load(digits_run.path / "probe" / "age" / "head.safetensors")
    assert fitted is not None
    for row in predictions(digits_run, "age").iter_rows(named=True):
        mine = np.asarray(samples.items) == row["id"]
        want = fitted.predict(x[mine].mean(0, keepdims=True))[0]
        got = [row["pretrained.linear.old"], row["pretrained.linear.young"]]
        np.testing.assert_allclose(got, want, atol=1e-5)
        number = int(index.locate(row["id"])[7:9])
        assert row["truth"] == ("old" if number % 2 else "young")


def test_values_are_a_regression_and_nothing_raw_is_written(
    digits_run: Run, tmp_path: Path
) -> None:
    rows = [f"writer_{n:02d},{n % 3}.5" for n in range(12)]
    labels = table(tmp_path / "l.csv", "key,score", *rows)
    result = medcl.probe(digits_run, labels=labels)
    assert (result.by, result.kind, result.positive) == ("item", "regression", None)
    assert result.test.patients == 6
    assert "writer" not in (digits_run.path / "probe" / "score" / "probe.json").read_text()


def test_labels_of_samples_by_their_ids(digits_run: Run, tmp_path: Path) -> None:
    samples = load_samples(digits_run.recipe, digits_run.data)
    digit = np.asarray(samples.labels["digit"])
    big = ["big" if d > 4 else "small" for d in digit]
    ids = [f"{s},{b}" for s, b in zip(samples.ids, big, strict=True)][::2]
    labels = table(tmp_path / "l.csv", "sample,size", *ids, "nobody#3,big")
    result = medcl.probe(digits_run, labels=labels, classes=["small", "big"])
    assert (result.by, result.positive) == ("sample", "big")
    assert (result.train.samples, result.test.samples) == (180, 180)
    assert "1 of 361 labels are of samples that the data set does not hold." in result.notes
    truth = dict(zip(samples.ids, big, strict=True))
    for row in predictions(digits_run, "size").iter_rows(named=True):
        assert row["truth"] == truth[row["id"]]


def test_several_columns_are_multilabel(digits_run: Run, tmp_path: Path) -> None:
    rows = [f"writer_{n:02d}.csv,{n % 2},{int(n % 3 == 0)}" for n in range(12)]
    labels = table(tmp_path / "l.csv", "key,af,mi", *rows)
    result = medcl.probe(digits_run, labels=labels, label_column=["af", "mi"])
    assert (result.kind, result.classes, result.task) == ("multilabel", ["af", "mi"], "af+mi")
    assert {c.name for c in result.scores[0].classes} == {"af", "mi"}
    assert (digits_run.path / "probe" / "af+mi" / "probe.json").is_file()


def test_the_same_again_is_read_and_other_labels_are_not(
    digits_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medcl.embeddings.sources.commit", lambda: "0123")
    rows = [f"writer_{n:02d}.csv,{n % 2}" for n in range(12)]
    labels = table(tmp_path / "l.csv", "key,y", *rows)
    first = medcl.probe(digits_run, labels=labels)
    assert medcl.probe(digits_run, labels=labels) == first
    table(labels, "key,y", *[f"writer_{n:02d}.csv,{n // 6}" for n in range(12)])
    assert medcl.probe(digits_run, labels=labels).made_from != first.made_from


def test_a_patient_of_the_table_is_never_on_both_sides(
    digits_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table says that two writers are one person: what would leak is not tested, and said."""
    index, split = Index.open(digits_run.data), digits_run.split()
    monkeypatch.setenv("MEDCL_KEY_FILE", str(index.path.parent / "key"))
    part = {index.locate(i): split[p] for i, p in index.items.select("id", "patient").iter_rows()}
    train = next(key for key, side in part.items() if side == "train")
    test = next(key for key, side in part.items() if side == "test")
    rows = [
        f"{key},{'twin' if key in (train, test) else key},{n % 2}" for n, key in enumerate(part)
    ]
    labels = table(tmp_path / "l.csv", "key,patient,y", *rows)
    result = medcl.probe(digits_run, labels=labels)
    assert result.test.samples == 5
    assert any(note.startswith("1 test samples were left out") for note in result.notes)


def test_what_does_not_fit_is_said(digits_run: Run, tmp_path: Path) -> None:
    spans = table(tmp_path / "s.csv", "key,start,end,y", "writer_00.csv,0,1,a")
    with pytest.raises(UsageError, match="these samples have no time"):
        medcl.probe(digits_run, labels=spans)
    endless = table(tmp_path / "e.csv", "key,start,y", "writer_00.csv,0,a")
    with pytest.raises(UsageError, match="add a column end or duration"):
        medcl.probe(digits_run, labels=endless)
    ms = table(tmp_path / "m.csv", "key,start_ms,end_ms,y", "writer_00.csv,0,1,a")
    with pytest.raises(UsageError, match="another unit"):
        medcl.probe(digits_run, labels=ms)
    two = table(tmp_path / "t.csv", "key,a,b", "writer_00.csv,0,1")
    with pytest.raises(UsageError, match="Which column is the label"):
        medcl.probe(digits_run, labels=two)
    with pytest.raises(UsageError, match="no label 'c'|No label 'c'"):
        medcl.probe(digits_run, labels=two, label_column="c")
    with pytest.raises(UsageError, match="go with labels"):
        medcl.probe(digits_run, classes=["a", "b"])
    one = table(tmp_path / "o.csv", "key,y", *[f"writer_{n:02d}.csv,1" for n in range(12)])
    with pytest.raises(MedclError, match="one class only"):
        medcl.probe(digits_run, labels=one, kind="multiclass")


def test_the_command_line(digits_run: Run, tmp_path: Path) -> None:
    rows = [f"writer_{n:02d}.csv,{n % 2},{n}" for n in range(12)]
    labels = table(tmp_path / "l.csv", "file_of_it,y,n", *rows)
    asked = ["probe", str(digits_run.path), "--table", str(labels), "--label-column", "y"]
    done = CliRunner().invoke(app, [*asked, "--key-column", "file_of_it", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["positive"] == "1"
    assert ProbeResult.load(digits_run.path / "probe" / "y").by == "item"


# windows of signals


@pytest.fixture(scope="module")
def ecg(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("ecg")
    (folder / "archive").mkdir()
    sample = plugins.get("biosignals").sample
    assert sample is not None
    for name in ("101", "106", "108", "109", "112", "114", "115", "116"):
        for file in sample.glob(f"{name}.*"):
            shutil.copy(file, folder / "archive" / file.name)
    index = indexed(folder / "archive", "biosignals", folder / "idx")
    raw = {
        "plugin": "biosignals",
        "prepare": {"fs": 50.0, "band": [0.5, 20.0], "leads": ["MLII|II|V5|*"]},
        "dataset": {"kind": "window", "seconds": 5.0, "stride": 5.0, "quality": 0.0},
        "encoder": {"name": "resnet1d", "widths": [8, 8], "blocks": 1},
    }
    return bare_run(raw, index, folder / "run")


@pytest.mark.slow
def test_spans_of_time_label_the_windows_that_they_cover(ecg: Run, tmp_path: Path) -> None:
    names = ("101", "106", "108", "109", "112", "114", "115", "116")
    rows = [f"{n},0,12,a\n{n},12.0,24.9,b" for n in names]
    labels = table(tmp_path / "l.csv", "record_name,onset,end_s,state", *rows)
    result = medcl.probe(ecg, labels=labels)
    assert (result.by, result.positive) == ("sample", "b")
    truth = predictions(ecg, "state")
    # windows begin at 0, 5, …: of 10–15 s, 3 s are b; 20–25 s is b for 4.9 s; from 25 s on none
    samples = load_samples(ecg.recipe, ecg.data)
    assert samples.where is not None
    start = dict(zip(samples.ids, samples.where(np.arange(len(samples)))["start"], strict=True))
    got = {(start[row["id"]], row["truth"]) for row in truth.iter_rows(named=True)}
    assert got == {(0.0, "a"), (5.0, "a"), (10.0, "b"), (15.0, "b"), (20.0, "b")}
    by_duration = [f"{n},0,12,a\n{n},12.0,12.9,b" for n in names]
    again = table(tmp_path / "d.csv", "key,start,duration,state", *by_duration)
    medcl.probe(ecg, labels=again)
    assert predictions(ecg, "state").equals(truth)


def test_spans_that_fit_nothing_are_refused(ecg: Run, tmp_path: Path) -> None:
    late = table(tmp_path / "l.csv", "key,start,end,y", "101,99999,100000,a")
    with pytest.raises(UsageError, match="No span of l.csv covers more than half"):
        medcl.probe(ecg, labels=late)
    empty = table(tmp_path / "e.csv", "key,start,end,y", "101,5,5,a")
    with pytest.raises(UsageError, match="row 1 has no length"):
        medcl.probe(ecg, labels=empty)
    clock = table(tmp_path / "c.csv", "key,start,end,y", "101,12:00,12:05,a")
    with pytest.raises(UsageError, match="is no number"):
        medcl.probe(ecg, labels=clock)


@given(
    st.lists(st.tuples(st.integers(0, 90), st.integers(1, 60)), min_size=1, max_size=12),
    st.lists(st.tuples(st.integers(0, 90), st.integers(1, 30)), min_size=1, max_size=20),
)
def test_the_longest_span_wins(
    spans: list[tuple[int, int]], windows: list[tuple[int, int]]
) -> None:
    """Against every pair of a window and a span."""
    first = np.array([a for a, _ in spans], float)
    last = first + [n for _, n in spans]
    begin = np.array([a for a, _ in windows], float)
    end = begin + [n for _, n in windows]
    got = _longest(np.stack([begin, end], 1), first, last)
    for w in range(len(begin)):
        held = np.minimum(end[w], last) - np.maximum(begin[w], first)
        best = int(held.argmax())
        want = best if held[best] > (end[w] - begin[w]) / 2 + 1e-9 else -1
        assert got[w] == want


def test_another_archive_with_its_own_labels(ecg: Run, tmp_path: Path) -> None:
    """The patients were never seen: they are split as the run's were."""
    sample = plugins.get("biosignals").sample
    assert sample is not None
    (tmp_path / "archive").mkdir()
    names = ("118", "119", "122", "124", "201", "203")
    for name in names:
        for file in sample.glob(f"{name}.*"):
            shutil.copy(file, tmp_path / "archive" / file.name)
    index = indexed(tmp_path / "archive", "biosignals", tmp_path / "idx")
    rows = [f"{n},0,10,a\n{n},10,20,b" for n in names]
    labels = table(tmp_path / "l.csv", "key,start,end,y", *rows)
    result = medcl.probe(ecg, data=index.path, labels=labels, out=tmp_path / "probe")
    assert result.train.patients + result.test.patients == 6
    assert min(result.train.patients, result.test.patients) >= 1


# images


def test_patients_of_ct(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ct_synthetic import ct_series
    from pydicom.uid import generate_uid

    for n in range(12):
        ct_series(
            tmp_path / "archive" / f"s{n}",  # two series of each of the first four patients
            [2.0 * z for z in range(6)],
            PatientID=f"P{n % 8}",
            SeriesInstanceUID=generate_uid(),
            FrameOfReferenceUID=generate_uid(),
        )
    index = indexed(tmp_path / "archive", "ct", tmp_path / "idx")
    raw = {
        "plugin": "ct",
        "prepare": {"spacing": [0.0, 1.5, 1.5], "crop": "none"},
        "dataset": {"kind": "slice", "size": [16, 16]},
        "encoder": {"name": "resnet2d", "depth": 10, "base": 8, "stem": "small"},
    }
    run = bare_run(raw, index, tmp_path / "run")
    rows = [f"P{n},{'ill' if n % 2 else 'well'}" for n in range(8)]
    labels = table(tmp_path / "l.csv", "PatientID,state", *rows)
    with monkeypatch.context() as patch:
        patch.setenv("MEDCL_KEY_FILE", str(tmp_path / "key"))
        result = medcl.probe(run, labels=labels)
        made, (windows, records, patients) = predicted(run, tmp_path, "state")
    assert (result.by, result.positive, result.test.patients) == ("patient", "well", 4)
    assert (result.train.samples, result.test.samples) == (4, 4)
    assert not {"p.ill", "p.well"} & {*windows.columns, *records.columns}
    probed = predictions(run, "state").join(patients, left_on="id", right_on="patient")
    assert len(probed) == 4
    np.testing.assert_allclose(probed["p.well"], probed["pretrained.linear.well"], atol=1e-4)
    assert "OUT.patients.parquet" in " ".join(made.notes)


@pytest.mark.slow
def test_items_of_pathology(tmp_path: Path) -> None:
    from pathology_synthetic import painted, tiff

    (tmp_path / "archive").mkdir()
    for n in range(8):
        tiff(tmp_path / "archive" / f"slide{n}.tif", painted(1024, seed=n), tile=64)
    index = indexed(tmp_path / "archive", "pathology", tmp_path / "idx")
    raw = {
        "plugin": "pathology",
        "prepare": {"mpp": 1.0, "size": 64, "tissue": 0.1, "mask_mpp": 2.0},
        "dataset": {},
        "encoder": {"name": "resnet", "depth": 18, "base": 8},
    }
    run = bare_run(raw, index, tmp_path / "run")
    rows = [f"slide{n}.tif,{n % 2}" for n in range(8)]
    result = medcl.probe(run, labels=table(tmp_path / "l.csv", "slide_id,tumour", *rows))
    assert (result.by, result.positive) == ("item", "1")
    assert (result.train.samples, result.test.samples) == (4, 4)


@pytest.mark.slow
def test_predict_with_labels_of_items_is_by_recording(digits_run: Run, tmp_path: Path) -> None:
    """The probe's own predictions of its test items, and nothing for a single window."""
    rows = [f"writer_{n:02d}.csv,{'old' if n % 2 else 'young'}" for n in range(12)]
    medcl.probe(digits_run, labels=table(tmp_path / "l.csv", "key,age2", *rows))
    result, (windows, records, patients) = predicted(digits_run, tmp_path, "age2")
    assert not {"p.old", "p.young"} & {*windows.columns, *patients.columns}
    assert "embedding" not in records.columns
    probed = predictions(digits_run, "age2").join(records, left_on="id", right_on="item")
    assert len(probed) == 6
    np.testing.assert_allclose(probed["p.young"], probed["pretrained.linear.young"], atol=1e-5)
    notes = " ".join(result.notes)
    assert "'age2' was probed by item" in notes
    assert "OUT.records.parquet" in notes
    assert "positive class is 'young': p.young" in notes


@pytest.mark.slow
def test_predict_with_labels_of_samples_is_by_window(digits_run: Run, tmp_path: Path) -> None:
    samples = load_samples(digits_run.recipe, digits_run.data)
    rows = [f"{name},{'ab'[n % 2]}" for n, name in enumerate(samples.ids)]
    medcl.probe(digits_run, labels=table(tmp_path / "s.csv", "sample,letter", *rows))
    _, (windows, records, _) = predicted(digits_run, tmp_path, "letter")
    assert len(windows) == len(samples)
    np.testing.assert_allclose(windows["p.a"] + windows["p.b"], 1, atol=1e-5)
    by_record = windows.group_by("item").agg(pl.col("p.b").mean()).sort("item")
    np.testing.assert_allclose(records["p.b"], by_record["p.b"], atol=1e-6)


def test_predict_refuses_a_label_that_was_not_probed(digits_run: Run, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"Unknown task 'wings'.*medcl probe RUN --labels"):
        medcl.predict(digits_run, digits_run.data, tmp_path / "p.parquet", task="wings")
