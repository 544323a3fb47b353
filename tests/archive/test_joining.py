"""Items that a plugin joins from records of several units, and parts of files as sources."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import synthetic_plugin
from synthetic_plugin import plugin, recording

from medcl.archive.index import Index, build
from medcl.archive.store import prepare
from medcl.errors import MedclError
from medcl.plugin import MEMBER, Record, Reject, Unit

SECRET = "the-position-only-the-plugin-may-know"


def scan(root: Path, unit: Unit) -> Iterator[Record | Reject]:
    """As the synthetic plugin's; its records are pieces that know where they belong."""
    for found in synthetic_plugin.scan(root, unit):
        if isinstance(found, Record):
            found = replace(found, private={"order": SECRET + found.key}, labels={}, fields={})
        yield found


def assemble(records: Sequence[Record]) -> Iterator[Record | Reject]:
    """One item a patient, its pieces from the last to the first; a single piece is refused."""
    people: dict[str, list[Record]] = {}
    for record in records:
        assert str(record.private["order"]).startswith(SECRET)
        people.setdefault(record.patient, []).append(record)
    for patient, pieces in people.items():
        files = tuple(file for piece in reversed(pieces) for file in piece.files)
        if len(pieces) == 1:
            yield Reject(f"{files[0]}#alone", "alone", f"{files[0]} is alone.")
        else:
            yield Record(f"#{patient}", files, patient, group=f"room of {patient}")


def prepare_joined(
    root: Path, files: Sequence[str], fields: Mapping[str, object], *, scale: float = 1.0
) -> dict[str, np.ndarray]:
    """How many files, and of each its name's length."""
    assert fields["findings"] in ([], ["no signal"])
    return {"x": scale * np.array([len(name) for name in files])}


joined = replace(plugin, scan=scan, assemble=assemble, prepare="test_joining:prepare_joined")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    folder = tmp_path / "a"
    recording(folder, "one/first", "person_a")
    recording(folder, "two/second", "person_a")
    recording(folder, "two/lonely", "person_b")
    return folder


def test_joins_across_units(archive: Path, tmp_path: Path) -> None:
    summary = build(archive, tmp_path / "idx", joined)
    index = Index.open(tmp_path / "idx")
    assert (summary.items, summary.rejects) == (1, {"alone": 1})
    (item,) = index.items["id"]
    assert index.files(item) == ("two/second.rec", "one/first.rec")
    assert index.items["group"][0].startswith("g_")
    assert index.rejects["reason"].to_list() == ["… is alone."]
    assert prepare(index, joined, {}).arrays(item)["x"].tolist() == [14, 13]


def test_a_changed_file_is_read_alone_and_renews_its_item(archive: Path, tmp_path: Path) -> None:
    build(archive, tmp_path / "idx", joined)
    before = Index.open(tmp_path / "idx").items
    recording(archive, "one/first", "person_a", numbers=(4, 5, 6, 7))
    assert build(archive, tmp_path / "idx", joined).scanned == 1
    after = Index.open(tmp_path / "idx").items
    assert before["id"].to_list() == after["id"].to_list()
    assert before["fingerprint"].to_list() != after["fingerprint"].to_list()


def test_the_same_tables_whatever_is_reused(archive: Path, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("0123456789abcdef")
    build(archive, tmp_path / "one", joined, key_file=key)
    build(archive, tmp_path / "one", joined, key_file=key)
    build(archive, tmp_path / "two", joined, key_file=key, workers=2)
    for name in ("items.parquet", "rejects.parquet"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_what_is_private_stays_private(archive: Path, tmp_path: Path) -> None:
    build(archive, tmp_path / "idx", joined)
    public = [f for f in (tmp_path / "idx").iterdir() if f.is_file()]
    assert public
    for file in public:
        assert SECRET.encode() not in file.read_bytes()
        assert b"person_a" not in file.read_bytes()


def test_parts_of_files(archive: Path, tmp_path: Path) -> None:
    """A file may be named with what to read in it; it is watched and hashed as a file."""

    def parts(records: Sequence[Record]) -> Iterator[Record]:
        for record in records:
            files = tuple(f"{record.files[0]}{MEMBER}{part}" for part in ("b", "a"))
            yield replace(record, files=files)

    whole = replace(joined, assemble=parts)
    build(archive, tmp_path / "idx", whole)
    index = Index.open(tmp_path / "idx")
    item = index.items["id"][0]
    assert [name.partition(MEMBER)[2] for name in index.files(item)] == ["b", "a"]
    prepared = prepare(index, whole, {})
    assert len(prepared.items) == 3
    recording(archive, "one/first", "person_a", numbers=(9,))
    assert sorted(prepare(index, whole, {"scale": 2.0}).rejects["code"]) == ["changed"]


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (Record("x", ("no/such.rec",), "p"), "bad-record"),
        (Record("x", ("one/first.rec",), " "), "no-patient"),
        (Record("x", ("one/first.rec",), "p", fields={"group": "mine"}), "bad-record"),
    ],
)
def test_broken_contracts_are_rejects(
    archive: Path, tmp_path: Path, bad: Record, code: str
) -> None:
    build(archive, tmp_path / "idx", replace(joined, assemble=lambda records: [bad]))
    rejects = Index.open(tmp_path / "idx").rejects
    assert rejects["code"].to_list() == [code]
    assert rejects.select(pl.col("reason").str.contains("such|first").any()).item() is False


def test_a_plugin_that_raises_says_so(archive: Path, tmp_path: Path) -> None:
    def broken(records: Sequence[Record]) -> list[Record]:
        raise KeyError(records[0].patient)

    with pytest.raises(MedclError, match="could not join its records") as caught:
        build(archive, tmp_path / "idx", replace(joined, assemble=broken))
    assert "person_a" not in str(caught.value)
