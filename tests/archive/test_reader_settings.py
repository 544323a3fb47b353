"""What files do not say, given at indexing: checked, kept privately, used again, in the key."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic_plugin
from synthetic_plugin import recording

from medcl.archive.index import Index, build
from medcl.archive.store import prepare
from medcl.errors import UsageError
from medcl.plugin import Record, Reject, Unit
from medcl.recipe import nested


def scan(
    root: Path, unit: Unit, *, fs: float = 1.0, columns: Mapping[str, str] | None = None
) -> Iterator[Record | Reject]:
    for found in synthetic_plugin.scan(root, unit):
        assert isinstance(found, Record)
        yield replace(found, fields={"fs": fs, "columns": len(columns or {})})


def as_told(
    root: Path, files: Sequence[str], fields: Mapping[str, Any], *, scale: float = 1.0
) -> dict[str, np.ndarray]:
    return {"x": np.array([scale, fields.get("reader", {}).get("fs", 1.0)])}


PLUGIN = replace(synthetic_plugin.plugin, scan=scan, prepare=f"{__name__}:as_told")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    recording(tmp_path / "archive", "a", "p1")
    recording(tmp_path / "archive", "b", "p2")
    return tmp_path / "archive"


def test_kept_for_the_next_time_and_for_preparing(archive: Path, tmp_path: Path) -> None:
    out = tmp_path / "idx"
    build(archive, out, PLUGIN)
    assert Index.open(out).reader == {}
    plain = prepare(Index.open(out), PLUGIN, {})
    told = build(archive, out, PLUGIN, reader={"fs": 5.0, "columns": {1: "Roe"}})
    assert (told.scanned, told.reused) == (2, 0), "other settings read all files again"
    again = build(archive, out, PLUGIN)
    assert (again.scanned, again.reused) == (0, 2), "the settings are those of before"
    index = Index.open(out)
    assert index.items["fs"].to_list() == [5.0, 5.0]
    assert index.reader == {"fs": 5.0, "columns": {"1": "Roe"}}, "as JSON holds it"
    prepared = prepare(index, PLUGIN, {})
    for item in prepared.items["id"]:
        assert plain.arrays(item)["x"].tolist() == [1.0, 1.0]
        assert prepared.arrays(item)["x"].tolist() == [1.0, 5.0], "not the arrays of before"
    for path in out.iterdir():
        assert path.name in ("private", "store") or b"Roe" not in path.read_bytes()
    facts = build(archive, out, PLUGIN, reader={})
    assert facts.scanned == 2
    assert Index.open(out).reader == {}


@pytest.mark.parametrize(
    ("reader", "says"),
    [
        ({"sf": 5.0}, r"Unknown key 'reader.sf'. Known: columns, fs\."),
        ({"fs": "fast"}, "'reader.fs' = 'fast'"),
        ({"columns": 3}, "'reader.columns' = 3"),
    ],
)
def test_settings_are_checked_before_anything_is_made(
    archive: Path, tmp_path: Path, reader: dict[str, Any], says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        build(archive, tmp_path / "idx", PLUGIN, reader=reader)
    assert not (tmp_path / "idx").exists()
    with pytest.raises(UsageError, match=r"reader\.fs"):
        build(archive, tmp_path / "idx", synthetic_plugin.plugin, reader={"fs": 5.0})


def test_overrides_as_one_mapping(tmp_path: Path) -> None:
    said = tmp_path / "said.yaml"
    said.write_text(json.dumps({"PPG": {"names": {"PPG-green": ["g"] * 40}}}))
    given = nested(["reader.fs=100", "reader.columns.2=PLETH", f"reader.vocabulary=@{said}"])
    assert given["reader"]["fs"] == 100
    assert given["reader"]["columns"] == {"2": "PLETH"}
    assert given["reader"]["vocabulary"] == json.loads(said.read_text())
    for wrong in ("reader.fs", "reader=@nowhere.yaml", "reader.fs=[1"):
        with pytest.raises(UsageError):
            nested([wrong])
