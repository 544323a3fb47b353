"""docs/tutorial-pathology.md, from a slide to reports, on pieces of a real one and on MUSK 1."""

from __future__ import annotations

from pathlib import Path

import h5py
import polars as pl
import pytest
from tutorials import REPO, follow, of, verbs

PAGE = REPO / "docs" / "tutorial-pathology.md"


@pytest.mark.long
def test_every_command_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = follow(PAGE, tmp_path, monkeypatch)
    steps = ["index", "prepare", "pretrain", "embed", "finetune", "evaluate", "report"]
    assert verbs(said) == [*steps, "index", "finetune", "report"]
    pieces = pl.read_csv("slides.csv")
    assert len(pieces) > 10
    assert abs((pieces["nuclei"] == "many").sum() - len(pieces) / 2) <= 1
    assert f"items\t{len(pieces)}" in of(said, "medcl index")
    bags = sorted(Path("bags").glob("*.h5"))
    assert len(bags) == len(pieces)
    with h5py.File(bags[0]) as file:
        assert file["features"].shape[1] == 64
    assert "Explained: 2 bags" in of(said, "medcl finetune")
    assert len(list(Path("study", "explained").glob("*/*/heatmap.png"))) >= 2
    assert "No leak:" in of(said, "medcl evaluate")
    page = Path("study", "report.html").read_text(encoding="utf-8")
    for words in ("What instances counted for", "Right, and sure", "No leak:", "Intended use"):
        assert words in page, words
    assert "AUROC" in of(said, "medcl finetune musk-idx")
    both = Path("both.html").read_text(encoding="utf-8")
    assert "nuclei" in both
    assert ">92<" in both
    assert "cannot be compared" in both
