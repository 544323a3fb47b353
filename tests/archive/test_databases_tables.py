"""Tables as databases publish them, with no option: their columns are told by what is in them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from medcl.archive import assign, labtable
from medcl.errors import UsageError
from medcl.plugin import Record, Reject


def applied(
    path: Path, files: Sequence[str], **said: str
) -> tuple[list[Record], assign.Assignment]:
    made = assign.load(table=path, **said)  # type: ignore[arg-type]
    found = list(made.apply([Record(f, (f,), "x") for f in files]))
    assert not [row for row in found if isinstance(row, Reject)]
    return [row for row in found if isinstance(row, Record)], made


HEADER = "ecg_id,patient_id,age,sex,report,recording_date,strat_fold,filename_lr,filename_hr"


def ptbxl(rows: int) -> str:
    lines = [
        f"{n},{1000 + n // 2}.0,{20 + n % 60}.0,{n % 2},sinusrhythmus lage {n} typisch,"
        f"1984-11-{n % 28 + 1:02d} 09:{n % 60:02d}:34,{n % 10 + 1},"
        f"records100/00000/{n:05d}_lr,records500/00000/{n:05d}_hr"
        for n in range(1, rows + 1)
    ]
    return "\n".join([HEADER, *lines]) + "\n"


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_the_table_of_a_whole_database_and_a_part_of_its_archive(
    tmp_path: Path, encoding: str, separator: str
) -> None:
    """Twelve of 2,000 records, in both of their versions."""
    text = ptbxl(2000).replace(",", separator).replace("typisch", "übergang")
    (tmp_path / "t.csv").write_bytes(text.encode(encoding))
    files = [
        f"db/records{rate}/00000/{n:05d}_{version}.hea"
        for n in range(7, 19)
        for rate, version in ((100, "lr"), (500, "hr"))
    ]
    found, made = applied(tmp_path / "t.csv", files)
    assert [row.patient for row in found] == [
        str(1000 + n // 2) for n in range(7, 19) for _ in "ab"
    ]
    assert made.unused == 2000 - 12
    assert set(found[0].labels) == {"ecg_id", "age", "sex", "strat_fold"}
    assert any("recording_date" in note and "report" in note for note in made.notes)


@pytest.mark.parametrize("case", [str.lower, str.upper, str.title])
def test_names_of_columns_in_any_case(tmp_path: Path, case) -> None:  # type: ignore[no-untyped-def]
    text = ptbxl(20).replace(HEADER, case(HEADER))
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text(text)
    files = [f"records100/00000/{n:05d}_lr.hea" for n in range(1, 21)]
    (tmp_path / "b.csv").write_text("patient_id,grade\n1000,5\n1001,6\n")
    made = assign.load(
        table=[tmp_path / "a.csv", tmp_path / "b.csv"],
        key_column="filename_lr",
        patient_column="PATIENT_ID",
    )
    found = list(made.apply([Record(f, (f,), "x") for f in files]))
    assert [row.patient for row in found[:3] if isinstance(row, Record)] == ["1000", "1001", "1001"]


@pytest.mark.parametrize("labels", ["NNAO~N", "012210"])
def test_a_table_without_a_header(tmp_path: Path, labels: str) -> None:
    """The Challenge of 2017: ``A00001,N``. The first line is a record too."""
    lines = [f"A{n:05d},{label}" for n, label in enumerate(labels, start=1)]
    (tmp_path / "REFERENCE.csv").write_text("\n".join(lines) + "\n")
    files = [f"training/A{n:05d}.hea" for n in range(1, len(labels) + 1)]
    found, _ = applied(tmp_path / "REFERENCE.csv", files)
    assert [str(row.labels["label"]) for row in found] == list(labels)


@pytest.mark.parametrize(
    "text",
    [
        "x1,grade\na1,2\nb7,3\nc3,2\nd4,1\n",  # names with digits in a header are names
        "name,class\nanna,good\nbertha,bad\nclara,good\n",
        "key,2020,2021\nx1,3,4\nx2,5,6\nx3,7,8\n",
    ],
)
def test_a_header_is_no_row(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    assert labtable.read(tmp_path / "t.csv").frame.columns == text.splitlines()[0].split(",")


STUDIES = [40689238 + 17 * n for n in range(9)]
MIMIC = {
    "record_list.csv": "subject_id,study_id,file_name,ecg_time,path\n"
    + "".join(
        f"{10000032 + n // 2},{s},{s},2180-07-23 08:44:00,"
        f"files/p1000/p{10000032 + n // 2}/s{s}/{s}\n"
        for n, s in enumerate(STUDIES)
    ),
    "machine_measurements.csv": "subject_id,study_id,cart_id,ecg_time,report_0,rr_interval\n"
    + "".join(
        f"{10000032 + n // 2},{s},6848296,2180-07-23 08:44:00,Sinus rhythm,{700 + n}\n"
        for n, s in enumerate(STUDIES)
    ),
}


@pytest.mark.parametrize("name", MIMIC)
def test_mimics_tables(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(MIMIC[name])
    files = [f"files/p1000/p{10000032 + n // 2}/s{s}/{s}.hea" for n, s in enumerate(STUDIES)]
    found, _ = applied(tmp_path / name, files)
    assert [row.patient for row in found] == [str(10000032 + n // 2) for n in range(9)]
    labels = set(found[0].labels)
    assert not labels & {"study_id", "cart_id", "file_name", "path"}
    assert ("rr_interval" in labels) == (name == "machine_measurements.csv")


def test_a_column_of_other_items_is_no_version(tmp_path: Path) -> None:
    """A control beside each slide must not get the label of the case."""
    (tmp_path / "t.csv").write_text("slide,control,ill\na_1,b_9,1\nb_2,c_9,0\nc_3,a_9,1\n")
    made = assign.load(table=tmp_path / "t.csv")
    files = ["a_1.svs", "b_2.svs", "c_3.svs", "b_9.svs"]
    found = made.apply([Record(f, (f,), "x") for f in files])
    assert [r.labels.get("ill") for r in found if isinstance(r, Record)] == [1, 0, 1, None]


def test_short_numbers_name_no_items(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("grade,note\n1,a\n2,b\n3,c\n")
    made = assign.load(table=tmp_path / "t.csv")
    with pytest.raises(UsageError, match="needs a column 'key'"):
        made.apply([Record(f"{n}.svs", (f"{n}.svs",), "x") for n in (1, 2, 3)])
