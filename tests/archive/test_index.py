from __future__ import annotations

import json
import os
import stat as modes
import sys
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import synthetic_plugin
from synthetic_plugin import archive_of, plugin, recording

from medcl.archive import pseudonym
from medcl.archive.index import Index, Summary, build
from medcl.archive.journal import Journal
from medcl.archive.scanning import CORE, Scanned, fingerprint
from medcl.errors import MedclError, UsageError
from medcl.plugin import Record, Unit

TABLES = ("items.parquet", "rejects.parquet", "index.json", "private/paths.parquet")


def tables(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in TABLES}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return archive_of(tmp_path / "archive", 44)


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text("0123456789abcdef" * 4)
    return path


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    log = tmp_path / "calls.log"
    log.touch()
    monkeypatch.setenv("SYNTHETIC_LOG", str(log))
    return log


def rejects(out: Path) -> dict[str, str]:
    """Readable key → code."""
    index = Index.open(out)
    return {index.locate(r["id"]): r["code"] for r in index.rejects.iter_rows(named=True)}


def test_one_row_an_item_and_one_a_reject(archive: Path, tmp_path: Path) -> None:
    (archive / "notes.txt").write_text("none of ours")
    summary = build(archive, tmp_path / "idx", plugin)
    assert summary == Summary(
        items=33,  # 44, less 4 that raise, 4 rejects, and 3 of 4 with one key
        patients=14,  # one has nothing but such recordings
        sites=3,
        rejects={"duplicate": 3, "empty": 4, "unreadable": 4},
        ignored=1,
        ignored_suffixes={".txt": 1},
        scanned=44,
        seconds=summary.seconds,
    )
    index = Index.open(tmp_path / "idx")
    assert index.plugin_name == "synthetic"
    assert index.archive == archive
    assert index.fields == ["files", "rate"]
    items = index.items
    assert tuple(items.columns[: len(CORE)]) == CORE
    assert {"id", "patient", "site", "fingerprint", "findings"} <= set(CORE)
    assert items["id"].n_unique() == len(items) == 33
    assert items["rate"].drop_nulls().to_list() == [250.0] * 4  # absent elsewhere: null
    assert items["label.rhythm"].to_list().count("other") == 32
    assert items["label.rhythm"].null_count() == 1  # one record comes without labels
    for row in items.iter_rows(named=True):
        files = index.files(row["id"])
        assert row["files"] == (None if index.locate(row["id"]) == "the same key" else len(files))
        assert [stat.path for stat in index.stats(row["id"])] == list(files)
        assert (archive / files[0]).is_file()
        assert row["findings"] == ([] if len(files) == 2 else ["no signal"])
        assert index.locate(row["id"]) in (files[0], "the same key")
    by_person = {index.files(r["id"])[0].split("/")[1]: r["patient"] for r in items.to_dicts()}
    assert len(set(by_person.values())) == len(by_person) == 14


def test_nothing_public_names_a_person_or_a_place(archive: Path, tmp_path: Path) -> None:
    recording(archive, "Doe Jane/1", "Doe_Jane", "Hospital_X", "reject")
    recording(archive, "Doe Jane/2", "Doe_Jane", "Hospital_X", "raise")
    build(archive, tmp_path / "idx", plugin)
    out = tmp_path / "idx"
    public = [pl.read_parquet(out / "items.parquet"), pl.read_parquet(out / "rejects.parquet")]
    text = "\n".join(frame.write_json() for frame in public) + (out / "index.json").read_text()
    for secret in ("Doe", "Jane", "person_0", "Hospital", "rec_0", "site_1", str(tmp_path)):
        assert secret not in text
    index = Index.open(out)
    (item,) = [i for i in index.rejects["id"] if index.locate(i) == "Doe Jane/2.rec"]
    assert "cannot parse the name of Doe_Jane" in (index.detail(item) or "")
    reasons = dict(zip(index.rejects["id"], index.rejects["reason"], strict=True))
    assert reasons[item].startswith("It could not be read (ValueError, synthetic_plugin line ")
    private = out / "private"
    assert modes.S_IMODE(private.stat().st_mode) == 0o700
    assert modes.S_IMODE((private / "key").stat().st_mode) == 0o600


