"""A name with ``[ ] * ?`` in it is a name: the table library would take it for a pattern."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from medcl.archive import assign
from medcl.archive.index import Index, build
from medcl.archive.store import prepare
from medcl.plugin import get
from medcl.reading import read_table

NAMES = ("night[1]", "night*", "night?", "nigh[a-z]1", "{night1}", "night1")


@pytest.mark.parametrize("name", NAMES[:-1])
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_table_is_read_by_its_own_name(tmp_path: Path, name: str, suffix: str) -> None:
    for stem, patient in ((name, "mine"), ("night1", "another")):
        frame = pl.DataFrame({"key": ["a"], "patient": [patient]})
        path = tmp_path / f"{stem}.{suffix}"
        frame.write_parquet(path) if suffix == "parquet" else frame.write_csv(path)
    table = tmp_path / f"{name}.{suffix}"
    rows, _ = assign.joined(assign.load(table=table).tables)
    assert rows["a"]["patient"] == "mine"
    if suffix == "parquet":
        assert read_table(table, "")["patient"].to_list() == ["mine"]


def test_an_archive_and_an_index_of_such_names(tmp_path: Path) -> None:
    """Each file has a length of its own, so that none can pass for another."""
    archive = tmp_path / "all [of] it*"
    archive.mkdir()
    lengths = {}
    for n, name in enumerate(NAMES):
        for suffix in ("csv", "parquet"):
            length = 600 + 100 * len(lengths)
            frame = pl.DataFrame({"PPG": np.sin(np.arange(length) / (5 + n))})
            path = archive / f"{name}.{suffix}"
            frame.write_csv(path) if suffix == "csv" else frame.write_parquet(path)
            lengths[path.name] = length
    (tmp_path / "study1").mkdir()  # what study[1] would stand for
    out, plugin = tmp_path / "study[1]", get("biosignals")
    build(archive, out, plugin, reader={"fs": 100.0})
    index = Index.open(out)
    found = dict(index.items.select("id", "samples").iter_rows())
    assert {index.locate(item): samples for item, samples in found.items()} == lengths
    prepared = prepare(index, plugin, {"fs": 100.0, "channels": 1})
    assert prepared.rejects.is_empty()
    for item, samples in found.items():
        assert prepared.arrays(item)["x"].shape == (1, samples)
