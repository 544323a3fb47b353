from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from synthetic_plugin import plugin, recording

from medcl.archive import assign, labtable
from medcl.archive.index import Index, Summary, build
from medcl.archive.pseudonym import own
from medcl.errors import UsageError
from medcl.plugin import Record


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    for name in ("north/anna/1", "north/anna/2", "south/bob/1", "south/x3"):
        recording(tmp_path / "archive", name, "header")
    return tmp_path / "archive"


def run(
    archive: Path, pattern: str | None = None, table: Path | None = None
) -> tuple[Summary, dict[str, dict[str, object]], dict[str, str]]:
    """Summary, item by readable key, code by readable key."""
    out = archive.parent / "idx"
    summary = build(archive, out, plugin, patient_from=pattern, table=table)
    index = Index.open(out)
    return (
        summary,
        {index.locate(row["id"]): row for row in index.items.to_dicts()},
        {index.locate(row["id"]): row["code"] for row in index.rejects.to_dicts()},
    )


def csv(archive: Path, text: str) -> Path:
    path = archive.parent / "table.csv"
    path.write_text(text)
    return path


def test_a_pattern_names_patients_and_sites(archive: Path) -> None:
    summary, items, rejects = run(archive, r"^(?P<site>\w+)/(?P<patient>\w+)/")
    assert (summary.items, summary.patients, summary.sites) == (3, 2, 2)
    names = own(archive.parent / "idx/private", may_create=False)
    assert items["north/anna/1.rec"]["patient"] == names.patient("anna")
    assert items["north/anna/1.rec"]["site"] == names.site("north")
    assert rejects == {"south/x3.rec": "no-patient"}


