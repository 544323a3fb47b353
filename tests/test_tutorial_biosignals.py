"""docs/tutorial-biosignals.md, from the archive to the reports, on the bundled real ECGs."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from tutorials import REPO, follow, of, verbs

PAGE = REPO / "docs" / "tutorial-biosignals.md"


@pytest.mark.long
def test_every_command_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = follow(PAGE, tmp_path, monkeypatch)
    steps = ["index", "pretrain", "probe", "finetune", "evaluate"]
    steps += ["predict", "export", "search", "anomaly", "report", "report", "report"]
    assert verbs(said) == steps
    assert "patient-is-record-name\t6" in of(said, "medcl index")
    for told in ("pretrained", "random", "handcrafted"):
        assert told in of(said, "medcl probe")
    assert "6 test patients" in of(said, "medcl finetune")
    evaluated = of(said, "medcl evaluate")
    assert "No leak:" in evaluated
    assert " of 6 patients and " in evaluated
    assert "too few patients" in evaluated
    beats = pl.read_parquet("predictions.parquet")
    assert len(beats) > 300
    assert {"start", "p.N", "p.S", "p.V", "anomaly"} <= set(beats.columns)
    assert "data:image/png" in Path("like.html").read_text(encoding="utf-8")
    page = Path("tuned", "report.html").read_text(encoding="utf-8")
    for words in ("Wrong, and sure", "integrated gradients", "No leak:", "Intended use"):
        assert words in page, words
    assert 'class="absent"' not in page
    both = Path("both.html").read_text(encoding="utf-8")
    assert "training with labels" in both
    assert "pretraining" in both
