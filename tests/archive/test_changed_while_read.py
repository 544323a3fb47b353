"""A file that changes while it is read is not prepared as what was indexed."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic_plugin import plugin, recording

from medcl.archive.index import Index, build
from medcl.archive.store import prepare


def grows(root: Path, files: Sequence[str], fields: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """As of a recorder that is still writing: read, and then there is more."""
    text = (root / files[0]).read_text()
    with (root / files[0]).open("a") as handle:
        handle.write("more\n")
    return {"x": np.array([len(text)])}


def is_copied_over(
    root: Path, files: Sequence[str], fields: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Other content of the same length, as of a file that is copied over."""
    path = root / files[0]
    text = path.read_text()
    path.write_text(text[::-1])
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1_000_000_000))
    return {"x": np.array([len(text)])}


@pytest.mark.parametrize("how", ["grows", "is_copied_over"])
def test_a_file_that_changes_while_it_is_read_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    recording(archive, "a", "p1")
    monkeypatch.setenv("MEDCL_KEY_FILE", str(tmp_path / "key"))
    (tmp_path / "key").write_text("0123456789abcdef")
    build(archive, tmp_path / "idx", plugin)
    index = Index.open(tmp_path / "idx")
    live = dataclasses.replace(plugin, prepare=f"{__name__}:{how}")
    made = prepare(index, live, {})
    assert made.items.is_empty()
    assert made.rejects["code"].to_list() == ["changed"]
    assert "run medcl index again" in made.rejects["reason"][0]
    again = prepare(index, live, {})
    assert again.items.is_empty(), "nothing was kept of it"
