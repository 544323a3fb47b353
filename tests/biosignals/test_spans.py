"""Annotations as spans: of WFDB, of EDF+ (written by edfio), and of tables beside a recording."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import wfdb
from hypothesis import given, settings
from hypothesis import strategies as st

from medcl.errors import UsageError
from medcl.plugin import FileStat, Record
from medcl_biosignals.dataset import dataset
from medcl_biosignals.plugin import plugin
from medcl_biosignals.prepare import prepare
from medcl_biosignals.readers import edf as edf_reader
from medcl_biosignals.sidecar import NotUnderstood, beside, table_spans
from medcl_biosignals.spans import Span, arrays, covering, known

FS = 50.0


def rows_of(root: Path) -> list[Record]:
    files = [
        FileStat(path.relative_to(root).as_posix(), path.stat().st_size, 0)
        for path in sorted(root.rglob("*"))
        if path.is_file()
    ]
    found = [row for unit in plugin.units(files) for row in plugin.scan(root, unit)]
    assert all(isinstance(row, Record) for row in found), found
    return [row for row in found if isinstance(row, Record)]


def ppg(path: Path, seconds: float = 300.0) -> None:
    t = np.arange(round(seconds * FS)) / FS
    x = np.sin(2 * np.pi * 1.2 * t)
    path.write_text("time,ppg\n" + "\n".join(f"{a:.2f},{b:.4f}" for a, b in zip(t, x, strict=True)))


def spans_in(root: Path, row: Record) -> tuple[list[tuple[float, float, str]], dict]:  # type: ignore[type-arg]
    made = prepare(root, row.files, row.fields, fs=FS)
    names = [name.decode() for name in made["classes"].tolist()]
    return [(a / FS, b / FS, names[c]) for a, b, c in made["spans"].tolist()], made


# --- the rule for a window ------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(
    spans=st.lists(
        st.tuples(st.integers(0, 90), st.integers(1, 40), st.sampled_from("abc")), max_size=8
    ),
    cover=st.sampled_from([0.0, 0.3, 0.5, 0.9]),
)
def test_a_window_has_the_class_that_covers_most_of_it(
    spans: list[tuple[int, int, str]], cover: float
) -> None:
    """Against counting sample by sample, with spans that overlap."""
    record = arrays([Span(a, a + n, "event", name) for a, n, name in spans], 1.0, 100)
    first = np.arange(0, 91, 3)
    found = covering(record, "event", ("a", "b"), first, 10, cover)
    held = {name: np.zeros(100, bool) for name in "abc"}
    for a, n, name in spans:
        held[name][a : a + n] = True
    for start, label in zip(first, found, strict=True):
        share = {name: held[name][start : start + 10].sum() for name in "abc"}
        best = max(share.values())
        winners = [name for name in "abc" if share[name] == best and best > 10 * cover]
        assert label in [("a", "b").index(w) if w in "ab" else -1 for w in winners] or (
            label == -1 and not winners
        )


def test_settings_of_the_label_are_checked() -> None:
    items = pl.DataFrame({"id": ["a"], "patient": ["p"]})
    for wrong in ({"cover": 1.0}, {"stages": ("N4",)}):
        with pytest.raises(UsageError):
            dataset(items, {}.__getitem__, **wrong)  # type: ignore[arg-type]


# --- words ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("Sleep stage W", "stage:W"), ("Sleep stage 1", "stage:N1"), ("Sleep stage 4", "stage:N3"),
        ("Sleep stage R", "stage:R"), ("Sleep stage ?", "stage:other"), ("N2", "stage:N2"),
        ("REM", "stage:R"), ("wake", "stage:W"), ("Stage 2 sleep", "stage:N2"),
        ("NREM3", "stage:N3"), ("Sleep stage N1", "stage:N1"), ("Movement time", "stage:other"),
        ("Obstructive apnea|Obstructive Apnea", "event:apnea-obstructive"),
        ("Central Apnea", "event:apnea-central"), ("Hypopnea", "event:hypopnea"),
        ("Arousal (Standard)", "event:arousal"), ("SpO2 desaturation", "event:desaturation"),
        ("Limb movement left", "event:leg-movement"), ("(AFIB", "rhythm:AFIB"),
        ("1", None), ("R", None), ("S1", None), ("Stimulus/S 2", None), ("no apnea", None),
        ("Arousal?", None), ("Dr Roe came in", None), ("Lights off", None), ("x" * 500, None),
    ],
)  # fmt: skip
def test_words_of_annotations(text: str, meaning: str | None) -> None:
    pair = known(text)
    assert (None if pair is None else ":".join(pair)) == meaning


def test_letters_and_numbers_are_stages_where_only_stages_stand() -> None:
    assert [known(t, staged=True) for t in ("W", "1", "r", "S4")] == [
        ("stage", name) for name in ("W", "N1", "R", "N3")
    ]


# --- EDF+ -----------------------------------------------------------------------------------------


def night(path: Path, notes: list[tuple[float, float | None, str]], *, bare: bool = False) -> None:
    edfio = pytest.importorskip("edfio")
    import datetime

    signal = edfio.EdfSignal(
        np.sin(np.arange(round(300 * FS)) / 9), FS, label="EEG Fpz-Cz", physical_dimension="uV"
    )
    edfio.Edf(
        [] if bare else [signal],
        starttime=datetime.time(22, 0),
        annotations=[edfio.EdfAnnotation(*note) for note in notes],
    ).write(path)


NIGHT = [
    (0.0, 90.0, "Sleep stage W"),
    (90.0, 120.0, "Sleep stage 2"),
    (210.0, 90.0, "Sleep stage R"),
    (100.0, 20.5, "Obstructive Apnea"),
    (5.0, None, "Dr Roe came in"),
]
SPANS = [
    (0.0, 90.0, "stage:W"),
    (90.0, 210.0, "stage:N2"),
    (100.0, 120.5, "event:apnea-obstructive"),
    (210.0, 300.0, "stage:R"),
]


def test_annotations_of_edf_are_those_of_edfio(tmp_path: Path) -> None:
    edfio = pytest.importorskip("edfio")
    night(tmp_path / "a.edf", NIGHT)
    theirs = [(a.onset, a.duration, a.text) for a in edfio.read_edf(tmp_path / "a.edf").annotations]
    assert sorted(edf_reader.notes(tmp_path / "a.edf"), key=str) == sorted(theirs, key=str)
    (row,) = rows_of(tmp_path)
    found, made = spans_in(tmp_path, row)
    assert found == SPANS
    assert "unknown-annotations" in made["findings"].tolist()  # and nothing of what it says
    assert "Roe" not in str(made) + str(row)


def test_a_hypnogram_beside_its_night(tmp_path: Path) -> None:
    """As in Sleep-EDF; the hypnogram holds no signal, and is no recording of its own."""
    night(tmp_path / "SC4001E0-PSG.edf", [])
    night(tmp_path / "SC4001EC-Hypnogram.edf", NIGHT[:3], bare=True)
    night(tmp_path / "SC4002E0-PSG.edf", [])
    rows = rows_of(tmp_path)
    assert [row.files for row in rows] == [
        ("SC4001E0-PSG.edf", "SC4001EC-Hypnogram.edf"),
        ("SC4002E0-PSG.edf",),
    ]
    found, made = spans_in(tmp_path, rows[0])
    assert found == [span for span in SPANS if "stage" in span[2]]
    items = pl.DataFrame({"id": ["a"], "patient": ["p"]})
    task = plugin.tasks["sleep"]
    samples = dataset(items, {"a": made}.__getitem__, **task.dataset)  # type: ignore[arg-type]
    assert samples.labels["stage"].tolist() == [0, 0, 0, 2, 2, 2, 2, 4, 4, 4]


# --- tables beside a recording --------------------------------------------------------------------

EVENTS = "onset,duration,trial_type\n0,100,baseline\n100,120,stress\n230,60,amusement\n"
EXPECTED = [(0.0, 100.0, "event:baseline"), (100.0, 220.0, "event:stress"),
            (230.0, 290.0, "event:amusement")]  # fmt: skip
FORMS = {
    "comma": EVENTS,
    "tab": EVENTS.replace(",", "\t"),
    "semicolon": EVENTS.replace(",", ";"),
    "ends": "start,end,label\n0,100,baseline\n100,220,stress\n230,290,amusement\n",
    "milliseconds": "onset_ms,duration_ms,event\n0,100000,baseline\n100000,120000,stress\n"
    "230000,60000,amusement\n",
    "units": "Start (s);Duration (s);Class\n0;100;baseline\n100,0;120;stress\n230;60;amusement\n",
    "bids": EVENTS.replace("onset,duration,trial_type", "onset,duration,trial_type,value").replace(
        "baseline", "baseline,1"
    ).replace("stress", "stress,2").replace("amusement", "amusement,n/a"),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_tables_of_events(tmp_path: Path, form: str) -> None:
    (tmp_path / "a_events.csv").write_text(FORMS[form])
    found = table_spans(tmp_path / "a_events.csv", 300.0)
    assert [(s.first, s.last, f"{s.group}:{s.name}") for s in found] == EXPECTED


@pytest.mark.parametrize(
    ("recording", "table"),
    [
        ("night.csv", "night_events.csv"), ("night.csv", "night.stages.csv"),
        ("night.csv", "night-annotations.tsv"), ("night.csv.gz", "night_events.csv"),
        ("sub-1_task-rest_eeg.csv", "sub-1_task-rest_events.tsv"), ("rec.hea", "rec_events.csv"),
    ],
)  # fmt: skip
def test_which_recording_a_table_lies_beside(
    tmp_path: Path, recording: str, table: str, sample: Path
) -> None:
    import gzip

    if recording == "rec.hea":
        for file in sample.glob("101.*"):
            if file.suffix != ".atr":
                text = file.read_bytes().replace(b"101", b"rec")
                (tmp_path / f"rec{file.suffix}").write_bytes(text)
    else:
        ppg(tmp_path / recording.removesuffix(".gz"))
        if recording.endswith(".gz"):
            plain = tmp_path / recording.removesuffix(".gz")
            (tmp_path / recording).write_bytes(gzip.compress(plain.read_bytes()))
            plain.unlink()
    stages = "stages" in table
    text = EVENTS.replace(",", "\t") if table.endswith("tsv") else EVENTS
    if stages:
        text = "stage\n" + "\n".join(["W"] * 3 + ["2"] * 4 + ["R"] * 3) + "\n"
    (tmp_path / table).write_text(text)
    (row,) = rows_of(tmp_path)
    assert row.files[-1] == table
    assert row.fields["annotated"] is True
    found, made = spans_in(tmp_path, row)
    if stages:
        assert found == [(0, 90, "stage:W"), (90, 210, "stage:N2"), (210, 300, "stage:R")] or (
            len(found) == 10
        )
    else:
        assert found[:2] == EXPECTED[:2]
        items = pl.DataFrame({"id": ["a"], "patient": ["p"]})
        samples = dataset(
            items, {"a": made}.__getitem__, seconds=20.0, stride=20.0, events=("baseline", "stress")
        )
        assert samples.labels["event"][:11].tolist() == [0] * 5 + [1] * 6
    assert "stress" not in str(row.fields) + str(row.labels)  # its own words are not in the index


def test_stages_as_numbers(tmp_path: Path) -> None:
    file = tmp_path / "a.stages.csv"
    file.write_text("epoch,stage\n" + "\n".join(f"{n},{n % 6}" for n in range(10)) + "\n")
    names = [span.name for span in table_spans(file, 300.0)]
    assert names[:6] == ["W", "N1", "N2", "N3", "N3", "R"]
    file.write_text("0\n1\n2\n3\n5\n" * 2)  # one a line, without a header
    assert [s.name for s in table_spans(file, 300.0)] == ["W", "N1", "N2", "N3", "R"] * 2
    file.write_text("stage\n" + "0\n1\n2\n3\n4\n" * 2)
    with pytest.raises(NotUnderstood, match="up to 4"):  # REM, or stage 4?
        table_spans(file, 300.0)


@pytest.mark.parametrize(
    "text",
    [
        "onset,duration,trial_type\n0,100000,baseline\n100000,120000,stress\n",  # milliseconds
        "onset,duration,trial_type\n2021-01-20 11:00,100,baseline\n",
        "a,b\n1,2\n", "", "stage\nW\nW\n", "onset,duration,label\n1,2\n", "\0\0\0\0" * 50,
    ],
)  # fmt: skip
def test_a_table_that_is_not_understood_is_a_finding(tmp_path: Path, text: str) -> None:
    ppg(tmp_path / "night.csv")
    (tmp_path / "night_events.csv").write_text(text)
    (row,) = rows_of(tmp_path)
    assert "unreadable-annotations" in row.findings
    assert row.fields["annotated"] is False
    assert len(prepare(tmp_path, row.files, row.fields, fs=FS)["spans"]) == 0


def test_names_that_are_beside_nothing() -> None:
    assert beside("a/events.csv") is None
    assert beside("a/night.csv") is None
    assert beside("a/night_events.edf") is None


# --- WFDB -----------------------------------------------------------------------------------------


def test_beats_of_one_annotator_and_rhythms_of_another(tmp_path: Path, sample: Path) -> None:
    """MIT-BIH's atrial fibrillation database: .atr has the rhythms, a program's .qrs the beats,
    all of them "N", which says nothing of their class."""
    for file in sample.glob("101.*"):
        if file.suffix != ".atr":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    wfdb.wrann("101", "atr", np.array([0, 3600]), ["+", "+"], aux_note=["(N", "(AFIB"],
               write_dir=str(tmp_path))  # fmt: skip
    at = np.arange(100, 10_000, 300)
    wfdb.wrann("101", "qrs", at, ["N"] * len(at), write_dir=str(tmp_path))
    (row,) = rows_of(tmp_path)
    assert {"101.atr", "101.qrs"} <= set(row.files)
    assert "beats-without-class" in row.findings
    assert "beats_N" not in row.labels
    assert row.labels["rhythm"] == "AFIB"
    found, made = spans_in(tmp_path, row)
    np.testing.assert_array_equal(made["beats"], np.rint(at / 360 * FS))
    assert set(made["aami"].tolist()) == {-1}
    assert [span[2] for span in found] == ["rhythm:N", "rhythm:AFIB"]


@pytest.mark.parametrize("suffix", ["ecg", "ari", "qrsc"])
def test_other_annotators_with_classes(tmp_path: Path, sample: Path, suffix: str) -> None:
    for file in sample.glob("101.*"):
        if file.suffix != ".atr":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    at = np.array([100, 400, 700, 1000])
    wfdb.wrann("101", suffix, at, ["N", "V", "N", "A"], write_dir=str(tmp_path))
    (row,) = rows_of(tmp_path)
    assert [row.labels[f"beats_{c}"] for c in "NSV"] == [2, 1, 1]
    assert spans_in(tmp_path, row)[1]["aami"].tolist() == [0, 2, 0, 1]


def test_a_file_of_another_kind_under_an_annotators_suffix(tmp_path: Path, sample: Path) -> None:
    for file in sample.glob("101.*"):
        if file.suffix != ".atr":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "101.ecg").write_bytes(b"ISHNE1.0" + bytes(range(1, 256)) * 40 + b"\0\0")
    (row,) = rows_of(tmp_path)
    assert "unreadable-annotations" in row.findings
    assert row.fields["annotated"] is False


def test_physionets_marks_of_sleep(tmp_path: Path, sample: Path) -> None:
    """A stage and events every 30 s, as slpdb has them; apnea by the minute, as apnea-ecg."""
    for file in sample.glob("101.*"):
        if file.suffix != ".atr":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    notes = ["W", "2 HA OA", "R LA", "MT"]
    wfdb.wrann("101", "st", 10_800 * np.arange(4) + 1, ['"'] * 4, aux_note=notes,
               write_dir=str(tmp_path))  # fmt: skip
    wfdb.wrann("101", "apn", 21_600 * np.arange(2) + 1, ["N", "A"], write_dir=str(tmp_path))
    (row,) = rows_of(tmp_path)
    assert row.fields["annotated"] is True
    found = {(round(a), round(b), name) for a, b, name in spans_in(tmp_path, row)[0]}
    assert found >= {(0, 30, "stage:W"), (30, 60, "stage:N2"), (60, 90, "stage:R"),
                     (90, 120, "stage:other"), (30, 60, "event:hypopnea"),
                     (30, 60, "event:apnea-obstructive"), (60, 90, "event:leg-movement"),
                     (60, 120, "event:apnea")}  # fmt: skip
    (tmp_path / "101.st").write_bytes(b"\1")
    (row,) = rows_of(tmp_path)
    made = prepare(tmp_path, row.files, row.fields, fs=FS)
    assert "unreadable-annotations" in made["findings"].tolist()