def test_workers_change_nothing(archive: Path, tmp_path: Path, key: Path) -> None:
    build(archive, tmp_path / "one", plugin, key_file=key)
    build(archive, tmp_path / "two", plugin, key_file=key, workers=2)
    assert tables(tmp_path / "one") == tables(tmp_path / "two")


_opened: list[str] = []
sys.addaudithook(lambda event, args: _opened.append(str(args[0])) if event == "open" else None)


def test_an_unchanged_archive_is_not_opened(archive: Path, tmp_path: Path, calls: Path) -> None:
    build(archive, tmp_path / "idx", plugin)
    before = tables(tmp_path / "idx")
    assert len(calls.read_text().splitlines()) == 44
    _opened.clear()
    summary = build(archive, tmp_path / "idx", plugin)
    assert (summary.scanned, summary.reused) == (0, 44)
    assert len(calls.read_text().splitlines()) == 44
    assert not [path for path in _opened if path.startswith(str(archive))]
    assert [path for path in _opened if path.startswith(str(tmp_path))]  # the hook does see
    assert tables(tmp_path / "idx") == before


def test_of_an_unchanged_archive_nothing_is_written_and_the_counts_are_told_again(
    archive: Path, tmp_path: Path
) -> None:
    out = tmp_path / "idx"
    first = build(archive, out, plugin)
    written = {path: path.stat().st_ino for path in out.rglob("*.parquet")}
    again = build(archive, out, plugin)
    assert replace(again, scanned=44, reused=0, seconds=first.seconds) == first
    assert {path: path.stat().st_ino for path in out.rglob("*.parquet")} == written


@pytest.mark.parametrize("what", ["table", "pattern", "spellings", "damage", "gone", "finished"])
def test_whatever_determines_the_tables_makes_them_anew(
    archive: Path, tmp_path: Path, what: str
) -> None:
    out, table = tmp_path / "idx", tmp_path / "table.csv"
    names = [str(p.relative_to(archive)) for p in archive.rglob("*.rec")]
    table.write_text("key,grade\n" + "".join(f"{name},1\n" for name in names))
    how: dict[str, object] = {"table": table}
    build(archive, out, plugin, **how)  # type: ignore[arg-type]
    before = (out / "items.parquet").stat().st_ino
    if what == "table":
        table.write_text(table.read_text().replace(",1", ",2"))
    elif what == "pattern":
        how["patient_from"] = "(?P<patient>person_[0-9]+)"
    elif what == "spellings":
        how["merge_spellings"] = True
    elif what == "damage":
        (out / "items.parquet").write_bytes(b"no table")
    else:
        (out / ("index.json" if what == "finished" else "rejects.parquet")).unlink()
    assert build(archive, out, plugin, **how).scanned == 0  # type: ignore[arg-type]
    assert (out / "items.parquet").stat().st_ino != before
    grades = Index.open(out).items["label.grade"].drop_nulls().unique().to_list()
    assert grades == [2 if what == "table" else 1]


def test_what_the_journal_gives_back_is_what_was_scanned() -> None:
    fields = {"a": 1, "b": 1.0, "c": True, "d": None, "e": "x"}
    record = Record("a.rec", ("a.rec",), "p", "s", fields, {"y": 1}, ("odd",), {"q": 1.0}, "g")
    entry = Scanned("a.rec", "f", (), (record, replace(record, fields={"a": True})))
    back = Scanned.from_json(entry.to_json())
    assert [dict(r.fields) for r in back.records] == [fields, {"a": True}]
    kinds = [[type(value) for value in r.fields.values()] for r in back.records]
    assert kinds == [[int, float, bool, type(None), str], [bool]], "1, 1.0 and True stay apart"
    assert Scanned.from_json(back.to_json()) == back