def test_a_change_of_pattern_opens_no_file(archive: Path) -> None:
    run(archive)
    summary, *_ = run(archive, r"(?P<patient>\w+)\.rec$")
    assert (summary.scanned, summary.patients) == (0, 3)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [("(?P<patient", "no regular expression"), (r"^(\w+)/", "needs a group named patient")],
)
def test_a_pattern_that_is_none(archive: Path, pattern: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        run(archive, pattern)


def test_a_table_names_patients_sites_and_labels(archive: Path) -> None:
    table = csv(
        archive,
        "key,patient,site,age,sex,ill\n"
        "north/anna/1.rec,007,n,61,f,true\n"
        "north\\anna\\2,7,n,61,,false\n"
        "./south/bob/1.rec,8,,,m,\n"
        "x3,9,s,50,m,true\n"
        "absent,10,s,1,m,true\n",
    )
    summary, items, rejects = run(archive, table=table)
    assert rejects == {}
    assert (summary.items, summary.patients, summary.sites) == (4, 4, 2)  # 007 is not 7
    assert summary.unmatched == 1
    labels = {key: [row[f"label.{x}"] for x in ("age", "sex", "ill")] for key, row in items.items()}
    assert labels == {
        "north/anna/1.rec": [61, "f", True],
        "north/anna/2.rec": [61, None, False],
        "south/bob/1.rec": [None, "m", None],
        "south/x3.rec": [50, "m", True],
    }
    assert items["south/bob/1.rec"]["site"] is None
    assert items["south/x3.rec"]["label.rhythm"] == "other"  # the plugin's own labels stay


def test_a_table_in_parquet(archive: Path) -> None:
    from datetime import date

    table = archive.parent / "table.parquet"
    pl.DataFrame({"key": ["x3"], "site": [5], "seen": [date(2020, 1, 2)]}).write_parquet(table)
    summary, items, _ = run(archive, table=table)
    assert (summary.items, summary.sites, summary.unmatched) == (4, 1, 0)
    assert items["south/x3.rec"]["label.seen"] == "2020-01-02"
    assert items["south/bob/1.rec"]["label.seen"] is None


def test_a_table_of_patients_lists_everybody(archive: Path) -> None:
    table = csv(archive, "key,patient\nnorth/anna/1,a\nsouth/bob/1,\n")
    _, items, rejects = run(archive, table=table)
    assert set(items) == {"north/anna/1.rec"}
    assert rejects == dict.fromkeys(
        ("north/anna/2.rec", "south/bob/1.rec", "south/x3.rec"), "no-patient"
    )


def test_a_stem_that_fits_two_files_is_not_guessed(archive: Path) -> None:
    _, items, rejects = run(archive, table=csv(archive, "key,grade\n1,high\nx3,low\n"))
    assert rejects == {"north/anna/1.rec": "ambiguous-key", "south/bob/1.rec": "ambiguous-key"}
    assert items["south/x3.rec"]["label.grade"] == "low"
    assert items["north/anna/2.rec"]["label.grade"] is None


def test_pattern_and_labels_go_together(archive: Path) -> None:
    table = csv(archive, "key,grade\nnorth/anna/1,high\n")
    summary, items, _ = run(archive, r"/(?P<patient>\w+)/", table)
    assert summary.patients == 2
    assert items["north/anna/1.rec"]["label.grade"] == "high"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,patient\nx,1\n", "needs a column 'key'"),
        ("key\nx\n", "one more"),
        ("key,a\nx,1\nx,2\n", "a key twice"),
        ("key,a\n,1\n", "a row without a key"),
        ("", "cannot be read"),
    ],
)
def test_a_table_that_is_none(archive: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        run(archive, table=csv(archive, text))
    with pytest.raises(UsageError, match="cannot be read"):
        run(archive, table=archive / "nowhere.csv")


def test_patients_from_two_places(archive: Path) -> None:
    with pytest.raises(UsageError, match="given twice"):
        assign.load("(?P<patient>.)", csv(archive, "key,patient\nx,1\n"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "cp1252", "utf-8-sig"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_tables_that_others_made(tmp_path: Path, encoding: str, separator: str) -> None:
    """PTB-XL's: paths from its own top, numbers of patients with a point, names of its own."""
    rows = [["ecg_id", "Patient_ID", "filename_lr", "größe"], ["1", "15709.0", "r/0/1_lr", "7"]]
    rows += [["2", "15709.0", "r/0/2_lr", "8"], ["3", "22.0", "r/0/3_lr", "9"]]
    (tmp_path / "t.csv").write_bytes("\n".join(map(separator.join, rows)).encode(encoding))
    made = assign.load(
        table=tmp_path / "t.csv", key_column="filename_lr", patient_column="patient_id"
    )
    files = [f"database/r/0/{n}_lr.hea" for n in (1, 2, 3)]
    some = [Record(f, (f,), "x", findings=("patient-is-record-name", "gaps")) for f in files]
    found = list(made.apply(some))
    assert [row.patient for row in found if isinstance(row, Record)] == ["15709", "15709", "22"]
    assert [row.findings for row in found if isinstance(row, Record)] == [("gaps",)] * 3
    assert found[0].labels == {"ecg_id": 1, "größe": 7}  # type: ignore[union-attr]
    with pytest.raises(UsageError, match="no column 'patient'"):
        assign.load(table=tmp_path / "t.csv", key_column="ecg_id", patient_column="patient")


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_numbers_with_gaps_name_as_whole_numbers(tmp_path: Path, suffix: str) -> None:
    """Of any role; where one of them has a fraction, all stay as they are."""
    frame = pl.DataFrame(
        {
            "record_id": [7.0, 8.0, 9.0],
            "patient": [15709.0, None, 22.0],
            "site": [1.0, 2.0, None],
            "centre_id": [1.0, 2.5, None],
        }
    )
    path = tmp_path / f"t.{suffix}"
    frame.write_csv(path) if suffix == "csv" else frame.write_parquet(path)
    table = labtable.read(path)
    assert table.text["record_id"] == ["7", "8", "9"]
    assert table.text["patient"] == ["15709", None, "22"]
    assert table.text["site"] == ["1", "2", None]
    assert table.text["centre_id"] == ["1.0", "2.5", None]
