"""What lies in a store, and what is taken out of it."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from synthetic_plugin import plugin, recording

from medcl.archive import refused
from medcl.archive.entries import Store
from medcl.archive.index import Index, build
from medcl.archive.reclaim import Lot, owner, reclaim, survey
from medcl.archive.store import prepare
from medcl.errors import UsageError


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    for n in range(5):
        recording(tmp_path / "a", f"r{n}", f"person_{n}", numbers=range(n, n + 20))
    recording(tmp_path / "a", "Doe", "Doe", numbers=["Jane"])
    return tmp_path / "a"


def indexed(archive: Path) -> Index:
    build(archive, archive.parent / "idx", plugin)
    return Index.open(archive.parent / "idx")


def counts(lots: list[Lot]) -> list[tuple[str, dict[str, object] | None, int, int]]:
    return sorted(
        ((lot.state, lot.settings, lot.entries, lot.rejects) for lot in lots),  # type: ignore[misc]
        key=str,
    )


def files(index: Index) -> set[str]:
    return {p.name for p in (index.path / "store").glob("*/*")}


def test_an_empty_store(archive: Path) -> None:
    index = indexed(archive)
    assert survey(index, plugin) == reclaim(index, plugin) == []


def test_what_is_used_stays(archive: Path) -> None:
    index = indexed(archive)
    prepare(index, plugin, {})
    prepare(index, plugin, {"scale": 3.0})
    recipes = {"p/one": {"scale": 3.0}, "p/two": {"scale": 3}, "p/other": {"scale": 4.0}}
    before = files(index)
    lots = reclaim(index, plugin, recipes=recipes)
    assert counts(lots) == [("used", {"scale": 3.0}, 5, 1), ("used", {}, 5, 1)]
    assert [lot.recipes for lot in lots if lot.settings] == [("p/one", "p/two")]
    size = sum(p.stat().st_size for p in (index.path / "store").glob("*/*"))
    assert sum(lot.bytes for lot in lots) == size
    assert files(index) == before
    assert len(refused.read(Store(index.path / "store").refused)) == 2


def test_what_is_not_kept_goes(archive: Path) -> None:
    index = indexed(archive)
    one = prepare(index, plugin, {"scale": 2})
    prepare(index, plugin, {"scale": 3.0})
    wanted = [("not kept", {"scale": 3.0}, 5, 0), ("orphaned", None, 0, 1)]
    wanted.append(("used", {"scale": 2.0}, 5, 1))
    before = files(index)
    assert counts(survey(index, plugin, keep=[{"scale": 2.0}])) == wanted
    assert files(index) == before, "a survey removes nothing"
    assert counts(reclaim(index, plugin, keep=[{"scale": 2.0}])) == wanted
    assert counts(survey(index, plugin)) == wanted[2:]
    assert one.arrays(one.items["id"][0])["x"] is not None
    assert prepare(index, plugin, {"scale": 2.0}).anew == {}


def test_what_no_item_asks_for_any_more_goes(archive: Path) -> None:
    prepare(indexed(archive), plugin, {})
    recording(archive, "r1", "person_1", numbers=range(30))
    recording(archive, "Doe", "Doe", numbers=["Jane", "Doe"])
    (archive / "r2.rec").unlink()
    index = indexed(archive)
    prepare(index, plugin, {})
    lots = reclaim(index, plugin)
    assert counts(lots) == [("orphaned", None, 0, 1), ("orphaned", {}, 2, 0), ("used", {}, 4, 1)]
    assert "changed or is no longer in the index" in next(n.why for n in lots if n.entries == 2)
    assert counts(survey(index, plugin)) == [("used", {}, 4, 1)]


def test_what_an_earlier_plugin_prepared_goes(archive: Path) -> None:
    index = indexed(archive)
    prepare(index, plugin, {})
    newer = replace(plugin, preparation=2)
    (orphaned,) = [lot for lot in survey(index, newer) if lot.entries]
    assert (orphaned.state, orphaned.entries) == ("orphaned", 5)
    assert "earlier version" in orphaned.why


def test_what_cannot_be_read_goes(archive: Path) -> None:
    index = indexed(archive)
    prepare(index, plugin, {})
    store = Store(index.path / "store")
    entries = sorted((index.path / "store").glob("*/*.safetensors"))
    os.truncate(entries[0], 30)
    os.rename(entries[1], f"{entries[1]}.damaged")
    folder = entries[2].with_suffix("")  # an entry of format 1
    folder.mkdir()
    (folder / "x.npy").write_bytes(b"12345")
    (folder.parent / "abc.reject.json").write_text("{}")
    left, fresh = folder.parent / ".x.tmp", folder.parent / ".y.tmp"
    for path in (left, fresh):
        path.write_bytes(b"12345")
    os.utime(left, (1, 1))
    lots = reclaim(index, plugin)
    assert counts(lots) == [
        ("abandoned", None, 1, 0),
        ("damaged", None, 2, 0),
        ("other format", None, 2, 0),
        ("used", {}, 3, 1),
    ]
    assert fresh.exists(), "somebody may still be writing it"
    fresh.unlink()
    assert counts(survey(index, plugin)) == [("used", {}, 3, 1)]
    assert len(prepare(index, plugin, {}).items) == 5
    assert store.path.is_dir()


def test_not_while_something_is_prepared(archive: Path) -> None:
    index = indexed(archive)
    prepare(index, plugin, {})
    store = Store(index.path / "store")
    with store.used(), store.used(), pytest.raises(UsageError, match="preparing into"):
        reclaim(index, plugin)
    with store.used(alone=True), pytest.raises(UsageError, match="reclaiming"):
        prepare(index, plugin, {"scale": 9.0})
    assert len(prepare(index, plugin, {}).items) == 5


def test_a_curated_index_shares_the_store_of_its_whole(archive: Path) -> None:
    index = indexed(archive)
    prepare(index, plugin, {})
    curated = archive.parent / "curated"
    curated.mkdir()
    shutil.copy(index.path / "index.json", curated)
    index.items.head(2).write_parquet(curated / "items.parquet")
    index.rejects.write_parquet(curated / "rejects.parquet")
    (curated / "store").symlink_to("../idx/store")
    assert owner(Index.open(curated)).path == index.path
    assert owner(index) is index
    assert counts(survey(owner(Index.open(curated)), plugin)) == [("used", {}, 5, 1)]


def test_settings_that_the_plugin_does_not_take(archive: Path) -> None:
    with pytest.raises(UsageError, match="scael"):
        survey(indexed(archive), plugin, keep=[{"scael": 1}])