def test_changed_new_and_deleted_files(
    archive: Path, tmp_path: Path, calls: Path, key: Path
) -> None:
    out = tmp_path / "idx"
    build(archive, out, plugin, key_file=key)
    old = Index.open(out)
    changed, touched, deleted = sorted(archive.rglob("site_0/*/*.rec"))[:3]
    changed.write_text("person_zzz s0 ok\n1\n2\n3\n4\n")
    os.utime(touched, ns=(1, 1))
    deleted.unlink()
    recording(archive, "new", "person_new")
    calls.write_text("")
    summary = build(archive, out, plugin, key_file=key)
    assert (summary.scanned, summary.reused) == (3, 41)
    assert len(calls.read_text().splitlines()) == 3
    new = Index.open(out)
    keys = {new.locate(item) for item in new.items["id"]}
    assert str(deleted.relative_to(archive)) not in keys
    assert "new.rec" in keys
    item = {new.locate(i): i for i in new.items["id"]}[str(changed.relative_to(archive))]
    then, now = (index.items.filter(id=item).row(0, named=True) for index in (old, new))
    assert then["fingerprint"] != now["fingerprint"]
    assert then["patient"] != now["patient"]
    build(archive, tmp_path / "fresh", plugin, key_file=key)
    assert tables(out) == tables(tmp_path / "fresh")


def test_a_file_that_appears_beside_another_is_noticed(tmp_path: Path) -> None:
    path = recording(tmp_path / "a", "1", "p")
    build(tmp_path / "a", tmp_path / "idx", plugin)
    path.with_suffix(".sig").write_bytes(b"0")
    assert build(tmp_path / "a", tmp_path / "idx", plugin).scanned == 1
    assert Index.open(tmp_path / "idx").items["files"].to_list() == [2]


def test_rescan_opens_everything(archive: Path, tmp_path: Path) -> None:
    build(archive, tmp_path / "idx", plugin)
    assert build(archive, tmp_path / "idx", plugin, rescan=True).scanned == 44


