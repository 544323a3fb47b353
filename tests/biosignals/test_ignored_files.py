"""What is not taken is listed by suffix and count, with what to do; nothing vanishes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from typer.testing import CliRunner

from medcl.archive import outcomes
from medcl.archive.ignored import GENERAL, advice, counted
from medcl.archive.index import Index, build
from medcl_biosignals.plugin import plugin
from medcl_cli.main import app

FILES = {
    "notes.txt": "seen by Dr Roe",
    "settings.json": json.dumps({"rate": 1}),
    "film.mp4": "x",
    "strip.pdf": "x",
    "lone.qrs": "x",
    "brain.vhdr": "x",
    "a.Mueller": "x",
    "README": "x",
}


def archive(root: Path, sample: Path) -> Path:
    root.mkdir()
    for file in sample.glob("101.*"):
        shutil.copy(file, root)
    for name, text in FILES.items():
        (root / name).write_text(text)
    return root


def test_every_file_is_an_item_a_reject_or_ignored(sample: Path, tmp_path: Path) -> None:
    """Texts that are opened and are no recorder's count as ignored, as those never opened do."""
    summary = build(archive(tmp_path / "a", sample), tmp_path / "idx", plugin)
    assert (summary.items, summary.rejected, summary.ignored) == (1, 0, len(FILES))
    assert summary.ignored_suffixes == {
        ".json": 1, ".mp4": 1, ".pdf": 1, ".qrs": 1, ".txt": 1, ".vhdr": 1, "another": 1, "none": 1,
    }  # fmt: skip
    index = Index.open(tmp_path / "idx")
    rows = {
        row.name: row.about for row in outcomes.table(index, plugin, {}) if row.done == "ignored"
    }
    assert set(rows) == set(summary.ignored_suffixes)
    assert "its header (.hea)" in rows[".qrs"]  # the plugin's own words
    assert "MNE-Python" in rows[".vhdr"]
    assert rows["none"] == GENERAL["none"]
    assert "Mueller" not in (tmp_path / "idx" / "index.json").read_text()


def test_the_command_says_what_to_do(sample: Path, tmp_path: Path) -> None:
    where = [str(archive(tmp_path / "a", sample)), "--out", str(tmp_path / "idx")]
    said = CliRunner().invoke(app, ["index", *where, "--plugin", "biosignals"]).output
    assert "what to do" in said
    assert "Mueller" not in said


def test_hints_come_before_what_holds_for_all() -> None:
    assert counted(["a.MP4", "b.mp4", "c.roe", "d"], {}) == {".mp4": 2, "another": 1, "none": 1}
    assert counted(["c.roe"], {".roe": "x"}) == {".roe": 1}
    assert advice(".csv", {".csv": "mine"}) == "mine"
    assert "--table" in advice(".csv", {})
    assert advice(".bval", {}) == "not of this modality, by its name"
