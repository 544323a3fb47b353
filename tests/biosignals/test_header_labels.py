"""What headers say in words: known keys and values become labels, nothing else comes through."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from medcl.archive.index import Index, build
from medcl.labels.table import Labels, add
from medcl.plugin import Record, Reject, Samples
from medcl_biosignals.plugin import plugin
from medcl_biosignals.readers.edf import _labels
from medcl_biosignals.readers.header_labels import DIAGNOSES, FINDINGS, age_at, labels_of

Scan = Callable[[Path], list[Record | Reject]]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("Age: 63", {"age": 63}),
        ("age=63.0 years", {"age": 63}),
        ("AGE (years): 4", {"age": 4}),
        ("Age: 063Y", {"age": 63}),
        ("<age>: 63 <sex>: M <diagnoses>: (none)", {"age": 63, "sex": "M"}),
        ("<sex>: f  <diagnoses>: Myocarditis; Roe", {"sex": "F"}),
        ("Diagnosis: Myocarditis; palpitation", {"diagnosis": "myocarditis"}),
        ("Age: 63, Sex: female", {"age": 63, "sex": "F"}),
        ("Gender: Male", {"sex": "M"}),
        ("Reason for admission: Myocardial infarction", {"diagnosis": "myocardial infarction"}),
        ("Reason for admission: Heart failure (NYHA 3)", {"diagnosis": "heart failure"}),
        ("69 M 1085 1629 x1", {"age": 69, "sex": "M"}),
        ("-1 F 1085 1629 x1", {"sex": "F"}),
    ],
)  # fmt: skip
def test_common_spellings(line: str, expected: dict[str, object]) -> None:
    assert labels_of([line]) == expected


@pytest.mark.parametrize(
    "line",
    [
        "Age: NaN", "age: n/a", "Age: 999", "Age: -3", "Age: 63 Roe, Anna", "Age: sixty", "Age:",
        "Sex: Unknown", "Sex: X", "Sex: F gestational age: 30", "Mother's age: 63", "page: 63",
        "gestational age: 30", "Diagnose:", "Diagnosis: Roe, Anna, seen 1.2.1990", "Dx: Roe",
        "Dx: 426783006, Roe", "Reason for admission: n/a", "Name: Roe, Anna", "Roe, Anna",
        "born 1950-01-01", "Admission date: 29-Sep-90", "Additional diagnoses: Myocarditis",
        "69 M Roe", "Asystole of Anna Roe", "Bradycardia", "False alarm",
        "Diagnosis: rule out, myocarditis", "Diagnosis: no myocarditis, heart failure",
        "Diagnosis: Myocarditis; excluded", "Reason for admission: heart failure, none",
    ],
)  # fmt: skip
def test_anything_else_is_left_unread(line: str) -> None:
    assert labels_of([line]) == {}


def test_nobody_is_older_than_ninety() -> None:
    assert [labels_of([f"Age: {n}"])["age"] for n in (0, 89, 90, 93, 130)] == [0, 89, 90, 90, 90]
    day = datetime.date
    assert age_at(day(1950, 5, 2), day(1990, 5, 1)) == 39
    assert age_at(day(1950, 5, 2), day(1990, 5, 2)) == 40
    assert age_at(day(1890, 1, 1), day(1990, 5, 2)) == 90
    assert age_at(day(1990, 5, 2), day(1950, 1, 1)) is None
    assert age_at(day(1585, 1, 1), day(1990, 5, 2)) is None


def test_codes_are_a_flag_each_and_unknown_ones_are_none() -> None:
    found = labels_of(["Dx: 426783006,270492004,10007658", "Age: 50"])
    assert {name for name, value in found.items() if value is True} == {"dx.NSR", "dx.IAVB"}
    assert len(found) == len(FINDINGS) + 1
    assert "10007658" not in str(found), "a number that may be a person's"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["Tachycardia", "False alarm"], {"alarm": "tachycardia", "true_alarm": False}),
        (
            ["Ventricular_Flutter_Fib", "True alarm"],
            {"alarm": "ventricular_flutter_fib", "true_alarm": True},
        ),
        (["Bradycardia", "Age: 50", "True alarm"], {"age": 50}),
        (["False alarm", "Bradycardia"], {}),
    ],
)
def test_an_alarm_comes_with_its_verdict(lines: list[str], expected: dict[str, object]) -> None:
    assert labels_of(lines) == expected


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("733534002", "164909002"),
        ("713427006", "59118001"),
        ("284470004", "63593006"),
        ("427172004", "17338001"),
    ],
)
def test_codes_that_the_challenge_scores_as_one_stand_for_each_other(one: str, other: str) -> None:
    found = labels_of([f"Dx: {one}"])
    assert {n for n, value in found.items() if value} == {f"dx.{FINDINGS[c]}" for c in (one, other)}
    assert found == labels_of([f"Dx: {other}"]) == labels_of([f"Dx: {one},{other}"])


def test_real_headers(ecg: Path, scan: Scan) -> None:
    rows = {row.key: row for row in scan(ecg / "other") if isinstance(row, Record)}
    ptb = rows["s0010_re"].labels
    assert ptb == {"age": 81, "sex": "F", "diagnosis": "myocardial infarction"}
    assert rows["a103l"].labels == {"alarm": "asystole", "true_alarm": False}
    assert rows["v102s"].labels == {"alarm": "ventricular_tachycardia", "true_alarm": False}
    assert rows["03700181"].labels == {}


def test_edf_says_sex_and_age_at_the_recording() -> None:
    recording = "Startdate 01-OCT-1990 X Nightingale X"
    assert _labels("MCH-0234567 F 02-MAY-1951 Roe_Anna", recording) == {"sex": "F", "age": 39}
    assert _labels("X M 02-MAY-1851 X", recording) == {"sex": "M"}
    assert _labels("X M 02-MAY-1891 X", recording) == {"sex": "M", "age": 90}
    assert _labels("X M 02-MAY-1951 X", "Startdate 01-JAN-1985 X X X") == {"sex": "M"}
    assert _labels("X M 02-MAY-1951 X", "Startdate 02-JAN-1985 X X X") == {"sex": "M", "age": 33}
    assert _labels("X M X X", "Startdate 01-OCT-1990 X X X") == {"sex": "M"}
    assert _labels("X X X X", "Startdate X X X X") == {}
    assert _labels("", "") == _labels("Roe M Anna 02-MAY-1951", "in the morning") == {}
    assert _labels("X F 31-FEB-1951 X", "Startdate 01-OCT-1990") == {"sex": "F"}


def test_edf_files_are_read_so(tmp_path: Path, scan: Scan) -> None:
    edfio = pytest.importorskip("edfio", reason="edfio is not installed")
    signal = edfio.EdfSignal(np.sin(np.arange(2560) / 9), 256, label="ECG II")
    who = edfio.Patient(code="X", sex="F", birthdate=datetime.date(1951, 5, 2), name="Roe_Anna")
    recording = edfio.Recording(startdate=datetime.date(1990, 10, 1))
    edfio.Edf([signal], patient=who, recording=recording).write(tmp_path / "a.edf")
    (row,) = scan(tmp_path)
    assert isinstance(row, Record)
    assert row.labels == {"sex": "F", "age": 39}


def test_the_index_holds_the_labels_and_no_word_of_the_comments(
    copy: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    archive = copy("101", "106", "208")
    comments = {
        "101": "# <age>: 93 <sex>: F <diagnoses>: Nightingale\n# seen by Dr Nakamura, 29-Sep-90\n",
        "106": "#Age: 24\n#Sex: Okonkwo\n#Dx: 164889003,4711471147\n#Rx: Digoxin\n",
        "208": "# 23 F 1085 1629 x1\n# Reason for admission: Pemberton\n",
    }
    for name, text in comments.items():
        header = archive / f"{name}.hea"
        header.write_text(header.read_text() + text)
    out = tmp_path_factory.mktemp("labels")
    (out / "key").write_text("labels in tests: hides nothing")
    build(archive, out / "idx", plugin, key_file=out / "key")
    index = Index.open(out / "idx")
    items = index.items.with_columns(
        name=pl.Series([index.locate(i) for i in index.items["id"]])
    ).sort("name")
    assert items["label.age"].to_list() == [90, 24, 23]
    assert items["label.sex"].to_list() == ["F", None, "F"]
    assert items["label.dx.AF"].to_list() == [None, True, None]
    assert "label.diagnosis" not in items.columns
    secrets = ("Nightingale", "Nakamura", "Okonkwo", "Pemberton", "4711471147", "Sep-90", "Digoxin")
    told = [f for f in (out / "idx").rglob("*") if f.is_file()]
    told_text = b"".join(f.read_bytes() for f in told) + str(items.to_dicts()).encode()
    for secret in secrets:
        assert secret.encode() not in told_text

    samples = Samples(
        items["id"].to_list(), items["id"].to_list(), items["patient"].to_list(), dict
    )
    labels = add(samples, Labels(), index, ["leads", "nothing"]).labels
    np.testing.assert_array_equal(labels["age"], [90, 24, 23])
    assert labels["sex"].tolist() == ["F", "", "F"]
    np.testing.assert_array_equal(labels["dx.AF"], [np.nan, 1, np.nan])
    assert labels["leads"].tolist() == items["leads"].to_list()
    assert "nothing" not in labels


def test_diagnoses_are_told_apart_by_lower_case() -> None:
    assert all(name == name.lower() for name in DIAGNOSES)