def test_another_version_reads_everything_anew(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(archive, tmp_path / "idx", plugin)
    monkeypatch.setattr("medcl.version.__version__", "99")
    assert build(archive, tmp_path / "idx", plugin).scanned == 44
    assert Index.open(tmp_path / "idx").facts["medcl"] == "99"


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_hostile_scans_cost_one_reject_each(tmp_path: Path, workers: int) -> None:
    archive = tmp_path / "a"
    for n in range(12):
        recording(archive, f"good {n}", "p")
    recording(archive, "quits", "p", behaviour="sys.exit")
    recording(archive, "raises", "p", behaviour="raise")
    (archive / "empty.rec").touch()
    (archive / "binary.rec").write_bytes(bytes(range(256)))
    expected = dict.fromkeys(("quits.rec", "raises.rec", "empty.rec", "binary.rec"), "unreadable")
    if workers > 1:
        recording(archive, "exits", "p", behaviour="exit")
        recording(archive, "crashes", "p", behaviour="segv")
        expected |= {"exits.rec": "crashed", "crashes.rec": "crashed"}
    build(archive, tmp_path / "idx", plugin, workers=workers)
    assert rejects(tmp_path / "idx") == expected
    assert len(Index.open(tmp_path / "idx").items) == 12


def test_names_that_hurt(tmp_path: Path) -> None:
    names = (
        "ü ß 日本",
        "two\nlines",
        "quote'\" ; $(x)",
        " blank ",
        "#hash",
        "%41",
        "a\tb",
        "e\u0301",
    )
    for name in names:
        recording(tmp_path / "a", name, f"p {name}".replace(" ", "_").replace("\n", "_"))
    summary = build(tmp_path / "a", tmp_path / "idx", plugin, workers=2)
    assert (summary.items, summary.patients, summary.rejected) == (len(names), len(names), 0)
    index = Index.open(tmp_path / "idx")
    assert {index.locate(item) for item in index.items["id"]} == {f"{n}.rec" for n in names}
    assert build(tmp_path / "a", tmp_path / "idx", plugin).scanned == 0


@pytest.mark.parametrize(
    ("record", "code"),
    [
        ({"patient": ""}, "no-patient"),
        ({"files": ("elsewhere.rec",)}, "bad-record"),
        ({"files": ()}, "bad-record"),
        ({"fields": {"patient": "x"}}, "bad-record"),
        ({"fields": {"label.x": "x"}}, "bad-record"),
        ({"fields": {"x": [1, 2]}}, "bad-record"),
        ({"labels": {"x": object()}}, "bad-record"),
    ],
)
def test_a_record_that_breaks_the_contract(
    tmp_path: Path, record: dict[str, object], code: str
) -> None:
    recording(tmp_path / "a", "1", "p")
    good = {"key": "1.rec", "files": ("1.rec",), "patient": "p"}
    bad = synthetic_plugin.Record(**{**good, **record})  # type: ignore[arg-type]
    scan = lambda root, unit: [bad]  # noqa: E731
    build(tmp_path / "a", tmp_path / "idx", replace(plugin, scan=scan))
    assert rejects(tmp_path / "idx") == {"1.rec": code}


def test_columns_of_mixed_types(tmp_path: Path) -> None:
    import numpy as np

    values = {
        "1": {"a": 1, "b": True, "c": np.float32(0.5), "d": 10**30, "e": None, "f": "\ud800"},
        "2": {"a": 2.5, "b": False, "c": np.int64(3), "d": 1, "e": None, "f": float("nan")},
        "3": {"a": None, "b": None, "c": None, "d": None, "e": None, "f": None},
    }
    for name in values:
        recording(tmp_path / "a", name, "p")

    def scan(root: Path, unit: synthetic_plugin.Unit) -> list[synthetic_plugin.Record]:
        name = unit.key[0]
        return [synthetic_plugin.Record(unit.key, (unit.key,), "p", fields=values[name])]  # type: ignore[arg-type]

    for _ in range(2):  # fresh, and from the journal
        (tmp_path / "idx/private/scan/result.json").unlink(missing_ok=True)
        build(tmp_path / "a", tmp_path / "idx", replace(plugin, scan=scan))
        index = Index.open(tmp_path / "idx")
        rows = {index.locate(r["id"])[0]: r for r in index.items.to_dicts()}
        assert [rows[n]["a"] for n in "123"] == [1.0, 2.5, None]
        assert [rows[n]["b"] for n in "123"] == [True, False, None]
        assert [rows[n]["c"] for n in "123"] == [0.5, 3.0, None]
        assert [rows[n]["d"] for n in "123"] == [str(10**30), "1", None]
        assert [rows[n]["f"] for n in "123"] == ["?", "nan", None]
        assert index.items["e"].null_count() == 3


def test_one_key_in_two_archives_gives_one_patient(tmp_path: Path, key: Path) -> None:
    recording(tmp_path / "a", "1", "Doe", "X")
    recording(tmp_path / "b", "other/9", "Doe", "X")
    build(tmp_path / "a", tmp_path / "ia", plugin, key_file=key)
    build(tmp_path / "b", tmp_path / "ib", plugin, key_file=key)
    build(tmp_path / "b", tmp_path / "ic", plugin)
    a, b, c = (Index.open(tmp_path / name).items.row(0, named=True) for name in ("ia", "ib", "ic"))
    assert (a["patient"], a["site"]) == (b["patient"], b["site"])
    assert a["id"] != b["id"]
    assert c["patient"] != b["patient"]
    assert not (tmp_path / "ia/private/key").exists()


def test_the_key_of_an_index_cannot_change(
    tmp_path: Path, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording(tmp_path / "a", "1", "Doe")
    other = tmp_path / "other"
    other.write_text("f" * 64)
    build(tmp_path / "a", tmp_path / "keyed", plugin, key_file=key)
    with pytest.raises(UsageError, match="made with another key file"):
        build(tmp_path / "a", tmp_path / "keyed", plugin, key_file=other)
    with pytest.raises(UsageError, match="made with a key file"):
        build(tmp_path / "a", tmp_path / "keyed", plugin)
    assert not (tmp_path / "keyed/private/key").exists()
    monkeypatch.setenv(pseudonym.KEY_VARIABLE, str(key))
    assert build(tmp_path / "a", tmp_path / "keyed", plugin).reused == 1
    monkeypatch.delenv(pseudonym.KEY_VARIABLE)

    build(tmp_path / "a", tmp_path / "own", plugin)
    assert build(tmp_path / "a", tmp_path / "own", plugin).reused == 1
    with pytest.raises(UsageError, match="made with its own key"):
        build(tmp_path / "a", tmp_path / "own", plugin, key_file=key)
    (tmp_path / "own/private/key").unlink()
    with pytest.raises(UsageError, match="is gone"):
        build(tmp_path / "a", tmp_path / "own", plugin)


@pytest.mark.parametrize("content", [None, "short"])
def test_a_key_file_that_is_none(tmp_path: Path, content: str | None) -> None:
    recording(tmp_path / "a", "1", "Doe")
    if content is not None:
        (tmp_path / "bad").write_text(content)
    with pytest.raises(UsageError, match="bad"):
        build(tmp_path / "a", tmp_path / "idx", plugin, key_file=tmp_path / "bad")
    assert not (tmp_path / "idx").exists()


def test_an_index_without_its_private_folder_gets_no_new_key(tmp_path: Path) -> None:
    recording(tmp_path / "a", "1", "p")
    out = tmp_path / "idx"
    build(tmp_path / "a", out, plugin)
    (out / "private").rename(tmp_path / "kept")
    with pytest.raises(UsageError, match=r"without its private folder.*Restore that folder"):
        build(tmp_path / "a", out, plugin)
    assert not (out / "private").exists()
    (tmp_path / "kept").rename(out / "private")
    assert build(tmp_path / "a", out, plugin).reused == 1


def test_the_index_is_no_file(tmp_path: Path) -> None:
    recording(tmp_path / "a", "1", "p")
    (tmp_path / "idx").touch()
    with pytest.raises(UsageError, match="idx is a file"):
        build(tmp_path / "a", tmp_path / "idx", plugin)


@pytest.mark.parametrize("content", [None, b"", b"{", b"[1]", b"\xff\xfe"])
@pytest.mark.parametrize(
    "name", ["index.json", "items.parquet", "rejects.parquet", "private/archive.json"]
)
def test_a_damaged_index_names_the_file_and_the_remedy(
    tmp_path: Path, name: str, content: bytes | None
) -> None:
    recording(tmp_path / "a", "1", "p")
    out = tmp_path / "idx"
    build(tmp_path / "a", out, plugin)
    if content is None:
        (out / name).unlink()
    else:
        (out / name).write_bytes(content)
    if name != "private/archive.json":
        remedy = "unfinished" if (name, content) == ("index.json", None) else "is (missing|damaged)"
        with pytest.raises(MedclError, match=rf"{remedy}.*medcl index") as caught:
            Index.open(out)
        assert remedy == "unfinished" or str(out / name) in str(caught.value)
        build(tmp_path / "a", out, plugin)  # the remedy helps
        assert len(Index.open(out).items) == 1
        return
    with pytest.raises(MedclError, match=r"archive\.json is (missing|damaged)"):
        _ = Index.open(out).archive
    with pytest.raises(MedclError, match=r"archive\.json is (missing|damaged).*--out"):
        build(tmp_path / "a", out, plugin)


def test_an_index_belongs_to_one_archive_and_plugin(tmp_path: Path) -> None:
    recording(tmp_path / "a", "1", "p")
    recording(tmp_path / "b", "1", "p")
    build(tmp_path / "a", tmp_path / "idx", plugin)
    with pytest.raises(UsageError, match="is the index of"):
        build(tmp_path / "b", tmp_path / "idx", plugin)
    with pytest.raises(UsageError, match="plugin 'synthetic'"):
        build(tmp_path / "a", tmp_path / "idx", replace(plugin, name="other"))
    (tmp_path / "a").rename(tmp_path / "moved")
    assert build(tmp_path / "moved", tmp_path / "idx", plugin).reused == 1
    assert Index.open(tmp_path / "idx").archive == tmp_path / "moved"


def test_the_index_may_lie_inside_the_archive(tmp_path: Path) -> None:
    recording(tmp_path, "1", "p")
    for _ in range(2):
        summary = build(tmp_path, tmp_path / "idx", plugin)
        assert (summary.items, summary.ignored) == (1, 0)
    with pytest.raises(UsageError, match="cannot be the archive itself"):
        build(tmp_path, tmp_path, plugin)


def test_an_archive_of_another_modality(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x.txt").write_text("x")
    with pytest.raises(UsageError, match="No file in .* is for the plugin 'synthetic'"):
        build(tmp_path / "a", tmp_path / "idx", plugin)
    assert not (tmp_path / "idx").exists()


def test_two_at_once(tmp_path: Path) -> None:
    from medcl.io.atomic import locked

    recording(tmp_path / "a", "1", "p")
    lock = locked(tmp_path / "idx/private/lock", "held")
    with lock, pytest.raises(UsageError, match="Another process"):
        build(tmp_path / "a", tmp_path / "idx", plugin)
    assert build(tmp_path / "a", tmp_path / "idx", plugin).items == 1


def test_opening_what_is_no_index(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not an index.*--out .*nothing"):
        Index.open(tmp_path / "nothing")
    with pytest.raises(UsageError, match="--out IDX"):  # not into the recordings themselves
        Index.open(archive)
    out = tmp_path / "idx"
    build(archive, out, plugin)
    index = Index.open(out)
    with pytest.raises(MedclError, match="No item"):
        index.files("i_unknown")
    facts = json.loads((out / "index.json").read_text())
    assert (facts["plugin"], facts["contract"], facts["items"]) == ("synthetic", 1, 33)
    (out / "private").rename(tmp_path / "kept")
    with pytest.raises(MedclError, match="without its private folder"):
        Index.open(out).files(index.items["id"][0])
    (tmp_path / "kept").rename(out / "private")
    (out / "index.json").unlink()
    with pytest.raises(UsageError, match="unfinished"):
        Index.open(out)


def test_a_torn_or_damaged_journal_costs_only_those_units(
    archive: Path, tmp_path: Path, key: Path
) -> None:
    out = tmp_path / "idx"
    build(archive, out, plugin, key_file=key)
    before = tables(out)
    path = out / "private/scan/units.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    assert len(lines) == 45
    lines[10] = b"\xff\xfe" + lines[10][20:]
    torn = b"".join(lines)[:-25]
    for damaged, scanned in ((torn, 2), (b"", 44), (b'{"torn head', 44)):
        path.write_bytes(damaged)
        (out / "private/scan/result.json").unlink()  # else nothing needs the journal
        assert build(archive, out, plugin, key_file=key).scanned == scanned
        assert tables(out) == before


def test_the_torn_tail_is_cut_before_more_is_written(tmp_path: Path) -> None:
    path, unit = tmp_path / "units.jsonl", Unit("a", ())
    with Journal(path, {}, {"a": unit}) as new:
        new.add(Scanned("a", fingerprint("a", ())))
    whole = path.read_bytes()
    for tail in (b"", b"x", b"y" * 200_000):
        path.write_bytes(whole + tail)
        with Journal(path, {}, {"a": unit}) as opened:
            assert [entry.key for entry in opened.read_once()] == ["a"]
        assert path.read_bytes() == whole
