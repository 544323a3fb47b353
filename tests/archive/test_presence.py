"""An archive that is not mounted, or only in parts, is told apart from one that changed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from synthetic_plugin import plugin, recording

from medcl.archive import outcomes
from medcl.archive.index import Index, build
from medcl.archive.store import prepare
from medcl.errors import MedclError, UsageError
from medcl.io import roots

PATIENTS = 30


@pytest.fixture
def index(tmp_path: Path) -> Index:
    for n in range(PATIENTS):
        recording(tmp_path / "archive", f"r{n:02}", f"person_{n}")
    build(tmp_path / "archive", tmp_path / "idx", plugin)
    return Index.open(tmp_path / "idx")


def unmount(index: Index, how: str) -> Path:
    archive = index.path.parent / "archive"
    archive.rename(index.path.parent / "elsewhere")
    if how == "empty":
        archive.mkdir()
    return archive


@pytest.mark.parametrize("how", ["empty", "missing"])
def test_an_archive_that_is_not_mounted_is_no_change(index: Index, how: str) -> None:
    tables = {p.name: p.read_bytes() for p in index.path.iterdir() if p.is_file()}
    archive = unmount(index, how)
    for verb in (
        lambda: prepare(Index.open(index.path), plugin, {}),
        lambda: build(archive, index.path, plugin),
    ):
        with pytest.raises(MedclError, match="Mount it, or say where it lies now") as caught:
            verb()
        assert not isinstance(caught.value, UsageError)  # exit code 1
        assert "again" not in str(caught.value)
    assert {p.name: p.read_bytes() for p in index.path.iterdir() if p.is_file()} == tables


@pytest.mark.parametrize("by", ["roots", "option"])
def test_it_is_found_where_it_lies_now(
    index: Index, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = unmount(index, "missing")
    now = archive.with_name("elsewhere")
    if by == "roots":
        monkeypatch.setenv(roots.ROOTS, f"/nowhere=/x:{archive}={now}")
    else:
        monkeypatch.setenv(roots.ARCHIVE, str(now))
    assert len(prepare(Index.open(index.path), plugin, {}).items) == PATIENTS


def test_a_tree_that_moved_as_a_whole_needs_no_option(index: Index, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("archive", "idx"):
        (tmp_path / name).rename(moved / name)
    found = Index.open(moved / "idx")
    assert found.archive == moved / "archive"
    assert len(prepare(found, plugin, {}).items) == PATIENTS


def test_some_that_are_away_are_counted(index: Index) -> None:
    for n in range(3):
        (index.archive / f"r{n:02}.rec").unlink()
    made = prepare(index, plugin, {})
    assert (made.items.height, set(made.rejects["code"])) == (PATIENTS - 3, {"away"})
    assert "10.0%" in made.rejects["reason"][0]
    (row,) = [r for r in outcomes.table(index, plugin, {}, made) if r.name == "away"]
    assert (row.done, row.count) == ("rejected", 3)  # as it goes into run.json


def test_a_large_part_that_is_away_stops(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(12):
        (index.archive / f"r{n:02}.rec").unlink()
    with pytest.raises(MedclError, match=r"12 \(40\.0%\) of the items .* is all of it mounted"):
        prepare(index, plugin, {})
    with pytest.raises(MedclError, match=r"12 \(40\.0%\) of the files .* is all of it mounted"):
        build(index.archive, index.path, plugin)
    monkeypatch.setenv("MEDCL_AWAY", "0.41")
    assert len(prepare(index, plugin, {}).items) == PATIENTS - 12
    assert build(index.archive, index.path, plugin).notes[-1].startswith("12 files (40.0%)")
    monkeypatch.setenv("MEDCL_AWAY", "half")
    with pytest.raises(UsageError, match=r"\$MEDCL_AWAY is 'half'"):
        prepare(index, plugin, {"scale": 3})


def test_an_archive_that_goes_away_meanwhile_rejects_nobody(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medcl.archive import presence

    known = presence.away

    def then_gone(*args: object) -> dict[str, str]:
        found = known(*args)  # type: ignore[arg-type]
        shutil.move(index.archive, index.path.parent / "elsewhere")
        os.mkdir(index.archive)
        return found

    monkeypatch.setattr(presence, "away", then_gone)
    with pytest.raises(MedclError, match="The archive of .* is empty"):
        prepare(index, plugin, {})
    assert not (index.path / "store" / "rejects.jsonl").exists()


def test_roots_that_are_no_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(roots.ROOTS, "/old")
    with pytest.raises(UsageError, match="give /old=/new"):
        roots.moved(Path("/a"))
